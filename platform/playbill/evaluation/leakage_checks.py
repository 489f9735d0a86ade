"""Leakage checks: defects that make a number too good are planted or provoked, and must raise the alarm.

- `future`: everything that a request could not know is replaced; a score or a candidate that changes has read it.
- `chance`: targets are drawn at random among each request's candidates; a score that beats chance has read them.
- `views`: values of the views that a project adds are judged beside the log, and their code is run on less of it.
- `order`: the past of each request is put in another order; a sequential model that does not lose has not read it.

The first two make a score function anew for a changed case: `make(case)` fits a baseline, or wraps a trained model.
What is inside trained weights cannot be taken out; a feature that knows the future is caught where it is computed.
Axis letters: N requests, T titles, M targets, E events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from playbill import metrics
from playbill.arrays import Floats64, Indices, Mask
from playbill.datasets import Request
from playbill.datasets.splits import TIME_PROTOCOLS
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import UNKNOWN, EvaluationTables, microseconds
from playbill.evaluation.cases.score_function import AlignedScorer, MemberFeatures, ScoreFunction, Scores
from playbill.features import LeakReport
from playbill.metrics import MemberBootstrap

CUT_OFF = 10
TOLERANCE = 1e-6  # relative change of a score that counts: above what another order of sums brings
Make = Callable[[EvaluationCase], ScoreFunction]
MakeFeatures = Callable[[EvaluationTables], MemberFeatures]


@dataclass(frozen=True)
class LeakageCheck:
    """What one leakage check found."""

    check: str  # `future`, `chance`, `order`, `features` or `views`
    subject: str
    passed: bool  # whether it stayed quiet
    message: str  # what was found, in a sentence


def check_future(name: str, make: Make, case: EvaluationCase, *, seed: int = 0) -> LeakageCheck:
    """Replace what a request could not know, and see whether its scores or candidates change.

    At a few moments of the held-out period, in everything at or after the moment, titles are drawn anew, and outcomes
    and context shuffled; who and when stay. Under `leave_one_out` that is the held-out fold, since that protocol lets
    training see other members' later events. Requests at or shortly before the moment are scored before and after.
    """
    changed, scored, largest = 0, 0, 0.0
    for cut, requested in cuts(case):
        shuffled = with_another_future(case, unknowable(case, cut, requested), seed)
        before, after = (_scores(name, make(one), one, requested) for one in (case, shuffled))
        moved = _moved(before, after)
        changed, scored = changed + int((moved > TOLERANCE).sum()), scored + requested.size
        largest = max(largest, float(moved.max(initial=0.0)))
    if changed:
        what = f"'{name}' reads what comes after a request: {changed} of {scored} requests are answered otherwise when "
        return LeakageCheck("future", name, False, f"{what}the future is another, by up to {largest:.3g} of a score")
    return LeakageCheck("future", name, True, f"{scored} requests are answered alike whatever comes after them")


def check_chance(name: str, make: Make, case: EvaluationCase, *, seed: int = 0, resamples: int = 1000) -> LeakageCheck:
    """Draw each target at random among its request's candidates, and see whether ndcg@10 is what chance gives.

    With C candidates a target's rank is uniform whatever the scores: E[ndcg@k] = sum_{r <= min(k, C)} 1 / log2(r + 1)
    / C. The interval is of 99 %, so that an honest function raises the alarm once in a hundred runs. Requests with
    several targets keep one.
    """
    drawn, sizes = with_random_targets(case, np.random.default_rng(seed))
    function = AlignedScorer(name, make(drawn), drawn.catalogue)
    gains = np.zeros(len(drawn))
    for chunk in drawn.chunks():
        scores, mask = function.score(chunk.requests, chunk.candidates)
        ranks = metrics.target_ranks(scores, chunk.rows, chunk.columns, mask)
        hit = (ranks > 0) & (ranks <= CUT_OFF)
        gains[chunk.start + chunk.rows] = np.where(hit, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, CUT_OFF + 2)))
    chance = float(np.mean(ideal[np.minimum(sizes, CUT_OFF) - 1] / sizes))
    members = drawn.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    (found,) = MemberBootstrap(members, resamples, seed, level=0.99).intervals(gains[:, None])
    text = f"ndcg@{CUT_OFF} {found.value:.4f} [{found.low:.4f}, {found.high:.4f}] on targets drawn at random, "
    # Unknown titles only lower a function's score, so only more than chance is an alarm
    passed = found.low <= chance
    text += f"chance is {chance:.4f}" if passed else f"chance is {chance:.4f}: '{name}' reads the targets"
    return LeakageCheck("chance", name, passed, text)


_READ = ("member_id", "country", "device", "language", "query", "source_title_id")


def check_features(
    make: MakeFeatures, service: str, case: EvaluationCase, *, seed: int = 0
) -> tuple[LeakageCheck, ...]:
    """Compute member and request features with another future: a result for each, by whether its values change."""
    changed, scored = dict[str, int](), 0
    for cut, requested in cuts(case):
        shuffled = with_another_future(case, unknowable(case, cut, requested), seed)
        frame = case.frame[requested].select(*_READ, canvas=pl.lit(case.canvas), event_at="at")
        before, after = (make(one.tables).member_features(service, frame) for one in (case, shuffled))
        scored += requested.size
        for column in before.columns:
            if column not in frame.columns:
                moved = before[column].ne_missing(after[column])
                changed[column] = changed.get(column, 0) + int(moved.sum())
    return tuple(
        LeakageCheck("features", column, not count, f"{column} changes at {count} of {scored} requests with the future")
        for column, count in changed.items()
    )


def check_views(report: LeakReport) -> tuple[LeakageCheck, ...]:
    """Judge what `playbill.features.FeatureDoor.leaks` found: whether a project's views know the event they join."""
    found = [LeakageCheck("views", one.view, False, f"view '{one.view}', {one.feature} {one}") for one in report.leaks]
    leaking = {one.view for one in report.leaks}
    quiet = "knows nothing of the event it is joined to, as far as the log can tell"
    return (
        *found,
        *(LeakageCheck("views", view, True, f"view '{view}' {quiet}") for view in report.views if view not in leaking),
    )


def check_order(name: str, function: ScoreFunction, case: EvaluationCase, *, seed: int = 0) -> LeakageCheck:
    """Shuffle the order of each request's past, and see whether a sequential model gets worse.

    What was done changes places; when things were done stays, so that gaps in time say what they said.
    """
    generator = np.random.default_rng(seed)
    aligned = AlignedScorer(name, function, case.catalogue)
    change = np.zeros(len(case))
    for chunk in case.chunks():
        n = len(chunk.requests)
        counts = np.bincount(chunk.rows, minlength=n)
        gained = []
        for requests in (chunk.requests, [in_another_order(one, generator) for one in chunk.requests]):
            scores, mask = aligned.score(requests, chunk.candidates)
            ranks = metrics.target_ranks(scores, chunk.rows, chunk.columns, mask)
            gained.append(metrics.ndcg(metrics.relevance_from_ranks(ranks, chunk.rows, n, CUT_OFF), counts, CUT_OFF))
        change[chunk.start : chunk.start + n] = gained[1] - gained[0]
    members = case.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    (found,) = MemberBootstrap(members).intervals(change[:, None])
    text = f"ndcg@{CUT_OFF} changes by {found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}] in shuffled order"
    passed = found.high < 0.0
    return LeakageCheck("order", name, passed, text if passed else f"{text}: no order is seen to be read")


def check_leakage(
    case: EvaluationCase, name: str, make: Make, baselines: dict[str, Make], *, seed: int = 0
) -> tuple[LeakageCheck, ...]:
    """Run every leakage check on a model, and the first two on its baselines."""
    found = []
    for subject, maker in {name: make, **baselines}.items():
        found += [check_future(subject, maker, case, seed=seed), check_chance(subject, maker, case, seed=seed)]
    return (*found, check_order(name, make(case), case, seed=seed))


def _scores(name: str, function: ScoreFunction, case: EvaluationCase, requested: Indices) -> Scores:
    """Return [n, T] scores of some requests, NaN where there is no candidate."""
    chosen = np.isin(case.rows, requested)
    rows = np.searchsorted(requested, case.rows[chosen])
    part = case.selected(requested, chosen, rows)
    aligned = AlignedScorer(name, function, case.catalogue)
    found = []
    for chunk in part.chunks():
        scores, mask = aligned.score(chunk.requests, chunk.candidates)
        found.append(np.where(mask, scores, np.nan).astype(np.float64))
    return np.concatenate(found)


def _moved(before: Scores, after: Scores) -> Floats64:
    """Return [n] the largest change of each request's scores relative to their size; infinite where candidates do."""
    other = (np.isnan(before) != np.isnan(after)).any(axis=1)
    size = np.maximum(np.nanmax(np.abs(before), axis=1, initial=0.0), 1.0)
    change = np.nanmax(np.abs(before - after), axis=1, initial=0.0) / size
    return np.where(other, np.inf, change)


def alarms(results: Sequence[LeakageCheck]) -> tuple[str, ...]:
    """Return what leaks: the messages of all leakage checks but `order` that did not pass.

    A model that reads no order is weak, not leaking, so `order` is no alarm.
    """
    return tuple(one.message for one in results if not one.passed and one.check != "order")


CUTS = 4  # moments at which the future is another one, spread over the held-out period
REQUESTS_PER_CUT = 25
_KEYS = ("event_id", "member_id", "seq", "event_at", "recorded_at")


def cuts(case: EvaluationCase) -> list[tuple[int, Indices]]:
    """Return moments and the requests to score at each: those at it, and the ones just before."""
    at = microseconds(case.frame["at"])
    order = np.argsort(at, kind="stable")
    if case.log.protocol not in TIME_PROTOCOLS:
        some = np.linspace(0, order.size - 1, min(order.size, CUTS * REQUESTS_PER_CUT)).astype(np.int64)
        return [(int(at.min()), np.sort(order[np.unique(some)]))]
    places = np.unique(np.linspace(0, order.size - 1, CUTS + 1).astype(np.int64)[:-1])
    found = []
    for place in places:
        stop = int(np.searchsorted(at[order], at[order[place]], side="right"))
        found.append((int(at[order[place]]), np.sort(order[max(0, stop - REQUESTS_PER_CUT) : stop])))
    return found


def unknowable(case: EvaluationCase, cut: int, requested: Indices) -> Mask:
    """[E] events that none of the requests asked, at the cut or before, may know."""
    if case.log.protocol in TIME_PROTOCOLS:
        late: Mask = microseconds(case.log.frame["event_at"]) >= cut
        for position in case.positions[requested].tolist():  # what came earlier in the very same moment is known
            late[case.log.starts[position] : position] = False
        return late
    held = pl.col("fold") == case.fold
    if case.fold == "validation":
        held |= pl.col("fold") == "test"
    return case.log.frame.select(held.fill_null(False))["fold"].to_numpy()


def with_another_future(case: EvaluationCase, chosen: Mask, seed: int) -> EvaluationCase:
    """Return the case with other titles in the chosen events, and all else they say shuffled; not who, nor when.

    Titles are drawn anew, each alike: shuffled ones would leave a count over the whole log as it was.
    """
    frame, generator = case.log.frame, np.random.default_rng(seed)
    places = np.nonzero(chosen)[0]
    order = np.arange(frame.height)
    order[places] = generator.permutation(places)
    columns = [name for name in frame.columns if name not in (*_KEYS, "place", "fold")]
    column = case.log.column[order]
    titled = places[column[places] != UNKNOWN]
    column[titled] = generator.integers(0, len(case.catalogue), titled.size)
    drawn = np.array([*case.catalogue.title_ids, None], dtype=object)[column]
    anew = np.isin(np.arange(frame.height), titled)
    mixed = frame.with_columns(frame.select(columns)[order]).with_columns(
        title_id=pl.when(pl.Series(anew)).then(pl.Series(drawn.tolist(), dtype=pl.String)).otherwise("title_id")
    )
    events, plays = mixed.drop("place", "fold"), case.log.plays[order]
    log = replace(case.log, frame=mixed, events=events, column=column, plays=plays, pasts={})
    tables = replace(case.tables, interactions=events)
    return replace(case, log=log, tables=tables, rule=replace(case.rule, log=log))


def with_random_targets(case: EvaluationCase, generator: np.random.Generator) -> tuple[EvaluationCase, Indices]:
    """Return the case with one random candidate as each request's target, in the log too, and candidates' numbers."""
    firsts = np.unique(case.rows, return_index=True)[1]
    columns, sizes = np.empty(len(case), dtype=np.int64), np.empty(len(case), dtype=np.int64)
    for chunk in case.chunks():
        span = slice(chunk.start, chunk.start + len(chunk.requests))
        keys = np.where(chunk.candidates, generator.random(chunk.candidates.shape), -1.0)
        columns[span], sizes[span] = keys.argmax(axis=1), chunk.candidates.sum(axis=1)
    at = case.targets_at[firsts]
    ids = np.array(case.catalogue.title_ids, dtype=object)[columns].tolist()
    drawn = pl.DataFrame({"place": at, "drawn": pl.Series(ids, dtype=pl.String)}).unique("place", keep="first")
    frame = case.log.frame.join(drawn, on="place", how="left", maintain_order="left")
    frame = frame.with_columns(pl.coalesce("drawn", "title_id").alias("title_id")).drop("drawn")
    column = case.catalogue.codes(frame["title_id"])
    log = replace(case.log, frame=frame, events=frame.drop("place", "fold"), column=column, pasts={})
    rows, tables = np.arange(len(case), dtype=np.int64), replace(case.tables, interactions=log.events)
    return replace(case, rows=rows, columns=columns, targets_at=at, log=log, tables=tables), sizes


def in_another_order(request: Request, generator: np.random.Generator) -> Request:
    """Return the request with what its history says in another order, at the old moments."""
    history = request.history
    if history is None or history.height < 2:
        return request
    columns = [name for name in history.columns if name not in _KEYS]
    mixed = history.select(columns)[generator.permutation(history.height)]
    return replace(request, history=history.with_columns(mixed))
