"""Stage 3, plan: what the model is asked, what candidate rules read, and which rows there are for the member."""

from __future__ import annotations

from datetime import datetime
from functools import cache

from playbill.datasets import Request
from playbill.ranking.candidates import ABSENT, Viewer, past_of
from playbill.ranking.row_plans import RowPlan, Setting, Taste, plan_rows, taste_of
from playbill.schema import UNKNOWN_COUNTRY
from playbill.serving.active_model import CatalogSnapshot
from playbill.serving.member_state import country_of
from playbill.serving.ranking_context import MemberState, ParsedContext, RankingQuery


def plan(parsed: ParsedContext, member: MemberState) -> RankingQuery:
    """Put a request together with what was read of its member."""
    snapshot, request, at = parsed.active.snapshot, parsed.request, parsed.at
    catalogue = snapshot.catalogue
    country, of_country = country_of(snapshot, request.country, member.country)
    shown_in, of_availability = _availability_country(snapshot, country, at)
    taste = taste_of(member.history, catalogue)
    model_request = Request(
        canvas=parsed.canvas.requested_as,
        at=at,
        member_id=request.member_id,
        country=country,
        device=request.device,
        language=request.language or member.language,
        query=parsed.query,
        source_title_id=None if parsed.source == ABSENT else catalogue.title_ids[parsed.source],
        history=member.history,
        features={**member.features.values, **parsed.own},
    )
    viewer = Viewer(
        at=at,
        country=shown_in,
        watched=taste.watched,
        source=parsed.source,
        kids_profile=member.kids_profile or parsed.canvas.spec.candidates.kids is True,
        plays=lambda: snapshot.plays.before(at),
        country_plays=lambda: snapshot.plays.of_week(at, shown_in),
        past=cache(lambda: past_of(member.history, catalogue)),
    )
    plans, of_rows = _row_plans(parsed, viewer, taste, model_request.language)
    notes = (*of_country, *of_availability, *of_rows)
    return RankingQuery(parsed.canvas, model_request, viewer, plans, request.k, notes)


def _availability_country(snapshot: CatalogSnapshot, country: str, at: datetime) -> tuple[str, list[str]]:
    """Return the country whose titles may be shown.

    In an unknown country these are the titles available everywhere. Where there are none, those of the country of most
    members are shown.
    """
    main = snapshot.main_country
    if country != UNKNOWN_COUNTRY or main is None or snapshot.catalogue.available(at, country).any():
        return country, []
    note = "the country is not known and no title is available everywhere: these are the titles of "
    return main, [f"{note}{main}, where most members are"]


def _row_plans(
    parsed: ParsedContext, viewer: Viewer, taste: Taste, language: str | None
) -> tuple[tuple[RowPlan, ...] | None, list[str]]:
    canvas, snapshot, wanted = parsed.canvas, parsed.active.snapshot, parsed.request.rows
    notes = [f"canvas '{canvas.spec.name}' has no rows"] if wanted and not canvas.rows else []
    if canvas.spec.target == "title" and (not canvas.rows or wanted is False):
        return None, notes
    setting = Setting.of(snapshot.catalogue, viewer, snapshot.plays)
    return tuple(plan_rows(canvas.rows, snapshot.catalogue, taste, language, setting)), notes
