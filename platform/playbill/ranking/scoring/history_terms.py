"""Terms of members' histories for requests: `models.history_terms`, read from what a request carries.

Letters: N requests, U pairs of a history and a moment, K terms, T titles and the padding row, S moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from playbill.arrays import Bools, Floats32, Ints64
from playbill.clock import to_microseconds
from playbill.datasets import Encoder, Request
from playbill.datasets.encoding.tokens import floor_moments
from playbill.models.history_terms import HistoryTerms, Plays, WeekPlays
from playbill.tables.frames import epoch_us

PLAY = "play"


@dataclass(frozen=True)
class RequestTerms:
    """The terms of N requests."""

    values: Floats32  # [U, K, T] standardised
    row: Ints64  # [N] which of them each request has
    lengths: Ints64  # [N] plays in its history


@dataclass(frozen=True)
class TermGate:
    """What is added to the weights of terms in N requests."""

    weights: Floats32  # [N, A, K] for each of the ages of titles
    new: Bools | None  # [N, T] the titles of the second age; None where there is one for all

    def of(self, rows: Sequence[int]) -> TermGate:
        """Return that of some of the requests."""
        return TermGate(self.weights[rows], None if self.new is None else self.new[rows])

    def of_new(self) -> Floats32:
        """[N, K] what terms weigh more for the titles of the second age."""
        found: Floats32 = self.weights[:, -1] - self.weights[:, 0]
        return found


class HistoryReader:
    """Reads the terms of one model version. Safe to share between threads.

    `column` reads [S, T] raw values of a feature of titles, by moments in microseconds and its place.
    """

    def __init__(self, terms: HistoryTerms, encoder: Encoder, column: Callable[[Ints64, int], Floats32]) -> None:
        self._terms, self._encoder, self._column = terms, encoder, column
        self._heads = terms.config.heads

    def read(self, requests: Sequence[Request]) -> RequestTerms:
        """Return the terms of some requests, whose histories hold rows of `interactions` in order."""
        plays, week, row = self._histories(requests)
        values = self._terms.values(plays, week, self._encoder.title_rows.size)
        return RequestTerms(values, row, plays.lengths()[row])

    def added(
        self,
        scores: dict[str, Floats32],
        requests: Sequence[Request],
        canvas: Ints64,
        gates: Mapping[str, TermGate] | None = None,
        groups: Ints64 | None = None,
    ) -> dict[str, Floats32]:
        """Return scores with the terms of their requests added.

        `scores` has [N, T] of each head without the padding row, `canvas` [N] the index of each request's canvas.
        `gates` have what is added to weights, by head; requests of one of the `groups` [N] have the same there.
        """
        heads, gates = [head for head in self._heads if head in scores], gates or {}
        if not heads or not (gates or self._terms.weights.any()):
            return scores
        plays, week, history = self._histories(requests)
        # Requests of one history and one group are on one canvas, so terms weigh the same in them.
        row, first = _numbered(history.tolist(), (canvas if groups is None else groups).tolist())
        own, lengths = history[first], plays.lengths()
        found, titles = dict(scores), self._encoder.title_rows.size
        whole = len(first) == len(row)
        for head in heads:
            weights, gate = self._terms.weights_of(head, canvas[first], lengths[own]), gates.get(head)
            if gate is not None:
                weights = weights + gate.weights[first, 0]
            if weights.any():
                sums = self._terms.sums(plays, week, titles, weights, own)
                found[head] = scores[head] + (sums if whole else sums[row])[:, 1:]
            if gate is not None and gate.new is not None and (more := gate.of_new()[first]).any():
                sums = self._terms.sums(plays, week, titles, more, own)
                found[head] = found[head] + ((sums if whole else sums[row]) * gate.new)[:, 1:]
        return found

    def _histories(self, requests: Sequence[Request]) -> tuple[Plays, WeekPlays | None, Ints64]:
        """Return U histories at their moment, the week's plays of each, and [N] which each request has."""
        at = np.array([to_microseconds(request.at) for request in requests], np.int64)
        moments = floor_moments(at, self._encoder.state.snapshot_hours)
        # Requests hold their frames while this runs, so that an id means one frame.
        row, first = _numbered((id(request.history) for request in requests), moments.tolist())
        plays = plays_of([requests[place].history for place in first.tolist()], self._encoder)
        return plays, self._week(moments[first]), row

    def added_to_pairs(
        self,
        logits: list[Floats32],
        pairs: Sequence[tuple[int, str]],
        requests: Sequence[Request],
        canvas: Ints64,
        gates: Mapping[str, TermGate] | None = None,
        groups: Ints64 | None = None,
    ) -> list[Floats32]:
        """Return the [T] logits of (request, head) pairs with the terms of their requests added, as `added` does."""
        found = list(logits)
        for head in self._heads:
            if places := [place for place, (_, own) in enumerate(pairs) if own == head]:
                rows = [pairs[place][0] for place in places]
                scores = {head: np.stack([logits[place] for place in places])}
                gate = {} if gates is None or head not in gates else {head: gates[head].of(rows)}
                own_groups = None if groups is None else groups[rows]
                scores = self.added(scores, [requests[row] for row in rows], canvas[rows], gate, own_groups)
                for place, own in zip(places, scores[head], strict=True):
                    found[place] = own
        return found

    def parts(self, request: Request, head: str) -> dict[str, tuple[float, Floats32]]:
        """Return term -> its weight in a head's scores in a request, and its [T] values; only those that weigh."""
        if head not in self._heads:
            return {}
        terms = self.read([request])
        canvas = self._encoder.canvas_index(pl.Series([request.canvas]))
        weights = self._terms.weights_of(head, canvas, terms.lengths)[0].tolist()
        names = enumerate(self._terms.config.terms)
        return {name: (weights[place], terms.values[0, place, 1:]) for place, name in names if weights[place]}

    def _week(self, moments: Ints64) -> WeekPlays | None:
        place = self._terms.config.popularity
        if place is None:
            return None
        unique, moment = np.unique(moments, return_inverse=True)
        return WeekPlays(np.nan_to_num(self._column(unique, place)), moment.astype(np.int64))


def _numbered(*columns: Iterable[int]) -> tuple[Ints64, Ints64]:
    """Number rows that are alike [N] in the order they come in, and return the first row with each number."""
    places: dict[tuple[int, ...], int] = {}
    row = np.array([places.setdefault(key, len(places)) for key in zip(*columns, strict=True)], np.int64)
    return row, np.unique(row, return_index=True)[1]


def plays_of(histories: Sequence[pl.DataFrame | None], encoder: Encoder) -> Plays:
    """Return the plays of U histories, of titles that training knew."""
    known = [(place, frame) for place, frame in enumerate(histories) if frame is not None and frame.height]
    if not known:
        nothing = np.zeros(0, np.int64)
        return Plays(nothing, nothing, nothing, len(histories))
    frames = {id(frame): frame for _, frame in known}  # the rows of a page share one
    title = encoder.title_rows.encode(together([*frames.values()], "title_id")).astype(np.int64)
    moment = epoch_us(together([*frames.values()], "event_at"))
    played = (together([*frames.values()], "action") == PLAY).to_numpy()
    used = played & (title > 0) & (title < encoder.trained_titles)
    stops = np.cumsum([frame.height for frame in frames.values()]).tolist()
    own = {
        key: start + np.flatnonzero(used[start:stop])
        for key, start, stop in zip(frames, [0, *stops], stops, strict=False)
    }
    rows = [own[id(frame)] for _, frame in known]
    owner, row = np.repeat([place for place, _ in known], [*map(len, rows)]), np.concatenate(rows)
    return Plays(owner.astype(np.int64), title[row], moment[row], len(histories))


def together(frames: Sequence[pl.DataFrame], name: str) -> pl.Series:
    """Return a column of several frames as one; a cast of each by itself would cost more than all the rest."""
    columns = [frame.get_column(name) for frame in frames]
    alike = all(column.dtype == columns[0].dtype for column in columns)
    if len(columns) == 1:
        whole = columns[0]
    else:
        whole = pl.concat(columns if alike else [column.cast(pl.String) for column in columns])
    return whole if whole.dtype.is_temporal() else whole.cast(pl.String)


def played_by_members(plays: pl.DataFrame, encoder: Encoder) -> Plays:
    """Return plays (members one after the other, each in order) as one history for each member."""
    owner = plays["member_id"].rle_id().to_numpy().astype(np.int64)
    title = encoder.title_rows.encode(plays["title_id"]).astype(np.int64)
    moment = epoch_us(plays["event_at"])
    used: Bools = (title > 0) & (title < encoder.trained_titles)
    return Plays(owner[used], title[used], moment[used], int(owner.max(initial=-1)) + 1)
