"""From opened tables and a mapping to an offer; shared by a user's files and a user's database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from playbill.clock import WallClock
from playbill.errors import DataError, Problem
from playbill.sources.canonicalise import Noted, Offer, member_slices
from playbill.sources.cleaning import Cleaner
from playbill.sources.names import same_titles
from playbill.sources.observing import plural
from playbill.sources.ratings import ORDER, RATING
from playbill.sources.tabular.columns import read_rating, read_table, unread
from playbill.sources.tabular.mapping import ColumnMapping, TableMapping


def mapped_offer(
    tables: Mapping[str, TableMapping], opened: Mapping[str, pl.LazyFrame], mapping: Path, scratch: Path
) -> Offer:
    """Offer a user's tables.

    Args:
        tables: Well-formed mappings by canonical table; titles and interactions are among them.
        opened: The rows of each, with every column its mapping names.
        mapping: The mapping file, for messages.
        scratch: Folder for rows that are set aside.

    Returns:
        The offer. Values that cannot be read are noted in it while it is consumed.

    Raises:
        DataError: A file's rows cannot be read, or no titles are mapped.
    """
    reading = _Reading(tables, opened, scratch)
    titles = reading.small("titles")
    if titles is None:
        raise DataError(str(mapping), [Problem("titles", "this table has to be mapped.")])
    same = same_titles(titles)
    merge = bool(tables["titles"].merge_duplicates and same)
    offer = Offer(
        titles,
        reading.batches(),
        reading.rows("interactions"),
        reading.small("members"),
        reading.small("availability"),
        rule=reading.rule,
        noted=reading.noted,
        same=same if merge else None,
        cleaners=reading.cleaners,
        ordered=tables["interactions"].order_by is not None or "seq" in tables["interactions"].columns,
    )
    if same is not None and not merge:
        offer.notes.append(
            f"{plural(same.ids.height, 'title')} with the name, kind, release and genres of another one "
            f"({same.example}): `merge_duplicates: true` under titles makes one of them"
        )
    return offer


class _Reading:
    """Reads mapped tables one after the other; titles first, since other tables name them."""

    def __init__(self, tables: Mapping[str, TableMapping], opened: Mapping[str, pl.LazyFrame], scratch: Path) -> None:
        self._tables, self._scratch, self._now = tables, scratch, WallClock().now()
        self._opened = {
            name: rows.select(sorted(set(tables[name].sources().values()))) for name, rows in opened.items()
        }
        self._known_titles: pl.Series | None = None
        self.cleaners: list[Cleaner] = []
        self.noted: list[Noted] = []
        rating = tables["interactions"].rating
        self.rule = rating.rule if rating else None

    def rows(self, name: str) -> int:
        """Count the rows of a table."""
        return int(_collected(name, self._opened[name].select(pl.len())).item())

    def small(self, name: str) -> pl.DataFrame | None:
        """Read a table that is held whole: all of its sound rows, or none of them when it is refused."""
        if name not in self._tables:
            return None
        spec = self._tables[name]
        rows = _collected(name, self._opened[name])
        frame, faults = read_table(rows, name, spec.columns, spec.profile)
        cleaner = self._cleaner(name)
        sound = cleaner.clean(rows, frame, faults)
        self.noted += [Noted(name, mistake) for mistake in cleaner.mistakes()]
        # References to titles that are refused would be reported one by one, which hides the cause.
        frame = frame.clear() if cleaner.refused else frame.filter(sound)
        if name == "titles" and not cleaner.refused:
            self._known_titles = frame.get_column("title_id").unique()
        return frame

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the sound events, whole members at a time, and note what is wrong once all have been seen."""
        spec, log = self._tables["interactions"], self._opened["interactions"]
        cleaner = self._cleaner("interactions")
        cleaner.repeated_ids = self._repeated_ids(spec, log) if cleaner.limit is not None else None
        for rows in self._read_batches(log, spec.columns["member_id"].source or ""):
            frame, faults = read_table(rows, "interactions", spec.columns, {})
            if spec.rating:
                read = read_rating(rows, spec.rating.source)
                faults += unread("rating", ColumnMapping(source=spec.rating.source), read, rows)
                # A rating is a play, which needs a title.
                frame = frame.with_columns(read.values.rename(RATING), action=pl.lit("play"))
            if spec.order_by:
                frame = frame.with_columns(rows.get_column(spec.order_by).rename(ORDER))
            sound = cleaner.clean(rows, frame, faults)
            yield frame.filter(sound)
        self.noted += [Noted("interactions", mistake) for mistake in cleaner.mistakes()]

    def _cleaner(self, name: str) -> Cleaner:
        rule = self._tables[name].set_aside
        made = Cleaner(name, rule.limit if rule else None, self._now, self._scratch, self._known_titles)
        self.cleaners.append(made)
        return made

    def _repeated_ids(self, spec: TableMapping, log: pl.LazyFrame) -> pl.Series | None:
        column = spec.columns.get("event_id")
        if column is None or column.source is None:
            return None
        ids = log.select(pl.col(column.source).cast(pl.String).alias("event_id"))
        counts = _collected("interactions", ids.group_by("event_id").len().filter(pl.col("len") > 1))
        return counts.get_column("event_id").drop_nulls()

    def _read_batches(self, log: pl.LazyFrame, member: str) -> Iterator[pl.DataFrame]:
        batches = member_slices(log, member)
        while True:
            try:
                rows = next(batches, None)
            except (pl.exceptions.PolarsError, OSError) as error:
                raise _unreadable("interactions", error) from None
            if rows is None:
                return
            yield rows


def _collected(table: str, rows: pl.LazyFrame) -> pl.DataFrame:
    try:
        return rows.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(table, error) from None


def _unreadable(table: str, error: Exception) -> DataError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(table, [Problem(table, f"its rows cannot be read: {first}.")])
