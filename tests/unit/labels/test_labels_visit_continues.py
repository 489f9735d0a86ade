"""The label `visit_continues`: against plain code, and with the metric of discovery beside it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.definitions.zoo import load_zoo
from playbill.labels import label_columns
from playbill.tables import polars_schema

LABELS = load_zoo(Path(__file__).parents[3] / "model_zoo").labels
START = datetime(2026, 1, 1, tzinfo=UTC)
EVENT = st.fixed_dictionaries(
    {
        "member_id": st.sampled_from(["m", "n"]),
        "action": st.sampled_from(["impression", "impression", "play", "details_view"]),
        "title_id": st.sampled_from(["t", "u", None]),
        "request_id": st.sampled_from(["r1", "r2", None]),
        "session_id": st.sampled_from(["s1", "s2", None]),
        "hours": st.sampled_from([0.0, 0.1, 13.0, 25.0]),
    }
)


def log(events: list[dict[str, Any]]) -> pl.DataFrame:
    ordered = sorted(events, key=lambda event: event["member_id"])
    hours, rows = 0.0, []
    for number, event in enumerate(ordered):
        hours += event["hours"]
        moment = START + timedelta(hours=hours)
        rows.append(
            {key: value for key, value in event.items() if key != "hours"}
            | {"event_id": f"e{number}", "seq": number, "event_at": moment, "recorded_at": moment, "canvas": "home"}
            | {"progress": 0.9, "country": "ZZ", "row_id": None}
        )
    schema = polars_schema("interactions")
    return pl.DataFrame(rows, schema_overrides=schema).select(pl.col(name) for name in schema if name in rows[0])


def progress(frame: pl.DataFrame, name: str = "visit_continues") -> list[float | None]:
    as_of = START + timedelta(days=400)
    found: list[float | None] = label_columns([LABELS[name]], frame, as_of, require_rows=False)[name].to_list()
    return found


def plain(frame: pl.DataFrame) -> list[float | None]:
    rows = frame.to_dicts()
    values: list[float | None] = [None] * len(rows)
    done: set[tuple[str, str]] = set()
    for place, row in enumerate(rows):
        page = (row["member_id"], row["request_id"])
        if row["action"] != "impression" or row["request_id"] is None or row["title_id"] is None or page in done:
            continue
        done.add(page)
        visit = row["session_id"] or row["request_id"]
        for later in rows[place + 1 :]:
            same = later["member_id"] == row["member_id"] and (later["session_id"] or later["request_id"]) == visit
            if not same or later["action"] != "play" or later["title_id"] is None:
                continue
            if later["event_at"] <= row["event_at"] + timedelta(days=1):
                before = rows[: rows.index(later)]
                known = [other for other in before if other["member_id"] == row["member_id"]]
                again = any(one["action"] == "play" and one["title_id"] == later["title_id"] for one in known)
                values[place] = float(again)
            break
    return values


@given(st.lists(EVENT, min_size=1, max_size=14))
@settings(max_examples=60, deadline=None)
def test_visit_continues_equals_plain_code(events: list[dict[str, Any]]) -> None:
    frame = log(events)
    assert progress(frame) == plain(frame)


def event(action: str, title: str, request: str = "r1") -> dict[str, Any]:
    where = {"request_id": request, "session_id": "s1", "hours": 0.0}
    return {"member_id": "m", "action": action, "title_id": title, **where}


def test_plays_of_known_titles_add_nothing_to_discovery() -> None:
    """Twice the continuing plays, the same discoveries: what a discovery metric counts does not move."""
    visit = [event("impression", "t"), event("impression", "u"), event("play", "u")]
    again = [event("play", "u", f"r{number}") for number in range(2, 6)]
    few, many = (np.array(progress(log(events), "discovery_play"), float) for events in (visit, visit + again))
    assert np.nansum(few) == np.nansum(many) == 1
    assert np.isnan(many[len(visit) :]).all()
    follows = progress(log([*visit, event("impression", "u", "r9"), event("play", "u", "r9")]))
    assert [value for value in follows if value is not None] == [0.0, 1.0]
