"""Search: quality by query length and by what was wanted, on a simulated service; known-item queries against BM25.

Example: python tests/benchmarks/search.py --json
Small:   python tests/benchmarks/search.py --members 800 --titles 200 --days 21 --steps 60 --seeds 7 --json
Real:    python tests/benchmarks/search.py --known-item FOLDER --movielens FOLDER --json   (needs bm25s)

The simulated searches are those that members of a service typed in its last week, prefixes and slips included, and what
they wanted is known: a title that can be shown, one that cannot be shown there or not yet, or one that nobody has. The
weights of the blend are chosen in the week before. The MovieLens folder is read through
docs/guide/mappings/ml_1m.yaml, as `playbill ingest parquet FOLDER --mapping docs/guide/mappings/ml_1m.yaml` reads it.
The last line is one JSON object: simulated (seed -> searches, arms, letters, made, chosen), known_item, seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from asked_service import definition, service, trained
from rich.console import Console
from search_measures import first_titles
from search_plot import draw
from search_simulated import BLENDS, MADE, ask, choose, judged, keystrokes, logged, made, mean, sharing, table
from search_tables import known_item_table, made_table, simulated_table

from playbill.evaluation.cases.event_log import UNKNOWN

BASELINES = {"popular": {"popular": 1.0}, "prefix match": {"prefix match": 1.0}}
MAPPING = Path(__file__).parents[2] / "docs" / "guide" / "mappings" / "ml_1m.yaml"
LETTERS = (1, 2, 3, None)


def simulated(given: argparse.Namespace, seed: int) -> dict:
    """Return everything that one service shows."""
    own = service(seed, given.members, given.titles, given.days)
    scorer = trained(own, definition(seed, given.epochs, given.steps, given.dim))
    early, late = logged(own)
    chosen, grid = choose(ask(own, scorer, early))
    requested = ask(own, scorer, late)
    blends = {**BASELINES, **BLENDS, "chosen": chosen}
    found = {
        "searches": len(late),
        "chosen": chosen,
        "grid": grid,
        "arms": table(requested, {name: requested.score(blend) for name, blend in blends.items()}, given.resamples),
        "made": {},
        "letters": {},
    }
    for length, searches in keystrokes(late).items():
        typed = ask(own, scorer, searches)
        found["letters"][length] = table(typed, {name: typed.score(b) for name, b in blends.items()}, given.resamples)
    wanted = late.keep(
        (requested.target != UNKNOWN) & ~np.isnan(judged(requested, requested.terms["popular"])["known"]["mrr"])
    )
    for kind in MADE:
        for letters in LETTERS:
            name = f"{kind}, {'whole' if letters is None else letters}"
            typed = ask(own, scorer, made(own, wanted, kind, letters))
            shares = sharing(own, typed, scorer.title_ids, kind) & typed.candidates
            most = np.minimum(shares.sum(axis=1), 10)
            members = typed.searches.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
            found["made"][name] = {}
            for arm, blend in blends.items():
                lists = first_titles(typed.score(blend), typed.candidates)
                share = np.take_along_axis(shares, lists, axis=1).sum(axis=1) / np.maximum(most, 1)
                found["made"][name][arm] = mean(np.where(most > 0, share, np.nan), members, given.resamples)
    return found


def show(console: Console, result: dict) -> None:
    """Print the tables of each seed and of the known items."""
    for seed, found in result["simulated"].items():
        console.print(simulated_table(seed, found))
        console.print(made_table(seed, found))
        console.print(f"chosen in the week before: {found['chosen']}", highlight=False)
    if "known_item" in result:
        console.print(known_item_table(result["known_item"]))
        gain = result["known_item"]["ndcg_gain_over_bm25"]
        low, high = gain["interval"]
        console.print(f"NDCG@10 above BM25: {gain['value']:+.4f} ({low:+.4f} to {high:+.4f})", highlight=False)
    console.print(f"{result['seconds']:.0f} s", highlight=False)


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
    parser.add_argument("--known-item", type=Path, help="folder with queries.parquet")
    parser.add_argument("--movielens", type=Path, help="folder with the files that ml_1m.yaml names")
    parser.add_argument("--mapping", type=Path, default=MAPPING)
    parser.add_argument("--plot", type=Path, help="where a picture goes, such as docs/results/search.svg")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    given = parser.parse_args()
    if (given.known_item is None) != (given.movielens is None):
        parser.error("--known-item and --movielens go together")
    return given


def main() -> None:
    """Run the benchmark."""
    given, start = arguments(), time.perf_counter()
    result: dict = {"simulated": {str(seed): simulated(given, seed) for seed in given.seeds}}
    if given.known_item:
        from search_known_item import run

        result["known_item"] = run(given.known_item, given.movielens, given.mapping, 0, given.resamples)
    result["seconds"] = time.perf_counter() - start
    show(Console(width=170), result)
    if given.plot:
        draw(result, given.plot)
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
