"""Title names as catalogues write them: `Matrix, The (1999)` -> `The Matrix` and 1999."""

from __future__ import annotations

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
