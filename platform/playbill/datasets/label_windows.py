"""Whether the windows of labels fit a split: an outcome that is held out cannot be learnt from.

By time, labels are told as of the cutoff, so an event whose window reaches past it is unlabelled. `leave_one_out` has
no such moment: a member's last events are taken away, and a label that waits for what comes after an event would call
"not there" what was only held out.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from playbill.datasets.splits import Split
from playbill.definitions.specs import LabelSpec, ResolvedModel
from playbill.definitions.specs.base import format_duration
from playbill.errors import DataError, Problem


def assert_windows_fit(labels: Iterable[LabelSpec], interactions: pl.DataFrame, split: Split) -> None:
    """Check that no label waits for events that the split holds out.

    Args:
        labels: Those that training learns from.
        interactions: The log the split was made of.
        split: Only `leave_one_out`, which has no cutoff, can be at odds with a window.

    Raises:
        DataError: The windows of labels reach past the first held-out event of members; every label is named.
    """
    if problems := list(reaching_windows(labels, interactions, split).values()):
        raise DataError(f"protocol {split.protocol}", problems)


def reaching_windows(labels: Iterable[LabelSpec], interactions: pl.DataFrame, split: Split) -> dict[str, Problem]:
    """Return the labels that wait for events which the split holds out, and what is wrong; see `assert_windows_fit`."""
    windowed = [label for label in labels if label.attribution_window is not None]
    if split.validation_cutoff is not None or not windowed:
        return {}
    folded = interactions.select("event_id", "member_id", "event_at", "action").join(split.frame, on="event_id")
    train = pl.col("fold") == "train"
    held = folded.filter(~train).group_by("member_id").agg(held_at=pl.col("event_at").min())
    gaps = folded.filter(train).join(held, on="member_id").with_columns(gap=pl.col("held_at") - pl.col("event_at"))
    return {label.name: found for label in windowed if (found := _reaching(label, gaps, split.protocol))}


def assert_heads_fit(resolved: ResolvedModel, interactions: pl.DataFrame, split: Split) -> None:
    """Check the labels of a model's heads, see `assert_windows_fit`."""
    names = dict.fromkeys(head.label for head in resolved.model.heads.values() if head.label is not None)
    assert_windows_fit([resolved.labels[name] for name in names], interactions, split)


def unfit_heads(resolved: ResolvedModel, interactions: pl.DataFrame, split: Split) -> dict[str, str]:
    """Return optional heads whose labels wait for events which the split holds out, and why that is so."""
    names = {name: head.label for name, head in resolved.model.heads.items() if head.optional and head.label}
    labels = [resolved.labels[name] for name in dict.fromkeys(names.values())]
    found = reaching_windows(labels, interactions, split)
    return {head: f"{found[name].where}: {found[name].what}" for head, name in names.items() if name in found}


def _reaching(label: LabelSpec, gaps: pl.DataFrame, protocol: str) -> Problem | None:
    window = label.attribution_window
    spoken = label.events.action if label.events is not None else None
    events = gaps if spoken is None else gaps.filter(pl.col("action").is_in((*spoken, *label.negatives.actions)))
    late = events.filter(pl.col("gap") <= window)
    if late.is_empty() or window is None:
        return None
    first = str(late["member_id"].min())
    what = f"its window {format_duration(window)} reaches past the held-out events of "
    what += f"{late['member_id'].n_unique():,} members, first of '{first}': an outcome that "
    what += f"{protocol} holds out would be learnt as absent."
    return Problem(f"label {label.name}", what, "Train with protocol global_time, or give the label a shorter window.")
