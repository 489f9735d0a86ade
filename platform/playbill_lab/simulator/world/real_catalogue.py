"""A real title catalogue for a simulated service: canonical titles, or the files of a MovieLens set.

Axis letters: T titles, G genres.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import DataError, Problem, nearest
from playbill.schema import KINDS
from playbill.tables import canonical_frame
from playbill_lab.simulator.world.catalogue import KNOWN_FROM, WorldCatalogue, draw_lengths

UNKNOWN_LANGUAGE = "und"  # ISO 639 for a language that nobody told
MOVIELENS_TITLES = ("movies.dat", "movies.csv")
"""The titles of MovieLens-1M, and of 20M and 32M, in the folder their archives unpack to."""
CANONICAL = "titles.parquet"
_NO_GENRE = ["(no genres listed)", ""]
_FOR_CHILDREN = ["Children's", "Children", "Family", "family", "Animation", "animation"]
_MANY = 5


def read_titles(path: Path) -> pl.DataFrame:
    """Read titles from canonical parquet, or a folder with `titles.parquet`, `movies.dat` or `movies.csv`.

    Raises:
        DataError: There is nothing there that can be read.
    """
    if path.is_dir():
        if not (path / CANONICAL).is_file():
            return _read_movielens(path)
        path = path / CANONICAL
    if not path.is_file():
        raise DataError(str(path), [Problem("catalogue", "there is no such file or folder.")])
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).splitlines()[0]
        raise DataError(str(path), [Problem("catalogue", f"this is no parquet file of titles: {first}")]) from None


def _read_movielens(folder: Path) -> pl.DataFrame:
    found = next((folder / name for name in MOVIELENS_TITLES if (folder / name).is_file()), None)
    if found is None:
        expected = " or ".join((CANONICAL, *MOVIELENS_TITLES))
        raise DataError(str(folder), [Problem("catalogue", f"the folder has no {expected}.")])
    try:
        rows = _movielens_rows(found)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise DataError(str(found), [Problem("catalogue", f"these are not MovieLens titles: {first}")]) from None
    year = pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32)
    genres = pl.col("genres").str.split("|").list.eval(pl.element().filter(~pl.element().is_in(_NO_GENRE)))
    return rows.select(
        "title_id",
        name=pl.col("title").str.replace(r"\s*\(\d{4}\)\s*$", ""),
        kind=pl.lit("film"),
        genres=genres,
        release_date=pl.datetime(year, 1, 1, time_unit="us", time_zone="UTC"),
        kids=genres.list.set_intersection(_FOR_CHILDREN).list.len() > 0,
    )


def _movielens_rows(path: Path) -> pl.DataFrame:
    names = ["title_id", "title", "genres"]
    if path.suffix == ".csv":
        return pl.read_csv(path, infer_schema=False).rename({"movieId": "title_id"}).select(names)
    # polars separates by one byte; this control character occurs in no text file.
    content = path.read_text("latin-1").replace("::", "\x1f").encode()
    schema = dict.fromkeys(names, pl.String)
    return pl.read_csv(BytesIO(content), separator="\x1f", has_header=False, schema=schema, quote_char=None)


def read_catalogue(
    titles: pl.DataFrame | Path, availability: pl.DataFrame | None, rng: np.random.Generator
) -> WorldCatalogue:
    """Take canonical titles (or where they lie, see `read_titles`) in place of a generated catalogue.

    What it leaves out is filled in: lengths by kind, seasons and episodes are drawn; a language nobody told is `und`; a
    title without a release date is an old one. Without `availability` the world draws its own windows.

    Raises:
        DataError: No titles, or rows with mistakes; all are named.
    """
    frame = read_titles(titles) if isinstance(titles, Path) else titles
    given = frame.with_columns(
        *(pl.lit(KNOWN_FROM).alias(name) for name in ("valid_from", "recorded_at") if name not in frame.columns)
    )
    shaped, mistakes = canonical_frame("titles", given)
    problems = [Problem(f"titles.{item.column}", item.what, item.hint) for item in mistakes]
    windows, more = _windows(availability)
    problems += more if problems else [*_problems(shaped), *more, *_strangers(windows, shaped)]
    if problems:
        raise DataError("the catalogue", problems)
    newest = shaped.sort("valid_from").unique("title_id", keep="last", maintain_order=True)
    return _catalogue(newest.sort("title_id"), windows, rng)


def _windows(availability: pl.DataFrame | None) -> tuple[pl.DataFrame | None, list[Problem]]:
    if availability is None:
        return None, []
    shaped, mistakes = canonical_frame("availability", availability)
    problems = [Problem(f"availability.{item.column}", item.what, item.hint) for item in mistakes]
    if not problems:
        backwards = shaped.filter(pl.col("available_until") <= pl.col("available_from"))
        if backwards.height:
            problems.append(Problem("availability.available_until", _examples("ends before it starts", backwards)))
    return shaped, problems


def _strangers(windows: pl.DataFrame | None, titles: pl.DataFrame) -> list[Problem]:
    if windows is None or "title_id" not in windows.columns:
        return []
    strangers = windows.join(titles, on="title_id", how="anti")
    missing = titles.join(windows, on="title_id", how="anti")
    problems = []
    if strangers.height:
        problems.append(Problem("availability.title_id", _examples("is not in titles", strangers)))
    if missing.height == titles.height:
        problems.append(Problem("availability", "no title is available anywhere."))
    return problems


def _problems(titles: pl.DataFrame) -> list[Problem]:
    if titles.is_empty():
        return [Problem("titles", "a service needs at least one title.")]
    problems = []
    blank = titles.filter(pl.col("name").is_null() | (pl.col("name").str.strip_chars() == ""))
    if blank.height:
        problems.append(Problem("titles.name", _examples("is empty", blank)))
    strange = titles.filter(~pl.col("kind").is_in(KINDS))
    if strange.height:
        word = str(strange["kind"][0])
        close = nearest(word, KINDS)
        hint = f"Did you mean '{close}'?" if close else f"Known: {', '.join(KINDS)}."
        problems.append(Problem("titles.kind", _examples(f"'{word}' is no kind", strange), hint))
    twice = titles.filter(titles.select("title_id", "valid_from").is_duplicated())
    if twice.height:
        problems.append(Problem("titles.title_id", _examples("comes twice with one valid_from", twice)))
    return problems


def _examples(what: str, rows: pl.DataFrame) -> str:
    ids = rows["title_id"].unique(maintain_order=True)
    shown = ", ".join(ids.head(_MANY).cast(pl.String).to_list())
    more = f" and {len(ids) - _MANY} more" if len(ids) > _MANY else ""
    return f"{what}: {shown}{more}."


def _catalogue(titles: pl.DataFrame, windows: pl.DataFrame | None, rng: np.random.Generator) -> WorldCatalogue:
    titles = titles.with_columns(
        pl.col("genres").fill_null(pl.lit([], dtype=pl.List(pl.String))),
        pl.col("original_language").fill_null(UNKNOWN_LANGUAGE),
        pl.col("kids").fill_null(False),
    )
    genres = tuple(sorted(set(titles["genres"].explode().drop_nulls().to_list())))
    languages = tuple(sorted(set(titles["original_language"].to_list())))
    kind = titles["kind"].replace_strict({name: at for at, name in enumerate(KINDS)}, return_dtype=pl.Int8).to_numpy()
    runtime, seasons, episodes = draw_lengths(kind, rng)
    runtime = titles["runtime_min"].fill_null(pl.Series(runtime, dtype=pl.Int32)).to_numpy().astype(np.int16)
    codes = {code: at for at, code in enumerate(languages)}
    return WorldCatalogue(
        titles=titles.with_columns(runtime_min=pl.Series(runtime, dtype=pl.Int32)),
        genres=genres,
        genre=np.stack([titles["genres"].list.contains(name).to_numpy() for name in genres], axis=1).astype(np.float32)
        if genres
        else np.zeros((titles.height, 0), np.float32),
        languages=languages,
        language=titles["original_language"].replace_strict(codes, return_dtype=pl.Int16).to_numpy(),
        kind=kind,
        kids=titles["kids"].to_numpy(),
        runtime_min=runtime,
        seasons=seasons,
        episodes=episodes,
        availability=windows,
    )
