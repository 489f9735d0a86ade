"""What entities did, moment by moment: what a feature of them must not know of the moment itself.

Axis letters: M moments, P outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Floats64
from playbill.schema import INTERACTIONS

AT = "__event_at"
EVENTS = "number of events"
_SHARE = "share of "
_OF_PLAYS = " of plays"
MOST_MOMENTS = 20_000
MOST_OF_ONE = 300
"""Moments of one entity: a few popular titles are not to be the whole sample."""
_TEXTS = ("title_id", "action")
MOST_INDICATORS = 12


@dataclass(frozen=True, slots=True)
class Totals:
    """A total at M moments: of events strictly before, up to and including, and of the whole log."""

    before: Floats64
    upto: Floats64
    whole: Floats64


@dataclass(frozen=True)
class Outcomes:
    """M moments of some entities' events, entity after entity and by time."""

    keys: tuple[str, ...]
    """Columns that name the entity."""
    frame: pl.DataFrame
    """[M] the keys and `AT`."""
    sums: Mapping[str, Floats64]
    """Outcome -> [M] sum over the events of the moment."""
    counts: Mapping[str, Floats64]
    """Outcome -> [M] events of the moment that have it."""
    wholes: Mapping[str, tuple[Floats64, Floats64]]
    """Outcome -> [M] sum and number over all events of the entity, those of later moments included."""
    names: Mapping[str, npt.NDArray[np.object_]]
    """Text of the moment's first event, such as its title -> [M]."""

    @cached_property
    def numbers(self) -> dict[str, Floats64]:
        """Outcome -> [M] mean over the moment's events, the overall mean where none has it; those that vary."""
        means = {}
        for name, sums in self.sums.items():
            if name.endswith(_OF_PLAYS):
                continue
            counts = self.counts[name]
            known = counts > 0
            if known.any():
                mean = np.where(known, sums / np.maximum(counts, 1), sums.sum() / counts.sum())
                if mean.std() > 0:
                    means[name] = mean
        return means

    @cached_property
    def seconds(self) -> Floats64:
        """[M] seconds since 1970."""
        return self.frame[AT].to_physical().to_numpy() / 1e6

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """[M] place of the first moment of each one's entity."""
        first = self.frame.select(pl.struct(self.keys).ne_missing(pl.struct(self.keys).shift(1)).fill_null(True))
        begins = np.flatnonzero(first.to_series().to_numpy())
        lengths = np.diff(np.r_[begins, self.frame.height])
        return np.repeat(begins, lengths).astype(np.int64)

    def chains(self, known: pl.Series) -> npt.NDArray[np.int64]:
        """Return the moments with two before and one after them of the same entity, and values there and before."""
        if self.frame.height < 4:
            return np.zeros(0, np.int64)
        places = np.arange(2, self.frame.height - 1)
        has = known.to_numpy()
        same = (self._starts[places - 2] == self._starts[places]) & (self._starts[places + 1] == self._starts[places])
        chains: npt.NDArray[np.int64] = places[same & has[places] & has[places - 1]].astype(np.int64)
        return chains

    def totals(self) -> Iterator[tuple[str, Totals]]:
        """Yield counts, sums and means of every outcome."""
        for name, sums in self.sums.items():
            whole, number = self.wholes[name]
            total = self._running(sums, whole)
            if name == EVENTS:
                yield name, total
                continue
            indicator = name.startswith(_SHARE)
            yield name.replace(_SHARE, "number of ", 1) if indicator else f"sum of {name}", total
            if name.removesuffix(_OF_PLAYS) in self.numbers:
                yield name if indicator else f"mean of {name}", _ratio(total, self._running(self.counts[name], number))

    def _running(self, values: Floats64, whole: Floats64) -> Totals:
        summed = np.cumsum(values)
        base = (summed - values)[self._starts]
        upto = summed - base
        return Totals(upto - values, upto, whole)


def _ratio(total: Totals, count: Totals) -> Totals:
    with np.errstate(invalid="ignore", divide="ignore"):
        return Totals(total.before / count.before, total.upto / count.upto, total.whole / count.whole)


def outcomes_of(events: pl.DataFrame, titles: pl.DataFrame, keys: Sequence[str], seed: int = 0) -> Outcomes:
    """Return the moments of a sample of entities with whole histories."""
    own = events.filter(pl.all_horizontal(pl.col(keys).is_not_null()))
    chosen = _sampled(own, keys, seed)
    own = own.join(chosen, on=list(keys), how="semi").sort(
        [*keys, "event_at", *(["seq"] if "seq" in own.columns else [])]
    )
    numbers = {**_of_events(own), **({} if "title_id" in keys else _of_titles(own, titles))}
    texts = [name for name in _TEXTS if name in own.columns and name not in keys]
    described = own.select(*keys, pl.col("event_at").alias(AT), *texts).with_columns(
        [column.alias(f"n{place}") for place, column in enumerate(numbers.values())]
    )
    columns = [pl.col(f"n{place}") for place in range(len(numbers))]
    moments = described.group_by([*keys, AT], maintain_order=True).agg(
        *(column.sum().name.suffix("_sum") for column in columns),
        *(column.count().name.suffix("_count") for column in columns),
        *(pl.col(name).first() for name in texts),
    )
    moments = moments.with_columns(pl.col("^n[0-9]+_(sum|count)$").sum().over(keys).name.suffix("_whole"))
    moments = moments.filter(pl.int_range(pl.len()).over(keys) < MOST_OF_ONE)
    return Outcomes(
        tuple(keys),
        moments.select(*keys, AT),
        {name: _floats(moments, f"n{place}_sum") for place, name in enumerate(numbers)},
        {name: _floats(moments, f"n{place}_count") for place, name in enumerate(numbers)},
        {
            name: (_floats(moments, f"n{place}_sum_whole"), _floats(moments, f"n{place}_count_whole"))
            for place, name in enumerate(numbers)
        },
        {name.removesuffix("_id"): moments[name].to_numpy() for name in texts},
    )


def _floats(frame: pl.DataFrame, name: str) -> Floats64:
    values: Floats64 = frame[name].cast(pl.Float64).to_numpy()
    return values


def _sampled(events: pl.DataFrame, keys: Sequence[str], seed: int) -> pl.DataFrame:
    """Return the entities of the sample: in an order of chance, until there are enough moments."""
    sizes = events.group_by(keys).agg(pl.col("event_at").n_unique().clip(upper_bound=MOST_OF_ONE).alias("moments"))
    order = sizes.sort(pl.struct(keys).hash(seed), *keys)
    return order.filter(pl.col("moments").cum_sum() - pl.col("moments") < MOST_MOMENTS).select(keys)


def _of_events(events: pl.DataFrame) -> dict[str, pl.Series]:
    found = {EVENTS: pl.ones(events.height, dtype=pl.Float64, eager=True)}
    actions = events["action"].value_counts(sort=True).head(MOST_INDICATORS)["action"]
    if len(actions) > 1:
        found |= {f"{_SHARE}'{action}'": (events["action"] == action).cast(pl.Float64) for action in actions}
    own = {column.name for column in INTERACTIONS.columns if column.known == "request"}
    for name, kind in events.schema.items():
        if name not in own and (kind.is_numeric() or kind == pl.Boolean):
            found[name] = events[name].cast(pl.Float64).fill_nan(None)
    return found


def _of_titles(events: pl.DataFrame, titles: pl.DataFrame) -> dict[str, pl.Series]:
    """Return what the titles of events are: numbers, genres, and how often they are in the log."""
    known = titles.unique("title_id", keep="last")
    genres = known.get_column("genres").explode().drop_nulls().value_counts(sort=True).head(MOST_INDICATORS)
    columns = [
        pl.col("release_date").dt.year().cast(pl.Float64).alias("release year"),
        pl.col("runtime_min").cast(pl.Float64).alias("runtime"),
        *(
            pl.col("genres").list.contains(pl.lit(genre, pl.String)).cast(pl.Float64).alias(f"{_SHARE}{genre}")
            for genre in genres["genres"].to_list()
        ),
    ]
    columns = [column for column in columns if set(column.meta.root_names()) <= set(known.columns)]
    counted = events.group_by("title_id").agg(pl.len().cast(pl.Float64).alias("title's events"))
    joined = (
        events.select("title_id")
        .join(known.select("title_id", *columns), on="title_id", how="left", maintain_order="left")
        .join(counted, on="title_id", how="left", maintain_order="left")
    )
    found = {name: joined[name] for name in joined.columns if name != "title_id"}
    plays = events["action"] == "play"
    if plays.all() or not plays.any():
        return found
    # A total over plays is another one than that over plays and the thumbs given to them.
    of_plays = joined.with_columns(pl.when(plays).then(pl.col(found)).name.suffix(_OF_PLAYS))
    return found | {f"{name}{_OF_PLAYS}": of_plays[f"{name}{_OF_PLAYS}"] for name in found}
