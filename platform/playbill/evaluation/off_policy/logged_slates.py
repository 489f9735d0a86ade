"""The logged impressions of a canvas as slates, with what came of them: plays, or a reward of the zoo.

Axis letters: S slates, n rows (one shown title each).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
import polars as pl

from playbill.arrays import Floats64, Indices, Mask
from playbill.definitions.specs import LabelSpec, RewardSpec, split_reference
from playbill.definitions.specs.measures import PLAYED
from playbill.definitions.specs.resolved import matures_after
from playbill.definitions.specs.reward import REWARDED
from playbill.errors import DataError, Problem, StateError
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.off_policy.terms import ROUNDING
from playbill.labels import label_events
from playbill.rewards import DelayedPredictor, reward_values, reward_version, slate_values

WithoutPropensity = Literal["refuse", "drop"]

_KEY = ["request_id", "row_id"]
_REQUEST = ("member_id", "event_at", "country", "device", "language", "query", "source_title_id")


@dataclass(frozen=True)
class LoggedSlates:
    """The slates a canvas was answered with."""

    canvas: str
    outcome: str  # name and version of the reward
    version: str  # see `Outcome`
    # [S] one row per slate: request_id, row_id, member_id, at, country, device, language, query, source_title_id and
    # `event_id` of its first impression
    frame: pl.DataFrame
    slates: Indices
    positions: Indices
    title_ids: pl.Series  # [n] what was shown
    propensity: Floats64  # [n] as logged; NaN where there is none
    reward: Floats64  # [n] NaN where it is not mature
    matured: Mask
    # (slate, title_id) pairs: what the same request had shown before the slate, and could not show again
    above: pl.DataFrame
    without_propensity: int = 0  # slates dropped because a propensity was missing

    def __len__(self) -> int:
        return self.frame.height


def logged_slates(
    tables: EvaluationTables,
    canvas: str,
    outcome: OutcomeRule,
    *,
    rows: tuple[str, ...] | None = None,
    places: int | None = None,
    since: datetime | None = None,
    most: int | None = None,
    without_propensity: WithoutPropensity = "refuse",
    seed: int = 0,
) -> LoggedSlates:
    """Read a canvas's impressions as slates with rewards.

    A slate is what one request showed in one row. A canvas without rows has one slate per request.

    `rows` are the only rows of the page that are read, `places` the first places of each slate: a reader from the top
    sees them first, so this is exact under the cascade and keeps weights small. `since` leaves out what a model was
    trained on. Of more than `most` slates whole members are drawn at random. A log with missing propensities is
    refused, or the slates that lack one are dropped, as for a log whose traffic was randomised in part.

    Raises:
        StateError: Nothing was logged there.
        DataError: Propensities are missing, 0 or above 1, or an impression has no request, title or position; all
            together, each with its count and its first event.
    """
    shown = tables.interactions.filter((pl.col("action") == "impression") & (pl.col("canvas") == canvas))
    if since is not None:
        shown = shown.filter(pl.col("event_at") >= since)
    if rows is not None:
        shown = shown.filter(pl.col("row_id").is_in(rows))
    if shown.is_empty():
        where = f" in rows {', '.join(rows)}" if rows else ""
        when = f" since {since.isoformat()}" if since else ""
        raise StateError(f"no impression of canvas '{canvas}'{where} is in the log{when}: there is nothing to weigh")
    shown, dropped = _with_propensity(_checked(shown, places, without_propensity), without_propensity)
    shown = _some_members(shown, most, seed)
    events = tables.interactions.join(
        shown.select("member_id").unique(), on="member_id", how="semi", maintain_order="left"
    )
    worth = outcome(replace(tables, interactions=events))
    shown = shown.join(
        worth.values.select("event_id", "value", "matured"), on="event_id", how="left", maintain_order="left"
    )
    return _slates(canvas, worth, _final(canvas, worth, shown, tables.end), events, dropped)


def _final(canvas: str, worth: Outcome, shown: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """Let nothing count as mature that is younger than any outcome may take; refuse a log without anything older."""
    final = shown.with_columns(pl.col("matured") & (pl.col("event_at") + worth.final_after <= as_of))
    if not final["matured"].fill_null(value=False).any():
        days = worth.final_after / timedelta(days=1)
        first, last = (moment.isoformat() for moment in shown["event_at"].sort().gather([0, -1]))
        raise StateError(
            f"nothing shown on '{canvas}' is old enough: '{worth.name}' is final {days:g} days after a request, the "
            f"{shown['slate'].n_unique()} lists are from {first} to {last}, and the log ends at {as_of.isoformat()}. "
            "Wait, hold out a longer period in training, or judge by a reward that is final sooner"
        )
    return final


def _checked(shown: pl.DataFrame, places: int | None, rule: WithoutPropensity) -> pl.DataFrame:
    """Return impressions with `slate` and `place`, the first places only; report all that cannot be used at once."""
    broken = _unplaced(shown)
    kept = shown if broken else _numbered(shown)
    if places is not None and not broken:
        kept = kept.filter(pl.col("place") < places)
    if problems := [*broken, *_unweighable(kept, rule)]:
        raise DataError("logged impressions", problems)
    return kept


def _unplaced(shown: pl.DataFrame) -> list[Problem]:
    """Impressions that belong to no slate. One without a position is the only one of its slate, or reported."""
    lacking = {name: pl.col(name).is_null() for name in ("request_id", "title_id")}
    found = [_problem(shown, name, rows, "impressions lack it") for name, rows in lacking.items()]
    unplaced = pl.col("position").is_null() & (pl.len().over(_KEY) > 1)
    found.append(_problem(shown, "position", unplaced, "impressions lack it in a list of several"))
    return [problem for problem in found if problem is not None]


def _unweighable(shown: pl.DataFrame, rule: WithoutPropensity) -> list[Problem]:
    value = pl.col("propensity")
    missing = "Log the propensity of everything shown, or weigh only the requests that have it (drop the others)."
    impossible = "A propensity is the chance with which the title was shown, given those above it: over 0, up to 1."
    found = [
        _problem(shown, "propensity", _no_propensity() & (rule == "refuse"), "impressions lack it", missing),
        _problem(shown, "propensity", value == 0.0, "are 0", "What was shown cannot have had no chance."),
        _problem(shown, "propensity", value < 0.0, "are negative", impossible),
        _problem(shown, "propensity", (value > 1.0 + ROUNDING) & value.is_not_nan(), "are above 1", impossible),
    ]
    return [problem for problem in found if problem is not None]


def _no_propensity() -> pl.Expr:
    return pl.col("propensity").is_null() | pl.col("propensity").is_nan()


def _problem(shown: pl.DataFrame, where: str, rows: pl.Expr, what: str, hint: str = "") -> Problem | None:
    broken = shown.filter(rows)
    if broken.is_empty():
        return None
    first = broken["event_id"][0]
    return Problem(where, f"{broken.height} of {shown.height} {what}, the first is event {first}.", hint)


def _numbered(shown: pl.DataFrame) -> pl.DataFrame:
    place = pl.col("position").fill_null(0).rank("ordinal").over(_KEY).cast(pl.Int64) - 1
    return shown.with_columns(pl.struct(_KEY).rank("dense").cast(pl.Int64).alias("slate") - 1, place.alias("place"))


def _with_propensity(shown: pl.DataFrame, rule: WithoutPropensity) -> tuple[pl.DataFrame, int]:
    if rule == "refuse":
        return shown, 0
    kept = shown.filter(~_no_propensity().any().over("slate"))
    if kept.is_empty():
        raise StateError("no request has the propensities of everything it showed: nothing was randomised")
    return kept, shown["slate"].n_unique() - kept["slate"].n_unique()


def _some_members(shown: pl.DataFrame, most: int | None, seed: int) -> pl.DataFrame:
    if most is None or shown["slate"].n_unique() <= most:
        return shown
    members = shown.group_by("member_id").agg(pl.col("slate").n_unique()).sort("member_id")
    drawn = members.sample(fraction=1.0, shuffle=True, seed=seed)
    chosen = drawn.filter(pl.col("slate").cum_sum() <= most)
    if chosen.is_empty():
        chosen = drawn.head(1)
    return shown.join(chosen.select("member_id"), on="member_id", how="semi", maintain_order="left")


def _slates(
    canvas: str, outcome: Outcome, shown: pl.DataFrame, interactions: pl.DataFrame, dropped: int
) -> LoggedSlates:
    shown = shown.with_columns(pl.col("slate").rank("dense").cast(pl.Int64) - 1).sort("slate", "place")
    frame = (
        shown.group_by("slate", maintain_order=True)
        .agg(pl.col("request_id", "row_id", *_REQUEST).first(), pl.col("event_id", "seq").sort_by("seq").first())
        .rename({"event_at": "at"})
    )
    matured = shown["matured"].fill_null(value=False).to_numpy()
    reward = shown["value"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return LoggedSlates(
        canvas=canvas,
        outcome=outcome.name,
        version=outcome.version,
        frame=frame.drop("slate"),
        slates=shown["slate"].to_numpy(),
        positions=shown["place"].to_numpy(),
        title_ids=shown["title_id"],
        propensity=shown["propensity"].cast(pl.Float64).to_numpy(),
        reward=np.where(matured, reward, np.nan),
        matured=matured,
        above=_above(frame, interactions),
        without_propensity=dropped,
    )


def _above(frame: pl.DataFrame, interactions: pl.DataFrame) -> pl.DataFrame:
    """Return (slate, title_id): what the request had shown before the slate's first impression."""
    requested = frame.select("slate", "request_id", pl.col("member_id"), pl.col("seq").alias("from_seq"))
    shown = interactions.filter((pl.col("action") == "impression") & pl.col("title_id").is_not_null())
    before = shown.select("request_id", "member_id", "seq", "title_id").join(requested, on=["request_id", "member_id"])
    return before.filter(pl.col("seq") < pl.col("from_seq")).select("slate", "title_id").unique(maintain_order=True)


_PLAYED_WITHIN = timedelta(days=1)
"""A play comes at most this long after its impression; later ones are immature at the edge of the log."""


@dataclass(frozen=True)
class Outcome:
    """What each impression was worth."""

    name: str  # such as `long_term`
    version: str  # the reward's version id, or a sentence that defines the outcome
    values: pl.DataFrame  # event_id, value, matured; one row per impression
    # How old an impression must be for nothing that came of it to change. Younger ones are dropped whether something
    # came of them or not: dropping only those whose play is not mature would leave mostly impressions without plays.
    final_after: timedelta


OutcomeRule = Callable[[EvaluationTables], Outcome]
"""Says what impressions were worth, from the events of whole members."""


def played_outcome(window: timedelta = timedelta(days=1)) -> OutcomeRule:
    """Outcome 1 where the title was played in the same request within a window after the impression, else 0."""
    return lambda tables: _played(tables.interactions, tables.end, window)


def _played(interactions: pl.DataFrame, as_of: datetime, window: timedelta) -> Outcome:
    key = ["request_id", "title_id"]
    first = (
        interactions.filter((pl.col("action") == "play") & pl.all_horizontal(pl.col(key).is_not_null()))
        .group_by(key)
        .agg(pl.col("event_at").min().alias("played_at"))
    )
    shown = interactions.filter(pl.col("action") == "impression").join(first, on=key, how="left", maintain_order="left")
    played = ((pl.col("played_at") - pl.col("event_at")) <= window).fill_null(value=False)
    old = pl.col("event_at") + window <= as_of
    values = shown.select("event_id", value=played.cast(pl.Float32), matured=old)
    hours = window / timedelta(hours=1)
    return Outcome(PLAYED, f"played in the same request within {hours:g} h", values, window)


def reward_outcome(
    reward: RewardSpec, labels: Mapping[str, LabelSpec], predictor: DelayedPredictor | None = None
) -> OutcomeRule:
    """Outcome = the reward of an impression and of the plays it led to, as known at the tables' end.

    The predictor stands in for delayed terms; such rows still count as immature.
    """
    names = dict.fromkeys(split_reference(reference)[0] for reference in reward.terms)
    wanted = [labels[name] for name in names if name in labels]

    def rule(tables: EvaluationTables) -> Outcome:
        log, as_of = tables.interactions, tables.end
        outcomes = label_events(wanted, log, as_of, tables.availability, tables.titles)
        values = reward_values(reward, labels, outcomes, log, as_of, predictor)
        return Outcome(reward.name, reward_version(reward, labels), slate_values(values, log), final)

    final = _PLAYED_WITHIN + max(
        matures_after(term, labels[split_reference(name)[0]], action)
        for name, term in reward.terms.items()
        for action in REWARDED
        if split_reference(name)[0] in labels
    )
    return rule
