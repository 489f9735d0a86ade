"""Evaluation of canvases that have no log of their own yet: search and more-like-this.

Both start from the held-out requests of a split, so neither sees what the model was trained on. They measure
whether a canvas works, not whether members would be served better: nobody typed these queries, and nobody
asked for titles like these.

- `made_queries`: the member is about to play a title and types its name; is the title in the list after 1, 2,
  3, or more letters? One request per held-out title and length. Queries of four or more letters come from the
  same maker as in training, mistakes included, with another seed; shorter ones are plain prefixes.
- `co_play_pairs`: the member just played one title and plays another next; is the held-out one in the list of
  titles like the first?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict, Unpack

import numpy as np
import polars as pl

from playbill.arrays import Indices
from playbill.datasets import Split
from playbill.datasets.batching.synthetic_queries import made_queries
from playbill.datasets.splits import TIME_PROTOCOLS
from playbill.definitions.specs import ResolvedModel
from playbill.errors import StateError
from playbill.evaluation.beside import Beside, chosen, folded_names
from playbill.evaluation.cases.build import build_case, only_reachable
from playbill.evaluation.cases.case import EvaluationCase, Fold
from playbill.evaluation.cases.event_log import UNKNOWN, EvaluationTables, EventLog, as_frames
from playbill.evaluation.cases.score_function import ScoreFunction
from playbill.evaluation.cases.slices import MADE_SLICES, SLICES
from playbill.evaluation.evaluate import evaluate_case
from playbill.evaluation.measure import Progress
from playbill.evaluation.metric_aggregation import Judging
from playbill.evaluation.report import EvaluationReport
from playbill.tables import Tables

MADE_QUERIES = "made_queries"
CO_PLAY_PAIRS = "co_play_pairs"
QUERY_SEED = 90_210  # far from the seeds of training, which count up from the run's own
QUERY_LENGTHS = ("1", "2", "3", "4+")
MOST_SEARCHED, FEWEST_SEARCHED = 2_500, 500
"""Held-out titles that queries are made for; of more, so many are drawn. Four queries each say enough of a search."""
SEARCHED_CELLS = 25_000_000
"""Titles searched times titles there are, from which on fewer are drawn, so that searching a large catalogue ends."""
_TRIES = 8  # queries drawn per title until one has four letters; the whole name stands in when none has


class MadeOptions(TypedDict, total=False):
    """Options of `evaluate_search` and `evaluate_more_like_this`, as in `evaluate`."""

    k: Sequence[int]
    fold: Fold
    judging: Judging | None
    name: str | None
    progress: Progress | None
    log: EventLog | None
    baselines: Sequence[str] | None
    beside: Beside | None


def search_case(
    tables: EvaluationTables,
    split: Split,
    resolved: ResolvedModel,
    canvas: str,
    *,
    fold: Fold = "test",
    seed: int = QUERY_SEED,
    log: EventLog | None = None,
) -> EvaluationCase:
    """Build the `made_queries` case: four queries for each held-out title, one per `query_length`.

    Raises:
        UnknownNameError: The model has no such canvas.
        StateError: No held-out title can be searched.
    """
    base = _drawn(build_case(tables, _one_each(split), resolved, canvas, fold=fold, log=log, as_logged=False), seed)
    names = np.array(folded_names(base), dtype=object)[base.columns].tolist()
    by_length = dict(zip(QUERY_LENGTHS, (*_prefixes(names), _typed(names, seed)), strict=True))
    parts = [
        base.frame.with_columns(
            request_id=pl.col("event_id") + f"/{length}",
            query=pl.Series(queries, dtype=pl.String),
            query_length=pl.lit(length),
        )
        for length, queries in by_length.items()
    ]
    frame = pl.concat(parts)
    # The queries for one title stand beside each other, so that their common past is read once.
    order = np.arange(frame.height).reshape(len(QUERY_LENGTHS), -1).T.ravel()
    requested = order[(frame["query"].str.len_chars() > 0).to_numpy()[order]]
    if requested.size == 0:
        raise StateError(f"no held-out title of canvas '{canvas}' has a name that could be typed")
    return replace(
        base,
        protocol=MADE_QUERIES,
        frame=frame[requested],
        positions=np.tile(base.positions, len(QUERY_LENGTHS))[requested],
        rows=np.arange(requested.size, dtype=np.int64),
        columns=np.tile(base.columns, len(QUERY_LENGTHS))[requested],
        targets_at=np.tile(base.targets_at, len(QUERY_LENGTHS))[requested],
    )


def more_like_this_case(
    tables: EvaluationTables,
    split: Split,
    resolved: ResolvedModel,
    canvas: str,
    *,
    fold: Fold = "test",
    log: EventLog | None = None,
) -> EvaluationCase:
    """Build the `co_play_pairs` case: the play before each held-out one is the source title.

    Raises:
        UnknownNameError: The model has no such canvas.
        StateError: No held-out play follows another play.
    """
    base = build_case(tables, _one_each(split), resolved, canvas, fold=fold, log=log, as_logged=False)
    source = _previous_play(base)
    has_source = (source != UNKNOWN) & (source != base.columns)
    if not has_source.any():
        raise StateError(f"no held-out play of canvas '{canvas}' follows a play of another title")
    ids = np.array([*base.catalogue.title_ids, None], dtype=object)[source]
    case = replace(
        base,
        protocol=CO_PLAY_PAIRS,
        frame=base.frame.with_columns(source_title_id=pl.Series(ids.tolist(), dtype=pl.String)),
    )
    return only_reachable(case.keep(has_source))


def evaluate_search(
    function: ScoreFunction,
    split: Split,
    tables: Tables | EvaluationTables,
    resolved: ResolvedModel,
    canvas: str = "search",
    **options: Unpack[MadeOptions],
) -> EvaluationReport:
    """Measure a canvas that reads queries, under `made_queries`; sliced by `query_length`.

    Raises:
        UnknownNameError: An unknown canvas.
        StateError: No held-out title can be searched.
    """
    fold, log = options.get("fold", "test"), options.get("log")
    case = search_case(as_frames(tables), split, resolved, canvas, fold=fold, log=log)
    return _evaluate(case, function, resolved, MADE_SLICES, options)


def evaluate_more_like_this(
    function: ScoreFunction,
    split: Split,
    tables: Tables | EvaluationTables,
    resolved: ResolvedModel,
    canvas: str = "more_like_this",
    **options: Unpack[MadeOptions],
) -> EvaluationReport:
    """Measure a canvas that starts from a source title, under `co_play_pairs`.

    Arguments and errors as for `evaluate_search`.
    """
    fold, log = options.get("fold", "test"), options.get("log")
    case = more_like_this_case(as_frames(tables), split, resolved, canvas, fold=fold, log=log)
    return _evaluate(case, function, resolved, SLICES, options)


def _drawn(case: EvaluationCase, seed: int) -> EvaluationCase:
    most = min(MOST_SEARCHED, max(FEWEST_SEARCHED, SEARCHED_CELLS // max(1, len(case.catalogue))))
    if len(case) <= most:
        return case
    drawn = np.random.default_rng(seed).choice(len(case), most, replace=False)
    return replace(case.keep(np.isin(case.rows, drawn)), left_out=case.left_out, drawn_from=len(case))


def _searched(case: EvaluationCase) -> tuple[str, ...]:
    if not case.drawn_from:
        return ()
    searched = case.frame["event_id"].n_unique()
    return (f"queries were made for {searched:,} of {case.drawn_from:,} held-out titles, drawn at random",)


def _evaluate(
    case: EvaluationCase,
    function: ScoreFunction,
    resolved: ResolvedModel,
    slices: tuple[str, ...],
    options: MadeOptions,
) -> EvaluationReport:
    names, left_out = chosen(options.get("baselines"), case, resolved)
    return evaluate_case(
        case,
        options.get("name") or resolved.model.name,
        function,
        (options.get("beside") or Beside()).of(names, case, resolved),
        k=options.get("k", (10,)),
        judging=options.get("judging") or Judging(slices=slices),
        progress=options.get("progress"),
        notes=(*_searched(case), *left_out),
    )


def _one_each(split: Split) -> Split:
    """Return the split under the protocol that asks once per member: made requests need no more."""
    return split.under("global_time") if split.protocol in TIME_PROTOCOLS else split


def _prefixes(names: Sequence[str]) -> list[list[str]]:
    cut = [[name[:length].strip() for name in names] for length in (1, 2, 3)]
    return [
        [text if len(text) == length else "" for text in texts] for length, texts in zip((1, 2, 3), cut, strict=True)
    ]


def _typed(names: Sequence[str], seed: int) -> list[str]:
    drawn = made_queries(names, _TRIES, seed)
    return [
        next((query for query in queries if len(query) >= 4), name if len(name) >= 4 else "")
        for name, queries in zip(names, drawn, strict=True)
    ]


def _previous_play(case: EvaluationCase) -> Indices:
    """Return the title column of each request's last play before it, `UNKNOWN` where there is none."""
    log = case.log
    played = np.where(log.plays, np.arange(log.plays.size), -1)
    newest = np.maximum.accumulate(played)
    before = np.where(case.positions > 0, newest[np.maximum(case.positions - 1, 0)], -1)
    inside = before >= log.starts[case.positions]
    return np.where(inside, log.column[np.maximum(before, 0)], UNKNOWN).astype(np.int64)
