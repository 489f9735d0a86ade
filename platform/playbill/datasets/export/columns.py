"""The columns of a training set on disk, and what its manifest says of them and of its folds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from playbill.datasets.examples.request_context import PLACE_COLUMNS
from playbill.datasets.export.manifest import ColumnRecord, FoldRecord, Role
from playbill.datasets.splits import Fold
from playbill.schema import INTERACTIONS

KEYS = ("event_id", "member_id", "title_id", "event_at")
"""Columns of the entity frame."""
CONTEXT = tuple(name for name in INTERACTIONS.names("request") if name not in KEYS)
SNAPSHOT_AT = "snapshot_at"
LABEL, WEIGHT, TITLE = "label__", "weight__", "title__"
"""Prefixes of label and weight columns and of title features; member and request features are `view__feature`."""
STRATUM, DRAWS = "stratum", "draws"
"""Which group a row of the train fold is drawn by, and how often an epoch reads it."""

_FOLDS: tuple[Fold, ...] = ("train", "validation", "test")


def columns_of(rows: pl.DataFrame) -> tuple[ColumnRecord, ...]:
    """Return the record of each column of the parts; fold and day are in their paths."""
    return tuple(
        ColumnRecord(name=name, type=str(kind), role=_role(name))
        for name, kind in rows.schema.items()
        if name not in ("fold", "day")
    )


def _role(name: str) -> Role:
    if name in KEYS:
        return "key"
    if name == SNAPSHOT_AT:
        return "moment"
    if name in (*CONTEXT, *PLACE_COLUMNS):
        return "context"
    own: dict[str, Role] = {LABEL: "label", WEIGHT: "weight", STRATUM: "sampling", DRAWS: "sampling"}
    for start, role in own.items():
        if name.startswith(start):
            return role
    return "title_feature" if name.startswith(TITLE) else "request_feature"


def fold_records(rows: pl.DataFrame, as_of: dict[Fold, datetime], heads: Sequence[str]) -> dict[Fold, FoldRecord]:
    """Return what there is in each fold."""
    return {fold: _fold_record(rows.filter(pl.col("fold") == fold), as_of[fold], heads) for fold in _FOLDS}


def _fold_record(rows: pl.DataFrame, as_of: datetime, heads: Sequence[str]) -> FoldRecord:
    first, last = rows["event_at"].min(), rows["event_at"].max()
    labels = {head: rows[f"{LABEL}{head}"].drop_nulls() for head in heads}
    return FoldRecord(
        rows=rows.height,
        members=rows["member_id"].n_unique(),
        titles=rows["title_id"].n_unique(),
        first=first if isinstance(first, datetime) else None,
        last=last if isinstance(last, datetime) else None,
        labels_as_of=as_of,
        labelled={head: len(values) for head, values in labels.items()},
        positive={head: int((values > 0).sum()) for head, values in labels.items()},
    )
