"""Logged slates and a model -> rows with both policies' probabilities, and the groups they are read in.

Axis letters: S slates, T titles, K places, n rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from playbill.arrays import Floats32, Floats64, Indices, Mask
from playbill.datasets import Request
from playbill.definitions.specs import CandidatesSpec, CanvasSpec
from playbill.errors import ComparisonError, ConfigError
from playbill.evaluation.cases.case import CandidateRule
from playbill.evaluation.cases.event_log import EvaluationTables, EventLog, TitleOrder
from playbill.evaluation.cases.score_function import AlignedScorer, ScoreFunction
from playbill.evaluation.measure import Progress
from playbill.evaluation.off_policy.direct_models import DirectKind, DirectLog, DirectModel, fit_direct
from playbill.evaluation.off_policy.logged_slates import LoggedSlates
from playbill.evaluation.off_policy.target_policies import TargetPolicy, place_by_place
from playbill.evaluation.off_policy.terms import OffPolicyData

MOST_CELLS = 400_000_000  # slate x title cells held at once: 2 GB
_CELLS_AT_ONCE = 4_000_000
_SLATES_AT_ONCE = 2048


@dataclass(frozen=True)
class LogContext:
    """What scoring a log needs beside the log."""

    tables: EvaluationTables
    log: EventLog  # all events, with what a member's past is a slice of
    catalogue: TitleOrder


def weigh(
    logged: LoggedSlates,
    function: ScoreFunction,
    policy: TargetPolicy,
    scene: LogContext,
    canvas: CanvasSpec,
    *,
    name: str,
    candidates: CandidatesSpec | None = None,
    direct: DirectKind | None = "ridge",
    progress: Progress | None = None,
) -> ImportanceLog:
    """Ask a model about every logged slate, and give each logged title its probability under the model's policy.

    A request's history ends before the first event of the request. What the request had shown above a slate is no
    candidate of it. Rows whose reward is not mature are dropped with their slate, and counted.

    `policy` makes what is shown of `function`'s scores. `candidates` is what may be shown, where that is not the
    canvas's own rule but a row's. Without a `direct` model the doubly robust estimators are not available.

    Raises:
        ConfigError: More slates than memory holds.
        DataError: A propensity is missing, 0 or above 1; slates with two titles in one place.
    """
    if len(logged) * len(scene.catalogue) > MOST_CELLS:
        most = MOST_CELLS // len(scene.catalogue)
        raise ConfigError(f"{len(logged):,} slates over {len(scene.catalogue):,} titles; weigh at most {most:,} slates")
    titles = scene.catalogue.codes(logged.title_ids)
    scores, mask = _scored(logged, function, scene, canvas, candidates, name, progress)
    groups = _groups(logged)
    model = _direct(logged, titles, scores, mask, direct)
    probability, expected = _placed(policy, logged, titles, scores, mask, model)
    predicted = None if model is None else model.of_rows(logged.slates, logged.positions, titles)
    members = np.unique(logged.frame["member_id"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    data = OffPolicyData(
        members=members[logged.slates],
        slates=logged.slates,
        positions=logged.positions,
        logged=logged.propensity,
        target=probability,
        reward=logged.reward,
        predicted=predicted,
        expected=expected,
    )
    grown = data.without_immature(logged.matured)
    kept = np.isin(logged.slates, grown.slates)
    grown.check()
    unseen = (titles < 0) | ~mask[logged.slates, np.maximum(titles, 0)]
    return ImportanceLog(
        model=name,
        policy=policy.name,
        outcome=logged.outcome,
        version=logged.version,
        data=grown,
        groups=groups.filter(pl.Series(kept)),
        member_ids=logged.frame["member_id"].gather(logged.slates).filter(pl.Series(kept)),
        outside=int((unseen & kept).sum()),
        without_propensity=logged.without_propensity,
        direct_fit=None if model is None else model.fit,
    )


def _groups(logged: LoggedSlates) -> pl.DataFrame:
    wanted = logged.frame.select(
        canvas=pl.lit(logged.canvas),
        **{name: pl.col(name).fill_null("unknown" if name != "row_id" else "none") for name in GROUPS[1:]},
    )
    return wanted[logged.slates]


def _scored(
    logged: LoggedSlates,
    function: ScoreFunction,
    scene: LogContext,
    canvas: CanvasSpec,
    candidates: CandidatesSpec | None,
    name: str,
    progress: Progress | None,
) -> tuple[Floats32, Mask]:
    shown = canvas if candidates is None else canvas.model_copy(update={"candidates": candidates})
    rule = CandidateRule.of(shown, scene.tables, scene.catalogue, scene.log)
    scorer = AlignedScorer(name, function, scene.catalogue)
    positions = _positions(logged, scene.log)
    scores = np.zeros((len(logged), len(scene.catalogue)), dtype=np.float32)
    mask = np.zeros(scores.shape, dtype=np.bool_)
    above_slate = logged.above["slate"].to_numpy()
    above_title = scene.catalogue.codes(logged.above["title_id"])
    step = max(1, min(_SLATES_AT_ONCE, _CELLS_AT_ONCE // max(1, len(scene.catalogue))))
    for part in _ranges(len(logged), step):
        offered = rule.mask(logged.frame[part.start : part.stop], positions[part])
        inside = (above_slate >= part.start) & (above_slate < part.stop) & (above_title >= 0)
        offered[above_slate[inside] - part.start, above_title[inside]] = False
        requests = _requests(logged, scene.log, part, positions[part])
        scores[part], mask[part] = scorer.score(requests, offered)
        if progress is not None:
            progress(part.stop, len(logged))
    return scores, mask


def _positions(logged: LoggedSlates, log: EventLog) -> Indices:
    """[S] place in the log of each request's first event: the history ends before it."""
    first = log.frame.filter(pl.col("request_id").is_not_null()).group_by("request_id").agg(pl.col("place").min())
    found = logged.frame.select("request_id").join(first, on="request_id", how="left", maintain_order="left")
    return found["place"].to_numpy().astype(np.int64)


def _requests(logged: LoggedSlates, log: EventLog, part: slice, positions: Indices) -> list[Request]:
    columns = ("member_id", "at", "country", "device", "language", "query", "source_title_id")
    requested = logged.frame[part.start : part.stop].select(columns)
    return [
        Request(canvas=logged.canvas, history=log.past(position), features={}, **row)
        for position, row in zip(positions.tolist(), requested.iter_rows(named=True), strict=True)
    ]


def _direct(
    logged: LoggedSlates, titles: Indices, scores: Floats32, mask: Mask, kind: DirectKind | None
) -> DirectModel | None:
    if kind is None:
        return None
    known = logged.matured
    members = np.unique(logged.frame["member_id"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    groups = np.unique(logged.frame["country"].fill_null("").to_numpy(), return_inverse=True)[1].astype(np.int64)
    rows = (logged.slates[known], logged.positions[known], titles[known], logged.reward[known])
    return fit_direct(DirectLog(members, groups, scores.astype(np.float64), mask, *rows), kind)


def _placed(
    policy: TargetPolicy, logged: LoggedSlates, titles: Indices, scores: Floats32, mask: Mask, model: DirectModel | None
) -> tuple[Floats64, Floats64 | None]:
    places = int(logged.positions.max(initial=0)) + 1
    shown = np.full((len(logged), places), -1, dtype=np.int64)
    shown[logged.slates, logged.positions] = titles
    probability, expected = np.zeros(shown.shape), np.zeros(shown.shape)
    for part in _ranges(len(logged), max(1, _CELLS_AT_ONCE // max(1, scores.shape[1]))):
        found = place_by_place(
            policy,
            scores[part].astype(np.float64),
            mask[part],
            shown[part],
            None if model is None else model.quality[part].astype(np.float64),
            None if model is None else np.resize(model.factor, places),
        )
        probability[part] = found.probability
        if found.expected is not None:
            expected[part] = found.expected
    at = (logged.slates, logged.positions)
    return probability[at], None if model is None else expected[at]


def _ranges(size: int, step: int) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


GROUPS = ("canvas", "country", "device", "row_id")  # columns an estimate may be sliced by


@dataclass(frozen=True)
class ImportanceLog:
    """What a log says about a model's policy, and the reward it is judged by."""

    model: str
    policy: str
    outcome: str
    version: str
    data: OffPolicyData
    groups: pl.DataFrame  # [n] slice columns of each row, `GROUPS`
    member_ids: pl.Series  # [n]
    outside: int = 0  # rows whose title the model's canvas could not have shown; their target probability is 0
    without_propensity: int = 0  # slates dropped because a propensity was missing
    # share of the rewards' variance that the direct model explains on held-out members; None = no model
    direct_fit: float | None = None

    def keep(self, rows: Mask) -> ImportanceLog:
        """Return only some rows, whole slates together."""
        kept = pl.Series(rows)
        return replace(
            self, data=self.data.keep(rows), groups=self.groups.filter(kept), member_ids=self.member_ids.filter(kept)
        )


def combine(logs: Sequence[ImportanceLog]) -> ImportanceLog:
    """Put the logs of several canvases of one model and one reward together; members are one across them.

    Raises:
        ComparisonError: They speak of different models, policies or rewards.
    """
    first = logs[0]
    kinds = {(log.model, log.policy, log.outcome, log.version) for log in logs}
    if len(kinds) > 1:
        raise ComparisonError(f"estimates of different things cannot be put together: {sorted(kinds)}")
    ids = pl.concat([log.member_ids for log in logs])
    starts = np.cumsum([0, *(int(log.data.slates.max(initial=-1)) + 1 for log in logs)])
    direct = all(log.data.predicted is not None for log in logs)

    def joined(name: str) -> Floats64:
        return np.concatenate([getattr(log.data, name) for log in logs])

    data = OffPolicyData(
        members=np.unique(ids.to_numpy(), return_inverse=True)[1].astype(np.int64),
        slates=np.concatenate([log.data.slates + start for log, start in zip(logs, starts, strict=False)]),
        positions=np.concatenate([log.data.positions for log in logs]),
        logged=joined("logged"),
        target=joined("target"),
        reward=joined("reward"),
        predicted=joined("predicted") if direct else None,
        expected=joined("expected") if direct else None,
        immature=sum(log.data.immature for log in logs),
    )
    fits = [log.direct_fit for log in logs if log.direct_fit is not None]
    return replace(
        first,
        data=data,
        groups=pl.concat([log.groups for log in logs]),
        member_ids=ids,
        outside=sum(log.outside for log in logs),
        without_propensity=sum(log.without_propensity for log in logs),
        direct_fit=float(np.mean(fits)) if direct else None,
    )
