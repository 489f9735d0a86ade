"""What all models of a ledger share: its options, one log, split, features, training set, and held-out requests.

Models differ in whose rows teach them; everything else is built once, with the requests' features and candidates. Axis
letters: N requests, T titles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import polars as pl

from playbill.clock import Clock
from playbill.config import Workspace
from playbill.datasets import Request, Split, TrainingSet, build_training_set
from playbill.datasets.protocol_choice import model_split
from playbill.datasets.splits import TIME_PROTOCOLS
from playbill.definitions.specs import ResolvedModel
from playbill.errors import Problem, ProblemsError, StateError, nearest
from playbill.evaluation.canvases.row_cases import RowCase, build_row_case
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.case import Chunk, EvaluationCase, Fold
from playbill.evaluation.cases.event_log import EvaluationTables, EventLog, TitleOrder
from playbill.evaluation.cases.score_function import with_features
from playbill.features import FeatureDoor
from playbill.tables import Tables, workspace_clock
from playbill.training.example_weights import example_weights

FOLDS: tuple[Fold, ...] = ("validation", "test")  # Both are held out: nothing of a model is chosen by the first of them


@dataclass(frozen=True)
class TitleCases:
    """The held-out requests of one canvas, ready to be answered by any number of models."""

    canvas: str
    case: EvaluationCase  # N requests of one fold
    chunks: tuple[Chunk, ...]  # The same with their candidates and features


@dataclass(frozen=True)
class RowCases:
    """The held-out pages of one canvas of rows, likewise."""

    canvas: str
    case: RowCase  # N pages of one fold
    requests: Sequence[Request]  # [N] the same with their features


PolicyRequest = TitleCases | RowCases


class SomeMembers:
    """Tables whose log has only the events of some members; everything else is as it is."""

    def __init__(self, tables: Any, members: pl.Series) -> None:
        self._tables, self._members = tables, members

    def interactions(self) -> pl.DataFrame:
        """Return the members' events."""
        events: pl.DataFrame = self._tables.interactions()
        return events.join(self._members.to_frame(), on="member_id", how="semi", maintain_order="left")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tables, name)


@dataclass
class LedgerService:
    """A log and what is asked of it."""

    tables: Any  # The canonical tables: a workspace's, or a simulated log
    frames: EvaluationTables
    resolved: ResolvedModel
    split: Split
    features: Any
    clock: Clock  # What labels mature against
    options: LedgerOptions
    snapshot: str = ""  # Which data this is, for what is kept
    _requested: dict[str, tuple[PolicyRequest, ...] | str] = field(default_factory=dict)

    @classmethod
    def of_workspace(cls, workspace: Workspace, resolved: ResolvedModel, options: LedgerOptions) -> LedgerService:
        """Read a workspace, as `playbill train` would.

        Raises:
            StateError: Data or features are missing; the text names the command to run first.
        """
        tables = Tables(workspace).require()
        features = FeatureDoor(workspace)
        features.schema(resolved.model.features)
        interactions = tables.interactions()
        split = model_split(resolved, interactions, options.protocol)
        clock = workspace_clock(workspace)
        frames = EvaluationTables.read(tables)
        return cls(tables, frames, resolved, split, features, clock, options, tables.snapshot_id())

    @cached_property
    def data(self) -> TrainingSet:
        """The training set of the consolidated model; every other one is a part of it, or of one like it."""
        return self.training_set(self.resolved)

    def training_set(self, resolved: ResolvedModel) -> TrainingSet:
        """Build the training set of a model over the members who are learnt from; see `build_training_set`."""
        weights = example_weights(resolved)
        return build_training_set(self._learnt, resolved, self.split, self.features, self.clock, weights=weights)

    @cached_property
    def _learnt(self) -> Any:
        if self.options.members is None:
            return self.tables
        known = self.frames.interactions["member_id"].unique().sort()
        if len(known) <= self.options.members:
            return self.tables
        return SomeMembers(self.tables, known.sample(self.options.members, shuffle=True, seed=0))

    @cached_property
    def log(self) -> EventLog:
        """Every event, with what its request had said before it."""
        return EventLog.of(
            self.frames.interactions, self._asking, TitleOrder.of(self.frames.titles["title_id"].to_list())
        )

    def cases(self, canvas: str) -> tuple[PolicyRequest, ...]:
        """Return a canvas's held-out requests by fold.

        Raises:
            StateError: The log cannot measure the canvas; the text says why.
        """
        if canvas not in self._requested:
            try:
                self._requested[canvas] = self._ask(canvas)
            except StateError as error:
                self._requested[canvas] = str(error)
        found = self._requested[canvas]
        if isinstance(found, str):
            raise StateError(found)
        return found

    @property
    def _asking(self) -> Split:
        """The split under which every held-out target is a request of its own."""
        if self.split.protocol in TIME_PROTOCOLS:
            return self.split.under("global_time_successive")
        return self.split

    def _ask(self, canvas: str) -> tuple[PolicyRequest, ...]:
        of_rows = self.resolved.canvas(canvas).target == "row"
        build: Callable[..., EvaluationCase | RowCase] = build_row_case if of_rows else build_case
        cases = []
        for fold in FOLDS if self.split.protocol in TIME_PROTOCOLS else FOLDS[1:]:
            try:
                case = build(self.frames, self._asking, self.resolved, canvas, fold=fold, log=self.log)
                cases.append(case.ordered() if isinstance(case, RowCase) else case)
            except StateError as error:
                reason = str(error)
        if not cases:
            raise StateError(reason)
        logged = [case for case in cases if case.logged]
        cases = [_fewer(case, self.options.requests, len(cases)) for case in logged or cases]
        members = pl.concat([case.frame["member_id"] for case in cases]).n_unique()
        if members < self.options.minimum_members:
            least = self.options.minimum_members
            raise StateError(f"held-out requests of {members} members on '{canvas}', fewer than {least}")
        return tuple(self._ready(canvas, case) for case in cases)

    def _ready(self, canvas: str, case: EvaluationCase | RowCase) -> PolicyRequest:
        """Return a case with the features of its requests."""
        service = self.resolved.model.features
        if isinstance(case, RowCase):
            return RowCases(canvas, case, with_features(case.requests(), service, self.features))
        chunks = case.chunks()
        read = (replace(one, requests=with_features(one.requests, service, self.features)) for one in chunks)
        return TitleCases(canvas, case, tuple(read))


def _fewer(case: EvaluationCase | RowCase, most: int | None, folds: int) -> EvaluationCase | RowCase:
    """Keep whole members, drawn at random, until a fold has no more requests than its share."""
    if most is None or len(case) <= most // folds:
        return case
    members = case.frame.group_by("member_id", maintain_order=True).len().sample(fraction=1.0, shuffle=True, seed=0)
    kept = members.filter(pl.col("len").cum_sum() <= most // folds)["member_id"]
    chosen = case.frame["member_id"].is_in(kept.implode()).to_numpy()
    if isinstance(case, RowCase):
        return case.keep(chosen)
    return replace(case.keep(chosen[case.rows]), left_out=case.left_out)


PARTS = ("canvases", "ablations", "transfer", "heads", "ladder", "improvement")
"""`canvases` is the main table; the others say what the consolidated model owes its quality to."""
METRICS = ("ndcg", "mrr", "hr")  # Of each list; the first one decides


@dataclass(frozen=True)
class LedgerOptions:
    """Sizes of a ledger."""

    parts: tuple[str, ...] = ("canvases",)  # Some of `PARTS`
    canvases: tuple[str, ...] = ()  # Canvases of the model; empty = all
    seeds: tuple[int, ...] = (17, 18, 19)  # Of weights, order and dropout; every model is trained once for each
    protocol: str | None = "global_time"  # What is held out; None = the definition's
    members: int | None = None  # Drawn at random to learn from; None = all. Whoever is not drawn is asked all the same
    requests: int | None = 6000  # Held-out requests of a canvas at most, whole members; None = all
    dim: int | None = None  # Width of every network; None = the definition's
    epochs: int | None = None  # Passes over the data; None = the definition's
    min_steps: int | None = None  # Optimizer steps at least, of every model; None = the definition's
    k: int = 10  # Places of a list
    minimum_members: int = 20  # A canvas with held-out requests of fewer is named and not judged
    resamples: int = 1000  # Draws of members behind intervals

    def check(self) -> None:
        """Refuse what cannot be run, before anything is.

        Raises:
            ProblemsError: A part is unknown, or there is no seed, or one comes twice; all is named.
        """
        problems = []
        for part in self.parts:
            if part not in PARTS:
                close = nearest(part, PARTS)
                hint = f"Did you mean '{close}'?" if close else f"There are {', '.join(PARTS)}."
                problems.append(Problem("parts", f"there is no part '{part}'.", hint))
        if not self.seeds:
            problems.append(Problem("seeds", "at least one is needed."))
        twice = sorted({seed for seed in self.seeds if self.seeds.count(seed) > 1})
        problems += [Problem("seeds", f"{seed} is there twice.") for seed in twice]
        if problems:
            raise ProblemsError("the ledger", problems)
