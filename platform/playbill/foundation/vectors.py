"""Vectors of members and titles, computed by a registered version and published as two versioned Feast views.

A member's vector is what a ranking head multiplies titles with, from the events before a moment alone: one for each
day with events, as of that day's end. The product of a member's and a title's vector, and the title's bias beside it,
is the head's score but for what depends on canvas and hour. Both are brought into the space of the version that was
published before (`stabilise`), so that a model that reads vectors of one version finds those of the next where it
expects them; still it is trained again before it reads them, since each version has views of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from playbill.arrays import Floats32, Floats64
from playbill.clock import parse_moment, to_microseconds
from playbill.config import Workspace
from playbill.datasets import Request
from playbill.datasets.encoding.requests import HISTORY_COLUMNS
from playbill.errors import DataError, IntegrityError, Problem, UnknownNameError
from playbill.evaluation.canvases.loaded_version import SPLIT, frozen_split
from playbill.features import FeatureDoor
from playbill.features.vectors import (
    PublishedVectors,
    declare_vectors,
    published_vectors,
    read_vectors,
    title_vectors_of,
    vectors_folder,
    vectors_map_of,
    write_vectors,
)
from playbill.foundation.stabilise import PublishedTitles, StabilisingMap, stabilising_map
from playbill.ranking.scoring.bundle import Bundle, read_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.tables import Tables, workspace_clock
from playbill.training.watch import ProgressListener, Silent
from playbill.versions.tracking import ModelVersion, Tracking

REQUESTS_AT_ONCE = 1_024
LAST = "last_event_at"
BALANCED_BY = 20_000
"""Members, by their newest vectors, that the balance of a version's space is told by."""


@dataclass(frozen=True, slots=True)
class VectorsReport:
    """What a publication did."""

    record: PublishedVectors
    how: str  # `published`, `brought up to date`, or `there already`
    rows: int  # members' rows that were written
    declared: Path | None  # file of feature_repo that got the views' definitions now


@dataclass(frozen=True, slots=True)
class VectorOptions:
    """What is published of a version."""

    head: str | None = None  # None = the first one that ranks every title
    members: int | None = None  # those that were active last; None = all
    cadence_hours: int = 24  # a member has a vector for each so many hours with events
    new_lineage: bool = False  # leave the space of the version before


def publish_vectors(
    workspace: Workspace,
    reference: str,
    options: VectorOptions | None = None,
    watcher: ProgressListener | None = None,
) -> VectorsReport:
    """Publish a version's vectors, register their views, and load the newest into the online store.

    What is there already stays as it is: events and titles that came since are added. A killed publication leaves the
    views as they were; the same call then does what is missing.

    Raises:
        UnknownNameError: No such version, or it has no such head.
        DataError: Too few titles are in common with what was published before, or vectors are not finite.
        IntegrityError: Vectors of another bundle are published under this version's number.
        StateError: Nothing has been ingested yet, or another process is building features.
        DefinitionError: feature_repo has mistakes, or declares no entity of members or of titles.
    """
    watcher = watcher or Silent()
    watcher.stage("read the version")
    tracking = Tracking(workspace)
    version = tracking.resolve(reference)
    publication = _Publication.of(workspace, tracking, version, options or VectorOptions(), watcher)
    report = publication.run()
    watcher.stage("register and load the views")
    declared = declare_vectors(workspace.project.feature_repo, report.record)
    door = FeatureDoor(workspace)
    door.apply()
    door.materialize(views=report.record.views)
    return VectorsReport(report.record, report.how, report.rows, declared)


@dataclass
class _Publication:
    """One version's publication under way."""

    workspace: Workspace
    version: ModelVersion
    options: VectorOptions
    watcher: ProgressListener
    bundle: Bundle
    tables: Tables
    door: FeatureDoor
    now: datetime
    old: PublishedVectors | None

    @classmethod
    def of(
        cls,
        workspace: Workspace,
        tracking: Tracking,
        version: ModelVersion,
        options: VectorOptions,
        watcher: ProgressListener,
    ) -> _Publication:
        """Read the bundle, and check that its number is not taken by another one's vectors."""
        bundle = read_bundle(tracking.download(version.model, version.version, version.digest))
        old = read_vectors(workspace.features, version.model, version.version)
        if old is not None and old.bundle != bundle.digest:
            folder = vectors_folder(workspace.features, version.model, version.version)
            raise IntegrityError(
                f"{folder} holds vectors of another model that was registered as {version.reference}: of bundle "
                f"{old.bundle[:12]}, and this one is {bundle.digest[:12]}. Remove the folder to publish anew"
            )
        tables, now = Tables(workspace).require(), workspace_clock(workspace).now().astimezone(UTC)
        return cls(workspace, version, options, watcher, bundle, tables, FeatureDoor(workspace), now, old)

    def run(self) -> VectorsReport:
        """Publish, bring up to date, or find everything there."""
        scorer = self._scorer()
        if self.old is None:
            return self._first(scorer, _head_of(self.bundle, self.options.head))
        self._require_same(self.old)
        if self.old.snapshot_id == self.tables.snapshot_id() and parse_moment(self.old.until) >= self.now:
            return VectorsReport(self.old, "there already", 0, None)
        return self._following(scorer, self.old)

    def _require_same(self, old: PublishedVectors) -> None:
        """Refuse what would make other vectors of a version that is published."""
        wanted = {
            "head": self.options.head or old.head,
            "cadence": self.options.cadence_hours,
            "members": self.options.members,
        }
        there = {"head": old.head, "cadence": old.cadence_hours, "members": old.member_limit}
        problems = [
            Problem(name, f"is {there[name]} in what is published, not {wanted[name]}.")
            for name in wanted
            if wanted[name] != there[name]
        ]
        if problems:
            raise DataError(f"vectors of {old.reference}", problems)

    def _scorer(self) -> Scorer:
        titles, availability = self.tables.titles(), self.tables.availability()
        return Scorer(self.bundle, titles, availability, self.door, as_of=self.now)

    def _first(self, scorer: Scorer, head: str) -> VectorsReport:
        moments, raw = self._member_vectors(scorer, head, self.options.cadence_hours, self.options.members, None)
        self.watcher.stage("stabilise and write")
        vectors, biases = scorer.head_titles(head)
        known = np.isin(scorer.title_ids, self.bundle.titles.filter(pl.col("plays") > 0)["title_id"].to_numpy())
        newest = _newest(moments)[-BALANCED_BY:]
        before = None if self.options.new_lineage else self._before()
        title_ids = tuple(np.array(scorer.title_ids)[known].tolist())
        space = stabilising_map(raw[newest], vectors[known], title_ids, None if before is None else before[1])
        members, titles = _members(moments, space.of_members(raw)), _titles(scorer, space.of_titles(vectors), biases)
        record = self._record(head, space, None if before is None else before[0], members, titles)
        self._write(record, members, titles, np.stack([space.titles, space.members]))
        return VectorsReport(record, "published", members.height, None)

    def _following(self, scorer: Scorer, old: PublishedVectors) -> VectorsReport:
        """Add what came since: members' new events, and new titles, by the same map."""
        since = parse_moment(old.until)
        moments, raw = self._member_vectors(scorer, old.head, old.cadence_hours, old.member_limit, since)
        self.watcher.stage("stabilise and write")
        folder = vectors_folder(self.workspace.features, old.model, old.version)
        applied = vectors_map_of(self.workspace.features, old)
        space = StabilisingMap(applied[0], applied[1])
        vectors, biases = scorer.head_titles(old.head)
        before = [
            pl.read_parquet(folder / f"{kind}.parquet").drop("created_timestamp") for kind in ("members", "titles")
        ]
        every = _titles(scorer, space.of_titles(vectors), biases)
        added = every.join(before[1], on="title_id", how="anti", maintain_order="left")
        if moments.is_empty() and added.is_empty():
            return VectorsReport(old, "there already", 0, None)
        members = pl.concat([before[0], _members(moments, space.of_members(raw)).select(before[0].columns)])
        titles = pl.concat([before[1].select(added.columns), added])
        record = old.model_copy(
            update={"until": self.now.isoformat(), "snapshot_id": self.tables.snapshot_id()} | _counts(members, titles)
        )
        self._write(record, members, titles, applied)
        return VectorsReport(record, "brought up to date", moments.height, None)

    def _before(self) -> tuple[PublishedVectors, PublishedTitles] | None:
        """Return what was published last of the model's other versions."""
        features, own = self.workspace.features, self.version
        others = [one for one in published_vectors(features) if one.model == own.model and one.version != own.version]
        if not others:
            return None
        last = max(others, key=lambda one: one.version)
        titles = title_vectors_of(features, last)
        vectors = np.array(titles["vector"].to_list(), np.float32).reshape(titles.height, last.width)
        return last, PublishedTitles(tuple(titles["title_id"].to_list()), vectors)

    def _member_vectors(
        self, scorer: Scorer, head: str, cadence_hours: int, members: int | None, since: datetime | None
    ) -> tuple[pl.DataFrame, Floats32]:
        """Return member_id and event_timestamp of every row, and the vectors [M, D] as the version makes them."""
        self.watcher.stage("vectors of members")
        columns = dict.fromkeys(["member_id", "seq", *HISTORY_COLUMNS, "country"])
        events = self.tables.interactions(until=self.now, columns=list(columns))
        moments = member_moments(events, timedelta(hours=cadence_hours), self.now, members)
        if since is not None:
            moments = moments.filter(pl.col("event_timestamp") > since, pl.col(LAST) >= since)
        found = np.zeros((moments.height, scorer.network.config.trunk.dim), np.float32)
        done = 0
        for requests in self._requests(scorer, events, moments):
            found[done : done + len(requests)] = scorer.request_vectors(requests, head)
            done += len(requests)
            self.watcher.advance(done, moments.height, "members' days")
        return moments, found

    def _requests(self, scorer: Scorer, events: pl.DataFrame, moments: pl.DataFrame) -> Iterator[list[Request]]:
        """Yield what is asked of the version: every member at every moment, with the events before it."""
        past = PastEvents.of(events, moments)
        state, canvas = scorer.encoder.state, self.bundle.resolved.main_canvas
        names = [*state.numeric, *state.categorical]
        for start in range(0, moments.height, REQUESTS_AT_ONCE):
            part = moments.slice(start, REQUESTS_AT_ONCE)
            rows = part.select("member_id", "event_timestamp").iter_rows()
            yield [
                Request(canvas, at, member_id=member, country=country, history=history, features=values)
                for (member, at), (history, country), values in zip(
                    rows, past.before(part), self._features(part, names), strict=True
                )
            ]

    def _features(self, moments: pl.DataFrame, names: Sequence[str]) -> list[dict[str, object]]:
        if not names:
            return [{}] * moments.height
        known = {"canvas": self.bundle.resolved.main_canvas}
        fields = self.bundle.encoder.state.request_fields
        frame = moments.select("member_id", pl.col("event_timestamp").alias("event_at")).with_columns(
            pl.lit(known.get(name), dtype=pl.String).alias(name) for name in fields
        )
        found = self.door.member_features(self.bundle.resolved.model.features, frame)
        return found.select(name for name in names if name in found.columns).to_dicts()

    def _record(
        self,
        head: str,
        space: StabilisingMap,
        before: PublishedVectors | None,
        members: pl.DataFrame,
        titles: pl.DataFrame,
    ) -> PublishedVectors:
        total = hashlib.sha256(f"{self.bundle.digest} {head}".encode())
        total.update(space.titles.tobytes())
        turned = before is not None and space.common > 0
        lineage = 1 if before is None else before.lineage + (0 if turned else 1)
        if self.options.new_lineage:
            lineage = 1 + max((one.lineage for one in self._published()), default=0)
        return PublishedVectors(
            model=self.version.model,
            version=self.version.version,
            bundle=self.bundle.digest,
            head=head,
            width=space.titles.shape[0],
            digest=total.hexdigest(),
            lineage=lineage,
            before=before.reference if before is not None and turned else None,
            common=space.common,
            note=space.note,
            cadence_hours=self.options.cadence_hours,
            watermark=str(self.bundle.extra["watermark"]),
            until=self.now.isoformat(),
            snapshot_id=self.tables.snapshot_id(),
            member_limit=self.options.members,
            **_counts(members, titles),
        )

    def _published(self) -> list[PublishedVectors]:
        return [one for one in published_vectors(self.workspace.features) if one.model == self.version.model]

    def _write(self, record: PublishedVectors, members: pl.DataFrame, titles: pl.DataFrame, applied: Floats64) -> None:
        frozen_split(self.bundle.folder)
        places = (self.bundle.folder / SPLIT, self.bundle.folder / "split" / SPLIT)
        split = next(path for path in places if path.is_file())
        write_vectors(self.workspace.features, record, members, titles, split, applied)


@dataclass(frozen=True, slots=True)
class PastEvents:
    """Events by member and moment, so that a member's events before a moment are found by search, not by a filter.

    Those of one moment stay in the log's order. A log whose `seq` contradicts its moments is read by `seq`, as
    everywhere else.
    """

    events: pl.DataFrame
    ends: pl.DataFrame  # for each event: where its member's begin, how many rows end with it, and the country by then
    place: pl.Series | None  # of each in the log; None where moments agree with `seq`

    @classmethod
    def of(cls, events: pl.DataFrame, moments: pl.DataFrame) -> PastEvents:
        """Take the events of the members in `moments`, given in the log's order."""
        own = events.join(moments.select("member_id").unique(), on="member_id", how="semi", maintain_order="left")
        by_moment = own.with_row_index("place").sort("member_id", "event_at", maintain_order=True)
        place = by_moment["place"]
        ends = by_moment.select("member_id", "event_at", "country").with_row_index("stop", offset=1)
        ends = ends.with_columns(
            first=pl.col("stop").min().over("member_id") - 1, country=pl.col("country").forward_fill().over("member_id")
        )
        return cls(by_moment.drop("place"), ends, None if place.is_sorted() else place)

    def before(self, moments: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, str | None]]:
        """Yield each member's events strictly before its moment, and the newest country that they name.

        Args:
            moments: member_id and event_timestamp, each member's in ascending order.
        """
        found = moments.select("member_id", "event_timestamp").join_asof(
            self.ends,
            left_on="event_timestamp",
            right_on="event_at",
            by="member_id",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        for first, stop, country in found.select(pl.col("first", "stop").fill_null(0), "country").iter_rows():
            history = self.events.slice(first, stop - first)
            if self.place is not None:
                history = history[self.place.slice(first, stop - first).arg_sort()]
            yield history, country


def member_moments(events: pl.DataFrame, cadence: timedelta, now: datetime, members: int | None = None) -> pl.DataFrame:
    """Return member_id, event_timestamp and last_event_at: for each day (or other span) with events, its end.

    A span that is under way ends now, and an event at its end is of the next one. `members` are those that were active
    last.
    """
    span_us = int(cadence.total_seconds()) * 1_000_000
    end = ((pl.col("event_at").dt.epoch("us") // span_us) + 1) * span_us
    ended = pl.from_epoch(pl.min_horizontal(end, pl.lit(to_microseconds(now))), "us").dt.replace_time_zone("UTC")
    rows = events.group_by("member_id", ended.alias("event_timestamp")).agg(pl.col("event_at").max().alias(LAST))
    rows = rows.sort("member_id", "event_timestamp")
    if members is None:
        return rows
    last = rows.group_by("member_id").agg(pl.col(LAST).max()).sort(LAST, "member_id")
    return rows.join(last.tail(members), on="member_id", how="semi", maintain_order="left")


def _head_of(bundle: Bundle, wanted: str | None) -> str:
    """Return the head whose vectors are published.

    Raises:
        UnknownNameError: There is no such head that ranks titles.
    """
    ranking = [head.name for head in bundle.config.heads if head.target == "title" and head.ranks]
    every = [head.name for head in bundle.config.heads if head.name in ranking and head.loss == "softmax"]
    if wanted is None and (every or ranking):
        return (every or ranking)[0]
    if wanted not in ranking:
        raise UnknownNameError("head that ranks titles", wanted or "softmax", ranking)
    return wanted


def _newest(moments: pl.DataFrame) -> list[int]:
    """Return the place of each member's last row."""
    numbered = moments.with_row_index("place")
    return numbered.group_by("member_id", maintain_order=True).agg(pl.col("place").last())["place"].to_list()


def _members(moments: pl.DataFrame, vectors: Floats32) -> pl.DataFrame:
    return moments.with_columns(_lists(vectors)).select("member_id", "vector", "event_timestamp")


def _titles(scorer: Scorer, vectors: Floats32, biases: Floats32) -> pl.DataFrame:
    ids = pl.Series("title_id", scorer.title_ids, dtype=pl.String)
    return ids.to_frame().with_columns(_lists(vectors), pl.Series("bias", biases, dtype=pl.Float32))


def _lists(vectors: Floats32) -> pl.Series:
    width = vectors.shape[1]
    return pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, width)).cast(pl.List(pl.Float32))


def _counts(members: pl.DataFrame, titles: pl.DataFrame) -> dict[str, int]:
    return {
        "members": members["member_id"].n_unique(),
        "member_rows": members.height,
        "titles": titles.height,
    }
