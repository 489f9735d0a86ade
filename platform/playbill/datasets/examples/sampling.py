"""Strata: groups of examples that an epoch must not pass over, and how often each example is drawn for them.

A row of a group that is too small is drawn several times an epoch, and each time it weighs so much less: whatever is
drawn, the weights of a row add up to 1, so weighted totals are those of the log, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Floats32, Floats64, Ints64
from playbill.definitions.specs import ResolvedModel, SamplingSpec, reward_version
from playbill.errors import ConfigError, StateError

TENURE_BANDS = ((1, "under_1d"), (7, "1-7d"), (30, "7-30d"), (90, "30-90d"), (365, "90-365d"))
"""Days since a member joined, each band's end left out, and its name."""
TENURE_ABOVE = "over_365d"
UNKNOWN_BAND = "unknown"

MOST_DRAWS = 1_000  # of one example in an epoch: more would be reading the same few histories over and over

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Stratum:
    """One group of examples."""

    name: str  # values of the strata, such as `US · 7-30d`
    rows: int  # examples in the log
    share: float  # of the log's examples
    drawn: int  # examples an epoch reads, repeats counted
    sampled_share: float  # of an epoch's examples
    weight: float  # mean weight of a drawn example: rows / drawn


def stratum_names(rows: pl.DataFrame, members: pl.DataFrame, spec: SamplingSpec) -> pl.Series:
    """Return [R] the stratum of each example, by member_id, event_at, country and `first_at`, the member's first event.

    A member's joined_at counts where it is known.
    """
    parts = {"country": _countries, "tenure": _tenures}
    named = [parts[name](rows, members).cast(pl.String).alias(name) for name in spec.strata]
    return pl.DataFrame(named).select(pl.concat_str(pl.all(), separator=" · ").alias("stratum")).to_series()


def _countries(rows: pl.DataFrame, _members: pl.DataFrame) -> pl.Series:
    return rows["country"]


def _tenures(rows: pl.DataFrame, members: pl.DataFrame) -> pl.Series:
    joined = rows.select("member_id", "event_at", "first_at").join(
        members.select("member_id", "joined_at"), on="member_id", how="left", maintain_order="left"
    )
    since = pl.col("event_at") - pl.coalesce("joined_at", "first_at")
    days = joined.select(since.dt.total_microseconds() / _DAY_US).to_series().fill_null(float("nan")).to_numpy()
    return pl.Series("tenure", named_bands(days, TENURE_BANDS, TENURE_ABOVE), dtype=pl.String)


def named_bands(days: Floats64, bands: Sequence[tuple[int, str]], above: str) -> npt.NDArray[np.object_]:
    """Return the name of the first band whose end lies above each number; `UNKNOWN_BAND` for nan."""
    names = np.array([name for _, name in bands] + [above], dtype=object)
    found = names[np.searchsorted([limit for limit, _ in bands], days, side="right").clip(max=len(bands))]
    return np.where(np.isnan(days), UNKNOWN_BAND, found)


def draw_copies(names: pl.Series, floor: float) -> tuple[Ints64, tuple[Stratum, ...]]:
    """Decide how often each example is drawn in an epoch so that every stratum has its floor.

    No example is left out: those of large strata are drawn once, those of small ones as often as needed. Within a
    stratum numbers differ by one at most; the oldest rows are drawn once more.

    Returns:
        [R] how often each is drawn, and a record of every stratum, smallest first.

    Raises:
        ConfigError: There are too many strata for the floor, or too few examples in one.
    """
    draws = draw_plan(stratum_counts(names), floor)
    return draws.copies(names), draws.strata


def stratum_counts(names: pl.Series) -> pl.DataFrame:
    """Return name and rows of every stratum; those of parts of a log go together by `sum` over each name."""
    return names.alias("name").to_frame().group_by("name").agg(rows=pl.len().cast(pl.Int64))


@dataclass
class DrawPlan:
    """How often the examples of each stratum are drawn, part by part of a log."""

    strata: tuple[Stratum, ...]  # smallest first
    passed: Ints64  # [S] examples of each that earlier parts had

    def copies(self, names: pl.Series) -> Ints64:
        """Return [R] how often each example of the next part is drawn."""
        table = pl.DataFrame({"name": [one.name for one in self.strata]}).with_row_index("stratum")
        codes = names.to_frame("name").join(table, on="name", how="left", maintain_order="left")["stratum"].to_numpy()
        drawn, rows = (np.array([getattr(one, name) for one in self.strata], np.int64) for name in ("drawn", "rows"))
        base, more = np.divmod(drawn, rows)
        rank = self.passed[codes] + _ranks(codes, len(rows))
        self.passed = self.passed + np.bincount(codes, minlength=len(rows))
        copies: Ints64 = (base[codes] + (rank < more[codes])).astype(np.int64)
        return copies


def draw_plan(counts: pl.DataFrame, floor: float) -> DrawPlan:
    """Decide how often examples are drawn, by name and rows of every stratum. Raises what `draw_copies` does."""
    counts = counts.group_by("name").sum().sort("rows", "name")
    rows = counts["rows"].to_numpy().astype(np.int64)
    if floor * len(rows) >= 1:
        raise ConfigError(
            f"sampling: {len(rows)} strata cannot each have {floor:.3g} of an epoch, together that is "
            f"{floor * len(rows):.0%}; a floor under {1 / len(rows):.3g} can be kept, or use fewer strata"
        )
    drawn = _drawn(rows, floor)
    _require_examples(counts["name"].to_list(), rows, drawn, floor)
    total, every = int(drawn.sum()), int(rows.sum())
    record = tuple(
        Stratum(str(name), int(n), n / every, int(d), d / total, n / d)
        for name, n, d in zip(counts["name"].to_list(), rows.tolist(), drawn.tolist(), strict=True)
    )
    return DrawPlan(record, np.zeros(len(record), np.int64))


def _require_examples(names: Sequence[str], rows: Ints64, drawn: Ints64, floor: float) -> None:
    """Check that no example would be drawn over and over; names are those of `rows`, smallest first."""
    few = np.nonzero(drawn > MOST_DRAWS * rows)[0]
    if not len(few):
        return
    listed = ", ".join(f"'{names[place]}' ({rows[place]:,})" for place in few[:5])
    more = f" and {len(few) - 5} more" if len(few) > 5 else ""
    raise ConfigError(
        f"sampling: too few examples in {listed}{more}: for {floor:.3g} of an epoch one would be drawn "
        f"{np.max(drawn / rows):,.0f} times, and at most {MOST_DRAWS:,} are allowed; a floor of "
        f"{_largest_floor(rows, floor):.3g} can be kept, or use fewer strata"
    )


def _largest_floor(rows: Ints64, above: float) -> float:
    """Return a floor, about the largest, that no example is drawn too often for; `above` is one that is too high."""
    below = 0.0
    for _ in range(30):
        middle = (below + above) / 2
        kept = (_drawn(rows, middle) <= MOST_DRAWS * rows).all()
        below, above = (middle, above) if kept else (below, middle)
    digits = 1 - int(np.floor(np.log10(below)))
    return float(np.floor(below * 10.0**digits) / 10.0**digits)


def _drawn(rows: Ints64, floor: float) -> Ints64:
    """Return the least numbers to draw, none under its rows ([S], ascending), that give each stratum its floor."""
    raised = 0
    while True:
        total = rows[raised:].sum() / (1 - floor * raised)
        if raised == len(rows) or rows[raised] >= floor * total:
            break
        raised += 1
    drawn = rows.copy()
    drawn[:raised] = np.maximum(rows[:raised], np.ceil(floor * total))
    while raised and drawn[:raised].min() < floor * drawn.sum():
        # Rounding up has made the whole a little larger.
        drawn[:raised] = np.maximum(drawn[:raised], np.ceil(floor * drawn.sum()))
    return drawn.astype(np.int64)


def _ranks(codes: Ints64, count: int) -> Ints64:
    """Return [R] the place of each row among those of its stratum, in their order."""
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=count)
    ranks = np.empty(len(codes), np.int64)
    ranks[order] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return ranks


def strata_frame(strata: Sequence[Stratum]) -> pl.DataFrame:
    """Return the record as a table: stratum, rows, share, drawn, sampled_share, weight."""
    kinds = {"stratum": pl.String, "rows": pl.Int64, "share": pl.Float64}
    kinds |= {"drawn": pl.Int64, "sampled_share": pl.Float64, "weight": pl.Float64}
    cells = [(one.name, one.rows, one.share, one.drawn, one.sampled_share, one.weight) for one in strata]
    return pl.DataFrame(cells, schema=kinds, orient="row")


def first_moments(events: pl.DataFrame) -> pl.DataFrame:
    """Return member_id and first_at, the first event of each member."""
    return events.group_by("member_id").agg(first_at=pl.col("event_at").min())


class ExampleWeights(Protocol):
    """Rewards of events, and how a reward becomes a weight: `playbill.training.example_weights.example_weights`."""

    def rewards(
        self,
        resolved: ResolvedModel,
        events: pl.DataFrame,
        availability: pl.DataFrame,
        titles: pl.DataFrame,
        as_of: datetime,
    ) -> Mapping[str, Floats32]:
        """Return the reward of each of E events for every head that has one, nan where an event has none.

        Events are sorted by member_id and seq; nothing else may be looked at.
        """

    def weigh(self, values: Floats32, labels: Floats32, loss: str) -> tuple[Floats32, Floats32]:
        """Return the labels and the weights of R rows, weights of mean 1, from their rewards and labels."""


def reward_versions(resolved: ResolvedModel) -> dict[str, str]:
    """Return head -> version of the reward that weighs its examples, for the heads that have one."""
    return {
        name: reward_version(resolved.rewards[head.reward], resolved.labels)
        for name, head in resolved.model.heads.items()
        if head.reward is not None
    }


def event_rewards(
    weights: ExampleWeights | None,
    resolved: ResolvedModel,
    events: pl.DataFrame,
    availability: pl.DataFrame,
    titles: pl.DataFrame,
    as_of: datetime,
) -> dict[str, Floats32]:
    """Return head -> [E] rewards, for the heads that have one.

    Raises:
        StateError: A head has a reward, and nobody said what it is worth.
    """
    wanted = reward_versions(resolved)
    if not wanted:
        return {}
    if weights is None:
        raise StateError(
            f"head '{next(iter(wanted))}' is weighed by reward '{next(iter(wanted.values()))}', so `weights` are needed"
        )
    found = weights.rewards(resolved, events, availability, titles, as_of)
    return {head: found[head] for head in wanted}
