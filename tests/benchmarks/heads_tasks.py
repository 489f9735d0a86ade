"""Logs that many heads learn from, and what each head says of their held-out part.

Axis letters: R labelled rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from kuairand import prepared

from playbill.clock import Clock
from playbill.datasets import Split, TrainingSet, build_training_set
from playbill.datasets.protocol_choice import model_split
from playbill.definitions.specs import CanvasSpec, LabelSpec, ModelSpec, ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.canvases.head_probabilities import HeldOutLabels, held_out_labels, scored_rows
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.features import FeatureDoor
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings, network_config
from playbill.training.loop import fit
from playbill_lab.bridge.live_features import NO_FEATURES, NoFeatures
from playbill_lab.bridge.simulated_log import SimulatedLog, going_on
from playbill_lab.simulator.engine.run import simulate
from playbill_lab.simulator.policies.policies import load_policy
from playbill_lab.simulator.world.spec import WorldSpec
from playbill_lab.simulator.world.world import World
from playbill_lab.studies.objective.study import RIPENING_DAYS

ROOT = Path(__file__).parents[2]
SPARSE = 0.1
"""A head is sparse that has fewer ones than this share of those of the head that has most."""

FEWEST = 5
"""Held-out rows of each kind that a head needs."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """A log, and what is held out of it.

    Args:
        name: Of the log.
        tables: The canonical tables.
        frames: The same, as evaluation reads them.
        clock: Of the log.
        resolved: The definition with every head.
        split: What is held out.
        door: Features as of each moment.
        data: What every model learns from: the same rows in the same order.
        held_out: Labelled events of the test fold.
    """

    name: str
    tables: Any
    frames: EvaluationTables
    clock: Clock
    resolved: ResolvedModel
    split: Split
    door: Any
    data: TrainingSet
    held_out: HeldOutLabels

    @property
    def sparse(self) -> list[str]:
        """Heads that few rows of the training set teach."""
        ones = {head: float((values > 0).sum()) for head, values in self.data.labels.items()}
        return [head for head, count in ones.items() if count < SPARSE * max(ones.values())]


@dataclass(frozen=True)
class TaskResult:
    """What one model says: head -> [R] logits, labels and members, and what training cost."""

    logits: Mapping[str, Values]
    labels: Mapping[str, npt.NDArray[np.bool_]]
    members: Mapping[str, npt.NDArray[np.str_]]
    seconds: float
    parameters: int
    weights: Mapping[str, float]
    """Head -> weight of its loss in the last step, where a balance learns it."""

    @property
    def measured(self) -> list[str]:
        """Heads with enough held-out rows of both kinds."""
        kinds = {head: (labels.sum(), (~labels).sum()) for head, labels in self.labels.items()}
        return [head for head, count in kinds.items() if min(count) >= FEWEST]


def simulated(members: int, titles: int, days: int, steps: int, seed: int = 7) -> Task:
    """A simulated service, and six heads on its home page: what is played next, and what comes of it."""
    spec = WorldSpec(seed=seed, members=members, titles=titles, days=days)
    world = World.make(spec)
    ripened = simulate(going_on(world, RIPENING_DAYS), load_policy("plackett_luce"), keep_log=True).interactions
    log = SimulatedLog(world, ripened.filter(pl.col("event_at") < spec.end), spec.end, ripened)
    return task("simulated", log, log.evaluation(), log.clock(), simulated_model(steps), NoFeatures())


def simulated_model(steps: int) -> ResolvedModel:
    """Return the definition for the simulated service; labels are those of the zoo."""
    zoo = {path.stem: path for path in (ROOT / "model_zoo" / "labels").glob("*.yaml")}
    labels = {name: _label(zoo[name]) for name in ("discovery_play", "completion", "thumbs_up", "my_list_add")}
    progress = {"name": "progress", "version": 1, "extractor": "measured", "options": {"column": "progress"}}
    labels["progress"] = LabelSpec.model_validate(progress)
    spec = {
        "name": "heads",
        "version": 1,
        "features": NO_FEATURES,
        "canvases": ["home"],
        "rows": [],
        "history": {"length": 60},
        "titles": {"metadata": ["genres", "kind", "original_language", "release_year"]},
        "trunk": {"dim": 64, "layers": 2, "heads": 2, "dropout": 0.1},
        "heads": {
            "next_play": {"label": "discovery_play", "loss": "softmax"},
            "play": {"label": "discovery_play", "loss": "bce"},
            "completion": {"label": "completion", "loss": "bce"},
            "thumbs_up": {"label": "thumbs_up", "loss": "bce"},
            "my_list_add": {"label": "my_list_add", "loss": "bce"},
            "progress": {"label": "progress", "loss": "huber"},
        },
        "training": {"epochs": 1, "min_steps": steps, "batch_slots": 1600, "stride": 60, "ema": 0.99},
        "evaluate": {"protocol": "global_time_successive", "slices": [], "baselines": ["popular"]},
    }
    context = ["member", "country", "device", "language", "hour_of_week"]
    canvas = {"name": "home", "version": 1, "blend": {"next_play": 1.0}, "metric": "discovery_play", "context": context}
    return ResolvedModel(
        model=ModelSpec.model_validate(spec),
        labels=labels,
        rewards={},
        canvases={"home": CanvasSpec.model_validate(canvas)},
        rows={},
    )


def _label(path: Path) -> LabelSpec:
    import yaml

    return LabelSpec.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def kuairand(data: Path, members: int | None) -> Task:
    """KuaiRand as model_zoo/kuairand sees it: ten heads on five surfaces."""
    home = tempfile.mkdtemp()
    workspace = prepared(Path(home), data, members)
    tables, door = Tables(workspace), FeatureDoor(workspace)
    resolved = load_zoo(ROOT / "model_zoo").model("kuairand")
    return task("kuairand", tables, EvaluationTables.read(tables), workspace_clock(workspace), resolved, door)


def task(name: str, tables: Any, frames: EvaluationTables, clock: Clock, resolved: ResolvedModel, door: Any) -> Task:
    """Split a log, and build what is learnt and what is held out."""
    split = model_split(resolved, tables.interactions())
    data = build_training_set(tables, resolved, split, door, clock)
    held_out = held_out_labels(split, frames, resolved, "test")
    return Task(name, tables, frames, clock, resolved, split, door, data, held_out)


def trained_task(own: Task, resolved: ResolvedModel) -> TaskResult:
    """Train one model on the task's rows, and ask it about the held-out ones."""
    begun = time.process_time()
    network = build_network(resolved, own.data)
    result = fit(network, own.data, loop_settings(resolved))
    seconds = time.process_time() - begun
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(
            Path(folder) / "bundle",
            resolved=resolved,
            encoder=own.data.encoder,
            config=network_config(resolved, own.data.encoder),
            weights=result.network.state_dict(),
            plays=own.data.plays,
        )
        bundle = read_bundle(Path(folder) / "bundle")
        titles, moment = own.frames.titles_at(own.data.watermark), own.data.watermark
        scorer = Scorer(bundle, titles, own.frames.availability, own.door, as_of=moment)
    rows = _rows(own, resolved, scorer)
    weights = {key[7:]: value for key, value in result.reports[-1].items() if key.startswith("weight/")}
    return TaskResult(
        logits={head: frame["logit"].to_numpy() for head, frame in rows.items()},
        labels={head: frame["positive"].to_numpy() for head, frame in rows.items()},
        members={head: frame["member_id"].to_numpy() for head, frame in rows.items()},
        seconds=seconds,
        parameters=sum(one.numel() for one in network.parameters()),
        weights=weights,
    )


def _rows(own: Task, resolved: ResolvedModel, scorer: Scorer) -> dict[str, pl.DataFrame]:
    """Return head -> its rows of every canvas, each asked on its own."""
    known, parts = set(scorer.title_ids), {}
    for canvas in resolved.canvases:
        function = CanvasScorer(scorer, resolved, canvas, own.door)
        wanted = {}
        for head in resolved.model.heads:
            rows = own.held_out.rows[head].filter(pl.col("canvas") == canvas, pl.col("title_id").is_in(known))
            huber = resolved.model.heads[head].loss == "huber"
            cut = rows["value"].median() if huber else 0.0
            wanted[head] = rows.with_columns(positive=pl.col("value") > cut)
        for head, frame in scored_rows(function, own.held_out.log, canvas, wanted, resolved).items():
            parts.setdefault(head, []).append(frame)
    return {head: pl.concat(frames) for head, frames in parts.items()}
