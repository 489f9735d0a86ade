"""Label values for Feast: one file per label, all of them published together or not at all.

```
features/labels/LABEL.parquet      event_id, LABEL, labeler, member_id, title_id, event_timestamp, created_timestamp
features/.labels.3f2a/             a publication in progress, or the leftover of a killed one
```
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from playbill.errors import DefinitionError, Problem, ServiceError, nearest
from playbill.features.view_folder import building, put_in_place

FOLDER = "labels"
PREFIX = "label_"

_MOMENT = pl.Datetime("us", "UTC")
_ROWS = pl.Schema(
    {
        "event_id": pl.String(),
        "member_id": pl.String(),
        "title_id": pl.String(),
        "value": pl.Float32(),
        "known_at": _MOMENT,
    }
)


@dataclass(frozen=True, slots=True)
class LabelValues:
    """One label's values, made when they are written.

    Attributes:
        name: The label. Its LabelView is called `label_NAME`.
        labeler: Who says so: the label with its version.
        rows: Makes event_id, member_id, title_id (text), value (float32) and known_at (UTC microseconds).
    """

    name: str
    labeler: str
    rows: Callable[[], pl.DataFrame]


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
            close = nearest(f"{PREFIX}{label}", known)
            hint = f"Did you mean '{close}'?" if close else "Declare one as the others in labels.py are."
            problems.append(Problem(f"label '{label}'", f"there is no LabelView '{PREFIX}{label}'.", hint))
    if problems:
        raise DefinitionError(str(feature_repo), problems)


def write_labels(
    features: Path, labels: Iterable[LabelValues], as_of: datetime, *, keep: bool = False
) -> tuple[PublishedLabel, ...]:
    """Write labels' files and put them in the place of what was published before, in one rename.

    Args:
        features: The workspace's features folder.
        labels: What to publish.
        as_of: What was known when the values were told; their `created_timestamp`.
        keep: Leave other labels as they were published; without it they go.

    Raises:
        StateError: Another process is building features.
        ServiceError: The disk is full or cannot be written. What was published before is still there.
    """
    final = features / FOLDER
    try:
        with building(features), _beside(final) as folder:
            done = tuple(_write(folder, final, label, as_of) for label in labels)
            if keep:
                _link_others(final, folder)
            put_in_place(folder, final)
    except OSError as error:
        raise ServiceError(f"labels cannot be written to {final}: {error}. Nothing was changed.") from error
    return done


def _write(folder: Path, final: Path, label: LabelValues, as_of: datetime) -> PublishedLabel:
    rows = label.rows().select(_ROWS.names()).cast(_ROWS)
    frame = rows.select(
        "event_id",
        pl.col("value").alias(label.name),
        pl.lit(label.labeler).alias("labeler"),
        "member_id",
        "title_id",
        pl.col("known_at").alias("event_timestamp"),
        pl.lit(as_of).cast(_MOMENT).alias("created_timestamp"),
    )
    name = f"{label.name}.parquet"
    frame.write_parquet(folder / name, compression="zstd", row_group_size=256_000)
    return PublishedLabel(label.name, f"{PREFIX}{label.name}", label.labeler, frame.height, final / name)


def _link_others(final: Path, folder: Path) -> None:
    for path in final.glob("*.parquet"):
        if not (folder / path.name).exists():
            os.link(path, folder / path.name)


@contextmanager
def _beside(final: Path) -> Iterator[Path]:
    """Lend a folder beside the final one; leftovers of killed runs go first, and whatever is left at the end."""
    _clean(final)
    folder = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        _clean(final)


def _clean(final: Path) -> None:
    for leftover in final.parent.glob(f".{final.name}.*"):
        shutil.rmtree(leftover)
