"""The two services that policies of negatives are compared on, and how a model is fitted and judged there."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from playbill.clock import Clock
from playbill.config import ProjectFolder, ProjectSettings
from playbill.datasets import Split, TrainingSet, build_training_set, make_split
from playbill.definitions.specs import CandidatesSpec, CanvasSpec, LabelSpec, ModelSpec, ResolvedModel
from playbill.evaluation import CanvasScorer, evaluate_canvas
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.report import EvaluationReport
from playbill.ranking.candidates import Catalogue, Viewer, select
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.sources import ingest
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings, network_config
from playbill.training.loop import fit
from playbill_lab.bridge.live_features import NO_FEATURES, NoFeatures
from playbill_lab.bridge.simulated_log import SimulatedLog
from playbill_lab.simulator.engine.run import simulate
from playbill_lab.simulator.policies.policies import load_policy
from playbill_lab.simulator.world.spec import WorldSpec
from playbill_lab.simulator.world.world import World

ROOT = Path(__file__).parents[2]
LABEL = HEAD = "first_play"
FEATURES = NoFeatures()


@dataclass(frozen=True)
class Task:
    """A log to learn from, and its held-out part."""

    name: str
    tables: object
    frames: EvaluationTables
    clock: Clock
    split: Split
    slates: bool
    """Whether the log says what was shown and not played."""


def simulated(members: int, titles: int, days: int, seed: int) -> Task:
    """A simulated service: eight countries with catalogues of their own, weekly launches, kids' profiles, slates."""
    spec = WorldSpec(seed=seed, members=members, titles=titles, days=days)
    world = World.make(spec)
    events = simulate(world, load_policy("plackett_luce"), keep_log=True).interactions
    log = SimulatedLog(world, events, spec.end)
    return Task("simulated", log, log.evaluation(), log.clock(), make_split("global_time_successive", events), True)


def movielens() -> Task:
    """MovieLens-100K: one catalogue, no slates. Its last play of each member is held out."""
    with tempfile.TemporaryDirectory() as home:
        workspace = ProjectFolder(ROOT, ProjectSettings(home=home)).workspace("ml_100k")
        ingest(workspace, "movielens_100k")
        tables = Tables(workspace)
        frames, clock = EvaluationTables.read(tables), workspace_clock(workspace)
        kept = Kept(frames, tables.member_versions(), tables.vocabulary("title"))
    return Task("movielens_100k", kept, frames, clock, make_split("leave_one_out", frames.interactions), False)


class Kept:
    """Canonical tables in memory."""

    def __init__(self, frames, members, titles):
        self._frames, self._members, self._titles = frames, members, titles

    def interactions(self):
        """Return the log."""
        return self._frames.interactions

    def titles(self, as_of=None):
        """Return one row per title."""
        return self._frames.titles

    def availability(self):
        """Return every span."""
        return self._frames.availability

    def members(self):
        """Return one row per member."""
        return self._frames.members

    def member_versions(self):
        """Return every row of every member."""
        return self._members

    def vocabulary(self, kind):
        """Return the titles' numbers."""
        return self._titles


def model(head: dict[str, object], seed: int, steps: int, dim: int) -> ResolvedModel:
    """Return a model of one head that ranks what a member has not played yet."""
    spec = {
        "name": "negatives",
        "version": 1,
        "features": NO_FEATURES,
        "canvases": ["home"],
        "history": {"length": 60},
        "titles": {"metadata": ["genres", "kind", "original_language", "release_year"]},
        "trunk": {"type": "gated_transformer", "dim": dim, "layers": 1, "heads": 2},
        "heads": {HEAD: {"label": LABEL, **head}},
        "training": {
            "epochs": 1,
            "min_steps": steps,
            "batch_slots": 2400,
            "stride": 60,
            "learning_rate": 4e-3,
            "seed": seed,
        },
        "evaluate": {"slices": [], "baselines": ["popular"]},
    }
    label = {"name": LABEL, "version": 1, "from": {"action": "play", "where": "prior_plays_of_title = 0"}}
    canvas = {"name": "home", "version": 1, "blend": {HEAD: 1.0}, "metric": LABEL}
    canvas["candidates"] = {"available": "now", "watched": False}
    return ResolvedModel(
        model=ModelSpec.model_validate(spec),
        labels={LABEL: LabelSpec.model_validate(label)},
        rewards={},
        canvases={"home": CanvasSpec.model_validate(canvas)},
        rows={},
    )


class Remembering(NoFeatures):
    """No features, and the requests they were asked for: the encoded requests of a training set, in their order."""

    requested = pl.DataFrame()

    def member_features(self, service, frame):
        """Remember the frame."""
        self.requested = frame
        return frame


def training_set(task: Task, resolved: ResolvedModel) -> tuple[TrainingSet, pl.DataFrame]:
    """Build what a model learns from, and the requests: member_id, event_at and country of each."""
    features = Remembering()
    return build_training_set(task.tables, resolved, task.split, features, task.clock), features.requested


def fitted(task: Task, resolved: ResolvedModel, data: TrainingSet, name: str) -> tuple[EvaluationReport, float]:
    """Train, measure on the held-out part by ranking every title that could be seen, and count the CPU seconds."""
    network, begun = build_network(resolved, data), time.process_time()
    result = fit(network, data, loop_settings(resolved))
    spent = time.process_time() - begun
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "bundle"
        config = network_config(resolved, data.encoder)
        weights = result.network.cpu().state_dict()
        write_bundle(place, resolved=resolved, encoder=data.encoder, config=config, weights=weights, plays=data.plays)
        titles = task.frames.titles_at(data.watermark)
        scorer = Scorer(read_bundle(place), titles, task.frames.availability, FEATURES, as_of=data.watermark)
    function = CanvasScorer(scorer, resolved, "home", FEATURES)
    report = evaluate_canvas(function, task.split, task.frames, resolved, "home", name=name)
    return report, spent


def impossible(task: Task, data: TrainingSet, requests: pl.DataFrame) -> tuple[int, int]:
    """Count the negatives of an epoch, and those that their member could not have seen there and then.

    What could be seen is asked of the rules that serving follows, request by request: another code than training's.
    """
    catalogue = Catalogue(data.encoder.state.titles, task.frames.titles, task.frames.availability)
    members = task.frames.members.select("member_id", "kids_profile")
    requested = requests.join(members, on="member_id", how="left", maintain_order="left")
    requested = requested.select("event_at", "country", pl.col("kids_profile").fill_null(False)).rows()
    count = wrong = 0
    for batch, (rows, _) in zip(data.epoch(0), data.rows_read(0), strict=True):
        own = batch.targets.negatives.get(HEAD)
        if own is None:
            continue
        for place, row in enumerate(rows):
            at, country, kid = requested[data.rows.request[row]]
            rules = CandidatesSpec()
            seen = select(catalogue, rules, Viewer(at=at, country=country, kids_profile=kid))
            used = np.concatenate([own.title[own.usable[place]], own.shown[place][own.shown[place] > 0]])
            count, wrong = count + len(used), wrong + int((~seen[used - 1]).sum())
    return count, wrong
