"""A log over a catalogue of any size, as a user's own parquet tables with a mapping: what cost is measured on.

Titles fall into groups of some forty. A member has a few groups, and mostly goes on with the one of the play before, so
a model that reads histories is ahead of popularity. Popularity within a group and over groups has a long tail, and some
titles launch while the log runs.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

GENRES = ("Comedy", "Crime", "Documentary", "Drama", "Family", "Horror", "Music", "Romance", "Western")
FIRST = ("Amber", "Broken", "Crimson", "Distant", "Electric", "Frozen", "Golden", "Hidden", "Ivory", "Jade", "Lost")
SECOND = ("Harbor", "Letters", "Mirror", "Orchard", "Passage", "River", "Station", "Tower", "Valley", "Winter")
THIRD = ("Dreams", "Games", "Hearts", "Roads", "Secrets", "Shadows", "Stories", "Streets", "Truths", "Wars")
COUNTRIES = ("NL", "BR", "JP")
START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 120
GROUP = 40
"""Titles of a group."""
STAY = 0.7
"""How often the next play is of the same group."""
MAPPING = """
titles:
  file: titles.parquet
  columns: {title_id: id, name: name, kind: {constant: film}, genres: genres, release_date: released}
members:
  file: members.parquet
  columns: {member_id: member, country: country}
interactions:
  file: plays.parquet
  columns: {member_id: member, title_id: title, event_at: at, action: {constant: play}, canvas: {constant: home},
    progress: watched}
  order_by: order
"""


def write_large_catalogue(folder: Path, titles: int, members: int, plays: int, seed: int = 5) -> Path:
    """Write three parquet files and mapping.yaml into `folder`, and return the mapping's path.

    Args:
        folder: Made if it is not there.
        titles: In the catalogue; most have few plays, many have none.
        members: Each has at least three plays.
        plays: In all, about.
        seed: Of everything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    _titles(titles, random).write_parquet(folder / "titles.parquet")
    names = [f"m{member}" for member in range(members)]
    countries = [COUNTRIES[member % len(COUNTRIES)] for member in range(members)]
    pl.DataFrame({"member": names, "country": countries}).write_parquet(folder / "members.parquet")
    _plays(titles, members, plays, random).write_parquet(folder / "plays.parquet")
    (folder / "mapping.yaml").write_text(MAPPING, encoding="utf-8")
    return folder / "mapping.yaml"


def _titles(titles: int, random: np.random.Generator) -> pl.DataFrame:
    number = np.arange(titles)
    words = zip(*(random.integers(0, len(part), titles) for part in (FIRST, SECOND, THIRD)), strict=True)
    released = [START - timedelta(days=int(days)) for days in random.integers(1, 9_000, titles)]
    for late in number[::50].tolist():  # launches while the log runs
        released[late] = START + timedelta(days=int(random.integers(1, DAYS - 20)))
    genre = number // GROUP % len(GENRES)
    return pl.DataFrame(
        {
            "id": [f"t{title}" for title in number],
            "name": [f"{FIRST[a]} {SECOND[b]} {THIRD[c]} {title}" for title, (a, b, c) in enumerate(words)],
            "genres": [[GENRES[own], GENRES[(own + 3) % len(GENRES)]] for own in genre.tolist()],
            "released": pl.Series(released, dtype=pl.Datetime("us", "UTC")),
        }
    )


def _plays(titles: int, members: int, plays: int, random: np.random.Generator) -> pl.DataFrame:
    counts = 3 + random.poisson(random.gamma(0.8, max(plays / members - 3, 0.1) / 0.8, members))
    member = np.repeat(np.arange(members), counts)
    place = np.arange(len(member)) - np.repeat(np.cumsum(counts) - counts, counts)
    groups = -(-titles // GROUP)
    own = _skewed(groups, (members, 4), random)
    group = own[member, random.integers(0, 4, len(member))]
    stays = (place > 0) & (random.random(len(member)) < STAY)
    begins = np.maximum.accumulate(np.where(stays, 0, np.arange(len(member))))
    title = np.minimum(group[begins] * GROUP + _skewed(GROUP, len(member), random), titles - 1)
    seconds = (
        np.sort(random.integers(0, DAYS * 86_400, len(member)) + member * (DAYS * 86_400)) - member * DAYS * 86_400
    )
    return pl.DataFrame(
        {
            "member": [f"m{one}" for one in member.tolist()],
            "title": [f"t{one}" for one in title.tolist()],
            "at": seconds,
            "watched": np.clip(random.normal(0.7, 0.4, len(member)), 0.0, 1.0),
            "order": place,
        }
    ).with_columns(at=pl.lit(START).cast(pl.Datetime("us", "UTC")) + pl.duration(seconds=pl.col("at")))


def _skewed(size: int, shape: int | tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Draw numbers below `size`, the first ones oftenest: their chance falls with the square root of the place."""
    return np.minimum((random.random(shape) ** 2 * size).astype(np.int64), size - 1)
