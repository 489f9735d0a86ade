"""Countries get weights of their own beside a registered version, side by side, where a gain can be expected.

The version stands still; what each country adds is learnt from its train fold, and chosen on the validation fold, that
neither has seen: nothing, or the weights after one pass, two, four or eight. What is chosen goes into one network, so
that one version serves every country at the price of the version it came from. The test fold says what it is worth and
decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from playbill.clock import parse_moment
from playbill.config import Workspace
from playbill.continual.countries.adapted_version import AdaptedVersion, already_adapted
from playbill.continual.countries.country_scores import (
    LEAST_MEMBERS,
    Choice,
    choose_weights,
    interval_of,
    ndcg_by_request,
)
from playbill.continual.countries.country_table import (
    ARMS,
    AdaptOptions,
    AdaptOutcome,
    AlreadyAdapted,
    BeforeAndAfter,
    country_row,
)
from playbill.datasets import Split, TrainingSet, build_training_set
from playbill.definitions.specs import AdaptationSpec, ResolvedModel
from playbill.errors import ConfigError, DataError, Problem, StateError, UnknownNameError, did_you_mean
from playbill.evaluation.canvases.loaded_version import frozen_split
from playbill.evaluation.canvases.model import evaluate_model
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import MOST_PASTS, EvaluationTables
from playbill.evaluation.ceiling import truth_of
from playbill.features import FeatureDoor
from playbill.models import Network, TitleInputs
from playbill.ranking.scoring.bundle import Bundle, read_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.ranking.scoring.state_cache import KeptSnapshots
from playbill.tables import Tables, workspace_clock
from playbill.training.country_adapters import (
    Adapter,
    FrozenNetwork,
    adapters_of,
    country_examples,
    country_members,
    learn_country,
    set_adapters,
    with_low_rank,
)
from playbill.training.example_weights import example_weights
from playbill.training.inherit import Parent
from playbill.training.side_by_side import side_by_side
from playbill.training.watch import ProgressListener, Silent
from playbill.versions.tracking import ModelVersion, Tracking


def adapt(
    workspace: Workspace,
    model: str,
    options: AdaptOptions | None = None,
    watcher: ProgressListener | None = None,
    *,
    again: bool = False,
) -> AdaptOutcome | AlreadyAdapted:
    """Learn weights of countries beside a version, choose, and register what is ahead as a new version of the model.

    A version that came of the same version, data and options is returned instead, unless it is wanted `again`.

    Args:
        workspace: Where log and versions are.
        model: `everycanvas` for its champion, or `everycanvas:3`.
        options: Which countries, and how.
        watcher: Hears of progress.
        again: Learn anew, also where nothing has changed.

    Raises:
        UnknownNameError: No such model, alias, version or arm.
        ConfigError: The version does not read countries, or bends to them in another way.
        DataError: Countries are named that are unknown, or have no member; all of them are in the text.
        StateError: The log says of no request where it came from, or no country has members enough.
        IntegrityError: The version's files are missing or damaged.
        ServiceError: MLflow, the feature store or the cluster cannot be reached.
    """
    options = options or AdaptOptions()
    if options.arm not in ARMS:
        raise UnknownNameError("arm", options.arm, ARMS)
    found = _Adapting.prepare(workspace, model, options, watcher or Silent())
    return (None if again else found.already()) or found.execute()


def _check_version(parent: Parent, options: AdaptOptions) -> None:
    """Check that a version can have low-rank weights of countries.

    Raises:
        ConfigError: It does not read the country, or bends to it in another way.
        StateError: It was trained on a log that says of no event where it came from.
    """
    bundle, name = parent.bundle, parent.reference
    if not bundle.encoder.state.countries:
        raise StateError(
            f"{name} knows no country: no event of its log says where it came from (column 'country' of interactions)"
        )
    if "country" in bundle.resolved.model.contexts.without:
        raise ConfigError(f"{name} is not told the country (contexts.without); train it with the country first")
    own = bundle.config.adaptation
    if own is not None and own.type != "low_rank":
        raise ConfigError(
            f"{name} bends to countries by '{own.type}' already; adapt a version with adaptation: {{country: none}}"
        )
    wanted = bundle.config.trunk.dim if options.arm == "fine_tune" else options.rank
    if own is not None and own.rank != wanted:
        hint = "--arm fine_tune" if own.rank == bundle.config.trunk.dim else f"--rank {own.rank}"
        raise ConfigError(f"{name} has weights of rank {own.rank} for countries, and rank {wanted} is wanted: {hint}")


@dataclass
class _Adapting:
    """One call under way."""

    workspace: Workspace
    options: AdaptOptions
    watcher: ProgressListener
    tracking: Tracking
    features: FeatureDoor
    tables: Tables
    version: ModelVersion
    parent: Parent
    split: Split
    begun: float

    @classmethod
    def prepare(cls, workspace: Workspace, model: str, options: AdaptOptions, watcher: ProgressListener) -> _Adapting:
        """Check everything that can be checked before long work."""
        begun = time.perf_counter()
        watcher.stage("read the version and the log")
        tracking, features, tables = Tracking(workspace), FeatureDoor(workspace), Tables(workspace).require()
        version = tracking.resolve(model if set(model) & set(":@") else f"{model}@champion")
        folder = tracking.download(version.model, version.version)
        parent = Parent(version.reference, read_bundle(folder, version.digest))
        _check_version(parent, options)
        features.schema(parent.bundle.resolved.model.features)
        split = frozen_split(folder)
        return cls(workspace, options, watcher, tracking, features, tables, version, parent, split, begun)

    @property
    def bundle(self) -> Bundle:
        return self.parent.bundle

    @cached_property
    def frames(self) -> EvaluationTables:
        return EvaluationTables.read(self.tables)

    @cached_property
    def resolved(self) -> ResolvedModel:
        """The definition of what comes out."""
        spec = AdaptationSpec(country="low_rank", rank=self.rank)
        model = self.bundle.resolved.model.model_copy(update={"adaptation": spec})
        note = f"countries have weights of their own beside {self.parent.reference} ({self.options.arm})"
        return self.bundle.resolved.model_copy(update={"model": model, "notes": (*self.bundle.resolved.notes, note)})

    @property
    def rank(self) -> int:
        """Rank of the countries' matrices."""
        return self.bundle.config.trunk.dim if self.options.arm == "fine_tune" else self.options.rank

    @property
    def known(self) -> tuple[str, ...]:
        """The countries that the version can tell apart."""
        return self.bundle.encoder.state.countries

    def already(self) -> AlreadyAdapted | None:
        """Return the version that this call would register once more; None where there is none."""
        return already_adapted(self.tracking, self.parent, self.tables.snapshot_id(), self.options)

    def execute(self) -> AdaptOutcome:
        """Learn, choose, measure, register."""
        watcher = self.watcher
        watcher.stage("build the training set")
        data = build_training_set(
            self.tables,
            self.bundle.resolved,
            self.split,
            self.features,
            workspace_clock(self.workspace),
            weights=example_weights(self.bundle.resolved),
            encoder=self.bundle.encoder,
        )
        members = {self.known[index - 1]: count for index, count in country_members(data).items()}
        wanted = self._wanted(members)
        network = with_low_rank(self.bundle.network(), self.rank, self.options.settings.seed)
        start = {index: adapter for index, adapter in adapters_of(network).items() if self.known[index - 1] in wanted}
        begun = time.perf_counter()
        paths, rows = self._learn(network, data, wanted)
        learn_seconds = time.perf_counter() - begun
        watcher.stage("choose")
        scorer = self._scorer(network)
        resolved = self.bundle.resolved
        try:
            case = build_case(self.frames, self.split, resolved, resolved.main_canvas, fold="validation")
        except StateError:  # nothing held out there, so nothing to choose by
            choice = Choice({}, {}, {})
        else:
            choice = choose_weights(case, scorer, resolved, self.features, start, paths, self.known)
        chosen = start | {
            self._index(code): paths[self._index(code)][place] for code, (place, _) in choice.taken.items()
        }
        watcher.stage("measure by country")
        measured = self._measure(scorer, start, chosen)
        table = tuple(
            country_row(code, members[code], rows.get(self._index(code), 0), choice, measured, self.options)
            for code in sorted(members, key=members.__getitem__)
        )
        before, after = measured.values.mean(axis=1)
        outcome = AdaptOutcome(
            model=self.version.model,
            parent=self.parent.reference,
            arm=self.options.arm,
            version=None,
            canvas=measured.canvas,
            countries=table,
            before=float(before),
            after=float(after),
            change=interval_of(measured.frame, measured.values[1] - measured.values[0]),
            learn_seconds=learn_seconds,
            seconds=0.0,
        )
        if choice.taken:
            set_adapters(network, chosen)
            outcome = self._registered(network, scorer, outcome)
        return replace(outcome, seconds=time.perf_counter() - self.begun)

    def _registered(self, network: Network, scorer: Scorer, outcome: AdaptOutcome) -> AdaptOutcome:
        taken = tuple(row.country for row in outcome.countries if row.chosen)
        adapted = AdaptedVersion(
            self.workspace, self.tracking, self.parent, self.split, self.resolved, network, taken, self.options
        )
        self.watcher.stage("evaluate")
        evaluation = evaluate_model(
            scorer,
            self.split,
            self.frames,
            self.resolved,
            self.features,
            truth=truth_of(self.workspace.folder),
            progress=lambda canvas, done, total: self.watcher.advance(done, total, canvas),
        )
        self.watcher.stage("register")
        version = adapted.register(self.tables, self._moment, evaluation, outcome.to_polars())
        return replace(outcome, version=version, evaluation=evaluation)

    def _index(self, country: str) -> int:
        return self.known.index(country) + 1

    def _wanted(self, members: Mapping[str, int]) -> tuple[str, ...]:
        """Return the countries to learn, those with members enough.

        Raises:
            DataError: Countries are named that are unknown, or have no member.
            StateError: None has members enough.
        """
        named = self.options.countries
        if named is not None:
            problems = [problem for code in dict.fromkeys(named) if (problem := self._problem(code, members))]
            if problems:
                raise DataError(f"{self.parent.reference} cannot be adapted", problems)
        wanted = tuple(code for code in (named or self.known) if members.get(code, 0) >= LEAST_MEMBERS)
        if not wanted:
            most = max((members.get(code, 0) for code in (named or self.known)), default=0)
            raise StateError(
                f"no country has {LEAST_MEMBERS} members to learn from, the largest has {most}; they stay with what "
                f"{self.parent.reference} makes of all"
            )
        return tuple(dict.fromkeys(wanted))

    def _problem(self, code: str, members: Mapping[str, int]) -> Problem | None:
        where = f"country '{code}'"
        if code not in self.known:
            hint = did_you_mean(code.upper(), self.known, f"Known: {', '.join(self.known)}.")
            return Problem(where, f"{self.parent.reference} knows no such country.", hint)
        if not members.get(code):
            return Problem(where, "no member of it has anything to learn from before what is held out.")
        return None

    def _learn(
        self, network: Network, data: TrainingSet, wanted: Sequence[str]
    ) -> tuple[dict[int, tuple[Adapter, ...]], dict[int, int]]:
        """Return what each country has after its passes, by index, and how many rows it learnt from."""
        settings = self.options.settings
        frozen = FrozenNetwork(network, TitleInputs.from_arrays(data.titles), settings)
        rows: dict[int, int] = {}
        indices = tuple(self._index(code) for code in wanted)

        def counted() -> Iterator[Any]:
            for examples in country_examples(data, indices, settings):
                rows[examples.index] = examples.rows
                yield examples

        training = self.workspace.project.settings.training
        workers = training.workers if self.options.workers is None else self.options.workers
        self.watcher.stage(f"learn {len(indices)} countries")
        paths: dict[int, tuple[Adapter, ...]] = {}
        work = side_by_side(learn_country, frozen, counted(), workers=workers, address=self.workspace.ray_address)
        for _, (index, path) in work:
            paths[index] = path
            self.watcher.advance(len(paths), len(indices), self.known[index - 1])
        return paths, rows

    @cached_property
    def _moment(self) -> datetime:
        """The moment up to which the version has learnt."""
        watermark = self.bundle.extra.get("watermark")
        return parse_moment(str(watermark)) if watermark else self.frames.end

    def _scorer(self, network: Network) -> Scorer:
        moment = self._moment
        given = (self.bundle, self.frames.titles_at(moment), self.frames.availability, self.features)
        return Scorer(*given, as_of=moment, network=network, kept_states=MOST_PASTS, snapshots=KeptSnapshots())

    def _measure(self, scorer: Scorer, start: Mapping[int, Adapter], chosen: Mapping[int, Adapter]) -> BeforeAndAfter:
        """Measure both on the test fold."""
        resolved = self.bundle.resolved
        case = build_case(self.frames, self.split, resolved, resolved.main_canvas)
        values = ndcg_by_request(case, scorer, resolved, self.features, [start, chosen])
        return BeforeAndAfter(case.canvas, case.frame, values)
