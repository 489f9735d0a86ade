"""Dense snapshots of titles' features."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from playbill.features.reports import FeatureColumn
from playbill.features.snapshots import dense_snapshots
from playbill_feast.asof_join import ViewValues
from playbill_feast.offline.parquet_files import parts_of, scan_parts

START = datetime(2024, 1, 1, tzinfo=UTC)
TITLES, HOURS, READINGS = 123, 140, 20


def test_of_values_that_are_equally_new_the_later_row_counts(tmp_path: Path) -> None:
    """A late event corrects what was built: the new row has the times of the old one, and is in a later file."""
    first = pl.DataFrame({"title_id": [f"t{title}" for title in range(TITLES)]}).join(
        pl.DataFrame({"at": [START + timedelta(hours=hour) for hour in range(HOURS)]}), how="cross"
    )
    built = first.with_columns(created=pl.col("at"), plays=pl.lit(1.0, pl.Float32))
    corrected = built.filter(pl.col("at") == START).with_columns(plays=pl.lit(2.0, pl.Float32))
    built.write_parquet(tmp_path / "part-0.parquet")
    corrected.write_parquet(tmp_path / "part-1.parquet")
    view = ViewValues(
        name="popularity",
        frame=scan_parts(parts_of(tmp_path), tmp_path),
        keys={"title_id": "title_id"},
        at="at",
        created="created",
        features={"popularity__plays": "plays"},
        ttl=None,
    )
    column = FeatureColumn("popularity__plays", "popularity", "plays", "title", "numeric")
    titles = [f"t{title}" for title in range(TITLES)]
    for _ in range(READINGS):
        found = dense_snapshots([column], [view], lambda rows: rows, [START + timedelta(minutes=30)], titles)
        assert np.all(found.values == 2.0)
