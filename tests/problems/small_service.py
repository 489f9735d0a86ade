"""A small invented streaming service, written as a user's own parquet tables with a column mapping.

Taste is planted: every member likes two of six genres and mostly plays those, so a model that learns beats
popularity. Some titles launch after the last event, so "coming soon" has something to show.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

GENRES = ("Comedy", "Crime", "Documentary", "Drama", "Horror", "Romance")
WORDS = ("Amber", "Broken", "Crimson", "Distant", "Electric", "Frozen", "Golden", "Hidden", "Ivory", "Jade")
NOUNS = ("Harbor", "Letters", "Mirror", "Orchard", "Passage", "River", "Station", "Tower", "Valley", "Winter")
MAPPING = """
titles:
  file: catalogue.parquet
  columns:
    title_id: id
    name: title
    kind: {constant: film}
    genres: {from: tags, split: "|"}
    release_date: released
members:
  file: people.parquet
  columns: {member_id: user, country: region}
  profile: {age: age}
interactions:
  file: ratings.parquet
  columns: {member_id: user, title_id: item, event_at: at}
  rating: {from: stars, up: 4, down: 2, canvas: home}
  order_by: order
"""
START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 90


def write_small_service(folder: Path, members: int = 160, titles: int = 120, plays: int = 24, seed: int = 5) -> Path:
    """Write three parquet files and mapping.yaml into `folder`, and return the mapping's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    genre = rng.integers(len(GENRES), size=titles)
    names = [f"{WORDS[i % 10]} {NOUNS[(i // 10) % 10]}{'' if i < 100 else ' II'}" for i in range(titles)]
    released = [START - timedelta(days=400 - i) for i in range(titles - 10)]
    released += [START + timedelta(days=DAYS + 20 + i) for i in range(10)]
    pl.DataFrame(
        {
            "id": [f"t{i}" for i in range(titles)],
            "title": names,
            "tags": [f"{GENRES[g]}|{GENRES[(g + 3) % len(GENRES)]}" for g in genre],
            "released": released,
        }
    ).write_parquet(folder / "catalogue.parquet")
    pl.DataFrame(
        {
            "user": [f"m{i}" for i in range(members)],
            "region": [("NL", "BR", "JP")[i % 3] for i in range(members)],
            "age": rng.integers(18, 70, size=members),
        }
    ).write_parquet(folder / "people.parquet")
    weight = 1.0 / np.arange(1, titles - 9)
    rows = []
    for member in range(members):
        likes = np.isin(genre[: titles - 10], [member % 6, (member * 5 + 1) % 6])
        chance = weight * np.where(likes, 12.0, 1.0)
        chosen = rng.choice(titles - 10, size=plays, replace=False, p=chance / chance.sum())
        at = np.sort(rng.integers(0, DAYS * 86400, size=plays))
        stars = np.where(likes[chosen], rng.integers(4, 6, size=plays), rng.integers(1, 4, size=plays))
        rows += [
            (f"m{member}", f"t{title}", float(star), int(second), order)
            for order, (title, star, second) in enumerate(zip(chosen, stars, at, strict=True))
        ]
    frame = pl.DataFrame(rows, schema=["user", "item", "stars", "second", "order"], orient="row")
    frame.with_columns(pl.lit(START).dt.offset_by(pl.format("{}s", "second")).alias("at")).drop("second").write_parquet(
        folder / "ratings.parquet"
    )
    (folder / "mapping.yaml").write_text(MAPPING)
    return folder / "mapping.yaml"
