"""Title names as catalogues write them: `Matrix, The (1999)` -> `The Matrix` and 1999; entries that are one title.

US zip codes -> regions. MovieLens members are nearly all from one country, and a constant would leave nothing to learn
or to compare, so the US state stands in `country` as `US-MN`. It comes from the first three digits of the zip code: the
United States Postal Service's sectional centres (Domestic Mail Manual, labeling list L002), none of which serves two
states by its own prefix. Military mail is `US-AE`, `US-AP` and `US-AA`, territories have their own code, and everything
that is no US zip code is `ZZ`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from playbill.schema import UNKNOWN_COUNTRY
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
    """Catalogue entries that are one title."""

    ids: pl.DataFrame
    """title_id and `same_as`, the entry that stands for it."""
    example: str
    """A name with its ids."""


def same_titles(titles: pl.DataFrame) -> SameTitles | None:
    """Find entries with the name, kind, release and genres of another one; the smallest id stands for all."""
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


_CENTRES = """
005-005 NY, 006-007 PR, 008-008 VI, 009-009 PR, 010-027 MA, 028-029 RI, 030-038 NH, 039-049 ME, 050-054 VT,
055-055 MA, 056-059 VT, 060-069 CT, 070-089 NJ, 090-098 AE, 100-149 NY, 150-196 PA, 197-199 DE, 200-200 DC,
201-201 VA, 202-205 DC, 206-212 MD, 214-219 MD, 220-246 VA, 247-268 WV, 270-289 NC, 290-299 SC, 300-319 GA,
320-339 FL, 340-340 AA, 341-342 FL, 344-344 FL, 346-347 FL, 349-349 FL, 350-352 AL, 354-369 AL, 370-385 TN,
386-397 MS, 398-399 GA, 400-418 KY, 420-427 KY, 430-459 OH, 460-479 IN, 480-499 MI, 500-516 IA, 520-528 IA,
530-532 WI, 534-535 WI, 537-549 WI, 550-551 MN, 553-567 MN, 569-569 DC, 570-577 SD, 580-588 ND, 590-599 MT,
600-620 IL, 622-629 IL, 630-631 MO, 633-641 MO, 644-658 MO, 660-662 KS, 664-679 KS, 680-681 NE, 683-693 NE,
700-701 LA, 703-708 LA, 710-714 LA, 716-729 AR, 730-731 OK, 733-733 TX, 734-741 OK, 743-749 OK, 750-770 TX,
772-799 TX, 800-816 CO, 820-831 WY, 832-838 ID, 840-847 UT, 850-853 AZ, 855-857 AZ, 859-860 AZ, 863-865 AZ,
870-875 NM, 877-884 NM, 885-885 TX, 889-891 NV, 893-895 NV, 897-898 NV, 900-908 CA, 910-928 CA, 930-961 CA,
962-966 AP, 967-968 HI, 969-969 GU, 970-979 OR, 980-986 WA, 988-994 WA, 995-999 AK
"""
"""First and last three-digit prefix, and the state, territory or military region. Prefixes not here are unused."""

PREFIX_RANGES = [(int(first), int(last), state) for first, last, state in re.findall(r"(\d+)-(\d+) (\w+)", _CENTRES)]
_REGIONS = {f"{prefix:03d}": f"US-{state}" for first, last, state in PREFIX_RANGES for prefix in range(first, last + 1)}
_ZIP = r"^(\d{3})\d{2}(?:[- ]?\d{4})?$"


def region_of_zip(zip_code: pl.Expr, *, digits_only: bool = False) -> pl.Expr:
    """Return `US-XX` for five- and nine-digit US zip codes, and `ZZ` for everything else and for null.

    `digits_only` puts back the leading zeros of codes that came from a number column.
    """
    text = zip_code.str.strip_chars()
    if digits_only:
        text = pl.when(text.str.len_bytes() > 5).then(text.str.zfill(9)).otherwise(text.str.zfill(5))
    prefix = text.str.extract(_ZIP)
    return prefix.replace_strict(_REGIONS, default=UNKNOWN_COUNTRY, return_dtype=pl.String).fill_null(UNKNOWN_COUNTRY)
