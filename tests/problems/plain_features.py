"""The event views as plain loops: for one key and one moment, from the events before it. Slow, and easy to check.

A row is a dictionary as the view has it. Nothing of the platform's code is used.
"""

import math
from datetime import timedelta

import numpy as np

TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
WINDOWS = {
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "365d": timedelta(days=365),
}
COUNTRY_WINDOWS = ("1d", "7d", "30d", "365d")
IDLE = timedelta(minutes=30)


def f32(value):
    return float(np.float32(value))


def log(count):
    return f32(math.log1p(count))


def share(part, whole):
    return f32(part / whole) if whole else None


def hour_after(at):
    return at.replace(minute=0, second=0, microsecond=0) + HOUR


def moments(entered, windows):
    """Every moment at which a state begins, given when events enter and when counted ones leave."""
    return {at for at, _ in entered} | {at + length for at, counted in entered if counted for length in windows}


def outcomes(events):
    actions = [event["action"] for event in events]
    plays = [event for event in events if event["action"] == "play"]
    measured = [play for play in plays if play.get("progress") is not None]
    completed = sum(np.float32(play["progress"]) >= np.float32(0.9) for play in measured)
    ups, downs, abandons = (actions.count(name) for name in ("thumbs_up", "thumbs_down", "abandon"))
    return {
        "thumbs_up_share": share(ups, ups + downs),
        "completion_rate": share(completed, len(measured)),
        "abandon_share": share(abandons, abandons + completed),
    }


def activity_moments(own):
    plays = moments([(e["event_at"] + TICK, e["action"] == "play") for e in own], WINDOWS.values())
    rated = {"play", "abandon", "thumbs_up", "thumbs_down"}
    return plays | {e["event_at"] + TICK + WINDOWS["30d"] for e in own if e["action"] in rated}


def activity(own, genres, at):
    """`member_activity` of one member as of `at`, None before their first event."""
    past = [event for event in own if event["event_at"] < at]
    if not past:
        return None
    plays = [event for event in past if event["action"] == "play"]
    # Half-open: the play at t - window is still counted at t, and no longer a microsecond later.
    row = {f"log_plays_{n}": log(sum(p["event_at"] >= at - w for p in plays)) for n, w in WINDOWS.items()}
    row |= {
        "log_plays_total": log(len(plays)),
        "distinct_genres": float(len({genre for play in plays for genre in genres.get(play["title_id"]) or []})),
        **outcomes(past),
    }
    recent = [event for event in past if event["event_at"] >= at - WINDOWS["30d"]]
    row |= {f"{name}_30d": value for name, value in outcomes(recent).items()}
    row["last_play_at"] = max((play["event_at"] for play in plays), default=None)
    row["last_event_at"] = max(event["event_at"] for event in past)
    row["created_timestamp"] = max(event["recorded_at"] for event in past)
    return row


def genre_moments(own, genres):
    return {e["event_at"] + TICK for e in own if e["action"] == "play" and genres.get(e["title_id"])}


def taste(own, genres, at):
    """`member_genres` of one member as of `at`, None before the first play with genres."""
    past = [e for e in own if e["event_at"] < at and e["action"] == "play" and genres.get(e["title_id"])]
    if not past:
        return None
    counts = {}
    for play in past:
        for genre in set(genres[play["title_id"]]):
            counts[genre] = counts.get(genre, 0) + 1
    total = sum(counts.values())
    order = sorted(counts, key=lambda genre: (-counts[genre], genre))
    row = {}
    for place, name in enumerate(("first", "second", "third")):
        row[f"{name}_genre"] = order[place] if place < len(order) else None
        row[f"{name}_share"] = f32(counts[order[place]] / total) if place < len(order) else None
    row["genre_entropy"] = f32(-sum(n / total * math.log(n / total) for n in counts.values()))
    row["genres"] = order[:8]
    row["genre_shares"] = [f32(counts[genre] / total) for genre in order[:8]]
    row["created_timestamp"] = max(play["recorded_at"] for play in past)
    return row


def session_moments(own):
    return {event["event_at"] + TICK for event in own}


def session(own, genres, at):
    """`member_session` of one member as of `at`; None where no session runs. Events must be in order."""
    past = [event for event in own if event["event_at"] < at]
    running = []
    for event in past:
        if running and event["event_at"] - running[-1]["event_at"] - TICK > IDLE:
            running = []
        running.append(event)
    if not running:
        return None
    actions = [event["action"] for event in running]
    touched = [e["title_id"] for e in running if e["action"] != "impression" and e["title_id"] is not None]
    last = touched[-1] if touched else None
    return {
        "log_events": log(len(running)),
        "log_plays": log(actions.count("play")),
        "log_abandons": log(actions.count("abandon")),
        "distinct_titles": float(len(set(touched))),
        "distinct_genres": float(len({genre for title in touched for genre in genres.get(title) or []})),
        "last_title_id": last,
        "last_genre": (genres.get(last) or [None])[0] if last else None,
        "last_action": actions[-1],
        "started_at": running[0]["event_at"],
        "last_event_at": running[-1]["event_at"],
        "created_timestamp": max(event["recorded_at"] for event in running),
    }


def received(events):
    return [e for e in events if e["action"] in ("play", "thumbs_up", "thumbs_down") and e["title_id"] is not None]


def popularity_moments(own, windows=tuple(WINDOWS)):
    entered = [(hour_after(event["event_at"]), event["action"] == "play") for event in received(own)]
    return moments(entered, [WINDOWS[name] for name in windows])


def popularity(own, at, windows=tuple(WINDOWS)):
    """`title_popularity` of one title, or with `COUNTRY_WINDOWS` of a title in a country, as of `at`."""
    past = [event for event in received(own) if hour_after(event["event_at"]) <= at]
    if not past:
        return None
    hour = at.replace(minute=0, second=0, microsecond=0)
    plays = [hour_after(event["event_at"]) for event in past if event["action"] == "play"]
    row = {f"log_plays_{n}": log(sum(entered > hour - WINDOWS[n] for entered in plays)) for n in windows}
    row |= {"log_plays_total": log(len(plays)), "thumbs_up_share": outcomes(past)["thumbs_up_share"]}
    if "1h" in windows:
        row["completion_rate"] = outcomes(past)["completion_rate"]
    row["created_timestamp"] = max(event["recorded_at"] for event in past)
    return row


REQUESTED = {
    "reminders": ("remind_me", ("1d", "7d")),
    "trailers": ("trailer_view", ("7d",)),
    "details": ("details_view", ("7d",)),
    "list_adds": ("my_list_add", ("7d",)),
}


def requested_titles(own):
    actions = {action for action, _ in REQUESTED.values()}
    return [event for event in own if event["action"] in actions and event["title_id"] is not None]


def anticipation_moments(own):
    found = set()
    for action, windows in REQUESTED.values():
        entered = [(hour_after(event["event_at"]), True) for event in own if event["action"] == action]
        found |= moments(entered, [WINDOWS[name] for name in windows])
    return found


def anticipation(own, at):
    """`title_anticipation` of one title as of `at`, None before it was first asked for."""
    past = [event for event in requested_titles(own) if hour_after(event["event_at"]) <= at]
    if not past:
        return None
    hour = at.replace(minute=0, second=0, microsecond=0)
    row = {"created_timestamp": max(event["recorded_at"] for event in past)}
    for name, (action, windows) in REQUESTED.items():
        entered = [hour_after(event["event_at"]) for event in past if event["action"] == action]
        row |= {f"log_{name}_{n}": log(sum(moment > hour - WINDOWS[n] for moment in entered)) for n in windows}
        row[f"log_{name}_total"] = log(len(entered))
    return row


def country(own, at, levels):
    """`country_popularity` of one country as of `at`."""
    row = popularity(own, at, COUNTRY_WINDOWS)
    if row is None:
        return None
    del row["thumbs_up_share"]
    row = {name.replace("log_plays", "log_country_plays"): value for name, value in row.items()}
    hour = at.replace(minute=0, second=0, microsecond=0)
    plays = {}
    for event in received(own):
        entered = hour_after(event["event_at"])
        if event["action"] == "play" and hour - WINDOWS["30d"] < entered <= hour:
            plays[event["title_id"]] = plays.get(event["title_id"], 0) + 1
    counts = list(plays.values())
    fewer = [sum(count < level for count in counts) for level in levels]
    row["titles_30d"] = float(len(counts))
    row["levels_30d"] = [f32(below / len(counts)) if counts else 0.0 for below in fewer]
    return row
