"""The shipped labels as their sentences say it, event by event in plain pandas: slow, and the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import pandas as pd

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
IDLE = 4 * HOUR
COMING = ("coming_soon", "coming_later", "pre_launch")


class Member:
    """One member's events as known at one moment, in order."""

    def __init__(self, events: pd.DataFrame, genres: Mapping[str, list[str]], as_of: datetime) -> None:
        known = (events["event_at"] < as_of) & (events["recorded_at"] <= as_of)
        self.events = events[known].sort_values("seq", kind="stable").reset_index(drop=True)
        # Thresholds are written in decimals; stored in four bytes, 0.9 is a little less.
        self.events["progress"] = self.events["progress"].astype("float64").round(6)
        self.genres, self.as_of = genres, as_of

    def before(self, event: pd.Series, action: str) -> pd.DataFrame:
        own = self.events.iloc[: event.name]
        return own[own["action"] == action]

    def after(self, event: pd.Series, window: timedelta, action: str | None = None) -> pd.DataFrame:
        own = self.events.iloc[event.name + 1 :]
        own = own[own["event_at"] <= event["event_at"] + window]
        return own if action is None else own[own["action"] == action]

    def old(self, event: pd.Series, age: timedelta) -> bool:
        return event["event_at"] + age <= self.as_of


def of_title(events: pd.DataFrame, event: pd.Series) -> pd.DataFrame:
    return events[events["title_id"] == event["title_id"]]


def counted(event: pd.Series) -> bool | None:
    return None if pd.isna(event["progress"]) else bool(event["progress"] >= 0.1)


def shown_not_played(member: Member, event: pd.Series) -> bool:
    if event["action"] != "impression" or pd.isna(event["request_id"]) or pd.isna(event["title_id"]):
        return False
    plays = of_title(member.events[member.events["action"] == "play"], event)
    plays = plays[plays["request_id"] == event["request_id"]]
    return not (plays["event_at"] <= event["event_at"] + DAY).any()


def discovery_play(member: Member, event: pd.Series) -> float | None:
    first = of_title(member.before(event, "play"), event).empty
    if event["action"] == "play":
        return 1.0 if first and counted(event) else None
    return 0.0 if shown_not_played(member, event) and member.old(event, 30 * HOUR) else None


def continue_play(member: Member, event: pd.Series) -> float | None:
    again = not of_title(member.before(event, "play"), event).empty
    if event["action"] == "play":
        return 1.0 if again and counted(event) else None
    return 0.0 if again and shown_not_played(member, event) and member.old(event, 30 * HOUR) else None


def any_play(member: Member, event: pd.Series) -> float | None:
    if event["action"] == "play":
        return 1.0
    return 0.0 if shown_not_played(member, event) and member.old(event, 30 * HOUR) else None


def shown_play(member: Member, event: pd.Series) -> float | None:
    if event["action"] != "impression" or pd.isna(event["title_id"]) or not member.old(event, 6 * HOUR):
        return None
    return 0.0 if of_title(member.after(event, HOUR, "play"), event).empty else 1.0


def thumbs_up(member: Member, event: pd.Series) -> float | None:
    return {"thumbs_up": 1.0, "thumbs_down": 0.0}.get(event["action"])


def thumbs_down(member: Member, event: pd.Series) -> float | None:
    return {"thumbs_down": 1.0, "thumbs_up": 0.0}.get(event["action"])


def my_list_add(member: Member, event: pd.Series) -> float | None:
    if not member.old(event, DAY):
        return None
    if event["action"] == "my_list_add":
        return 1.0
    if event["action"] != "impression" or pd.isna(event["title_id"]):
        return None
    added = [*of_title(member.before(event, "my_list_add"), event).index]
    added += [*of_title(member.after(event, DAY, "my_list_add"), event).index]
    return None if added else 0.0


def remind_me(member: Member, event: pd.Series) -> float | None:
    if not member.old(event, DAY):
        return None
    if event["action"] == "remind_me":
        return 1.0
    if event["action"] != "impression" or pd.isna(event["title_id"]) or event["canvas"] not in COMING:
        return None
    return 0.0 if of_title(member.after(event, DAY, "remind_me"), event).empty else None


def completion(member: Member, event: pd.Series) -> float | None:
    if event["action"] != "play" or not member.old(event, 8 * DAY):
        return None
    best = of_title(member.after(event, 7 * DAY, "play"), event)["progress"].max()
    if event["progress"] >= 0.9 or best >= 0.9:
        return 1.0
    return None if pd.isna(event["progress"]) else 0.0


def abandon(member: Member, event: pd.Series) -> float | None:
    if event["action"] != "play" or not member.old(event, 8 * DAY):
        return None
    if len(of_title(member.after(event, 7 * DAY, "play"), event)):
        return 0.0
    if len(of_title(member.after(event, 7 * DAY, "abandon"), event)):
        return 1.0
    return None if pd.isna(event["progress"]) else float(event["progress"] < 0.9)


def quick_abandon(member: Member, event: pd.Series) -> float | None:
    if event["action"] != "play" or not member.old(event, 2 * DAY):
        return None
    if len(of_title(member.after(event, DAY, "play"), event)):
        return 0.0
    return None if pd.isna(event["progress"]) else float(event["progress"] < 0.1)


def search_success(member: Member, event: pd.Series) -> float | None:
    if event["action"] != "search" or not member.old(event, 6 * HOUR):
        return None
    earlier = member.before(event, "search")
    if not pd.isna(event["request_id"]) and (earlier["request_id"] == event["request_id"]).any():
        return None
    plays = member.after(event, timedelta(minutes=30), "play")
    return float((plays["canvas"] == "search").any())


def discovery_genre(member: Member, event: pd.Series) -> float | None:
    if event["action"] != "play":
        return None
    stays = counted(event)
    genres = member.genres.get(event["title_id"], [])
    if stays is False or not genres:
        return None if stays is not False else 0.0
    played = {genre for title in member.before(event, "play")["title_id"] for genre in member.genres.get(title, [])}
    if set(genres) <= played:
        return 0.0
    return None if stays is None else 1.0


def returned_within_7d(member: Member, event: pd.Series) -> float | None:
    if event["action"] != "play" or not member.old(event, 8 * DAY):
        return None
    last = event["event_at"]
    for at in member.after(event, 7 * DAY)["event_at"]:
        if at - last > IDLE:
            return 1.0
        last = at
    return 0.0


def played_from(member: Member, event: pd.Series, columns: list[str]) -> float | None:
    if event["action"] != "impression" or not member.old(event, 30 * HOUR) or pd.isna(event["title_id"]):
        return None
    if any(pd.isna(event[name]) for name in columns):
        return None

    def here(events: pd.DataFrame, names: list[str]) -> pd.DataFrame:
        return events[(events[names] == event[names]).all(axis=1)]

    if len(here(member.before(event, "impression").dropna(subset=["title_id"]), columns)):
        return None
    shown = here(member.events[member.events["action"] == "impression"], columns)
    titles = set(shown[shown["event_at"] <= event["event_at"] + DAY]["title_id"].dropna())
    plays = here(member.after(event, DAY, "play"), ["request_id"])
    plays = plays[plays["title_id"].isin(titles)]
    if "row_id" in columns:
        plays = plays[plays["row_id"].isna() | (plays["row_id"] == event["row_id"])]
    return float(len(plays) > 0)


def row_play(member: Member, event: pd.Series) -> float | None:
    return played_from(member, event, ["request_id", "row_id"])


def page_play(member: Member, event: pd.Series) -> float | None:
    return played_from(member, event, ["request_id"])


PLAIN: dict[str, Callable[[Member, pd.Series], float | None]] = {
    label.__name__: label
    for label in (
        discovery_play,
        continue_play,
        thumbs_up,
        thumbs_down,
        my_list_add,
        completion,
        abandon,
        remind_me,
        search_success,
        discovery_genre,
        quick_abandon,
        returned_within_7d,
        row_play,
        page_play,
        any_play,
        shown_play,
    )
}
"""Label -> its value for one event."""


def plain_labels(events: pd.DataFrame, genres: Mapping[str, list[str]], as_of: datetime) -> dict[str, dict[str, float]]:
    """Return event_id -> label -> value, for every label that speaks of the event."""
    found: dict[str, dict[str, float]] = {}
    for _, own in events.groupby("member_id", sort=True):
        member = Member(own, genres, as_of)
        for _, event in member.events.iterrows():
            texts = {name: label(member, event) for name, label in PLAIN.items()}
            values = {name: value for name, value in texts.items() if value is not None}
            if values:
                found[event["event_id"]] = values
    return found
