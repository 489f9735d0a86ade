"""Labels as Feast has them: the LabelView each needs, and a file for each, all published together or not at all.

```
features/labels/LABEL.parquet      event_id, LABEL, labeler, member_id, title_id, event_timestamp, created_timestamp
features/.labels.3f2a0b1c.writing/           a publication in progress, or the leftover of a killed one
```
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.errors import DefinitionError, Problem, did_you_mean
from playbill.features.store_errors import raises_product_errors
from playbill.features.view_folder import building
from playbill.files import content_digest, file_digest, remove_leftovers, replaced_folder, write_text
from playbill.tables.frames import utc_literal
from playbill_feast.offline.parquet_files import STATE, require_sound

PREFIX = "label_"


@dataclass(frozen=True, slots=True)
class LabelValues:
    """One label to publish. Its LabelView is called `label_NAME`."""

    name: str
    labeler: str
    """Who says so: the label with its version."""
    rows: Callable[[pl.DataFrame], pl.DataFrame]
    """Makes event_id, member_id, title_id (text), value (float32) and known_at (UTC) of a part of the labelled log."""


@dataclass(frozen=True, slots=True)
class PublishedLabel:
    """One label as published."""

    name: str
    view: str
    labeler: str
    rows: int
    path: Path


def require_label_views(labels: Iterable[str], views: Iterable[str], feature_repo: Path) -> None:
    """Check that every label has a LabelView.

    Raises:
        DefinitionError: Labels have none; all are named.
    """
    known = sorted(views)
    problems = []
    for label in labels:
        if f"{PREFIX}{label}" not in known:
            hint = did_you_mean(f"{PREFIX}{label}", known, "Declare one as the others in labels.py are.")
            problems.append(Problem(f"label '{label}'", f"there is no LabelView '{PREFIX}{label}'.", hint))
    if problems:
        raise DefinitionError(str(feature_repo), problems)


FOLDER = "labels"

_REPEATED = ["labeler", "member_id", "title_id", "created_timestamp"]
"""Columns with few values. A dictionary of the others is built only to be thrown away."""


_ROWS = pl.Schema(
    {
        "event_id": pl.String(),
        "member_id": pl.String(),
        "title_id": pl.String(),
        "value": pl.Float32(),
        "known_at": pl.Datetime("us", "UTC"),
    }
)


@raises_product_errors
def write_labels(
    features: Path, labels: Sequence[LabelValues], parts: Iterable[pl.DataFrame], as_of: datetime, *, keep: bool = False
) -> tuple[PublishedLabel, ...]:
    """Write labels' files and put them in the place of what was published before, in one rename; see `publish_labels`.

    One of `parts` at a time need be in memory; `as_of` is the values' `created_timestamp`.

    Raises:
        StateError: Another process is building features.
        StorageError: The disk is full or cannot be written. What was published before is still there.
    """
    final = features / FOLDER
    with building(features):
        remove_leftovers(final)
        with replaced_folder(final, "the labels") as folder:
            rows = _write_files(folder, labels, parts, as_of)
            digests = {path.name: file_digest(path) for path in folder.iterdir()}
            if keep:
                digests = _link_others(final, folder) | digests
            write_text(folder / STATE, json.dumps({"digests": digests}), "the labels' digests")
    return tuple(
        PublishedLabel(label.name, f"{PREFIX}{label.name}", label.labeler, rows[label.name], final / _file(label.name))
        for label in labels
    )


def _write_files(
    folder: Path, labels: Sequence[LabelValues], parts: Iterable[pl.DataFrame], as_of: datetime
) -> dict[str, int]:
    """Write one file for each label, part after part, and return how many rows each has."""
    counts = dict.fromkeys((label.name for label in labels), 0)
    with ExitStack() as stack:
        schemas = {label.name: _published(label, _ROWS.to_frame(), as_of).schema for label in labels}
        files = {
            name: stack.enter_context(
                pq.ParquetWriter(folder / _file(name), schema, compression="zstd", use_dictionary=_REPEATED)
            )
            for name, schema in schemas.items()
        }
        for part in parts:
            for label in labels:
                rows = label.rows(part).select(_ROWS.names()).cast(_ROWS)
                files[label.name].write_table(_published(label, rows, as_of))
                counts[label.name] += rows.height
    return counts


def _published(label: LabelValues, rows: pl.DataFrame, as_of: datetime) -> pa.Table:
    return rows.select(
        "event_id",
        pl.col("value").alias(label.name),
        pl.lit(label.labeler).alias("labeler"),
        "member_id",
        "title_id",
        pl.col("known_at").alias("event_timestamp"),
        utc_literal(as_of).alias("created_timestamp"),
    ).to_arrow(compat_level=pl.CompatLevel.oldest())


def _file(label: str) -> str:
    return f"{label}.parquet"


def _link_others(final: Path, folder: Path) -> dict[str, str]:
    """Share the files of other labels, which must be sound, and return their digests."""
    others = [path for path in final.glob("*.parquet") if not (folder / path.name).exists()]
    require_sound(others, "Run `playbill labels publish`.")
    for path in others:
        os.link(path, folder / path.name)
    return {path.name: content_digest(path) for path in others}
