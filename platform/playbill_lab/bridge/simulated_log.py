"""A simulated service's log as tables, models trained on it as by `playbill train`, and the service going on after it.

A policy is judged after the log it learnt from: same titles, launches, members and days, then the policy in question. A
member's luck belongs to the member, so all policies meet the same people in the same state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from playbill.arrays import Floats32, Ints32
from playbill.clock import FixedClock, parse_moment
from playbill.datasets import Split, TrainingSet, build_training_set
from playbill.definitions.specs import ResolvedModel
from playbill.errors import ConfigError, UnknownNameError
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.ranking.scoring.bundle import Bundle, read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.tables import Vocabulary
from playbill.training.build import build_network, loop_settings, network_config
from playbill.training.contract import Progress
from playbill.training.example_weights import example_weights
from playbill.training.loop import fit
from playbill_lab.bridge.live_features import SimulationFeatures
from playbill_lab.simulator import Policy, PolicyRequest, Slates, World
from playbill_lab.simulator.policies.page_orders import Pages, RowOrders, ordering


@dataclass(frozen=True)
class SimulatedLog:
    """The canonical tables of a simulated run, in memory; what training and evaluation read of a workspace's.

    `ripened` are the same events and those of the days after, which tell the outcomes of the last ones; None for none.
    """

    world: World
    events: pl.DataFrame  # Canonical interactions, sorted by member_id and seq
    end: datetime  # The first moment after them
    ripened: pl.DataFrame | None = None

    def interactions(self) -> pl.DataFrame:
        """Return the log."""
        return self.events

    def titles(self, as_of: datetime | None = None) -> pl.DataFrame:
        """Return the titles that were known at a moment; None is the end."""
        return self.world.titles.filter(pl.col("recorded_at") <= (as_of or self.end)).sort("title_id")

    def availability(self) -> pl.DataFrame:
        """Return every span of availability that was known by the end."""
        return self.world.availability.filter(pl.col("recorded_at") <= self.end).sort("title_id", "country")

    def members(self, as_of: datetime | None = None) -> pl.DataFrame:
        """Return the members who had joined at a moment; None is the end."""
        return self.world.members.filter(pl.col("recorded_at") <= (as_of or self.end)).sort("member_id")

    def member_versions(self) -> pl.DataFrame:
        """Return every row of every member: a simulated profile never changes."""
        return self.members()

    def vocabulary(self, kind: str) -> Vocabulary:
        """Return a vocabulary.

        Raises:
            UnknownNameError: Nothing is numbered under that name here.
        """
        if kind != "title":
            raise UnknownNameError("vocabulary", kind, ("title",))
        return Vocabulary("title", self.titles()["title_id"].to_list())

    def clock(self) -> FixedClock:
        """Return a clock that stands at the end."""
        return FixedClock(self.end)

    def evaluation(self) -> EvaluationTables:
        """Return the frames that evaluation reads: outcomes are those known after the days that were waited."""
        if self.ripened is None or self.ripened.height == self.events.height:
            return EvaluationTables(self.titles(), self.members(), self.availability(), self.events, self.end)
        newest = self.ripened["event_at"].max()
        assert isinstance(newest, datetime)
        until = newest + timedelta(microseconds=1)
        return EvaluationTables(self.titles(until), self.members(until), self.availability(), self.ripened, until)


def going_on(world: World, days: int, members: int | None = None) -> World:
    """Return the same service (titles, launches, people) with a run that is `days` longer.

    What it announced for those days launches then. `members` keeps only the first so many; None keeps all.

    Raises:
        ConfigError: No days, or more members than there are.
    """
    count = len(world.people) if members is None else members
    if days < 1 or not 1 <= count <= len(world.people):
        raise ConfigError(
            f"{count} members for {days} days cannot go on: the world has {len(world.people)} members, and at least "
            "one day is needed"
        )
    spec = world.spec.model_copy(update={"days": world.spec.days + days, "members": count})
    people = replace(world.people, **{name: values[:count] for name, values in vars(world.people).items()})
    truth, of_members = world.truth, ("taste", "genre_weight", "activity", "taste_alone")
    values = {name: getattr(truth, name) for name in of_members}
    truth = replace(truth, **{name: of_all[:count] for name, of_all in values.items() if of_all is not None})
    return replace(world, spec=spec, people=people, truth=truth)


@dataclass(frozen=True)
class Switching:
    """One policy up to a day and another from then on. A visit that lasts past midnight belongs to the day it began."""

    before: Policy  # Answers up to it: the policy that wrote the log
    after: Policy  # Answers from then on: the policy in question
    from_day: int

    @property
    def name(self) -> str:
        """The name of the policy in question."""
        return self.after.name

    def answer(self, request: PolicyRequest, rng: np.random.Generator) -> Slates:
        """Let the policy of the day answer."""
        return self._of_day(request).answer(request, rng)

    def probabilities(self, request: PolicyRequest, titles: Ints32) -> Floats32:
        """Return the probabilities of the policy of the day."""
        return self._of_day(request).probabilities(request, titles)

    def order(self, pages: Pages, rng: np.random.Generator) -> RowOrders | None:
        """Let the policy of the day order the rows of pages; None where it leaves that to the service."""
        own = ordering(self.after if pages.state.day >= self.from_day else self.before)
        return None if own is None else own(pages, rng)

    def _of_day(self, request: PolicyRequest) -> Policy:
        return self.after if request.state.day >= self.from_day else self.before


WATERMARK = "watermark"


@dataclass(frozen=True)
class Fitted:
    """A model that a study has trained."""

    bundle: Bundle  # As `playbill train` would have written it
    parameters: int
    examples: int
    seconds: float
    loss: float

    def scorer(self, world: World, features: SimulationFeatures) -> Scorer:
        """Return a scorer over every title of a world, those that launch after training included."""
        as_of = parse_moment(self.bundle.extra[WATERMARK])
        return Scorer(self.bundle, world.titles, world.availability, features, as_of=as_of)


def fit_model(
    log: SimulatedLog, resolved: ResolvedModel, split: Split, features: SimulationFeatures, folder: Path
) -> Fitted:
    """Train one model on the training part of a simulated log; see `training_set` for what it raises."""
    return trained_on(training_set(log, resolved, split, features), resolved, folder)


def training_set(log: SimulatedLog, resolved: ResolvedModel, split: Split, features: SimulationFeatures) -> TrainingSet:
    """Build what a model learns from; models that differ in nothing but their networks can share it.

    Raises:
        DataError: A head's label has no positive row.
        StateError: There is nothing to train on.
    """
    return build_training_set(log, resolved, split, features, log.clock(), weights=example_weights(resolved))


def trained_on(
    data: TrainingSet, resolved: ResolvedModel, folder: Path, progress: Callable[[Progress], None] | None = None
) -> Fitted:
    """Train one model on a training set; see `fit_model`."""
    resolved = data.trained(resolved).afresh()  # models of a study are compared by what they learn themselves
    network = build_network(resolved, data)
    result = fit(network, data, loop_settings(resolved), progress=progress)
    write_bundle(
        folder,
        resolved=resolved,
        encoder=data.encoder,
        config=network_config(resolved, data.encoder),
        weights=result.network.cpu().state_dict(),
        plays=data.plays,
        extra={WATERMARK: data.watermark.isoformat()},
    )
    return Fitted(
        bundle=read_bundle(folder),
        parameters=sum(weight.numel() for weight in result.network.parameters()),
        examples=len(data.snapshot),
        seconds=sum(report["seconds"] for report in result.reports),
        loss=float(result.reports[-1]["loss"]),
    )
