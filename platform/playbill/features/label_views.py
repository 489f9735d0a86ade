"""Labels as Feast has them: what is published, and the LabelView each label needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from playbill.errors import DefinitionError, Problem, nearest

PREFIX = "label_"


@dataclass(frozen=True, slots=True)
class LabelValues:
    """One label to publish.

    Attributes:
        name: The label. Its LabelView is called `label_NAME`.
        labeler: Who says so: the label with its version.
        rows: Makes event_id, member_id, title_id (text), value (float32) and known_at (UTC microseconds) of a part
            of the labelled log.
    """

    name: str
    labeler: str
    rows: Callable[[pl.DataFrame], pl.DataFrame]


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
