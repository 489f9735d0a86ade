"""From tables, labels and features to a training set. Inputs and targets come from the train fold alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from playbill.arrays import AnyInts, Bools, Ints64
from playbill.clock import Clock, from_microseconds
from playbill.datasets.availability import availability_states
from playbill.datasets.batching.batches import FIELDS, Task
from playbill.datasets.batching.windows import Windows, cut_windows, last_windows, row_ranges
from playbill.datasets.candidate_masks import Audience
from playbill.datasets.checks import Boundary, check_context_coverage, filled_requests
from playbill.datasets.encoding.context_columns import ContextColumns, situations_of
from playbill.datasets.encoding.encoder import Encoder, EncoderState
from playbill.datasets.encoding.fit import category_counts, fit_encoder, with_categories
from playbill.datasets.encoding.row_entries import page_rows
from playbill.datasets.encoding.titles import (
    TitleFeatures,
    display_names,
    read_snapshots,
    snapshot_values,
    title_arrays,
    title_attribute,
    vector_values,
)
from playbill.datasets.encoding.tokens import situations, taken_apart
from playbill.datasets.examples.rows import TrainingRows
from playbill.datasets.examples.sampling import ExampleWeights, reward_versions
from playbill.datasets.examples.selection import (
    Examples,
    Known,
    LogTables,
    draw_strata,
    find_examples,
    learn,
    require_some,
)
from playbill.datasets.splits import Split
from playbill.datasets.training_set import BatchSettings, TrainingSet
from playbill.definitions.specs import ResolvedModel, TaskSpec, prune_heads
from playbill.definitions.specs.head import AUXILIARY_TARGETS, HorizonSpec, ranks, read_negatives

if TYPE_CHECKING:
    from playbill.features import ServiceSchema

SNAPSHOT_BYTES = 256 * 2**20
"""Memory for title snapshots; beyond it training reads every second, third, ... one, never a later one."""

DRAWN_TITLES = {"policy": "mixed", "count": 1024}
"""What `softmax` heads rank against where the catalogue is larger than the definition wants every title for."""


class TrainingFeatureSource(TitleFeatures, Protocol):
    """What is read of `playbill.features.FeatureDoor`."""

    def schema(self, service: str) -> Any:
        """Return the columns of a feature service: `playbill.features.ServiceSchema`."""

    def member_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return `frame` with member and request features as of each row's `event_at`, strictly before it."""


def build_training_set(
    tables: LogTables,
    resolved: ResolvedModel,
    split: Split,
    features: TrainingFeatureSource,
    clock: Clock,
    *,
    weights: ExampleWeights | None = None,
    encoder: Encoder | None = None,
) -> TrainingSet:
    """Build what a model is trained on, from the train fold of the split and nothing else.

    Labels are those matured by the clock's now, or by the end of the train fold where that is earlier. `weights` are
    needed where a head has a reward. With an `encoder`, that of a trained model, nothing is numbered anew.

    Raises:
        StateError: The train fold is empty, or a head has a reward and there are no `weights`.
        DataError: The label of a head that is not optional has no positive row in it, or is the same for all of them.
        ConfigError: There are too many strata for their floor.
        IntegrityError: Something of the held-out part would be read.
    """
    learnt, boundary = learn(tables, resolved, split, clock, weights)
    resolved = prune_heads(resolved, learnt.left_out)
    schema: ServiceSchema = features.schema(resolved.model.features)
    if encoder is not None:
        return assemble(tables, resolved, learnt, boundary, features, encoder.state, trained=True)
    state = fit_encoder(resolved, schema, learnt.events, learnt.titles, tables.vocabulary("title").entries)
    return assemble(tables, resolved, learnt, boundary, features, state)


@dataclass(frozen=True)
class Earlier:
    """What an earlier training set taught, for one that holds only what is new and what is drawn from it again."""

    plays: Mapping[str, float]  # title -> plays that were counted there
    counted: Bools  # [E] events that are not among those yet


def assemble(
    tables: LogTables,
    resolved: ResolvedModel,
    learnt: Known,
    boundary: Boundary,
    features: TrainingFeatureSource,
    state: EncoderState,
    earlier: Earlier | None = None,
    *,
    trained: bool = False,
) -> TrainingSet:
    """Build a training set of what is known, with an encoder's state that lacks values of categorical features.

    With `earlier` plays are those of before and the new ones, categorical features keep the values that the state has
    and get new ones behind them, and windows are those with an example, whatever the definition says of them. A state
    that is `trained` is taken as it is.

    Raises:
        StateError: There is no example.
        DataError: A canvas lists a context field that none of its requests has; not asked for with `earlier`.
        ConfigError: There are too many strata for their floor.
        IntegrityError: Something of the held-out part would be read.
    """
    examples = find_examples(Encoder(state), learnt, resolved)
    require_some(len(examples.rows))
    if earlier is None:
        filled, rowed = filled_requests(examples.requests), bool(learnt.events["row"].is_not_null().any())
        check_context_coverage(resolved, filled, learnt.events.columns, rowed, state.own_fields)
    boundary.events("training rows", learnt.events.select("member_id", "seq", "event_at")[examples.moments])
    rows = features.member_features(resolved.model.features, examples.requests)
    wanted = situations_of(Encoder(state), rows)
    plan = SnapshotPlan.of(Encoder(state), wanted)
    catalogue = TitleKnowledge(learnt.titles, learnt.availability, learnt.as_of, boundary)
    snapshots = catalogue.snapshots(features, Encoder(state), plan)
    if not trained:
        counts = category_counts(state, rows)
        state = with_categories(state, counts, snapshots.categorical, grow=earlier is not None)
    encoder = Encoder(state)
    evidence = evidence_of(evidence_counts(encoder, learnt.events, examples.rows, resolved, earlier))
    audience = Audience.of(encoder.title_rows, learnt.titles, tables.member_versions(), examples.requests)
    states, seen = availability_states(
        encoder.title_rows,
        learnt.availability,
        examples.requests,
        resolved,
        audience,
        competing=competing(evidence, resolved),
    )
    _, copies, strata = draw_strata(examples, learnt, tables, resolved)
    found = TrainingSet(
        **catalogue.parts(encoder, resolved, snapshots, evidence),
        tokens=examples.tokens.values.astype(np.int32),
        token_member=examples.tokens.member,
        rows=replace(examples.rows, copies=copies),
        context=compact(encoder.contexts(rows)),
        snapshot=plan.places(wanted),
        states=states,
        state=seen.astype(np.int32),
        windows=windows_of(examples, resolved) if earlier is None else _windows_with_examples(examples, resolved),
        strata=strata,
        pages=page_rows(encoder, learnt.events, examples.events),
        left_out=learnt.left_out,
        events=len(examples.tokens.event_rows),
        moment=moments_of(rows) if keeps_moments(resolved) else np.zeros(0, np.int64),
    )
    return found if earlier is None else replace(found, settings=_every_window(found.settings))


@dataclass(frozen=True)
class SnapshotPlan:
    """Which title snapshots are kept of those that requests are in, see `tokens.situations`."""

    moments: Ints64  # those kept, ascending
    situations: Ints64  # [S] what is read

    @classmethod
    def of(cls, encoder: Encoder, wanted: Ints64) -> SnapshotPlan:
        """Keep what fits into memory, of the situations of any number of requests."""
        every = np.unique(wanted)
        floors, countries = taken_apart(every)
        moments, row_bytes = np.unique(floors), 4 * len(encoder.state.title_snapshot) * encoder.title_rows.size
        most = max(1, SNAPSHOT_BYTES // max(1, row_bytes))
        kept = moments[:: -(-every.size // most)]
        return cls(kept, np.unique(_kept_situations(kept, floors, countries)))

    def places(self, wanted: Ints64) -> AnyInts:
        """Return which snapshot each of [m] requests reads: the newest that is kept up to its moment."""
        read = _kept_situations(self.moments, *taken_apart(wanted))
        return np.searchsorted(self.situations, read).astype(np.int32)


def _kept_situations(kept: Ints64, floors: Ints64, countries: Ints64) -> Ints64:
    return situations(kept[np.searchsorted(kept, floors, side="right") - 1], countries)


@dataclass(frozen=True)
class TitleKnowledge:
    """What a training set knows of titles, whatever the size of its log."""

    titles: pl.DataFrame
    availability: pl.DataFrame
    as_of: datetime
    boundary: Boundary

    def snapshots(self, features: TrainingFeatureSource, encoder: Encoder, plan: SnapshotPlan) -> Any:
        """Return title features in the situations that are kept.

        Raises:
            IntegrityError: One lies in what is held out.
        """
        self.boundary.moments("title snapshots", from_microseconds(int(plan.moments.max())))
        return read_snapshots(features, encoder, plan.situations)

    def parts(self, encoder: Encoder, resolved: ResolvedModel, snapshots: Any, evidence: Ints64) -> dict[str, Any]:
        """Return the parts of a training set that only its catalogue, its definition and its encoder decide."""
        state = encoder.state
        return {
            "encoder": encoder,
            "titles": title_arrays(
                encoder,
                self.titles,
                self.boundary.known(self.availability, "recorded_at"),
                plays=evidence,
                as_of=self.as_of,
                snapshots=snapshot_values(snapshots, state.title_snapshot),
                categorical=snapshots.categorical,
                vectors=vector_values(snapshots, state.title_vectors) if state.title_vectors else None,
            ),
            "names": display_names(encoder, self.titles),
            "settings": _settings(resolved, encoder),
            "watermark": self.as_of,
            "rewards": reward_versions(resolved),
            "attributes": {
                name: title_attribute(encoder, self.titles, AUXILIARY_TARGETS[head.auxiliary])
                for name, head in resolved.model.heads.items()
                if head.auxiliary is not None
            },
        }


def _windows_with_examples(examples: Examples, resolved: ResolvedModel) -> Windows:
    """Cut windows that do not overlap, so that each example is in one, and keep those that have some."""
    length, counts = resolved.model.history.length, np.bincount(examples.tokens.member, minlength=examples.members)
    windows = cut_windows(counts, length, length, _reach(examples, counts))
    first, last = row_ranges(windows, examples.rows.slot)
    return windows[np.nonzero(last > first)[0]]


def _every_window(settings: BatchSettings) -> BatchSettings:
    return replace(settings, earlier_share=None)


def windows_of(examples: Examples, resolved: ResolvedModel) -> Windows:
    """Return the windows of the members of examples, as the definition wants them."""
    counts = np.bincount(examples.tokens.member, minlength=examples.members)
    training = resolved.model.training
    windows = cut_windows(counts, resolved.model.history.length, training.stride, _reach(examples, counts))
    return windows[np.nonzero(last_windows(windows))[0]] if training.windows == "last" else windows


def _reach(examples: Examples, counts: Ints64) -> Ints64:
    """Return [M] the tokens that the last state with a row has read, -1 for a member without rows."""
    reach = np.full(examples.members, -1, np.int64)
    first = np.cumsum(counts) - counts + np.arange(examples.members)
    member = np.searchsorted(first, examples.rows.slot, side="right") - 1
    np.maximum.at(reach, member, examples.rows.slot - first[member])
    return reach


def moments_of(requests: pl.DataFrame) -> Ints64:
    """Return [m] moments of requests in microseconds since 1970."""
    return requests["event_at"].dt.epoch("us").to_numpy().astype(np.int64)


def keeps_moments(resolved: ResolvedModel) -> bool:
    """Return whether a training set has the moments of its requests: some head has a horizon."""
    return any(head.horizon is not None for head in resolved.model.heads.values())


def competing(evidence: Ints64, resolved: ResolvedModel) -> Bools | None:
    """Return [T] the titles that count as seen at all, None = every one."""
    return evidence > 0 if resolved.model.titles.negatives == "seen" else None


def evidence_counts(
    encoder: Encoder, events: pl.DataFrame, rows: TrainingRows, resolved: ResolvedModel, earlier: Earlier | None = None
) -> Ints64:
    """Return [2, T] plays of each title, and how often a ranking head has it as its target.

    Those of parts of a log add up.
    """
    counted = events if earlier is None else events.filter(pl.Series(earlier.counted))
    played = counted.filter(pl.col("action") == "play")["title_id"]
    counts = np.bincount(encoder.title_rows.encode(played), minlength=encoder.title_rows.size)
    if earlier is not None:
        before = [earlier.plays.get(title, 0.0) for title in encoder.title_rows.entries]
        counts += np.asarray([0.0, *before]).astype(counts.dtype)
    wanted = np.zeros(len(rows), np.bool_)
    for name, label in rows.labels.items():
        if ranks(resolved.model.heads[name].loss):
            wanted |= label > 0
    requested = np.bincount(rows.title[wanted], minlength=encoder.title_rows.size)
    return np.stack([counts, requested]).astype(np.int64)


def evidence_of(counts: Ints64) -> Ints64:
    """Return [T] plays of each title; of one without any, how often a ranking head has it as its target.

    A title that is still to come has reminders and no plays: it has an identity that can be learnt all the same.
    """
    found: Ints64 = np.where(counts[0] > 0, counts[0], counts[1])
    found[0] = 0
    return found


def compact(context: ContextColumns) -> ContextColumns:
    """Store indices in four bytes: a batch widens them."""
    wide = ("query_offsets", "numeric", "moment")
    names = (own.name for own in fields(context) if own.name not in wide)
    return replace(context, **{name: getattr(context, name).astype(np.int32) for name in names})


def _settings(resolved: ResolvedModel, encoder: Encoder) -> BatchSettings:
    model = resolved.model
    tasks = tuple(_task(name, task, encoder) for name, task in model.tasks.items())
    softmax = tuple(name for name, head in model.heads.items() if ranks(head.loss))
    negatives = {
        name: head.negatives.model_dump(mode="json")
        for name, head in model.heads.items()
        if head.negatives is not None and head.draws
    }
    if encoder.title_rows.size - 1 > model.training.full_softmax_titles:
        drawn = read_negatives(DRAWN_TITLES).model_dump(mode="json")
        negatives |= {name: drawn for name, head in model.heads.items() if head.loss == "softmax"}
    horizons = {name: _horizon(head.horizon) for name, head in model.heads.items() if head.horizon is not None}
    return BatchSettings(
        batch_slots=model.training.batch_slots,
        seed=model.training.seed,
        softmax=softmax,
        tasks=tasks,
        negatives=negatives,
        horizons=horizons,
        earlier_share=model.training.earlier_share if model.training.windows == "mixed" else None,
    )


def _horizon(horizon: HorizonSpec) -> dict[str, Any]:
    seconds = {"within_s": horizon.within.total_seconds(), "half_life_s": horizon.half_life.total_seconds()}
    return {**seconds, "most": horizon.most}


def _task(name: str, task: TaskSpec, encoder: Encoder) -> Task:
    state = encoder.state
    numeric, categorical = encoder.columns_lacking(name)
    return Task(
        source=task.source,
        canvas=int(encoder.canvas_index(pl.Series([name]))[0]),
        share=task.share,
        lacking=tuple(field for field in FIELDS if field not in state.canvas_fields[name]),
        numeric=numeric,
        categorical=categorical,
        by_name=name in state.named_queries,
        member=name not in state.anonymous,
    )
