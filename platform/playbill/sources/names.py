"""Title names as catalogues write them: `Matrix, The (1999)` -> `The Matrix` and 1999; entries that are one title."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from playbill.tables import TIMESTAMP

_YEAR = r"\((\d{4})\)"
_YEAR_AND_REST = r"\s*\(\d{4}(?:\W\d{0,4})?\).*$"
_ARTICLES = "The|An|A|Les|Le|La|Une|Un|Das|Der|Die|Eine|Ein|El|Los|Las|Una|Il|Gli|Lo|I|Det|Den|De|Het|En|Ett|O"


def name_of_title(text: pl.Expr) -> pl.Expr:
    """Return the name alone: no year, articles in front, the name in another language (in parentheses) likewise.

    `Haine, La (Hate, The) (1995)` becomes `La Haine (The Hate)`.
    """
    name = text.str.strip_chars().str.replace(_YEAR_AND_REST, "").str.strip_chars()
    # A foreign name in parentheses first: its own comma must not be taken for the main name's.
    name = name.str.replace_all(rf"\(([^()]+), ({_ARTICLES})\)", "($2 $1)")
    name = name.str.replace_all(r"\(([^()]+), L'\)", "(L'$1)")
    name = name.str.replace(rf"^([^()]+), ({_ARTICLES})( \(.*)?$", "$2 $1$3")
    return name.str.replace(r"^([^()]+), L'( \(.*)?$", "L'$1$2")


def year_in_name(text: pl.Expr) -> pl.Expr:
    """Return the last four-digit year in parentheses as int32, null where there is none."""
    return text.str.extract_all(_YEAR).list.last().str.extract(r"(\d{4})").cast(pl.Int32)


def start_of_year(year: pl.Expr) -> pl.Expr:
    """Return 1 January 00:00 UTC of a year, null for null. A release known by year only starts there."""
    return pl.datetime(year, 1, 1, time_unit="us", time_zone="UTC").cast(TIMESTAMP)


@dataclass(frozen=True, slots=True)
class SameTitles:
    """Catalogue entries that are one title.

    Attributes:
        ids: title_id and `same_as`, the entry that stands for it.
        example: A name with its ids.
    """

    ids: pl.DataFrame
    example: str


def same_titles(titles: pl.DataFrame) -> SameTitles | None:
    """Find entries with the name, kind, release and genres of another one; the smallest id stands for all.

    Args:
        titles: title_id, name, kind, and where they are known release_date and genres.
    """
    same = [pl.col(name) for name in ("kind", "release_date", "genres") if name in titles.columns]
    alike = pl.struct(pl.col("name").str.strip_chars().str.to_lowercase(), *same)
    # Numbers without leading zeros sort by value when sorted by length first.
    ordered = titles.drop_nulls(["title_id", "name"]).sort(pl.col("title_id").str.len_bytes(), "title_id")
    found = ordered.select("title_id", "name", same_as=pl.col("title_id").first().over(alike))
    # Versions of one title have one id: they are no duplicates.
    ids = found.filter(pl.col("title_id") != pl.col("same_as")).unique("title_id", keep="first", maintain_order=True)
    if ids.is_empty():
        return None
    title, name, first = ids.row(0)
    return SameTitles(ids.select("title_id", "same_as"), f"'{name}' is {first} and {title}")
