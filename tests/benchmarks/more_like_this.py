"""More like this: lists beside a title, by popularity band, by truth, by shared metadata, and by what comes next.

Example: python tests/benchmarks/more_like_this.py --json
Small:   python tests/benchmarks/more_like_this.py --members 800 --titles 200 --days 21 --steps 60 --json

One model of one simulated service per seed; the terms differ by nothing but what they read. The last line is one JSON
object: bands, terms (judge -> term -> band -> mean, interval, n), blends (weight -> next plays), chosen, seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
from asked_service import Service, definition, service, trained
from more_like_this_plot import draw
from rich.console import Console
from rich.table import Table
from search_measures import (
    accuracy,
    listed,
    mean_likeness,
    shared_metadata,
    target_ranks,
)

from playbill.datasets import Request
from playbill.evaluation.cases.event_log import UNKNOWN, TitleOrder
from playbill.evaluation.cases.slices import popularity_bands
from playbill.metrics.bootstrap import member_bootstrap
from playbill.ranking.scoring.scorer import Scorer

HEAD = "new_play"
TERMS = ("popular", "similarity", "co_play", "semantic", "lift", "likeness")
WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)
JUDGES = ("truth", "metadata")
BANDS = ("head", "mid", "tail", "new")


def run(given: argparse.Namespace, seed: int) -> dict:
    """Judge every term and blend on one service."""
    own = service(seed, given.members, given.titles, given.days)
    scorer = trained(own, definition(seed, given.epochs, given.steps, given.dim))
    catalogue = TitleOrder(tuple(scorer.title_ids))
    plays = own.log.events.filter((pl.col("action") == "play") & (pl.col("event_at") < own.validation))
    counts = np.bincount(catalogue.codes(plays["title_id"]), minlength=len(catalogue)).astype(np.float64)
    bands = popularity_bands(counts)
    return {"beside": beside(own, scorer, counts, bands), "next": following(own, scorer, counts, bands)}


def beside(own: Service, scorer: Scorer, counts: np.ndarray, bands: np.ndarray) -> dict:
    """Judge lists beside every title that is known at the end: judge -> term -> (values, bands) of each title."""
    catalogue = TitleOrder(tuple(scorer.title_ids))
    world = own.world
    order = catalogue.places_in(world.title_ids.to_list())
    unit = world.truth.vector[order] / np.linalg.norm(world.truth.vector[order], axis=1, keepdims=True)
    metadata = shared_metadata(world.titles[order])
    sources = np.flatnonzero(catalogue.places_in(own.log.titles()["title_id"].to_list()) != UNKNOWN)
    known = np.isin(np.arange(len(catalogue)), sources)
    judges = {"truth": np.maximum(unit @ unit.T, 0.0)[sources], "metadata": metadata[sources]}
    requests = [
        Request(canvas="more_like_this", at=own.test, source_title_id=catalogue.title_ids[source]) for source in sources
    ]
    terms = scorer.score(requests, (HEAD, *TERMS[1:]))
    scores = {
        "popular": np.tile(counts, (len(sources), 1)),
        **{name: terms[name] for name in TERMS[1:]},
        **blends(terms),
    }
    found = {}
    for judge, judged in judges.items():
        lists = {name: listed(values, known, sources) for name, values in scores.items()}
        found[judge] = {name: mean_likeness(own_list, judged, known, sources) for name, own_list in lists.items()}
    return {"values": found, "bands": bands[sources]}


def blends(terms: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the blends that are compared: the one that was, and likeness with several weights."""
    found = {f"head + {weight:g} likeness": terms[HEAD] + weight * terms["likeness"] for weight in WEIGHTS}
    return {"before: head + 10 similarity": terms[HEAD] + 10 * terms["similarity"], **found}


def following(own: Service, scorer: Scorer, counts: np.ndarray, bands: np.ndarray) -> dict:
    """Rank the next play of something new after each play of the last two weeks, with what was played as the source."""
    catalogue = TitleOrder(tuple(scorer.title_ids))
    events = own.log.events.sort("member_id", "seq").with_row_index("place")
    plays = events.filter(pl.col("action") == "play").with_columns(
        before=pl.col("title_id").shift(1).over("member_id"),
        again=pl.col("title_id").cum_count().over("member_id", "title_id") > 1,
        start=pl.col("place").min().over("member_id"),
    )
    requested = plays.filter((pl.col("event_at") >= own.validation) & ~pl.col("again") & pl.col("before").is_not_null())
    requests = [
        Request(
            canvas="more_like_this",
            at=row["event_at"],
            member_id=row["member_id"],
            country=row["country"],
            device=row["device"],
            language=row["language"],
            source_title_id=row["before"],
            history=events.slice(row["start"], row["place"] - row["start"]).drop("place"),
        )
        for row in requested.iter_rows(named=True)
    ]
    scorer.remember([request.at for request in requests])
    parts = [scorer.score(requests[at : at + 512], (HEAD, *TERMS[1:])) for at in range(0, len(requests), 512)]
    terms = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    terms["popular"] = np.tile(counts, (len(requests), 1))
    source, target = catalogue.codes(requested["before"]), catalogue.codes(requested["title_id"])
    candidates = _there(own, requested, catalogue)
    candidates[np.arange(len(source)), source] = False
    arms = {name: values for name, values in terms.items() if name != HEAD} | blends(terms)
    values = {}
    for name, scores in arms.items():
        ranks = target_ranks(scores, candidates, target)
        values[name] = np.where(np.isnan(ranks), np.nan, accuracy(ranks)["ndcg@10"])
    late = (requested["event_at"] >= own.test).to_numpy()
    members = requested["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    return {"values": values, "bands": bands[source], "late": late, "members": members, "targets": bands[target]}


def _there(own: Service, requested: pl.DataFrame, catalogue: TitleOrder) -> np.ndarray:
    """Return [N, T] which titles could be watched where and when each play was."""
    rows = requested.select("country", at="event_at").with_row_index("row")
    spans = own.world.availability.with_columns(column=pl.Series(catalogue.codes(own.world.availability["title_id"])))
    open_ended = pl.col("available_until").is_null() | (pl.col("available_until") > pl.col("at"))
    pairs = rows.join(spans, on="country").filter((pl.col("available_from") <= pl.col("at")) & open_ended)
    found = np.zeros((requested.height, len(catalogue)), np.bool_)
    found[pairs["row"].to_numpy(), pairs["column"].to_numpy()] = True
    return found


def summary(runs: list[dict], resamples: int) -> dict:
    """Put seeds together: means over titles (or plays) with intervals by title (or member)."""
    found: dict = {"bands": {}, "terms": {}, "next": {}}
    bands = np.concatenate([one["beside"]["bands"] for one in runs])
    found["bands"] = {band: int((bands == band).sum()) for band in BANDS}
    for judge in JUDGES:
        found["terms"][judge] = {}
        for name in runs[0]["beside"]["values"][judge]:
            values = np.concatenate([one["beside"]["values"][judge][name] for one in runs])
            found["terms"][judge][name] = _by_band(values, bands, np.arange(len(values)), resamples)
    sides = {key: np.concatenate([one["next"][key] for one in runs]) for key in ("bands", "late")}
    members = np.concatenate([one["next"]["members"] + place * 1_000_000 for place, one in enumerate(runs)])
    early = {}
    for name in runs[0]["next"]["values"]:
        values = np.concatenate([one["next"]["values"][name] for one in runs])
        late = sides["late"]
        found["next"][name] = _by_band(values[late], sides["bands"][late], members[late], resamples)
        early[name] = float(np.nanmean(values[~late]))
    found["chosen"] = max((name for name in early if name.startswith("head +")), key=early.__getitem__)
    found["validation"] = early
    return found


def _by_band(values: np.ndarray, bands: np.ndarray, owners: np.ndarray, resamples: int) -> dict:
    rows = {}
    for band in ("all", *BANDS):
        there = ~np.isnan(values) & ((bands == band) | (band == "all"))
        if there.any():
            _, own = np.unique(owners[there], return_inverse=True)
            mean = member_bootstrap(own, values[there], resamples=resamples)
            rows[band] = {"value": mean.value, "interval": [mean.low, mean.high], "n": int(there.sum())}
    return rows


def show(console: Console, result: dict) -> None:
    """Print the tables."""
    titles = {
        "truth": "true likeness of the first ten, of the most there could be",
        "metadata": "shared metadata, likewise",
    }
    tables = {titles[judge]: rows for judge, rows in result["terms"].items()}
    for title, rows in {**tables, "NDCG@10 of the next play of something new": result["next"]}.items():
        table = Table(title=title)
        for name in ("", "all", "95 % interval", *BANDS):
            table.add_column(name, justify="right" if name else "left")
        for name, row in rows.items():
            low, high = row["all"]["interval"]
            cells = (f"{row[band]['value']:.3f}" if band in row else "" for band in BANDS)
            table.add_row(name, f"{row['all']['value']:.3f}", f"{low:.3f} to {high:.3f}", *cells)
        console.print(table)
    console.print(f"chosen in the week before: {result['chosen']}; {result['seconds']:.0f} s", highlight=False)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=4000)
    parser.add_argument("--titles", type=int, default=800)
    parser.add_argument("--days", type=int, default=42)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="of training, at least")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8])
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--plot", type=Path, help="where a picture goes, such as docs/results/more_like_this.svg")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark."""
    given, start = arguments(), time.perf_counter()
    result = summary([run(given, seed) for seed in given.seeds], given.resamples)
    result["seconds"] = time.perf_counter() - start
    show(Console(), result)
    if given.plot:
        draw(result, given.plot)
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
