"""A part of a training set: the rows of some canvases, and of some heads, over the same encoder, titles and histories.

A model that learns from a part reads what a model of the whole reads, and learns only from its own requests. So models
of one canvas each can be compared with one model of all: what differs is whose rows teach them.
Letters: n tokens, R rows, m requests.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from playbill.datasets.arrays import Bool, Int
from playbill.datasets.rows import TrainingRows
from playbill.datasets.training_set import TrainingSet
from playbill.datasets.windows import Windows, cut_windows
from playbill.errors import StateError, UnknownNameError
from playbill.specs import ResolvedModel


def canvas_rows(
    data: TrainingSet, resolved: ResolvedModel, canvases: Collection[str], heads: Collection[str]
) -> TrainingSet:
    """Return what is learnt about some canvases.

    Rows of other canvases are kept only where rows of these are made from them, and then teach nothing themselves.

    Args:
        data: The whole training set.
        resolved: The model it was built for.
        canvases: Whose rows are kept; others of the log may be among them.
        heads: Whose labels are kept.

    Raises:
        UnknownNameError: The training set has no such head.
        StateError: No row is left.
    """
    for head in heads:
        if head not in data.rows.labels:
            raise UnknownNameError("head", head, data.rows.labels)
    codes = data.encoder.vocabulary("canvas").encode(sorted(canvases)).astype(np.int64)
    own = np.isin(np.asarray(data.context.canvas)[data.rows.request], codes[codes > 0])
    own &= _teaches(data, heads)
    tasks = tuple(task for task in data.settings.tasks if task.canvas in codes)
    ranking = [head for head in heads if head in data.settings.softmax]
    sources = data.rows.next & _positive(data.rows, ranking) if tasks else np.zeros(len(own), np.bool_)
    if not (own | sources).any():
        raise StateError(f"no labelled row of the training part is on canvas {', '.join(sorted(canvases))}")
    kept = np.nonzero(own | sources)[0]
    rows = _rows(data.rows, own, kept, heads)
    pages = replace(data.pages, entry=data.pages.entry[kept]) if len(data.pages.entry) else data.pages
    settings = replace(
        data.settings,
        tasks=tasks,
        softmax=tuple(head for head in data.settings.softmax if head in heads),
        negatives={head: options for head, options in data.settings.negatives.items() if head in heads},
    )
    rewards = {head: version for head, version in data.rewards.items() if head in heads}
    windows = _windows(data, rows, resolved)
    return replace(data, rows=rows, pages=pages, windows=windows, settings=settings, rewards=rewards, left_out={})


def rows_by_canvas(data: TrainingSet, heads: Collection[str]) -> dict[str, int]:
    """Return canvas -> rows that teach some of the heads; those on canvases the encoder does not know are left out."""
    names = data.encoder.vocabulary("canvas").entries
    known = np.asarray(data.context.canvas)[data.rows.request][_teaches(data, heads)]
    counts = np.bincount(known, minlength=len(names) + 1)
    return {name: int(counts[place + 1]) for place, name in enumerate(names)}


def taught_rows(data: TrainingSet) -> int:
    """Return how many logged rows teach something."""
    taught = _teaches(data, tuple(data.rows.labels))
    return int((taught & ~data.rows.silent).sum()) if len(data.rows.silent) else int(taught.sum())


def _teaches(data: TrainingSet, heads: Collection[str]) -> Bool:
    """[R] whether a row teaches some head: by any label, or for a head that ranks by one above 0."""
    found = np.zeros(len(data.rows), np.bool_)
    for head in heads:
        labels = data.rows.labels[head]
        found |= labels > 0 if head in data.settings.softmax else ~np.isnan(labels)
    return found


def _positive(rows: TrainingRows, heads: Collection[str]) -> Bool:
    """[R] whether a row is a target of some head."""
    found = np.zeros(len(rows), np.bool_)
    for head in heads:
        found |= rows.labels[head] > 0
    return found


def _rows(rows: TrainingRows, own: Bool, place: Int, heads: Collection[str]) -> TrainingRows:
    slate, offsets = rows.slate, rows.slate_offsets
    if len(offsets):
        slate, offsets = _slates(rows, place)
    return replace(
        rows,
        slot=rows.slot[place],
        title=rows.title[place],
        request=rows.request[place],
        next=rows.next[place],
        labels={head: rows.labels[head][place] for head in heads},
        weights={head: values[place] for head, values in rows.weights.items() if head in heads},
        copies=rows.copies[place] if len(rows.copies) else rows.copies,
        slate=slate,
        slate_offsets=offsets,
        silent=np.zeros(0, np.bool_) if own[place].all() else ~own[place],
    )


def _slates(rows: TrainingRows, place: Int) -> tuple[Int, Int]:
    size = np.diff(rows.slate_offsets)[place]
    offsets = np.zeros(len(place) + 1, np.int64)
    offsets[1:] = np.cumsum(size)
    flat = np.arange(offsets[-1]) + np.repeat(rows.slate_offsets[place] - offsets[:-1], size)
    return rows.slate[flat], offsets


def _windows(data: TrainingSet, rows: TrainingRows, resolved: ResolvedModel) -> Windows:
    """Cut windows that end where the last kept row of each member is; members without one have none."""
    members = max(int(data.token_member.max(initial=-1)), int(data.windows.member.max(initial=-1))) + 1
    counts = np.bincount(data.token_member, minlength=members)
    first = np.cumsum(counts) - counts + np.arange(members)
    member = np.searchsorted(first, rows.slot, side="right") - 1
    reach = np.full(members, -1, np.int64)
    np.maximum.at(reach, member, rows.slot - first[member])
    # Tokens after the last row are no inputs: they would be read for nothing.
    cut = np.minimum(counts, reach + 1)
    windows = cut_windows(cut, resolved.model.history.length, resolved.model.training.stride, reach)
    offset = np.cumsum(counts) - counts - (np.cumsum(cut) - cut)
    return replace(windows, start=windows.start + offset[windows.member])
