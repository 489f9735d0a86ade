"""Which titles a request may be shown, on arrays: for training masks, evaluation and serving alike.

Rules of candidates about titles and launches, and the profile that asks: a kids' profile sees titles for kids and no
others, whatever the canvas.
Axis letters: T titles, m requests. Moments are microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import polars as pl
from polars.datatypes import DataType, DataTypeClass

from playbill.arrays import Bools, Ints64, Mask
from playbill.clock import MICROSECOND
from playbill.definitions.specs import CandidatesSpec
from playbill.tables import Vocabulary

NEVER = np.iinfo(np.int64).max  # stands for an open end, and for the launch of a title that has none
ALWAYS = np.iinfo(np.int64).min  # stands for the time since when a span is known that does not say it

PolarsDataType = DataType | DataTypeClass
_LISTS = ("genres", "countries", "characters")
_TEXTS = ("kind", "original_language")


@dataclass(frozen=True)
class Described:
    """The metadata of titles that rules read, in a fixed order of titles.

    Rows of `frame` [T] have kids, kind, genres, original_language, countries, characters, year and runtime_min; null =
    not known.
    """

    frame: pl.DataFrame

    @classmethod
    def of(cls, title_ids: Sequence[str], titles: pl.DataFrame) -> Described:
        """Read rows of `titles`, one per title; an id without a row, and a column that is not there, is not known."""
        order = pl.DataFrame({"title_id": pl.Series(title_ids, dtype=pl.String)})
        own = {name: pl.col(name) for name in ("kids", "runtime_min", *_TEXTS, *_LISTS) if name in titles.columns}
        year = {"year": pl.col("release_date").dt.year()} if "release_date" in titles.columns else {}
        found = order.join(titles.select("title_id", **own, **year), on="title_id", how="left", maintain_order="left")
        empty: dict[str, PolarsDataType] = {
            **{"kids": pl.Boolean, "year": pl.Int32, "runtime_min": pl.Int32},
            **dict.fromkeys(_TEXTS, pl.String),
        }
        empty |= dict.fromkeys(_LISTS, pl.List(pl.String))
        missing = {name: pl.lit(None, dtype) for name, dtype in empty.items() if name not in found.columns}
        return cls(found.with_columns(**missing))

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def kids(self) -> Mask:
        """[T] titles marked for kids; not knowing counts as no."""
        return self._mask(pl.col("kids"))

    def groups(self, column: str) -> dict[str, Mask]:
        """Return value -> [T] titles that have it, for a column of texts or of lists of texts, by value."""
        pairs = self.frame.select(pl.int_range(pl.len()).alias("column"), pl.col(column).alias("value"))
        if pairs.schema["value"].is_nested():
            pairs = pairs.explode("value")
        grouped = pairs.drop_nulls().group_by("value").agg("column").sort("value")
        found: dict[str, Mask] = {}
        for value, columns in zip(grouped["value"], grouped["column"], strict=True):
            found[value] = np.zeros(len(self), np.bool_)
            found[value][columns.to_numpy()] = True
        return found

    def matches(self, rules: CandidatesSpec) -> Mask:
        """Return [T] the titles that rules about metadata allow; what is not known matches no rule."""
        wanted: list[pl.Expr] = []
        for column, values in (("kind", rules.kind), ("original_language", rules.original_language)):
            if values is not None:
                wanted.append(pl.col(column).is_in(list(values)))
        for column, values in (("countries", rules.origin), ("characters", rules.characters)):
            if values is not None:
                wanted.append(pl.any_horizontal(pl.col(column).list.contains(value) for value in values))
        wanted += [pl.col("genres").list.contains(genre) for genre in rules.genres or ()]
        if rules.released is not None:
            years = (rules.released.since, rules.released.until)
            wanted.append(pl.col("year").is_between(pl.lit(years[0] or -9999), pl.lit(years[1] or 9999)))
        if rules.runtime_min is not None:
            minutes, limits = pl.col("runtime_min"), rules.runtime_min
            wanted += [] if limits.below is None else [minutes < limits.below]
            wanted += [] if limits.above is None else [minutes > limits.above]
        mask = self._mask(pl.all_horizontal(wanted)) if wanted else np.ones(len(self), np.bool_)
        return mask if rules.kids is None else mask & (self.kids == rules.kids)

    def _mask(self, holds: pl.Expr) -> Mask:
        found: Mask = self.frame.select(holds.fill_null(False).alias("holds"))["holds"].to_numpy().astype(np.bool_)
        return found


def launch_bounds(rules: CandidatesSpec) -> Ints64:
    """Return [4] launched within, before, launches within and after, microseconds; `NEVER` = no such rule."""
    spans = (rules.launched_within, rules.launched_before, rules.launches_within, rules.launches_after)
    return np.array([NEVER if span is None else span // MICROSECOND for span in spans], np.int64)


def launch_edges(bounds: Ints64) -> list[int]:
    """Return how long after a launch its rules change their mind, microseconds; negative before it."""
    signed = [(bound if place < 2 else -bound) for place, bound in enumerate(bounds.tolist()) if bound != NEVER]
    # The limit of `launched_within` and that of `launches_after` still count as they did; a step later they do not
    return [edge + step for edge in signed for step in (0, 1)]


def in_launch_window(bounds: Ints64, launch: Ints64, now: Ints64 | int) -> Mask:
    """Return where a launch is as long ago, or as far ahead, as the [4] `launch_bounds` say; `NEVER` is neither.

    Launches and the request's moments go together in shape.
    """
    holds: tuple[Callable[[Ints64, int], Mask], ...] = (
        lambda age, within: (age >= 0) & (age <= within),
        lambda age, before: age >= before,
        lambda age, soon: (age < 0) & (-age <= soon),
        lambda age, later: -age > later,
    )
    wanted = [(rule, bound) for rule, bound in zip(holds, bounds.tolist(), strict=True) if bound != NEVER]
    shape = np.broadcast_shapes(np.shape(launch), np.shape(now))
    if not wanted:
        return np.ones(shape, np.bool_)
    there = launch != NEVER
    age, mask = now - np.where(there, launch, 0), np.broadcast_to(there, shape).copy()
    for rule, bound in wanted:
        mask &= rule(age, bound)
    return mask


def known_launches(start: Ints64, known: Ints64, now: Ints64 | int) -> Ints64:
    """Return the launches to come as far as is known at a moment, `NEVER` where there is none.

    A title that was there before and comes back has launched already. A launch that is announced later is not known.

    `start` and `known`, since when each is known, are of the K spans of titles, [K, ...]; `NEVER` = no span.
    """
    ahead = np.where((start > now) & (known <= now), start, NEVER)
    launch: Ints64 = np.where((start <= now).any(axis=0), NEVER, ahead.min(axis=0))
    return launch


@dataclass(frozen=True)
class Profiles:
    """Which members' profiles are for kids, as of each request. Members described only later count as described."""

    rows: pl.DataFrame  # member_id, kids_profile and `known_from`, the moment from which a row counts, sorted by it

    @classmethod
    def of(cls, members: pl.DataFrame) -> Profiles:
        """Read every row of members; without a column `kids_profile` nobody's is for kids, and null counts as no."""
        dated = [name for name in ("valid_from", "recorded_at") if name in members.columns]
        known = pl.max_horizontal(dated) if dated else pl.lit(_ALWAYS)
        kids = pl.col("kids_profile") if "kids_profile" in members.columns else pl.lit(False)
        rows = members.select("member_id", kids_profile=kids, known_from=known.cast(_MOMENT))
        first = pl.col("known_from") == pl.col("known_from").min().over("member_id")
        counted = pl.when(first).then(pl.lit(_ALWAYS)).otherwise("known_from").cast(_MOMENT)
        return cls(rows.with_columns(counted.alias("known_from")).sort("known_from", maintain_order=True))

    def kids(self, requests: pl.DataFrame, moment: str = "at") -> Bools:
        """Return [m] whether each request's profile was for kids at its moment; unknown members' are not."""
        if not self.rows["kids_profile"].any():
            return np.zeros(requests.height, np.bool_)
        found: Bools = self._used(requests, moment)["kids_profile"].fill_null(False).to_numpy().astype(np.bool_)
        return found

    def known_from(self, requests: pl.DataFrame, moment: str = "at") -> Ints64:
        """Return [m] since when the row that each request reads has been known, microseconds."""
        return self._used(requests, moment)["known_from"].dt.epoch("us").fill_null(0).to_numpy().astype(np.int64)

    def _used(self, requests: pl.DataFrame, moment: str) -> pl.DataFrame:
        requested = requests.select("member_id", at=moment).with_row_index("row").sort("at", maintain_order=True)
        rows = self.rows.with_columns(pl.col("known_from").alias("at"))
        found = requested.join_asof(rows, on="at", by="member_id", strategy="backward", check_sortedness=False)
        return found.sort("row")


@dataclass(frozen=True, slots=True)
class Audience:
    """What titles are, and which requests came from a kids' profile."""

    described: Described  # [T] titles; the padding row is not known
    profile: Bools  # [m]

    @property
    def titles(self) -> Bools:
        """[T] titles marked for kids; not knowing counts as no."""
        return self.described.kids

    @classmethod
    def of(
        cls, vocabulary: Vocabulary, titles: pl.DataFrame, members: pl.DataFrame, requests: pl.DataFrame
    ) -> Audience:
        """Read both from the canonical tables: titles, every row of every member, [m] requests."""
        described = Described.of(("", *vocabulary.entries), titles)
        return cls(described, Profiles.of(members).kids(requests, "event_at"))


_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT = pl.Datetime("us", "UTC")
