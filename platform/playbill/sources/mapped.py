"""From opened tables and a mapping to an offer; shared by a user's files and a user's database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from playbill.errors import DataError, Problem
from playbill.sources.columns import read_column, read_table
from playbill.sources.mapping import ColumnMapping, TableMapping
from playbill.sources.offer import Noted, Offer, member_slices
from playbill.sources.ratings import ORDER, RATING
from playbill.tables import RowMistake, example_row


def mapped_offer(tables: Mapping[str, TableMapping], opened: Mapping[str, pl.LazyFrame], mapping: Path) -> Offer:
    """Offer a user's tables.

    Args:
        tables: Well-formed mappings by canonical table; titles and interactions are among them.
        opened: The rows of each, with every column its mapping names.
        mapping: The mapping file, for messages.

    Returns:
        The offer. Values that cannot be read are noted in it while it is consumed.
    """
    noted: list[Noted] = []
    small = {name: _small(name, tables, opened, noted) for name in ("titles", "members", "availability")}
    titles = small["titles"]
    if titles is None:
        raise DataError(str(mapping), [Problem("titles", "this table has to be mapped.")])
    spec, log = tables["interactions"], opened["interactions"]
    used = log.select(sorted(set(spec.sources().values())))
    return Offer(
        titles,
        _batches(spec, used, noted),
        int(used.select(pl.len()).collect().item()),
        small["members"],
        small["availability"],
        rule=spec.rating.rule if spec.rating else None,
        noted=noted,
    )


def _small(
    name: str, tables: Mapping[str, TableMapping], opened: Mapping[str, pl.LazyFrame], noted: list[Noted]
) -> pl.DataFrame | None:
    if name not in tables:
        return None
    spec = tables[name]
    rows = opened[name].select(sorted(set(spec.sources().values()))).collect()
    frame, sound, mistakes = read_table(rows, name, spec.columns, spec.profile)
    noted += [Noted(name, mistake) for mistake in mistakes]
    return frame.filter(sound)


def _batches(spec: TableMapping, log: pl.LazyFrame, noted: list[Noted]) -> Iterator[pl.DataFrame]:
    member = spec.columns["member_id"].source or ""
    for rows in member_slices(log, member):
        frame, sound, mistakes = read_table(rows, "interactions", spec.columns, {})
        extra: list[pl.Series] = []
        if spec.rating:
            read = read_column(rows, ColumnMapping(source=spec.rating.source), pl.Float32())
            extra.append(read.values.rename(RATING))
            if read.broken is not None and read.broken.any():
                sound = sound & ~read.broken
                example = example_row(rows.filter(read.broken).head(1))
                what = f"column '{spec.rating.source}': {read.what}"
                mistakes.append(RowMistake("rating", what, int(read.broken.sum()), example))
        if spec.order_by:
            extra.append(rows.get_column(spec.order_by).rename(ORDER))
        noted += [Noted("interactions", mistake) for mistake in mistakes]
        yield frame.with_columns(extra).filter(sound)
