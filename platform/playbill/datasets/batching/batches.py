"""One batch of training rows: gathered from flat arrays, without a loop over rows.

Letters: B windows, L width, N rows, m labelled tokens. Everything random is drawn for the whole batch, so that the
ranks that share one see together what a single process would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from playbill.arrays import AnyInts, Bools, Floats32, Ints64
from playbill.datasets.arrays import ContextArrays, HistoryArrays, TargetArrays, gather_bags
from playbill.datasets.availability import States
from playbill.datasets.batching.horizon import FurtherTitles, Moments
from playbill.datasets.batching.synthetic_queries import made_queries
from playbill.datasets.batching.targets import TargetAssembler
from playbill.datasets.batching.windows import Windows, row_ranges
from playbill.datasets.encoding.context_columns import ContextColumns
from playbill.datasets.encoding.row_entries import PageRows
from playbill.datasets.encoding.text import gram_arrays
from playbill.datasets.encoding.tokens import pad
from playbill.datasets.examples.negatives import NegativePolicy
from playbill.datasets.examples.rows import TrainingRows

QUERIES_PER_TITLE, MOST_QUERIES = 16, 64_000
"""Made anew for every title and epoch; for fewer than sixteen of a title where they would be more in all."""
CO_PLAY_DISTANCE = 8  # a source title is one of the last so many tokens before the target
MASKED_SHARE = 0.05  # how often a context field is hidden, so that index 0 means something
PLACELESS_SHARE = 0.25  # how often row and place are hidden: a canvas's own list is asked without either
FORGET_SHARE = {"title_names": 0.2, "co_play": 0.75}
"""How often a made row starts from an empty history, by where it comes from. A source title would otherwise teach
nothing, as the history names it too."""


class Batch(NamedTuple):
    """What one step of training reads."""

    history: HistoryArrays
    context: ContextArrays
    targets: TargetArrays


@dataclass(frozen=True, slots=True)
class Task:
    """Rows made for a canvas that has no log of its own."""

    source: Literal["title_names", "co_play"]
    canvas: int  # index of the canvas
    share: float  # rows made per logged row
    lacking: tuple[str, ...]  # context fields that the canvas's requests do not carry
    numeric: tuple[int, ...] = ()  # numeric features that they do not carry, by place
    categorical: tuple[int, ...] = ()  # categorical ones
    by_name: bool = False  # whether the name of the source title stands for the query
    member: bool = True  # whether they read the member's history


@dataclass(frozen=True, slots=True)
class QueryPool:
    """Made queries of one epoch, as bags: `each` of them for each title that has any, one title after the other."""

    grams: Ints64
    offsets: Ints64  # where each bag begins, and the end; the last `each` are empty
    first: Ints64  # [T] first bag of each title; of one without queries the first empty one
    each: int

    @classmethod
    def make(cls, names: tuple[str, ...], wanted: Bools, buckets: int, seed: int) -> QueryPool:
        """Make queries for the titles that are `wanted`."""
        titles = np.flatnonzero(wanted)
        each = min(QUERIES_PER_TITLE, max(1, MOST_QUERIES // max(1, len(titles))))
        made = made_queries([names[title] for title in titles.tolist()], each, seed)
        grams, starts = gram_arrays([query for queries in made for query in queries], buckets, query=True)
        first = np.full(len(names), len(starts))
        first[titles] = each * np.arange(len(titles))
        return cls(grams, np.append(starts, np.full(each + 1, len(grams))), first, each)

    def of(self, title: Ints64, chance: Floats32) -> tuple[Ints64, Ints64]:
        """Return a bag for each of N titles, by uniform draws."""
        pick = (chance * self.each).astype(np.int64)
        return gather_bags(self.grams, self.offsets, self.first[title] + pick)


@dataclass(frozen=True, slots=True)
class Rows:
    """The logged rows of a batch."""

    window: Ints64  # [N] place of the window in this rank's part
    position: Ints64  # [N] tokens seen
    token: Ints64  # [N] the token after those, whether or not it is the row's target
    row: Ints64  # [N] row of `TrainingRows`
    request: Ints64  # [N] row of `ContextColumns`
    chance: Floats32  # [N, draws] uniform draws, see `draws`


DRAWN = ("country", "device", "language", "hour_of_week")  # fields with a draw of their own
PLACE = ("row", "row_position")  # fields that are hidden together, by another part of the last field's draw
FIELDS = (*DRAWN, *PLACE)
_CANVAS, _TASKS = len(DRAWN), len(DRAWN) + 1
_MADE, _FORGET, _PICK = 0, 1, 2


def draw_chances(seed: tuple[int, int, int], windows: int, width: int, tasks: int) -> Floats32:
    """Draw [B, L + 1, draws] uniform numbers: one to hide each field, one the canvas, three for each task.

    The canvas is hidden for a window as a whole: rows of one moment then still share their title bias.
    """
    chance: Floats32 = np.random.default_rng(seed).random((windows, width + 1, _TASKS + 3 * tasks), np.float32)
    chance[:, :, _CANVAS] = chance[:, :1, _CANVAS]
    return chance


@dataclass(frozen=True, slots=True)
class DrawnNegatives:
    """What was drawn for a batch, the same for all of its ranks."""

    chance: Floats32  # [B, L + 1, draws] uniform draws of this rank's windows
    pool: QueryPool  # the epoch's made queries
    negatives: dict[str, tuple[Ints64, Floats32]] = field(default_factory=dict)
    """Head -> [S] titles, and [T] how often each was to be expected among them."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What batches are assembled from. Letters: n tokens, R rows, m requests."""

    tokens: AnyInts  # [n, 7]
    rows: TrainingRows
    context: ContextColumns  # the m encoded requests
    snapshot: AnyInts  # [m] snapshot of each
    states: States  # what could be seen in the requests
    state: AnyInts  # [m] state of each
    pages: PageRows | None = None  # rows of logged pages
    moments: Moments | None = None  # of the rows, where a head has a horizon
    attributes: Mapping[str, Ints64] = field(default_factory=dict)  # auxiliary head -> [T, W] attributes of titles


class Assembler:
    """Builds batches from the flat arrays of a training set.

    Made rows, those of `tasks`, train the `softmax` heads and say nothing for the others.
    """

    def __init__(
        self,
        learnt: Learnt,
        softmax: frozenset[str],
        tasks: tuple[Task, ...],
        policies: Mapping[str, NegativePolicy] | None = None,
        horizons: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        self.tokens, self.rows, self.context = learnt.tokens, learnt.rows, learnt.context
        self.snapshot, self.softmax, self.tasks = learnt.snapshot, softmax, tasks
        further = {
            head: FurtherTitles(learnt.rows, head, learnt.moments, options)
            for head, options in (horizons or {}).items()
            if learnt.moments is not None
        }
        given = (learnt.rows, learnt.states, learnt.state, softmax, policies or {}, learnt.pages)
        self.targets = TargetAssembler(*given, further, learnt.attributes)

    def batch(self, windows: Windows, width: int, shared: DrawnNegatives) -> Batch:
        """Assemble one rank's part of a batch: B windows of width L, and what was drawn for the batch."""
        history = pad(self.tokens, windows.start, windows.length, width)
        rows = self._rows(windows, shared.chance)
        made = [self._made(task, place, rows) for place, task in enumerate(self.tasks)]
        chosen = np.concatenate([np.arange(len(rows.row)), *(keep for keep, _ in made)])
        context = self._context(rows, chosen, made, width, shared.pool)
        targets = self.targets.arrays(rows.row[chosen], len(rows.row), shared.negatives)
        return Batch(history, context, targets)

    def rows_of(self, windows: Windows) -> tuple[Ints64, Ints64]:
        """Return the rows that windows read, window by window, and which window each is of."""
        first, last = row_ranges(windows, self.rows.slot)
        size = last - first
        window = np.repeat(np.arange(len(windows)), size)
        row = np.arange(len(window)) + np.repeat(first - np.cumsum(size) + size, size)
        if len(self.rows.copies):
            drawn = self.rows.copies[row] > windows.draw[window]
            window, row = window[drawn], row[drawn]
        return row, window

    def _rows(self, windows: Windows, chance: Floats32) -> Rows:
        row, window = self.rows_of(windows)
        member = windows.member[window]
        token = self.rows.slot[row] - member
        at = token - windows.start[window]
        return Rows(window, at, token, row, self.rows.request[row].astype(np.int64), chance[window, at])

    def _made(self, task: Task, place: int, rows: Rows) -> tuple[Ints64, Ints64]:
        """Pick the rows of a task: [n] logged rows it is made from, and their source titles (0 for a search)."""
        draws = rows.chance[:, _TASKS + 3 * place :]
        keep = (draws[:, _MADE] < task.share) & self.rows.next[rows.row]
        if task.source == "title_names":
            chosen = np.nonzero(keep)[0]
            return chosen, np.zeros(len(chosen), np.int64)
        chosen = np.nonzero(keep & (rows.position > 0))[0]
        reach = np.minimum(rows.position[chosen], CO_PLAY_DISTANCE)
        back = 1 + (draws[chosen, _PICK] * reach).astype(np.int64)
        source = self.tokens[rows.token[chosen] - back, 0].astype(np.int64)
        other = source != self.rows.title[rows.row[chosen]]
        return chosen[other], source[other]

    def _context(
        self, rows: Rows, chosen: Ints64, made: list[tuple[Ints64, Ints64]], width: int, pool: QueryPool
    ) -> ContextArrays:
        columns, row, chance = self.context, rows.request[chosen], rows.chance[chosen]
        arrays: dict[str, Any] = {
            **_hidden(columns, row, chance),
            "canvas": np.where(chance[:, _CANVAS] < MASKED_SHARE, 0, columns.canvas[row]).astype(np.int64),
            "source_title": columns.source_title[row].astype(np.int64),
            "by_name": columns.by_name[row].astype(np.int64),
            "numeric": columns.numeric[row],
            "categorical": columns.categorical[row].astype(np.int64, copy=False),
        }
        seen = rows.position[chosen] * (columns.member[row] > 0)
        at = len(rows.row)
        for place, (task, (keep, source_title)) in enumerate(zip(self.tasks, made, strict=True)):
            part = slice(at, at + len(keep))
            _as_made(task, part, source_title, arrays)
            forget = chance[part, _TASKS + 3 * place + _FORGET] < FORGET_SHARE[task.source]
            seen[part] = np.where(forget | (not task.member), 0, rows.position[keep])
            at += len(keep)
        grams, offsets = self._queries(rows, made, pool)
        return ContextArrays(
            state=rows.window[chosen] * (width + 1) + seen,
            query_grams=grams,
            query_offsets=offsets,
            snapshot=self.snapshot[row].astype(np.int64, copy=False),
            **arrays,
        )

    def _queries(self, rows: Rows, made: list[tuple[Ints64, Ints64]], pool: QueryPool) -> tuple[Ints64, Ints64]:
        parts = [gather_bags(self.context.query_grams, self.context.query_offsets, rows.request)]
        for place, (task, (keep, _)) in enumerate(zip(self.tasks, made, strict=True)):
            if task.source == "title_names":
                title = self.tokens[rows.token[keep], 0].astype(np.int64)
                parts.append(pool.of(title, rows.chance[keep, _TASKS + 3 * place + _PICK]))
            else:
                parts.append((np.zeros(0, np.int64), np.zeros(len(keep), np.int64)))
        ends = np.cumsum([len(grams) for grams, _ in parts])
        shifted = [starts + end - len(grams) for (grams, starts), end in zip(parts, ends, strict=True)]
        return np.concatenate([grams for grams, _ in parts]), np.concatenate(shifted)


def _hidden(columns: ContextColumns, row: Ints64, chance: Floats32) -> dict[str, Ints64]:
    hidden = {name: chance[:, place] < MASKED_SHARE for place, name in enumerate(DRAWN)}
    last = chance[:, len(DRAWN) - 1]
    hidden |= dict.fromkeys(PLACE, (last >= MASKED_SHARE) & (last < MASKED_SHARE + PLACELESS_SHARE))
    return {name: np.where(gone, 0, getattr(columns, name)[row]).astype(np.int64) for name, gone in hidden.items()}


def _as_made(task: Task, part: slice, source_title: Ints64, arrays: dict[str, Any]) -> None:
    """Let a part of the rows be asked on a task's canvas: what that does not carry is gone."""
    arrays["canvas"][part], arrays["source_title"][part] = task.canvas, source_title
    arrays["by_name"][part] = task.by_name & (source_title > 0)
    arrays["numeric"][part, list(task.numeric)] = np.nan
    arrays["categorical"][part, list(task.categorical)] = 0
    for name in task.lacking:
        arrays[name][part] = 0
