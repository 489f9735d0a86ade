"""Reading the files of the MovieLens data sets, each in the form its publisher gave it.

| set | ratings | titles | members |
|---|---|---|---|
| 100K | `u.data`, tabs | `u.item`, `|`, Latin-1, one column of 0 and 1 per genre | `u.user`, `|` |
| 100K, atomic files of the PyPI wheel | `ml-100k.inter`, tabs | `ml-100k.item`, UTF-8 | `ml-100k.user` |
| 1M | `ratings.dat`, `::` | `movies.dat`, Latin-1 | `users.dat` |
| 20M, 32M | `ratings.csv` | `movies.csv`, quoted | none |

Every reader gives ratings as member_id, title_id, event_at and the rating, titles as title_id, name, kind,
genres, release_date and kids, and members as member_id, country, age, gender and occupation. A title's release is
the year in its name, in every set, so that two routes to one set give the same tables.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import polars as pl

from playbill.sources.names import name_of_title, start_of_year, year_in_name
from playbill.sources.ratings import RATING
from playbill.sources.regions import region_of_zip
from playbill.tables import TIMESTAMP

GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
"""Genres in the order of the last 19 columns of `u.item`."""

OCCUPATIONS_1M = (
    "other",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)
"""Occupation codes 0 to 20 of `users.dat`."""

_NO_GENRE = ["unknown", "(no genres listed)", ""]
_FOR_CHILDREN = ["Children's", "Children"]


def read_100k(folder: Path) -> tuple[pl.LazyFrame, pl.DataFrame, pl.DataFrame]:
    """Read `u.data`, `u.item` and `u.user`."""
    ratings = _text(folder / "u.data", "\t", ["user", "item", "rating", "timestamp"])
    item_columns = ["item", "title", "released", "video_released", "url", *GENRES_100K]
    items = _text(folder / "u.item", "|", item_columns, encoding="latin-1")
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES_100K]
    items = items.with_columns(genres=pl.concat_list(flags).list.drop_nulls())
    users = _text(folder / "u.user", "|", ["user", "age", "gender", "occupation", "zip"])
    return _ratings(ratings.lazy()), _titles(items), _members(users)


def read_atomic_100k(folder: Path) -> tuple[pl.LazyFrame, pl.DataFrame, pl.DataFrame]:
    """Read `ml-100k.inter`, `ml-100k.item` and `ml-100k.user`, tab separated under a typed header."""
    ratings = _text(folder / "ml-100k.inter", "\t", ["user", "item", "rating", "timestamp"], skip=1)
    items = _text(folder / "ml-100k.item", "\t", ["item", "name", "year", "genres"], skip=1)
    # The name usually comes without its year; one row of these files has the year left in its name.
    year = pl.col("year").str.extract(r"^(\d{4})$")
    title = pl.when(year.is_null()).then(pl.col("name")).otherwise(pl.format("{} ({})", "name", "year"))
    title = title.str.replace("^unkonwn$", "unknown")
    items = items.with_columns(title=title, genres=pl.col("genres").str.split(" "))
    users = _text(folder / "ml-100k.user", "\t", ["user", "age", "gender", "occupation", "zip"], skip=1)
    return _ratings(ratings.lazy()), _titles(items), _members(users)


def read_1m(folder: Path) -> tuple[pl.LazyFrame, pl.DataFrame, pl.DataFrame]:
    """Read `ratings.dat`, `movies.dat` and `users.dat`."""
    ratings = _dat(folder / "ratings.dat", ["user", "item", "rating", "timestamp"])
    items = _dat(folder / "movies.dat", ["item", "title", "genres"])
    items = items.with_columns(pl.col("genres").str.split("|"))
    users = _dat(folder / "users.dat", ["user", "gender", "age", "occupation", "zip"])
    names = {str(code): name for code, name in enumerate(OCCUPATIONS_1M)}
    users = users.with_columns(pl.col("occupation").replace_strict(names, default=None, return_dtype=pl.String))
    return _ratings(ratings.lazy()), _titles(items), _members(users)


def read_csv_set(folder: Path) -> tuple[pl.LazyFrame, pl.DataFrame, None]:
    """Read `ratings.csv`, lazily, and `movies.csv`."""
    ratings = pl.scan_csv(folder / "ratings.csv", infer_schema=False).rename({"userId": "user", "movieId": "item"})
    items = pl.read_csv(folder / "movies.csv", infer_schema=False).rename({"movieId": "item"})
    return _ratings(ratings), _titles(items.with_columns(pl.col("genres").str.split("|"))), None


def _text(path: Path, separator: str, columns: list[str], *, encoding: str = "utf-8", skip: int = 0) -> pl.DataFrame:
    content = path.read_bytes() if encoding == "utf-8" else path.read_text(encoding).encode()
    return pl.read_csv(
        BytesIO(content),
        separator=separator,
        has_header=False,
        skip_rows=skip,
        schema={name: pl.String for name in columns},
        quote_char=None,
    )


def _dat(path: Path, columns: list[str]) -> pl.DataFrame:
    # polars separates by one byte; this control character occurs in no text file.
    content = path.read_text("latin-1").replace("::", "\x1f").encode()
    schema = {name: pl.String for name in columns}
    return pl.read_csv(BytesIO(content), separator="\x1f", has_header=False, schema=schema, quote_char=None)


def _ratings(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select(
        member_id="user",
        title_id="item",
        event_at=pl.from_epoch(pl.col("timestamp").cast(pl.Int64), "s").dt.replace_time_zone("UTC").cast(TIMESTAMP),
        **{RATING: pl.col("rating").cast(pl.Float32)},
    )


def _titles(items: pl.DataFrame) -> pl.DataFrame:
    # A film without a genre has a stand-in for one, or an empty string.
    listed = pl.col("genres").fill_null(pl.lit([], dtype=pl.List(pl.String)))
    genres = listed.list.eval(pl.element().filter(~pl.element().is_in(_NO_GENRE)))
    return items.select(
        title_id="item",
        name=name_of_title(pl.col("title")),
        kind=pl.lit("film"),
        genres=genres,
        release_date=start_of_year(year_in_name(pl.col("title"))),
        kids=genres.list.set_intersection(_FOR_CHILDREN).list.len() > 0,
    )


def _members(users: pl.DataFrame) -> pl.DataFrame:
    return users.select(
        member_id="user",
        country=region_of_zip(pl.col("zip")),
        age=pl.col("age").cast(pl.Int32),
        gender="gender",
        occupation="occupation",
    )
