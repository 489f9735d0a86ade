"""Stage 2, read: a member's history, features and profile at a moment, each with a stated way out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

import polars as pl

from playbill.clock import to_microseconds
from playbill.errors import PlaybillError, ServiceError
from playbill.features import OnlineFeatures
from playbill.schema import UNKNOWN_COUNTRY
from playbill.serving.active_model import ActiveModel, CatalogSnapshot, Members
from playbill.serving.ranking_context import MemberState, ServedFeatures
from playbill.tables import Tables, empty_frame
from playbill.tables.frames import epoch_us, utc_literal

logger = logging.getLogger(__name__)

_NOT_STORED = (
    "the online store holds nothing of this member, so features are imputed as missing; it may have lost its values: "
    "run `playbill materialize`"
)


class OnlineFeatureSource(Protocol):
    """Where a member's features come from; `features.FeatureDoor` is one."""

    def served(
        self,
        service: str,
        member_ids: Sequence[str | None],
        at: datetime,
        request: Mapping[str, Any] | None = None,
    ) -> OnlineFeatures:
        """Return one row per member with `view__feature` columns, as of `at`, and the times of the values.

        `request` has the further fields that the service reads.
        """
        ...


class FactReader:
    """Reads the facts of one member at a time. Safe to share between threads.

    Args:
        tables: The workspace's; histories come from its log and its journal.
        features: The online features.
    """

    def __init__(self, tables: Tables, features: OnlineFeatureSource) -> None:
        self._tables, self._features = tables, features

    def read(
        self,
        active: ActiveModel,
        member_id: str | None,
        at: datetime,
        *,
        past: bool = False,
        request: Mapping[str, str | None] | None = None,
    ) -> MemberState:
        """Read what was known strictly before `at`.

        Args:
            active: Gives the feature service and the newest profiles.
            member_id: None = someone unknown.
            at: The request's moment.
            past: Whether `at` was asked for, so that the profile of that time counts. Features of a moment
                before the materialised one are computed from the feature files, which takes seconds.
            request: What it says itself, of which features may be read: canvas, country, device, language and so on.
        """
        notes: list[str] = []
        history = self._history(member_id, at, notes)
        profile = self._profile(active.snapshot.members, member_id, at if past else None)
        if member_id is None:
            notes.append("no member was given: answered without a history")
        elif profile is None:
            notes.append(_unknown_member(member_id, history))
        known = profile or {}
        fields = _fields(active, request or {}, known) if active.request_fields else {}
        features = self._online(active, member_id, at, fields, notes)
        if profile is not None and features.of_nothing:
            notes.append(_NOT_STORED)
        profile = known
        return MemberState(
            history=history,
            features=features,
            country=profile.get("country") or UNKNOWN_COUNTRY,
            language=profile.get("language"),
            kids_profile=bool(profile.get("kids_profile")),
            notes=tuple(notes),
        )

    def unread(self, active: ActiveModel, member_id: str | None) -> MemberState:
        """Return what is in memory of a member, for an answer that has no time to read: the newest profile."""
        profile = self._profile(active.snapshot.members, member_id, None) or {}
        return MemberState(
            history=empty_frame("interactions"),
            features=ServedFeatures(),
            country=profile.get("country") or UNKNOWN_COUNTRY,
            language=profile.get("language"),
            kids_profile=bool(profile.get("kids_profile")),
            notes=("the member's history and features were not read in time",),
        )

    def _history(self, member_id: str | None, at: datetime, notes: list[str]) -> pl.DataFrame:
        if member_id is None:
            return empty_frame("interactions")
        try:
            events = self._tables.member_events(member_id)
        except ServiceError as error:
            logger.warning("the event journal cannot be read: %s", error)
            notes.append("the event journal cannot be read: events not yet compacted are missing")
            events = self._tables.member_events(member_id, include_journal=False)
        # Most requests come after all of it, and finding that out is cheaper than a filter of all columns.
        if (epoch_us(events.get_column("event_at")) < to_microseconds(at)).all():
            return events
        return events.filter(pl.col("event_at") < utc_literal(at))

    def _profile(self, newest: Members, member_id: str | None, at: datetime | None) -> dict[str, Any] | None:
        if member_id is None:
            return None
        return (newest if at is None else Members(self._tables.members(as_of=at))).profile(member_id)

    def _online(
        self,
        active: ActiveModel,
        member_id: str | None,
        at: datetime,
        fields: Mapping[str, str | None],
        notes: list[str],
    ) -> ServedFeatures:
        if active.scorer is None:
            return ServedFeatures()
        service = active.resolved.model.features
        try:
            given = {"request": fields} if fields else {}
            return replace(of_one(service, self._features.served(service, [member_id], at, **given)), request=fields)
        except PlaybillError as error:
            logger.warning("the feature store does not answer: %s", error)
            reason = str(error).splitlines()[0]
        except Exception as error:
            # A store's client may raise anything when its service is down; a member still gets an answer.
            logger.exception("the feature store failed")
            reason = type(error).__name__
        notes.append(f"the feature store does not answer, so features are imputed as missing: {reason}")
        return ServedFeatures()


def country_of(snapshot: CatalogSnapshot, requested: str | None, known: str) -> tuple[str, list[str]]:
    """Return the country to answer for: the requested one, else the member's; one never seen is unknown."""
    if requested is None:
        return known, []
    if requested != UNKNOWN_COUNTRY and requested not in snapshot.countries:
        return UNKNOWN_COUNTRY, [f"country '{requested}' was never seen: it counts as unknown ({UNKNOWN_COUNTRY})"]
    return requested, []


def _fields(
    active: ActiveModel, request: Mapping[str, str | None], profile: Mapping[str, Any]
) -> dict[str, str | None]:
    """Return the request's fields that features read, those that it does not say itself as its member's."""
    country, _ = country_of(active.snapshot, request.get("country"), profile.get("country") or UNKNOWN_COUNTRY)
    every = {**request, "country": country, "language": request.get("language") or profile.get("language")}
    return {name: every.get(name) for name in active.request_fields}


def of_one(service: str, found: OnlineFeatures) -> ServedFeatures:
    """Return the features of the one member that was asked for."""
    values = {name: value for name, value in found.rows.row(0, named=True).items() if "__" in name}
    return ServedFeatures(values, service, found.values_at.row(0, named=True) if found.from_store[0] else None)


def _unknown_member(member_id: str, history: pl.DataFrame) -> str:
    if history.is_empty():
        return f"member '{member_id}' is unknown: answered without a history"
    return f"member '{member_id}' has events but no profile: country and language are unknown"
