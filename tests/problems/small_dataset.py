"""A small training set on disk, written without a workspace: what readers of one are tried on."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from playbill.datasets.export.manifest import (
    FeaturesRecord,
    Inputs,
    LabelRecord,
    Manifest,
    ModelRecord,
    PartRecord,
    RegistryRecord,
    ViewRecord,
    write_rows,
)
from playbill.datasets.export.rows import KEYS, columns_of, fold_records
from playbill.datasets.splits import FOLDS

START = datetime(2024, 1, 1, tzinfo=UTC)


def small_rows(rows: int, feature: float, folds: tuple[str, ...]) -> pl.DataFrame:
    """Return rows of several days, three fifths of them in the first fold."""
    draw = np.random.default_rng(7)
    at = [START + timedelta(hours=3 * row) for row in range(rows)]
    fold = [folds[min(max(0, 5 * row // rows - 2), len(folds) - 1)] for row in range(rows)]
    return pl.DataFrame(
        {
            "event_id": [f"e{row:04d}" for row in range(rows)],
            "member_id": [f"m{row % 7}" for row in range(rows)],
            "title_id": [f"t{row % 11}" for row in range(rows)],
            "event_at": pl.Series(at, dtype=pl.Datetime("us", "UTC")),
            "canvas": ["home"] * rows,
            "label__play": pl.Series(draw.integers(0, 2, rows), dtype=pl.Float32),
            "activity__plays": pl.Series(draw.random(rows) + feature, dtype=pl.Float32),
            "fold": pl.Series(fold, dtype=pl.Enum(FOLDS)),
        }
    ).with_columns(day=pl.col("event_at").dt.date())


def write_small_dataset(folder: Path, rows: int = 100, feature: float = 0.0, folds: tuple[str, ...] = FOLDS) -> Path:
    """Write a training set, in the place of another one if there is one, and return its folder."""
    frame = small_rows(rows, feature, folds)
    for path in folder.rglob("*.parquet"):
        path.unlink()
    parts = []
    for (fold, day), part in frame.partition_by("fold", "day", as_dict=True, include_key=False).items():
        record = write_rows(part, folder, f"rows/fold={fold}/day={day}/part-0000.parquet")
        parts.append(PartRecord(**record.model_dump(), fold=fold, day=day))
    end = START + timedelta(hours=3 * rows)
    Manifest(
        workspace="small",
        inputs=Inputs(
            model=ModelRecord(name="small", version=3, spec_hash="spec"),
            protocol="leave_one_out",
            split="split",
            moment=end,
            tables="s1",
            vocabularies={"title": "v1"},
            heads={"play": "play"},
            labels={"play": LabelRecord(version=2, definition="d1")},
            features=FeaturesRecord(
                service="small_v1",
                version="f1",
                snapshot_hours=24,
                views={"activity": ViewRecord(kind="stored", definition="d2", rows=9, files=f"files of {feature}")},
            ),
            libraries={"playbill": "0"},
        ),
        registry=RegistryRecord(project="small", version=None, updated=START),
        columns=columns_of(frame),
        folds=fold_records(frame, dict.fromkeys(FOLDS, end), ["play"]),
        entities=write_rows(frame.select(KEYS), folder, "entities.parquet"),
        parts=tuple(parts),
    ).save(folder)
    return folder
