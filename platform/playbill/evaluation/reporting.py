"""From what was measured on a case to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl

from playbill.evaluation.cases.case import Fold
from playbill.evaluation.cases.slices import MADE_SLICES, SLICES, readable_slices
from playbill.evaluation.measure import Measured
from playbill.evaluation.metric_aggregation import Judge, Judging
from playbill.evaluation.report import CEILING, EvaluationReport, WindowRow


class JudgedCase(Protocol):
    """What is read of a case, of titles or of rows."""

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        ...

    @property
    def split_digest(self) -> str:
        """Digest of the split it is built on."""
        ...

    @property
    def digest(self) -> str:
        """Digest of everything that decides what competes and what counts."""
        ...

    @property
    def fold(self) -> Fold:
        """Fold that is held out."""
        ...

    @property
    def canvas(self) -> str:
        """Canvas that is asked."""
        ...

    @property
    def frame(self) -> pl.DataFrame:
        """[N] one row per request, with member_id and slice columns."""
        ...

    @property
    def catalogue(self) -> Sized:
        """What can be ranked."""
        ...

    @property
    def left_out(self) -> int:
        """Targets that are no part of the case."""
        ...


class Told(NamedTuple):
    """What a report says beside its numbers.

    Args:
        slices: Those that can be read.
        notes: What cannot be measured, and why.
        windows: Of a replay.
        reward: Version of the reward behind `reward_ndcg`; None without one.
    """

    slices: tuple[str, ...]
    notes: tuple[str, ...]
    windows: tuple[WindowRow, ...] = ()
    reward: str | None = None


def told_of(frame: pl.DataFrame, judging: Judging) -> Told:
    """Say which slices can be read, before anything long is begun.

    Args:
        frame: [N] requests with their slice columns.
        judging: Names slices, and the members they need.

    Raises:
        UnknownNameError: A name is no slice.
        StateError: A slice that must be read cannot be.
    """
    return Told(*readable_slices(frame, judging.slices, judging.minimum_members, strict=judging.strict))


def report_of(
    case: JudgedCase, measured: Mapping[str, Measured], k: Sequence[int], judging: Judging, told: Told
) -> EvaluationReport:
    """Judge the first of some measured functions against the others.

    Args:
        case: N requests.
        measured: Name -> what it did; the model first. One that is called `CEILING` is compared with nothing.
        k: Cut-offs; the first one is that of the main metric.
        judging: The bootstrap.
        told: Slices, and what is said beside the numbers.
    """
    members = case.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    judged = {name: found for name, found in measured.items() if name != CEILING}
    judge = Judge(members, judged, judging, f"ndcg@{k[0]}")
    truth = {CEILING: measured[CEILING]} if CEILING in measured else {}
    return EvaluationReport(
        model=judge.model,
        protocol=case.protocol,
        split_digest=case.split_digest,
        case_digest=case.digest,
        canvas=case.canvas,
        fold=case.fold,
        main_metric=judge.main_metric,
        n=case.frame.height,
        members=int(members.max()) + 1,
        catalogue=len(case.catalogue),
        left_out=case.left_out,
        minimum_members=judging.minimum_members,
        resamples=judging.resamples,
        seed=judging.seed,
        level=judge.bootstrap.level,
        reward=told.reward,
        rows=judge.rows(),
        differences=judge.differences(),
        slices=judge.slices(case.frame, told.slices),
        windows=told.windows,
        notes=told.notes,
        ceiling=Judge(members, truth, judging, judge.main_metric).rows()[0] if truth else None,
        requests=_requests(case.frame, measured),
    )


def _requests(frame: pl.DataFrame, measured: Mapping[str, Measured]) -> pl.DataFrame:
    kept = [
        column
        for column in ("request_id", "member_id", *SLICES, *MADE_SLICES, "query")
        if column in frame.columns and frame[column].null_count() < frame.height
    ]
    model = next(iter(measured.values()))
    weights = pl.DataFrame({f"weight/{name}": weight for name, weight in model.weights.items()})
    frames = [frame.select(kept), weights, *(found.frame(name) for name, found in measured.items())]
    return pl.concat([one for one in frames if one.width], how="horizontal")
