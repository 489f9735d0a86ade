"""One batch of training rows: gathered from flat arrays, without a loop over rows.

Letters: B windows, L width, N rows, m labelled tokens. Everything random is drawn for the whole batch, so that the
ranks that share one see together what a single process would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from playbill.datasets.arrays import (
    Bool,
    ContextArrays,
    Float,
    HistoryArrays,
    Int,
    TargetArrays,
    gather_bags,
    with_end,
)
from playbill.datasets.encoder import ContextColumns
from playbill.datasets.queries import made_queries
from playbill.datasets.text import gram_arrays
from playbill.datasets.tokens import pad

QUERIES_PER_TITLE = 16
"""Made anew for every title and epoch."""
CO_PLAY_DISTANCE = 8
"""A source title is one of the last so many tokens before the target."""
MASKED_SHARE = 0.05
"""How often a context field is hidden, so that index 0 means something."""
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
    canvas: int
    """Index of the canvas."""
    share: float
    """Rows made per logged row."""
    lacking: tuple[str, ...]
    """Context fields that the canvas's requests do not carry."""


@dataclass(frozen=True, slots=True)
class QueryPool:
    """Made queries of one epoch, `QUERIES_PER_TITLE` for each title, as bags."""

    grams: Int
    offsets: Int
    """[T * QUERIES_PER_TITLE + 1]."""

    @classmethod
    def make(cls, names: tuple[str, ...], wanted: Bool, buckets: int, seed: int) -> QueryPool:
        """Make queries for the titles that are `wanted`; the others get empty ones."""
        asked = [name if want else "" for name, want in zip(names, wanted.tolist(), strict=True)]
        flat = [query for queries in made_queries(asked, QUERIES_PER_TITLE, seed) for query in queries]
        grams, starts = gram_arrays(flat, buckets, query=True)
        return cls(grams, with_end(grams, starts))


@dataclass(frozen=True, slots=True)
class Rows:
    """The logged rows of a batch."""

    window: Int
    """[N] place of the window in this rank's part."""
    position: Int
    """[N] tokens seen."""
    token: Int
    """[N] target token."""
    row: Int
    """[N] row of `ContextColumns`."""
    chance: Float
    """[N, draws] uniform draws, see `draws`."""


FIELDS = ("country", "device", "language", "hour_of_week")
_CANVAS, _TASKS = len(FIELDS), len(FIELDS) + 1
_MADE, _FORGET, _PICK = 0, 1, 2


def draw_chances(seed: tuple[int, int, int], windows: int, width: int, tasks: int) -> Float:
    """Draw [B, L + 1, draws] uniform numbers: one to hide each field, one the canvas, three for each task.

    The canvas is hidden for a window as a whole: rows of one moment then still share their title bias.
    """
    chance: Float = np.random.default_rng(seed).random((windows, width + 1, _TASKS + 3 * tasks), np.float32)
    chance[:, :, _CANVAS] = chance[:, :1, _CANVAS]
    return chance


class Assembler:
    """Builds batches from the flat arrays of a training set.

    Args:
        tokens: [n, 7] all tokens.
        token_row: [n] row of each labelled token, -1 for the others.
        context: The m encoded requests.
        snapshot: [m] snapshot of each.
        labels: Head -> [m].
        softmax: Heads that made rows train; a made row says nothing for the others.
        tasks: Made rows.
    """

    def __init__(
        self,
        tokens: Int,
        token_row: Int,
        context: ContextColumns,
        snapshot: Int,
        labels: dict[str, Float],
        softmax: frozenset[str],
        tasks: tuple[Task, ...],
    ) -> None:
        self.tokens, self.token_row, self.context = tokens, token_row, context
        self.snapshot, self.labels, self.softmax, self.tasks = snapshot, labels, softmax, tasks
        self.query_offsets = with_end(context.query_grams, context.query_offsets)

    def batch(self, starts: Int, lengths: Int, first: Bool, width: int, chance: Float, pool: QueryPool) -> Batch:
        """Assemble one rank's part of a batch.

        Args:
            starts: [B] first token of each window.
            lengths: [B] input tokens.
            first: [B] whether state 0 is a real moment.
            width: L.
            chance: [B, L + 1, draws] uniform draws.
            pool: The epoch's made queries.
        """
        history = pad(self.tokens, starts, lengths, width)
        rows = self._rows(starts, lengths, first, width, chance)
        made = [self._made(task, place, rows) for place, task in enumerate(self.tasks)]
        chosen = np.concatenate([np.arange(len(rows.row)), *(keep for keep, _ in made)])
        context = self._context(rows, chosen, made, width, pool)
        return Batch(history, context, self._targets(rows, chosen))

    def _rows(self, starts: Int, lengths: Int, first: Bool, width: int, chance: Float) -> Rows:
        position = np.arange(width + 1)
        real = (position <= lengths[:, None]) & ((position > 0) | first[:, None])
        token = np.where(real, starts[:, None] + position, 0)
        row = np.where(real, self.token_row[token], -1)
        window, at = np.nonzero(row >= 0)
        return Rows(window, at, token[window, at], row[window, at].astype(np.int64), chance[window, at])

    def _made(self, task: Task, place: int, rows: Rows) -> tuple[Int, Int]:
        """Pick the rows of a task: [n] logged rows it is made from, and their source titles (0 for a search)."""
        draws = rows.chance[:, _TASKS + 3 * place :]
        keep = draws[:, _MADE] < task.share
        if task.source == "title_names":
            chosen = np.nonzero(keep)[0]
            return chosen, np.zeros(len(chosen), np.int64)
        chosen = np.nonzero(keep & (rows.position > 0))[0]
        reach = np.minimum(rows.position[chosen], CO_PLAY_DISTANCE)
        back = 1 + (draws[chosen, _PICK] * reach).astype(np.int64)
        return chosen, self.tokens[rows.token[chosen] - back, 0].astype(np.int64)

    def _context(
        self, rows: Rows, chosen: Int, made: list[tuple[Int, Int]], width: int, pool: QueryPool
    ) -> ContextArrays:
        columns, row, chance = self.context, rows.row[chosen], rows.chance[chosen]
        fields = {
            name: np.where(chance[:, place] < MASKED_SHARE, 0, getattr(columns, name)[row]).astype(np.int64)
            for place, name in enumerate(FIELDS)
        }
        canvas = np.where(chance[:, _CANVAS] < MASKED_SHARE, 0, columns.canvas[row]).astype(np.int64)
        source = columns.source_title[row].astype(np.int64)
        position = rows.position[chosen].copy()
        at = len(rows.row)
        for place, (task, (keep, source_title)) in enumerate(zip(self.tasks, made, strict=True)):
            part = slice(at, at + len(keep))
            canvas[part], source[part] = task.canvas, source_title
            forget = chance[part, _TASKS + 3 * place + _FORGET] < FORGET_SHARE[task.source]
            position[part] = np.where(forget, 0, position[part])
            for name in task.lacking:
                fields[name][part] = 0
            at += len(keep)
        grams, offsets = self._queries(rows, made, pool)
        return ContextArrays(
            state=rows.window[chosen] * (width + 1) + position,
            canvas=canvas,
            **fields,
            source_title=source,
            query_grams=grams,
            query_offsets=offsets,
            numeric=columns.numeric[row],
            categorical=columns.categorical[row].astype(np.int64, copy=False),
            snapshot=self.snapshot[row].astype(np.int64, copy=False),
        )

    def _queries(self, rows: Rows, made: list[tuple[Int, Int]], pool: QueryPool) -> tuple[Int, Int]:
        """Return the bags of logged rows followed by those of every task."""
        parts = [gather_bags(self.context.query_grams, self.query_offsets, rows.row)]
        for place, (task, (keep, _)) in enumerate(zip(self.tasks, made, strict=True)):
            if task.source == "title_names":
                title = self.tokens[rows.token[keep], 0].astype(np.int64)
                pick = (rows.chance[keep, _TASKS + 3 * place + _PICK] * QUERIES_PER_TITLE).astype(np.int64)
                parts.append(gather_bags(pool.grams, pool.offsets, title * QUERIES_PER_TITLE + pick))
            else:
                parts.append((np.zeros(0, np.int64), np.zeros(len(keep), np.int64)))
        ends = np.cumsum([len(grams) for grams, _ in parts])
        shifted = [starts + end - len(grams) for (grams, starts), end in zip(parts, ends, strict=True)]
        return np.concatenate([grams for grams, _ in parts]), np.concatenate(shifted)

    def _targets(self, rows: Rows, chosen: Int) -> TargetArrays:
        row, logged = rows.row[chosen], len(rows.row)
        labels = {name: values[row].astype(np.float32) for name, values in self.labels.items()}
        for name in labels.keys() - self.softmax:
            labels[name][logged:] = np.nan
        return TargetArrays(
            title=self.tokens[rows.token[chosen], 0].astype(np.int64),
            labels=labels,
            weight=np.ones(len(chosen), np.float32),
        )
