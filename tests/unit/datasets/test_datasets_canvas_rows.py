"""A part of a training set has the rows of its canvases and heads alone, and reads them as the whole does."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest

from playbill.datasets import TrainingSet, build_training_set, make_split
from playbill.errors import StateError, UnknownNameError
from playbill_lab.studies.ledger.arms import canvas_rows, rows_by_canvas, taught_rows

DISCOVERY = ("discovery_play",)


@pytest.fixture
def several(tables, resolved, features, clock):
    """The small service, two thirds of whose plays are on other canvases than home."""
    place = pl.col("seq") // 2 % 3
    tables.log = tables.interactions().with_columns(
        canvas=place.replace_strict({0: "home", 1: "search", 2: "coming_soon"}, return_dtype=pl.String)
    )
    split = make_split("leave_one_out", tables.interactions())
    return build_training_set(tables, resolved, split, features, clock)


def row_keys(data: TrainingSet) -> Counter:
    """How often an epoch reads each (title, moment of the request, canvas) with a positive discovery label."""
    seen: Counter = Counter()
    for history, context, targets in data.epoch(0):
        taught = np.nan_to_num(targets.labels["discovery_play"]) > 0
        assert len(history.length) > 0
        for place in np.nonzero(taught)[0].tolist():
            seen[(int(targets.title[place]), int(context.state[place]) >= 0)] += 1
    return seen


def plain(data: TrainingSet, canvas: str) -> Counter:
    """What a reader without windows would find: titles of the canvas's positive rows."""
    code = int(data.encoder.vocabulary("canvas").encode([canvas])[0])
    own = (data.context.canvas[data.rows.request] == code) & (data.rows.labels["discovery_play"] > 0)
    return Counter((int(title), True) for title in data.rows.title[own])


def without_tasks(resolved):
    return resolved.model_copy(update={"model": resolved.model.model_copy(update={"tasks": {}})})


def test_an_epoch_reads_every_row_of_the_canvas_once_and_no_other(several, resolved) -> None:
    for canvas in ("home", "coming_soon"):
        part = canvas_rows(several, resolved, [canvas], DISCOVERY)
        assert row_keys(part) == plain(several, canvas)
        assert set(part.labels) == set(DISCOVERY)


def test_parts_of_all_canvases_are_the_whole(several, resolved) -> None:
    counts = rows_by_canvas(several, DISCOVERY)
    parts = {canvas: canvas_rows(several, resolved, [canvas], DISCOVERY) for canvas in counts if counts[canvas]}
    assert {canvas: taught_rows(part) for canvas, part in parts.items()} == {
        canvas: rows for canvas, rows in counts.items() if rows
    }
    assert sum(counts.values()) == int((several.labels["discovery_play"] > 0).sum())


def test_nothing_is_read_after_the_last_row_of_a_member(several, resolved) -> None:
    part = canvas_rows(several, resolved, ["coming_soon"], DISCOVERY)
    ends: dict[int, int] = {}
    for member, start, length in zip(part.windows.member, part.windows.start, part.windows.length, strict=True):
        assert length <= resolved.model.history.length
        ends[int(member)] = max(ends.get(int(member), 0), int(start + length + member))
    starts = np.array([int(several.windows.start[several.windows.member == member].min()) for member in ends])
    first = np.array([start + member for start, member in zip(starts, ends, strict=True)])
    order = np.argsort(first)
    owner = np.array(list(ends))[order][np.searchsorted(first[order], part.rows.slot, side="right") - 1]
    newest = {member: int(part.rows.slot[owner == member].max()) for member in ends}
    assert newest == ends


def test_rows_made_for_a_canvas_come_from_all_that_was_played(several, resolved) -> None:
    part = canvas_rows(several, resolved, ["search"], DISCOVERY)
    code = int(part.encoder.vocabulary("canvas").encode(["search"])[0])
    own, made = 0, 0
    for epoch in range(6):
        for _, context, targets in part.epoch(epoch):
            taught = np.nan_to_num(targets.labels["discovery_play"]) > 0
            assert set(context.canvas[taught].tolist()) <= {0, code}
            own += int(taught.sum())
            made += int((np.isnan(targets.labels["discovery_play"])).sum())
    logged = 6 * rows_by_canvas(several, DISCOVERY)["search"]
    share = resolved.model.tasks["search"].share
    everything = 6 * int((several.labels["discovery_play"] > 0).sum())
    assert made > 0, "rows of other canvases teach nothing themselves"
    assert own - logged == pytest.approx(share * everything, rel=0.25)


def test_a_canvas_without_rows_and_a_head_that_is_not_there_are_refused(several, resolved) -> None:
    with pytest.raises(StateError, match="screensaver"):
        canvas_rows(several, without_tasks(resolved), ["screensaver"], DISCOVERY)
    with pytest.raises(UnknownNameError, match="discovery_play"):
        canvas_rows(several, resolved, ["home"], ["discovery_plays"])
