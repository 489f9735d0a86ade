"""Rows of `requests` and `slates`: what was asked, the facts that were used, and what was shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from playbill.ranking.candidates import Mask
from playbill.serving.active_model import Served
from playbill.serving.member_state import MemberFacts
from playbill.serving.messages import RankedTitle, RecommendRequest, RecommendResponse
from playbill.serving.ranker import Answer, Asked


def request_record(
    served: Served, request: RecommendRequest, asked: Asked, facts: MemberFacts, response: RecommendResponse
) -> dict[str, Any]:
    """Return the row of `requests`: context and facts are JSON, with what was asked and what was made of it."""
    used = {
        "service": facts.features.service,
        "features": dict(facts.features.values),
        "values_at": _times(facts.features.values_at),
        "history_events": facts.history.height,
        "history_last_event_id": facts.history.item(-1, "event_id") if facts.history.height else None,
        "snapshot_id": served.shelf.snapshot_id,
        "notes": list(response.notes),
    }
    context = {
        "asked": request.model_dump(mode="json", exclude_none=True),
        "country": asked.request.country,
        "language": asked.request.language,
        "device": asked.request.device,
        "query": asked.request.query,
        "source_title_id": asked.request.source_title_id,
        "kids_profile": asked.viewer.kids_profile,
    }
    return {
        "request_id": response.request_id,
        "at": asked.request.at,
        "member_id": request.member_id,
        "canvas": response.canvas,
        "context": json.dumps(context, ensure_ascii=False),
        "model": response.model,
        "model_version": None if response.version is None else str(response.version),
        "policy": response.policy,
        "seed": None,
        "facts": json.dumps(used, ensure_ascii=False, default=str),
        "facts_version": served.facts_version,
    }


def _times(values_at: Mapping[str, datetime | None] | None) -> dict[str, str | None] | None:
    if values_at is None:
        return None
    return {view: None if at is None else at.isoformat() for view, at in values_at.items()}


def slate_records(found: Answer, response: RecommendResponse) -> list[dict[str, Any]]:
    """Return the rows of `slates`: the page where rows were filled, else the list.

    Ranking draws nothing at random, so every propensity is 1.
    """
    if found.rows is None or response.rows is None:
        return _slate(response.items, None, 0, candidate_set_id(found.candidates))
    return [
        record
        for filled, row in zip(found.rows, response.rows, strict=True)
        for record in _slate(row.items, row.row_id, row.position, candidate_set_id(filled.candidates))
    ]


def candidate_set_id(candidates: Mask) -> str:
    """Return a short hash of a candidate mask: the same set of columns has the same id."""
    return hashlib.blake2b(np.packbits(candidates).tobytes(), digest_size=8).hexdigest()


def _slate(
    items: tuple[RankedTitle, ...], row_id: str | None, row_position: int, candidates: str
) -> list[dict[str, Any]]:
    return [
        {
            "row_id": row_id,
            "row_position": row_position,
            "position": item.position,
            "title_id": item.title_id,
            "score": item.score,
            "propensity": 1.0,
            "candidate_set_id": candidates,
        }
        for item in items
    ]
