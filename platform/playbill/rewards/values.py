"""Outcomes -> the play or impression each belongs to, and what every one was worth, known or predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.definitions.specs import LabelSpec, RewardSpec, TermSpec, split_reference
from playbill.definitions.specs.resolved import attribution, attribution_window, matures_after, speaks_of
from playbill.definitions.specs.reward import REWARDED
from playbill.errors import DataError, Problem
from playbill.tables.frames import utc_literal

MOMENT = pl.Datetime("us", "UTC")

_LOG = ("event_id", "member_id", "seq", "event_at", "action", "title_id")


class DelayedPredictor(Protocol):
    """What stands in for terms that are too young to be known."""

    def predict(
        self, requested: Mapping[str, NDArray[np.int64]], log: pl.DataFrame, as_of: datetime
    ) -> dict[str, NDArray[np.float32]]:
        """Return term -> [m] expected values of plays, from what was known of them at `as_of`.

        `requested` has the plain name of a delayed term -> [m] numbers of rows of the log, which are all before
        `as_of`.
        """


@dataclass(frozen=True, slots=True)
class BoundTerm:
    """A term with its label."""

    name: str
    """The label's plain name, which is its column everywhere."""
    spec: TermSpec
    label: LabelSpec
    delayed: bool


def bound_terms(reward: RewardSpec, labels: Mapping[str, LabelSpec]) -> tuple[BoundTerm, ...]:
    """Return a reward's terms with their labels.

    Raises:
        DataError: A term has no label, or one that speaks of more than a title.
    """
    names = {reference: split_reference(reference)[0] for reference in reward.terms}
    problems = [Problem(f"terms.{name}", "no such label") for name in names.values() if name not in labels]
    problems += [
        Problem(
            f"terms.{name}", f"its label is about a whole {labels[name].level}, and rewards are about single titles"
        )
        for name in names.values()
        if name in labels and labels[name].level != "title"
    ]
    if problems:
        raise DataError(f"reward {reward.name}", problems)
    delayed = {split_reference(reference)[0] for reference in reward.delayed}
    return tuple(
        BoundTerm(names[reference], term, labels[names[reference]], names[reference] in delayed)
        for reference, term in reward.terms.items()
    )


def known_at(log: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """Return the rows that happened before `as_of` and were recorded by then, in their order."""
    moment = utc_literal(as_of)
    known = pl.col("event_at") < moment
    if "recorded_at" in log.columns:
        known &= pl.col("recorded_at") <= moment
    return log.filter(known)


def reward_values(
    reward: RewardSpec,
    labels: Mapping[str, LabelSpec],
    outcomes: pl.DataFrame,
    log: pl.DataFrame,
    as_of: datetime,
    predictor: DelayedPredictor | None = None,
) -> pl.DataFrame:
    """Return what every play and impression of a log was worth, as known at one moment.

    A term whose label says nothing of a row adds nothing. A term that is too young counts as far as it is known, and
    the row says that it is not mature; with a predictor, a delayed term of a play counts with its expected value.

    Args:
        reward: The reward.
        labels: Its labels by plain name.
        outcomes: What `labels.label_events` gave for these labels at `as_of`: event_id and a column per label.
        log: Rows of the canonical log; of every member complete as far as an outcome's window reaches.
        as_of: The moment, with a zone. Later rows of the log are not looked at.
        predictor: Of the delayed terms, fitted on nothing later than `as_of`.

    Returns:
        event_id, value (float32), matured (whether every term is final), and a float32 column per term with what its
        label said or is expected to say (null = nothing), in the order of the log.

    Raises:
        DataError: A column, a label or the zone is missing.
    """
    terms = bound_terms(reward, labels)
    _check(reward, terms, outcomes, log, as_of)
    known = known_at(log, as_of).with_row_index("row")
    rows = rewarded_rows(known)
    young = {term.name: _young(term, rows, as_of) for term in terms}
    values = [term_values(term.name, term.spec, term.label, outcomes, known, rows) for term in terms]
    made = rows.select("event_id").with_columns(
        *values, matured=~pl.lit(np.logical_or.reduce(list(young.values())), dtype=pl.Boolean)
    )
    if predictor is not None:
        made = _filled_in(terms, made, young, rows, known, as_of, predictor)
    value = pl.sum_horizontal(_worth(term) for term in terms)
    if reward.clip is not None:
        value = value.clip(*reward.clip)
    return made.select("event_id", value.cast(pl.Float32).alias("value"), "matured", *(term.name for term in terms))


def _check(
    reward: RewardSpec, terms: tuple[BoundTerm, ...], outcomes: pl.DataFrame, log: pl.DataFrame, as_of: datetime
) -> None:
    wanted = [("outcomes", outcomes, ("event_id", *(term.name for term in terms))), ("log", log, _LOG)]
    problems = [
        Problem(place, f"column '{name}' is missing")
        for place, frame, names in wanted
        for name in names
        if name not in frame.columns
    ]
    if as_of.tzinfo is None:
        problems.append(Problem("as_of", f"{as_of.isoformat()} has no time zone"))
    if problems:
        raise DataError(f"reward {reward.name}", problems)


def _young(term: BoundTerm, rows: pl.DataFrame, as_of: datetime) -> NDArray[np.bool_]:
    """Return [m] whether a term can still change."""
    moment = utc_literal(as_of)
    young = pl.lit(value=False)
    for action in speaks_of(term.spec, term.label):
        age = matures_after(term.spec, term.label, action)
        young |= (pl.col("action") == action) & (pl.col("event_at") + age > moment)
    return rows.with_columns(young.alias("young"))["young"].to_numpy()


def _filled_in(
    terms: tuple[BoundTerm, ...],
    made: pl.DataFrame,
    young: dict[str, NDArray[np.bool_]],
    rows: pl.DataFrame,
    known: pl.DataFrame,
    as_of: datetime,
    predictor: DelayedPredictor,
) -> pl.DataFrame:
    """Put expected values where a delayed term of a play is too young."""
    plays = (rows["action"] == "play").to_numpy()
    numbers = rows["row"].to_numpy().astype(np.int64)
    open_plays = {term.name: np.nonzero(young[term.name] & plays)[0] for term in terms if term.delayed}
    requested = {name: numbers[places] for name, places in open_plays.items() if len(places)}
    columns = []
    for name, expected in predictor.predict(requested, known, as_of).items() if requested else ():
        values = made[name].to_numpy().copy()
        values[open_plays[name]] = expected
        columns.append(pl.Series(name, values, dtype=pl.Float32).fill_nan(None))
    return made.with_columns(columns)


def _worth(term: BoundTerm) -> pl.Expr:
    """Weight where the label says 1, `otherwise` where it says 0, in between by share, nothing where it is silent."""
    labels = pl.col(term.name).cast(pl.Float64)
    worth = labels * term.spec.weight + (1.0 - labels) * term.spec.otherwise
    return worth.fill_null(0.0)


_KEY = ("member_id", "title_id")


def rewarded_rows(log: pl.DataFrame) -> pl.DataFrame:
    """Return the plays and impressions of a log, in its order: the rows that have a reward."""
    return log.filter(pl.col("action").is_in(REWARDED))


def term_values(
    name: str, term: TermSpec, label: LabelSpec, outcomes: pl.DataFrame, log: pl.DataFrame, rows: pl.DataFrame
) -> pl.Series:
    """Return what a term's label says of each row, null where it says nothing.

    Args:
        name: Column of `outcomes`, as `labels.label_events` gives it.
        term: How the label counts.
        label: Its definition.
        outcomes: event_id and a column per label.
        log: Rows of the canonical log, known then.
        rows: Rows of it that have a reward.
    """
    labels = outcomes.select("event_id", pl.col(name).alias("said")).filter(pl.col("said").is_not_null())
    if attribution(term, label) == "same_title":
        labels = _attributed(labels, log, rows, attribution_window(term, label))
    joined = rows.select("event_id").join(labels, on="event_id", how="left", maintain_order="left")
    return joined["said"].cast(pl.Float32).rename(name)


def _attributed(labels: pl.DataFrame, log: pl.DataFrame, rows: pl.DataFrame, window: timedelta | None) -> pl.DataFrame:
    """Give each outcome to the latest play of its title before it, or else to the latest impression; the last counts.

    What the label says of a row itself stays with it unless something later on the title says otherwise.
    """
    keys = log.select("event_id", *_KEY, "seq", "event_at")
    own = labels.join(rows.select("event_id"), on="event_id", how="semi")
    others = labels.join(rows.select("event_id"), on="event_id", how="anti")
    outcomes = others.join(keys, on="event_id").filter(pl.col("title_id").is_not_null()).sort("seq")
    found = []
    for action in REWARDED:
        targets = rows.filter((pl.col("action") == action) & pl.col("title_id").is_not_null())
        matched = _latest_before(outcomes, targets, window)
        found.append(matched)
        outcomes = outcomes.join(matched, on="event_id", how="anti", maintain_order="left")
    whole = pl.concat(found).sort("seq", maintain_order=True)
    last = whole.group_by("target", maintain_order=True).agg(pl.col("said").last())
    given = last.select(pl.col("target").alias("event_id"), "said")
    return pl.concat([given, own.join(given, on="event_id", how="anti")])


def _latest_before(outcomes: pl.DataFrame, targets: pl.DataFrame, window: timedelta | None) -> pl.DataFrame:
    requested = targets.select(
        pl.col("event_id").alias("target"), *_KEY, "seq", pl.col("event_at").alias("began")
    ).sort("seq")
    matched = outcomes.join_asof(
        requested, on="seq", by=list(_KEY), strategy="backward", allow_exact_matches=False, check_sortedness=False
    ).filter(pl.col("target").is_not_null())
    if window is not None:
        matched = matched.filter(pl.col("event_at") - pl.col("began") <= window)
    return matched.select("event_id", "seq", "said", "target")


def slate_values(values: pl.DataFrame, log: pl.DataFrame) -> pl.DataFrame:
    """Return what each impression was worth: its own value and those of the plays it led to.

    A play belongs to the impressions of the same title in the same request; a title shown twice in one request shares
    its plays' value evenly. `values` is what `reward_values` gave for the log.

    Returns:
        event_id, value (float32), matured, one row per impression in the log's order. Matured only when its plays are.
    """
    worth = log.select("event_id", "request_id", "title_id", "action").join(
        values.select("event_id", "value", "matured"), on="event_id", how="inner", maintain_order="left"
    )
    key = ["request_id", "title_id"]
    plays = worth.filter((pl.col("action") == "play") & pl.all_horizontal(pl.col(key).is_not_null()))
    played = plays.group_by(key).agg(pl.col("value").sum().alias("play"), pl.col("matured").all().alias("play_matured"))
    shown = worth.filter(pl.col("action") == "impression")
    joined = shown.with_columns(pl.len().over(key).alias("times")).join(
        played, on=key, how="left", maintain_order="left"
    )
    return joined.select(
        "event_id",
        (pl.col("value") + pl.col("play").fill_null(0.0) / pl.col("times")).cast(pl.Float32).alias("value"),
        pl.col("matured") & pl.col("play_matured").fill_null(value=True),
    )
