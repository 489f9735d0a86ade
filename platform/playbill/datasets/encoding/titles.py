"""Rows of the titles table to what the title tower reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import polars as pl

from playbill.arrays import AnyInts, Floats32, Ints64
from playbill.clock import from_microseconds
from playbill.datasets.arrays import TitleArrays
from playbill.datasets.encoding.encoder import Encoder
from playbill.datasets.encoding.text import gram_arrays, word_arrays
from playbill.datasets.encoding.tokens import taken_apart, year_buckets
from playbill.errors import DataError, Problem
from playbill.tables.frames import utc_literal

if TYPE_CHECKING:
    from playbill.features import TitleSnapshots

SYNOPSIS_WORDS = 64
_DAY_S = 86_400.0


def title_arrays(
    encoder: Encoder,
    titles: pl.DataFrame,
    availability: pl.DataFrame,
    *,
    plays: AnyInts | Floats32,
    as_of: datetime,
    snapshots: Floats32,
    categorical: pl.DataFrame | None = None,
    vectors: Floats32 | None = None,
) -> TitleArrays:
    """Encode every title the encoder has a row for; T counts the padding row.

    The encoder's `title_rows` decide the order; one without an entry in `titles` has no metadata. The first
    `available_from` of any country is the launch, ages are told at `as_of`. `plays` are [T] in the training part,
    `snapshots` [S, T, F] raw features with nan = missing, `categorical` has title_id and the categorical title
    features, `vectors` are [T, V] of `vector_values`.

    Raises:
        DataError: A title has several rows.
    """
    frame = _in_order(encoder, titles, availability, categorical)
    count, trained = frame.height, encoder.trained_titles
    index = np.arange(count)
    return TitleArrays(
        index=np.where(index < trained, index, 0),
        **_bags(encoder, frame),
        kind=_index(encoder, frame, "kind"),
        language=_index(encoder, frame, "original_language"),
        release_year=_years(encoder, frame),
        age_days=_ages(frame["launch"], as_of),
        plays=plays.astype(np.float32),
        has_id=(plays > 0) & (index < trained),
        numeric=np.full((count, len(encoder.state.title_vectors)), np.nan, np.float32) if vectors is None else vectors,
        categorical=encoder.categorical_matrix(frame, tuple(encoder.state.title_categorical)),
        snapshots=snapshots.astype(np.float32, copy=False),
    )


def title_attribute(encoder: Encoder, titles: pl.DataFrame, column: Literal["genres", "kind"]) -> Ints64:
    """Return [T, W] indices of what every title has of a column, 0 where there is no more.

    It does not matter whether the title's metadata vector reads that column.
    """
    frame = _ids(encoder).join(titles.select("title_id", column), on="title_id", how="left", maintain_order="left")
    if column == "kind":
        return encoder.vocabulary("kind").encode(frame["kind"]).astype(np.int64)[:, None]
    codes, starts = _genre_bags(encoder, frame)
    sizes = np.diff(starts, append=len(codes))
    found = np.zeros((frame.height, int(sizes.max(initial=0))), np.int64)
    row = np.repeat(np.arange(frame.height), sizes)
    found[row, np.arange(len(codes)) - starts[row]] = codes
    return found


def snapshot_values(found: TitleSnapshots, names: Sequence[str]) -> Floats32:
    """Return [S, T, F] raw features in the order of `names`, padding row first; a column not found is nan."""
    moments, titles = found.values.shape[:2]
    values = np.full((moments, titles + 1, len(names)), np.nan, np.float32)
    if tuple(found.columns) == tuple(names):
        values[:, 1:] = found.values
        return values
    places = {name: place for place, name in enumerate(found.columns)}
    for place, name in enumerate(names):
        if name in places:
            values[:, 1:, place] = found.values[:, :, places[name]]
    return values


class TitleFeatures(Protocol):
    """What is read of `playbill.features.FeatureDoor`."""

    def title_snapshots(
        self,
        service: str,
        moments: Sequence[datetime],
        title_ids: Sequence[str],
        countries: Sequence[str | None] | None = None,
    ) -> Any:
        """Return `.columns`, `.values` [S, T, F] and `.categorical` of title features, strictly before each moment.

        With `countries`, one for each moment, also what titles have there.
        """


def read_snapshots(features: TitleFeatures, encoder: Encoder, situations: Ints64) -> Any:
    """Return the title features of S situations, see `tokens.situations`; those of an unknown country are missing."""
    state, titles = encoder.state, encoder.title_rows.entries
    floors, countries = taken_apart(situations)
    moments = [from_microseconds(moment) for moment in floors.tolist()]
    if not state.country_columns:
        return features.title_snapshots(state.service, moments, titles)
    names = (None, *state.countries)
    return features.title_snapshots(state.service, moments, titles, [names[code] for code in countries.tolist()])


def vector_values(found: TitleSnapshots, names: Sequence[str]) -> Floats32:
    """Return [T, V] the numbers of titles' vectors in the order of `names`, padding row first; nan = missing."""
    values = np.full((len(found.title_ids) + 1, len(names)), np.nan, np.float32)
    if found.vectors is not None:
        places = {name: place for place, name in enumerate(found.vector_columns)}
        known = [place for place, name in enumerate(names) if name in places]
        values[1:, known] = found.vectors[:, [places[names[place]] for place in known]]
    return values


def display_names(encoder: Encoder, titles: pl.DataFrame) -> tuple[str, ...]:
    """Return the name of every row; empty where there is none."""
    frame = _ids(encoder).join(titles.select("title_id", "name"), on="title_id", how="left", maintain_order="left")
    return tuple(frame["name"].fill_null("").to_list())


def _ids(encoder: Encoder) -> pl.DataFrame:
    return pl.DataFrame({"title_id": pl.Series([None, *encoder.title_rows.entries], dtype=pl.String)})


def _in_order(
    encoder: Encoder, titles: pl.DataFrame, availability: pl.DataFrame, categorical: pl.DataFrame | None
) -> pl.DataFrame:
    launches = availability.group_by("title_id").agg(pl.col("available_from").min().alias("launch"))
    frame = _ids(encoder).join(titles, on="title_id", how="left", maintain_order="left")
    frame = frame.join(launches, on="title_id", how="left", maintain_order="left")
    if categorical is not None:
        frame = frame.join(categorical, on="title_id", how="left", maintain_order="left")
    if frame.height != encoder.title_rows.size:
        raise DataError(
            "titles to encode", [Problem("title_id", "is there several times; one row per title is needed")]
        )
    return frame


def _read(encoder: Encoder, frame: pl.DataFrame, column: str) -> pl.Series:
    if column not in encoder.state.metadata or column not in frame.columns:
        return pl.Series(column, [None] * frame.height, dtype=pl.String)
    return frame[column]


def _index(encoder: Encoder, frame: pl.DataFrame, column: str) -> Ints64:
    return encoder.vocabulary(column).encode(_read(encoder, frame, column)).astype(np.int64)


def _bags(encoder: Encoder, frame: pl.DataFrame) -> dict[str, Ints64]:
    buckets = encoder.state.text_buckets
    synopses = _read(encoder, frame, "synopsis").fill_null("").to_list()
    found = {
        ("genres", "genre_offsets"): _genres(encoder, frame),
        ("name_grams", "name_offsets"): gram_arrays(_names(frame), buckets),
        ("synopsis_grams", "synopsis_offsets"): word_arrays(synopses, buckets, SYNOPSIS_WORDS),
    }
    return {name: part for names, parts in found.items() for name, part in zip(names, parts, strict=True)}


def _genres(encoder: Encoder, frame: pl.DataFrame) -> tuple[Ints64, Ints64]:
    if "genres" not in encoder.state.metadata or "genres" not in frame.columns:
        return np.zeros(0, np.int64), np.zeros(frame.height, np.int64)
    return _genre_bags(encoder, frame)


def _genre_bags(encoder: Encoder, frame: pl.DataFrame) -> tuple[Ints64, Ints64]:
    flat = pl.DataFrame({"row": np.arange(frame.height), "genre": frame["genres"]}).explode("genre")
    codes = encoder.vocabulary("genre").encode(flat["genre"]).astype(np.int64)
    rows = flat["row"].to_numpy()[codes > 0]
    sizes = np.bincount(rows, minlength=frame.height)
    return codes[codes > 0], np.cumsum(sizes) - sizes


def _names(frame: pl.DataFrame) -> list[str]:
    """Join a title's names in all languages. Search needs them whether or not the metadata vector does."""
    own = frame["name"].fill_null("")
    if "names" not in frame.columns:
        return own.to_list()
    others = frame.select(
        pl.col("names")
        .list.eval(pl.element().struct.field("name"))
        .list.set_difference(pl.concat_list("name"))
        .list.join(" / ", ignore_nulls=True)
        .fill_null("")
    ).to_series()
    return (own + " / " + others).to_list()


def _years(encoder: Encoder, frame: pl.DataFrame) -> Ints64:
    if "release_year" not in encoder.state.metadata or "release_date" not in frame.columns:
        return np.zeros(frame.height, np.int64)
    years = frame["release_date"].dt.year().cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return year_buckets(years, encoder.state.year_edges)


def _ages(launch: pl.Series, as_of: datetime) -> Floats32:
    age = (utc_literal(as_of) - pl.col("launch")).dt.total_seconds() / _DAY_S
    ages: Floats32 = launch.to_frame().select(age.fill_null(float("nan"))).to_series().to_numpy().astype(np.float32)
    return ages
