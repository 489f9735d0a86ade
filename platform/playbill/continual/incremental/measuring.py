"""The gates of an update: its candidate and the champion, measured on what neither has learnt.

Only what the gates name is measured: their canvases, slices and baselines. Histories are those of the members with
something held out; the whole log is read where a baseline or the popularity of titles has to be counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from playbill.datasets import Split
from playbill.definitions.specs import GateSpec, ResolvedModel
from playbill.evaluation.canvases.model import ModelEvaluation, evaluate_model
from playbill.evaluation.cases.event_log import MOST_PASTS, EvaluationTables
from playbill.evaluation.compare import assert_not_trained_on
from playbill.evaluation.metric_aggregation import Judging
from playbill.features import FeatureDoor
from playbill.ranking.scoring.bundle import Bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.ranking.scoring.state_cache import KeptSnapshots
from playbill.tables import Tables
from playbill.training.recording import log_numbers
from playbill.training.watch import ProgressListener
from playbill.versions.promotion.gates import ALL, CHAMPION, key_of
from playbill.versions.tracking import ModelVersion, RunHandle, Tracking

COUNTED = "popularity"  # slice that counts the plays of the whole log


@dataclass(frozen=True)
class Measurement:
    """What an update's candidate and the champion are measured on."""

    tables: Tables
    features: FeatureDoor
    split: Split
    resolved: ResolvedModel  # whose gates are held
    watcher: ProgressListener

    def of(self, bundle: Bundle, frames: EvaluationTables, snapshots: KeptSnapshots) -> ModelEvaluation:
        """Measure one bundle, with titles as they were known when the held-out part began."""
        moment, gates = self.split.cutoff or frames.end, self.resolved.model.gates
        given = (bundle, frames.titles_at(moment), frames.availability, self.features)
        scorer = Scorer(*given, as_of=moment, kept_states=MOST_PASTS, snapshots=snapshots)
        slices = tuple(dict.fromkeys(gate.slice for gate in gates if gate.slice is not None))
        return evaluate_model(
            scorer,
            self.split,
            frames,
            self.resolved,
            self.features,
            canvases=gated_canvases(self.resolved),
            baselines=gated_baselines(gates),
            judging=Judging(slices=slices, minimum_members=self.resolved.model.evaluate.minimum_members),
            progress=lambda canvas, done, total: self.watcher.advance(done, total, canvas),
        )

    def frames(self) -> EvaluationTables:
        """Read what the measures need of the log."""
        whole = bool(gated_baselines(self.resolved.model.gates)) or any(
            gate.slice == COUNTED for gate in self.resolved.model.gates
        )
        if whole:
            return EvaluationTables.read(self.tables)
        held = self.split.frame.filter(pl.col("fold").cast(pl.String) == "test").select("event_id")
        since = self.split.cutoff
        members = self.tables.interactions(since=since, columns=("event_id", "member_id")).join(held, on="event_id")
        interactions = self.tables.interactions(members=members["member_id"].unique().sort().to_list())
        return EvaluationTables(
            titles=self.tables.titles(),
            members=self.tables.members(),
            availability=self.tables.availability(),
            interactions=interactions,
            end=self.tables.data_end(),
            title_versions=self.tables.title_versions(),
            member_versions=self.tables.member_versions(),
        )


def gated_canvases(resolved: ResolvedModel) -> tuple[str, ...]:
    """Return the canvases that gates are about, and the main one: it is in a version's description."""
    named = {gate.canvas for gate in resolved.model.gates}
    if ALL in named:
        return tuple(resolved.canvases)
    return tuple(name for name in resolved.canvases if name in {*named, resolved.main_canvas})


def gated_baselines(gates: tuple[GateSpec, ...]) -> tuple[str, ...]:
    """Return the baselines that gates compare with."""
    return tuple(dict.fromkeys(gate.against for gate in gates if gate.against != CHAMPION))


def measure_champion(
    measurement: Measurement,
    tracking: Tracking,
    champion: ModelVersion,
    bundle: Bundle,
    learnt: Split,
    frames: EvaluationTables,
    snapshots: KeptSnapshots,
) -> None:
    """Measure the champion on the update's split, and record that, unless it was done before.

    Raises:
        ComparisonError: It has learnt from what is held out.
    """
    split = measurement.split
    assert_not_trained_on(split, learnt, model=champion.reference)
    if any(key_of(one)[:2] == (split.protocol, split.digest) for one in tracking.evaluations(champion)):
        return
    measurement.watcher.stage(f"evaluate {champion.reference}")
    evaluation = measurement.of(bundle, frames, snapshots)
    with tracking.log_evaluation(champion, split.protocol, split.digest, {}) as run:
        record_evaluation(run, evaluation)


def record_evaluation(run: RunHandle, evaluation: ModelEvaluation) -> None:
    """Store the numbers that gates read, and each canvas's report; an update draws no pictures."""
    log_numbers(run, list(evaluation.reports.values()))
    for canvas, report in evaluation.reports.items():
        run.log_text(report.to_json(), f"evaluation/{canvas}/report.json")
    for canvas, reason in evaluation.skipped.items():
        run.log_text(reason, f"evaluation/{canvas}/not_measured.txt")
