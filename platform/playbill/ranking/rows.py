"""Which rows there are for a member: those of the zoo, generated ones spelled out.

Axis letters: T titles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from playbill.ranking.candidates import ABSENT, Catalogue, Columns
from playbill.specs import RowSpec

DEFAULT_LANGUAGE = "en"


@dataclass(frozen=True)
class Taste:
    """What generated rows read of a member's history.

    Args:
        watched: Columns of titles played, newest play first.
        liked: Columns of titles to name in "because you watched": those whose last thumb is up, newest first,
            then played ones without a thumb, newest first. A title whose last thumb is down is not among them.
        genres: Genres of the liked titles, the most frequent first, ties by name.
    """

    watched: Columns = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    liked: Columns = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    genres: tuple[str, ...] = ()


def taste_of(history: pl.DataFrame, catalogue: Catalogue) -> Taste:
    """Read a member's taste from rows of `interactions`, all of them before the request."""
    events = history.filter(pl.col("action").is_in(["play", "thumbs_up", "thumbs_down"])).drop_nulls("title_id")
    of_title = (
        events.sort("seq")
        .group_by("title_id", maintain_order=True)
        .agg(
            pl.col("action").filter(pl.col("action") != "play").last().alias("thumb"),
            pl.col("seq").filter(pl.col("action") == "play").max().alias("played"),
            pl.col("seq").max().alias("newest"),
        )
    )
    watched = of_title.drop_nulls("played").sort("played", "title_id", descending=[True, False])
    up = (pl.col("thumb") == "thumbs_up").fill_null(False).alias("up")
    kept = of_title.filter(pl.col("thumb").is_null() | up)
    kept = kept.with_columns(up).sort("up", "newest", "title_id", descending=[True, True, False])
    liked = catalogue.columns(kept["title_id"])
    return Taste(catalogue.columns(watched["title_id"]), liked, _genres(liked, catalogue))


def _genres(liked: Columns, catalogue: Catalogue) -> tuple[str, ...]:
    counts = {genre: int(mask[liked].sum()) for genre, mask in catalogue.genres.items()}
    return tuple(sorted((genre for genre, count in counts.items() if count), key=lambda name: (-counts[name], name)))


@dataclass(frozen=True)
class RowPlan:
    """One row that may be shown.

    Args:
        row_id: `name`, or `name:genre` and `name:title_id` for generated rows. Unique on a page.
        spec: Its definition.
        title: What it is called, in the member's language where there is one.
        source: Column of its own source title, `ABSENT` when it has none.
        genre: Only titles of this genre, None = of any.
    """

    row_id: str
    spec: RowSpec
    title: str
    source: int = ABSENT
    genre: str | None = None

    @property
    def scored_as(self) -> str:
        """The canvas that its titles are scored for."""
        return self.spec.scored_as or self.spec.canvas


def plan_rows(
    specs: Iterable[RowSpec], catalogue: Catalogue, taste: Taste, language: str | None = None
) -> list[RowPlan]:
    """Return the rows of a page in order, generated ones spelled out for this member.

    Args:
        specs: Definitions in the order of the page.
        catalogue: Names and genres of titles.
        taste: The member's; without any, generated rows are left out.
        language: The member's, for names of rows and titles.
    """
    return [plan for spec in specs for plan in _plans(spec, catalogue, taste, language)]


def _plans(spec: RowSpec, catalogue: Catalogue, taste: Taste, language: str | None) -> list[RowPlan]:
    template = row_title(spec, language)
    if spec.generator is None:
        return [RowPlan(spec.name, spec, template)]
    limit, placeholder = spec.generator.limit, spec.generator.placeholder
    if spec.generator.each == "genre":
        return [
            RowPlan(f"{spec.name}:{genre}", spec, template.replace(placeholder, genre), genre=genre)
            for genre in taste.genres[:limit]
        ]
    return [
        RowPlan(
            f"{spec.name}:{catalogue.title_ids[column]}",
            spec,
            template.replace(placeholder, catalogue.name(column, language)),
            source=column,
        )
        for column in taste.liked[:limit].tolist()
    ]


def row_title(spec: RowSpec, language: str | None) -> str:
    """Return a row's name in a language, else in English, else in the first language it has."""
    for wanted in (language, DEFAULT_LANGUAGE):
        if wanted in spec.title:
            return spec.title[wanted]
    return next(iter(spec.title.values()))
