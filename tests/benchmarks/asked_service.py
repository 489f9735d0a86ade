"""A simulated service that is asked for titles: its log, what its members had in mind, and a model that learns it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from playbill.datasets import make_split
from playbill.definitions.specs import ResolvedModel
from playbill.ranking.scoring.scorer import Scorer
from playbill_lab.bridge.live_features import NO_FEATURES, NoFeatures
from playbill_lab.bridge.simulated_log import SimulatedLog, fit_model
from playbill_lab.simulator import load_policy
from playbill_lab.simulator.engine.run import simulate
from playbill_lab.simulator.world.canvases import SEARCH
from playbill_lab.simulator.world.event_log import QUESTIONS_EACH
from playbill_lab.simulator.world.spec import WorldSpec
from playbill_lab.simulator.world.world import World

BASE = "plackett_luce"
EVERYWHERE = ["member", "country", "device", "language", "hour_of_week"]
LABEL = {"name": "new_play", "version": 1, "description": "A play of something new to the member."}
LABEL |= {"from": {"action": "play", "where": "prior_plays_of_title = 0"}, "matures_after": "0h"}
CANVASES = {
    "home": {"candidates": {"available": "now", "watched": False}, "blend": {"new_play": 1.0}},
    "search": {"context": ["query", *EVERYWHERE], "blend": {"new_play": 1.0, "text": 16.0, "text_neighbours": 4.0}},
    "more_like_this": {
        "context": ["source_title", *EVERYWHERE],
        "candidates": {"available": "now", "exclude_source": True},
        "blend": {"new_play": 1.0, "likeness": 1.0},
    },
    "post_play": {
        "context": ["source_title", *EVERYWHERE],
        "candidates": {"available": "now", "exclude_source": True, "watched": False},
        "blend": {"new_play": 1.0, "likeness": 1.0},
    },
}


class Noting:
    """The policy of the service, with an ear for what members want when they search.

    Attributes:
        wanted: Request id -> number of the title, -1 where it is none of the catalogue's.
    """

    def __init__(self, world: World) -> None:
        self._policy, self._members = load_policy(BASE), world.member_ids.to_list()
        self.name, self.wanted = self._policy.name, {}

    def answer(self, requested, rng):
        for row in np.flatnonzero(requested.canvas == SEARCH).tolist():
            request = f"{self._members[requested.member[row]]}-r{requested.request[row] % QUESTIONS_EACH}"
            self.wanted[request] = int(requested.hidden.wanted[row])
        return self._policy.answer(requested, rng)

    def probabilities(self, requested, titles):
        return self._policy.probabilities(requested, titles)


@dataclass(frozen=True)
class Service:
    """A run of the service.

    Args:
        log: Its tables.
        wanted: [searches] request_id and title (null = none that has an id).
        validation: From when on events choose.
        test: From when on events judge.
    """

    log: SimulatedLog
    wanted: pl.DataFrame
    validation: datetime
    test: datetime

    @property
    def world(self) -> World:
        return self.log.world


def service(seed: int, members: int, titles: int, days: int) -> Service:
    """Let a service run; the last week judges, the one before chooses."""
    spec = WorldSpec(seed=seed, members=members, titles=titles, days=days)
    world = World.make(spec)
    noting = Noting(world)
    events = simulate(world, noting, keep_log=True).interactions
    ids = world.title_ids.to_list()
    wanted = [None if title < 0 else ids[title] for title in noting.wanted.values()]
    frame = pl.DataFrame({"request_id": list(noting.wanted), "title": pl.Series(wanted, dtype=pl.String)})
    week = timedelta(days=min(7, days // 4))
    return Service(SimulatedLog(world, events, spec.end), frame, spec.end - 2 * week, spec.end - week)


def definition(seed: int, epochs: int, steps: int, dim: int) -> ResolvedModel:
    """Return a small model of every canvas that starts from a query or a title."""
    model = {
        "name": "asked",
        "version": 1,
        "features": NO_FEATURES,
        "canvases": list(CANVASES),
        "rows": [],
        "history": {"length": 100},
        "trunk": {"type": "gated_transformer", "dim": dim, "layers": 1, "heads": 2},
        "heads": {"new_play": {"label": "new_play", "loss": "softmax"}},
        "tasks": {"search": {"from": "title_names", "share": 0.2}, "more_like_this": {"from": "co_play", "share": 0.2}},
        "training": {"epochs": epochs, "min_steps": steps, "seed": seed, "stride": 100},
        "evaluate": {"protocol": "global_time_successive", "baselines": ["popular_7d"], "slices": []},
    }
    common = {"version": 1, "metric": "new_play", "context": EVERYWHERE, "candidates": {"available": "now"}}
    canvases = {name: {"name": name, **common, **own} for name, own in CANVASES.items()}
    return ResolvedModel.model_validate(
        {"model": model, "labels": {"new_play": LABEL}, "rewards": {}, "canvases": canvases, "rows": {}}
    )


def trained(own: Service, resolved: ResolvedModel) -> Scorer:
    """Train on what came before the week that chooses, and return a scorer over every title."""
    early = own.log.events.filter(pl.col("event_at") < own.validation)
    log = SimulatedLog(own.world, early, own.validation)
    with TemporaryDirectory() as folder:
        fitted = fit_model(log, resolved, make_split("leave_one_out", early), NoFeatures(), Path(folder) / "bundle")
        return fitted.scorer(own.world, NoFeatures())


def kept(path: Path | None, make):
    """Return what `make()` gives, read from `path` where an earlier run left it."""
    if path is not None and path.is_file():
        return pickle.loads(path.read_bytes())
    found = make()
    if path is not None:
        path.write_bytes(pickle.dumps(found))
    return found
