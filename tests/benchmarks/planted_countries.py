"""A log whose countries play by one law, each with an order of popularity of its own, and the order that is best.

A member plays titles without repetition, with a chance of 4 or 1 (those of the member's taste, and the others) over the
place of a title in the order of the member's country. `Planted.order` ranks titles by the chance of the next play of
someone from a country who has played what a request's history holds: the taste is not known, and is told by Bayes' rule
from the history. No model can do better on average.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

MAPPING = """
titles: {file: titles.parquet, columns: {title_id: id, name: name, kind: {constant: film}}}
members: {file: members.parquet, columns: {member_id: user, country: region}}
interactions:
  file: ratings.parquet
  columns: {member_id: user, title_id: item, event_at: at}
  rating: {from: stars, up: 4, down: 2, canvas: home}
  order_by: order
"""
SHARES = {"US": 0.45, "BR": 0.25, "JP": 0.13, "FR": 0.08, "PT": 0.045, "SE": 0.025, "IS": 0.0125, "MT": 0.0075}
TITLES, TASTES, PLAYS = 240, 5, 8
START = datetime(2024, 1, 1, tzinfo=UTC)


class Planted:
    """The log.

    Args:
        members: How many.
        seed: Of everything that is drawn.
        apart: Whether each country has an order of its own; else all have that of the first.
    """

    def __init__(self, members, seed, *, apart):
        draw = np.random.default_rng(seed)
        taste_T = draw.integers(TASTES, size=TITLES)
        places = {code: np.argsort(draw.permutation(TITLES)) for code in SHARES}
        self.countries = draw.choice(list(SHARES), size=members, p=list(SHARES.values()))
        tastes = draw.integers(TASTES, size=members)
        liking_ST = np.where(taste_T == np.arange(TASTES)[:, None], 4.0, 1.0)
        chances = {code: liking_ST / (3.0 + places[code if apart else "US"]) for code in SHARES}
        self.chances = {code: own / own.sum(axis=1, keepdims=True) for code, own in chances.items()}
        self.plays = []
        for member in range(members):
            chance = self.chances[self.countries[member]][tastes[member]]
            chosen = draw.choice(TITLES, size=PLAYS, replace=False, p=chance)
            self.plays.append((chosen, np.sort(draw.integers(0, 90 * 86_400, size=PLAYS))))

    def write(self, folder):
        """Write the files; return how they are read."""
        folder.mkdir(parents=True)
        rows = [
            (f"m{member}", f"t{title}", 5.0, START + timedelta(seconds=int(at)), order)
            for member, (chosen, moments) in enumerate(self.plays)
            for order, (title, at) in enumerate(zip(chosen, moments, strict=True))
        ]
        pl.DataFrame(rows, schema=["user", "item", "stars", "at", "order"], orient="row").write_parquet(
            folder / "ratings.parquet"
        )
        pl.DataFrame({"id": self.title_ids, "name": self.title_ids}).write_parquet(folder / "titles.parquet")
        users = [f"m{member}" for member in range(len(self.plays))]
        pl.DataFrame({"user": users, "region": self.countries.tolist()}).write_parquet(folder / "members.parquet")
        (folder / "mapping.yaml").write_text(MAPPING)
        return {"path": folder, "mapping": folder / "mapping.yaml"}

    @property
    def title_ids(self):
        """Names of the titles."""
        return [f"t{title}" for title in range(TITLES)]

    def score(self, requests):
        """Return [N, T] the chance of each title to be played next; what scores a case."""
        place = {name: number for number, name in enumerate(self.title_ids)}
        found = []
        for request in requests:
            seen = [place[title] for title in request.history["title_id"].cast(pl.String) if title in place]
            chance_ST = self.chances[request.country]
            likely_S = np.log(chance_ST[:, seen]).sum(axis=1)
            found.append(np.exp(likely_S - likely_S.max()) @ chance_ST)
        return np.log(np.stack(found))
