"""A training set of a log that does not fit into memory: built from one range of members after the other.

Members are taken in the log's order, so that what each range gives can be appended to arrays on disk: they are the
arrays that `build_training_set` makes of the whole log, number for number, and a test holds the two together. What is
learnt from everything comes of small aggregates of the ranges: values that occur, counts of categories, plays and
strata, ranges of labels, moments of title snapshots, and states of the catalogue.

Three passes, since each needs what the one before has found everywhere: events with their labels (then it is known
which heads are taught and which values there are), examples with their features (then it is known which categories are
frequent and what could be seen when), and their encoded requests. Between passes a range waits in a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.arrays import Ints64
from playbill.clock import Clock
from playbill.datasets.availability import StatesInParts
from playbill.datasets.batching.windows import Windows
from playbill.datasets.build import (
    SnapshotPlan,
    TitleKnowledge,
    TrainingFeatureSource,
    compact,
    competing,
    evidence_counts,
    evidence_of,
    keeps_moments,
    moments_of,
    windows_of,
)
from playbill.datasets.candidate_masks import Described, Profiles
from playbill.datasets.checks import (
    Boundary,
    Part,
    assert_heads_fit,
    check_context_coverage,
    filled_requests,
    unfit_heads,
)
from playbill.datasets.column_files import ColumnFiles, shift
from playbill.datasets.encoding.context_columns import ContextColumns, situations_of
from playbill.datasets.encoding.encoder import Encoder
from playbill.datasets.encoding.fit import category_counts, fit_encoder, seen_values, with_categories
from playbill.datasets.encoding.row_entries import PageRows, page_rows
from playbill.datasets.examples.labelled import (
    LabelRange,
    empty_auxiliaries,
    empty_heads,
    label_ranges,
    label_values,
    request_context,
    require_taught,
    watermark,
)
from playbill.datasets.examples.rows import RowDraws, TrainingRows, sampled_heads
from playbill.datasets.examples.sampling import Stratum, draw_plan, stratum_counts
from playbill.datasets.examples.selection import (
    Examples,
    Known,
    LogTables,
    find_examples,
    known_titles,
    require_some,
    row_strata,
)
from playbill.datasets.splits import SPLIT_COLUMNS, Split
from playbill.datasets.training_set import TrainingSet
from playbill.definitions.specs import ResolvedModel, prune_heads
from playbill.errors import ConfigError, StateError
from playbill.files import storage_errors

if TYPE_CHECKING:
    from playbill.features import ServiceSchema

_LABEL, _STATE, _OWN = "__label.", "__state", "__own"


class PartedTables(LogTables, Protocol):
    """What is read of `playbill.tables.Tables`: the log in ranges of members."""

    def member_ranges(self, events: int) -> list[tuple[str, str]]:
        """Return ranges of members of about so many events each, in the log's order."""

    def interactions_of(self, members: tuple[str, str], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the events of a range, sorted by member_id and seq."""


def build_in_parts(
    tables: PartedTables,
    resolved: ResolvedModel,
    split: Split,
    features: TrainingFeatureSource,
    clock: Clock,
    folder: Path,
    events: int,
) -> TrainingSet:
    """Build what `build_training_set` does in the memory of a part of the log; its arrays stay in files of `folder`.

    Args:
        tables: The log, in ranges of members.
        resolved: The model.
        split: What is held out, made from these tables.
        features: Features of members and titles.
        clock: Labels are those matured by its now, or by the end of the train fold where that is earlier.
        folder: An empty folder, of some 250 bytes an event. The training set reads from it as long as it is used.
        events: About how many are in memory at a time.

    Raises:
        ConfigError: A head has a reward, see `learnt_of_everything`; or what `build_training_set` raises.
        StorageError: The folder cannot be written.
    """
    if rewarded := learnt_of_everything(resolved):
        raise ConfigError(f"{rewarded}, so its training set is not built in parts")
    with storage_errors("the training set", folder):
        return _PartedBuild(tables, resolved, split, features, clock, folder, events).build()


def learnt_of_everything(resolved: ResolvedModel) -> str | None:
    """Return why a model's training set needs the whole log in memory; None where it does not."""
    for name, head in resolved.model.heads.items():
        if head.reward is not None:
            return f"head '{name}' has a reward, which is learnt from all plays together"
    if resolved.model.only is not None:
        return "'only' reads a part of the log, which is found in all of it"
    return None


@dataclass
class _Totals:
    """What the parts of a log add up to."""

    values: pl.DataFrame | None = None  # `seen_values`
    ranges: dict[str, LabelRange] = field(default_factory=dict)
    columns: tuple[str, ...] = ()  # of events
    filled: list[pl.DataFrame] = field(default_factory=list)
    categories: dict[str, pl.DataFrame] = field(default_factory=dict)
    situations: Ints64 = field(default_factory=lambda: np.zeros(0, np.int64))
    evidence: Ints64 | None = None
    strata: list[pl.DataFrame] = field(default_factory=list)
    weighted: set[str] = field(default_factory=set)  # heads of which some row has a weight of its own
    events: int = 0  # in tokens
    members: int = 0
    requests: int = 0  # of tokens
    impressions: int = 0  # requests of impressions

    def labelled(self, events: pl.DataFrame, ranges: dict[str, LabelRange]) -> None:
        """Add the events of a part."""
        values = seen_values(events)
        self.values = values if self.values is None else pl.concat([self.values, values]).unique()
        self.ranges = {head: self.ranges[head] | one if self.ranges else one for head, one in ranges.items()}
        self.columns = tuple(events.columns)

    def add_categories(self, counts: dict[str, pl.DataFrame]) -> None:
        """Add the categories of a part's requests."""
        for name, own in counts.items():
            both = [self.categories[name], own] if name in self.categories else [own]
            self.categories[name] = pl.concat(both).group_by("value").sum()


class _PartedBuild:
    """One training set under way."""

    def __init__(
        self,
        tables: PartedTables,
        resolved: ResolvedModel,
        split: Split,
        features: TrainingFeatureSource,
        clock: Clock,
        folder: Path,
        events: int,
    ) -> None:
        self.tables, self.resolved, self.split, self.features, self.clock = tables, resolved, split, features, clock
        self.folder, self.columns, self.totals = folder, ColumnFiles(folder), _Totals()
        self.ranges = tables.member_ranges(events)
        self.boundary = Boundary.of(split.of(self._nothing), self._nothing)  # by time it is the same for everyone
        self.titles, self.availability = known_titles(tables, self.boundary), tables.availability()
        self.schema: ServiceSchema = features.schema(resolved.model.features)

    @cached_property
    def _nothing(self) -> pl.DataFrame:
        return self.tables.interactions_of(self.ranges[0]).clear()

    @cached_property
    def members(self) -> pl.DataFrame:
        """The newest row of every member."""
        return self.tables.members()

    def build(self) -> TrainingSet:
        """Pass over the log three times."""
        unfit, as_of = self._ends()
        self.as_of = as_of
        known = list(self._events())
        if not known:
            raise StateError(f"protocol '{self.split.protocol}' leaves no event to train on; ingest more data")
        log, taught = pl.scan_parquet(known), self.totals.ranges
        require_taught(self.resolved, taught, log, as_of)
        self.left_out = empty_heads(self.resolved, taught, log, as_of) | unfit
        self.left_out |= empty_auxiliaries(self.resolved, self.titles)
        self.resolved = prune_heads(self.resolved, self.left_out)
        assert self.totals.values is not None
        ids = self.tables.vocabulary("title").entries
        self.encoder = Encoder(fit_encoder(self.resolved, self.schema, self.totals.values, self.titles, ids))
        described = Described.of(("", *ids), self.titles)
        self.states = StatesInParts(self.encoder.title_rows, self.availability, self.resolved, described)
        self.profiles = Profiles.of(self.tables.member_versions())
        requested = list(self._examples(known))
        self._check_requests()
        return self._finished(requested)

    def _ends(self) -> tuple[dict[str, str], datetime]:
        """Return the heads that do not fit to the split, and the moment labels are told at."""
        end = self.split.validation_cutoff
        if end is not None:
            return {}, end  # Every event of the train fold is before it.
        unfit = unfit_heads(self.resolved, self._places())
        assert_heads_fit(prune_heads(self.resolved, unfit), self._places())
        lasts = [_train_fold(*part).select(pl.col("event_at").max()) for part in self._places()]
        return unfit, watermark(self.clock.now(), pl.concat(lasts))

    def _places(self) -> Iterator[Part]:
        for members in self.ranges:
            interactions = self.tables.interactions_of(members, SPLIT_COLUMNS)
            yield interactions, self.split.of(interactions)

    def _events(self) -> Iterator[Path]:
        """Label the events of each part, and put them into a file."""
        resolved, availability = self.resolved, self.availability
        for number, members in enumerate(self.ranges):
            interactions = self.tables.interactions_of(members)
            split = self.split.of(interactions)
            events = _train_fold(interactions, split)
            if events.is_empty():
                continue
            boundary = Boundary.of(split, interactions)
            boundary.events("training", events.select("member_id", "seq", "event_at"))
            boundary.as_of("labels", self.as_of)
            values = label_values(
                resolved, events, events, availability, self.as_of, titles=self.titles, require_rows=False
            )
            filled = request_context(events, events)
            self.totals.labelled(filled, label_ranges(values))
            path = self.folder / f"events-{number:06d}.parquet"
            labels = [pl.Series(f"{_LABEL}{head}", value, dtype=pl.Float32) for head, value in values.items()]
            filled.hstack(labels).write_parquet(path)
            yield path

    def _examples(self, known: Sequence[Path]) -> Iterator[Path]:
        """Find the examples of each part, and append them; put its requests, with their features, into a file."""
        draws = RowDraws.of(self.resolved.model.training.seed)
        for path in known:
            stored = pl.read_parquet(path)
            labels = {
                name.removeprefix(_LABEL): stored[name].to_numpy().astype(np.float32)
                for name in stored.columns
                if name.startswith(_LABEL) and name.removeprefix(_LABEL) not in self.left_out
            }
            events = stored.drop(name for name in stored.columns if name.startswith(_LABEL))
            part = Known(events, self.titles, self.availability, self.as_of, labels, {}, None, self.left_out)
            path.unlink()
            examples = find_examples(self.encoder, part, self.resolved, draws)
            self._append(examples, part)
            if examples.requests.is_empty():
                continue
            rows = self.features.member_features(self.schema.service, examples.requests)
            self.totals.add_categories(category_counts(self.encoder.state, rows))
            requested = path.with_name(path.name.replace("events-", "requests-"))
            own = int(examples.rows.next.sum())
            state = pl.Series(_STATE, self.states.of(rows, own, self.profiles.kids(rows, "event_at")))
            rows.with_columns(state, pl.Series(_OWN, np.arange(rows.height) < own)).write_parquet(requested)
            yield requested

    def _append(self, examples: Examples, part: Known) -> None:
        """Append what a part teaches; numbers of its rows go on where the parts before have ended."""
        totals, columns, rows = self.totals, self.columns, examples.rows
        tokens, own = columns.count("tokens"), int(rows.next.sum())
        columns.append("tokens", examples.tokens.values.astype(np.int32))
        columns.append("token_member", examples.tokens.member + totals.members)
        columns.append("rows.slot", rows.slot + (tokens + totals.members))
        # Requests of impressions come behind those of all tokens: they are shifted when these are counted.
        request = np.where(rows.next, rows.request + totals.requests, rows.request - own + totals.impressions)
        columns.append("rows.request", request.astype(np.int32))
        for name in ("title", "next"):
            columns.append(f"rows.{name}", getattr(rows, name))
        for head, values in rows.labels.items():
            columns.append(f"labels.{head}", values)
        for head in sampled_heads(self.resolved):
            if head in rows.labels:
                columns.append(f"weights.{head}", rows.weights.get(head, np.ones(len(rows), np.float32)))
        totals.weighted.update(rows.weights)
        if len(rows.slate_offsets):
            shown = columns.count("rows.slate")
            offsets = rows.slate_offsets if not columns.count("rows.slate_offsets") else rows.slate_offsets[1:]
            columns.append("rows.slate_offsets", offsets + shown)
            columns.append("rows.slate", rows.slate)
        self._append_windows(windows_of(examples, self.resolved), tokens)
        self._append_pages(page_rows(self.encoder, part.events, examples.events))
        self._tally(examples, part)
        totals.events += len(examples.tokens.event_rows)
        totals.members += examples.members
        totals.requests += own
        totals.impressions += examples.requests.height - own

    def _append_windows(self, windows: Windows, tokens: int) -> None:
        shifts = {"start": tokens, "member": self.totals.members}
        for name in (own.name for own in fields(windows)):
            values = getattr(windows, name)
            self.columns.append(f"windows.{name}", values + shifts[name] if name in shifts else values)

    def _append_pages(self, pages: PageRows) -> None:
        before = self.columns.count("pages.name")
        for name in (own.name for own in fields(pages)):
            values = getattr(pages, name)
            if name == "entry":
                values = np.where(values < 0, values, values + before)
            self.columns.append(f"pages.{name}", values + before if name == "first" else values)

    def _tally(self, examples: Examples, part: Known) -> None:
        """Add what is counted over all parts."""
        totals = self.totals
        totals.filled = [pl.concat([*totals.filled, filled_requests(examples.requests)]).group_by("canvas").sum()]
        totals.situations = np.union1d(totals.situations, situations_of(self.encoder, examples.requests))
        evidence = evidence_counts(self.encoder, part.events, examples.rows, self.resolved)
        totals.evidence = evidence if totals.evidence is None else totals.evidence + evidence
        spec = self.resolved.model.sampling
        if spec is not None:
            names = row_strata(examples, part, self.members, spec)
            names.to_frame("name").write_parquet(self.folder / f"strata-{len(totals.strata):06d}.parquet")
            totals.strata.append(stratum_counts(names))

    def _check_requests(self) -> None:
        require_some(self.columns.count("rows.slot"))
        assert self.totals.values is not None
        rowed = bool(self.totals.values["row"].is_not_null().any())
        (filled,), state = self.totals.filled, self.encoder.state
        check_context_coverage(self.resolved, filled, self.totals.columns, rowed, state.own_fields)

    def _finished(self, requested: Sequence[Path]) -> TrainingSet:
        totals, columns = self.totals, self.columns
        assert totals.evidence is not None
        plan = SnapshotPlan.of(self.encoder, totals.situations)
        catalogue = TitleKnowledge(self.titles, self.availability, self.as_of, self.boundary)
        snapshots = catalogue.snapshots(self.features, self.encoder, plan)
        self.encoder = Encoder(with_categories(self.encoder.state, totals.categories, snapshots.categorical))
        evidence = evidence_of(totals.evidence)
        states, numbers = self.states.joined(competing(evidence, self.resolved))
        for number, path in enumerate(requested):
            self._append_requests(pl.read_parquet(path), plan, numbers[number])
            path.unlink()
        copies, strata = self._copies()
        grams = columns.count("context.query_grams")
        arrays = {name: columns.joined(name) for name in columns.names()}
        shift(arrays["rows.request"], totals.requests, ~arrays["rows.next"])
        shift(arrays["context.query_offsets"][totals.requests :], grams)
        return TrainingSet(
            **catalogue.parts(self.encoder, self.resolved, snapshots, evidence),
            tokens=arrays["tokens"],
            token_member=arrays["token_member"],
            rows=self._rows(arrays, copies),
            context=_part(ContextColumns, "context", arrays),
            snapshot=arrays["snapshot"],
            states=states,
            state=arrays["state"],
            windows=_part(Windows, "windows", arrays),
            strata=strata,
            pages=_part(PageRows, "pages", arrays),
            left_out=self.left_out,
            events=totals.events,
            moment=arrays.get("moment", np.zeros(0, np.int64)),
        )

    def _append_requests(self, rows: pl.DataFrame, plan: SnapshotPlan, numbers: Ints64) -> None:
        """Encode the requests of a part: those of tokens, and those of impressions, which come behind."""
        own = int(rows[_OWN].sum())
        for part, second in ((rows[:own], False), (rows[own:], True)):
            context = compact(self.encoder.contexts(part))
            grams = self.columns.count("context.query_grams", second=second)
            for name in (one.name for one in fields(context)):
                values = getattr(context, name)
                shifted = values + grams if name == "query_offsets" else values
                self.columns.append(f"context.{name}", shifted, second=second)
            self.columns.append("snapshot", plan.places(context.moment), second=second)
            self.columns.append("state", numbers[part[_STATE].to_numpy()].astype(np.int32), second=second)
            if keeps_moments(self.resolved):
                self.columns.append("moment", moments_of(part), second=second)

    def _copies(self) -> tuple[NDArray[Any], tuple[Stratum, ...]]:
        """Append how often an epoch reads each row, and return that with the record; both empty without `sampling`."""
        spec = self.resolved.model.sampling
        if spec is None:
            return np.zeros(0, np.int64), ()
        plan = draw_plan(pl.concat(self.totals.strata), spec.floor)
        for number in range(len(self.totals.strata)):
            path = self.folder / f"strata-{number:06d}.parquet"
            self.columns.append("rows.copies", plan.copies(pl.read_parquet(path)["name"]))
            path.unlink()
        return self.columns.joined("rows.copies"), plan.strata

    def _rows(self, arrays: dict[str, NDArray[Any]], copies: NDArray[Any]) -> TrainingRows:
        heads = [name for name in self.resolved.model.heads if f"labels.{name}" in arrays]
        weighted = [name for name in heads if name in self.totals.weighted]
        return TrainingRows(
            slot=arrays["rows.slot"],
            title=arrays["rows.title"],
            request=arrays["rows.request"],
            next=arrays["rows.next"],
            labels={name: arrays[f"labels.{name}"] for name in heads},
            weights={name: arrays[f"weights.{name}"] for name in weighted},
            copies=copies,
            slate=arrays.get("rows.slate", np.zeros(0, np.int32)),
            slate_offsets=arrays.get("rows.slate_offsets", np.zeros(0, np.int64)),
        )


def _train_fold(interactions: pl.DataFrame, split: Split) -> pl.DataFrame:
    return split.events(interactions, "train").sort("member_id", "seq", maintain_order=True)


def _part(kind: Any, prefix: str, arrays: dict[str, NDArray[Any]]) -> Any:
    return kind(**{own.name: arrays[f"{prefix}.{own.name}"] for own in fields(kind)})
