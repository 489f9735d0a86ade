"""The baselines on MovieLens, full-catalogue ranking: quality with intervals, seconds to fit and to score.

    python tests/benchmarks/baselines.py --json
    python tests/benchmarks/baselines.py --data FOLDER --mapping docs/guide/mappings/ml_1m.yaml --names ease,ials --json
    python tests/benchmarks/baselines.py --tune --names item_knn,ease,ials --json

Works in a scratch project. `--tune` tries settings on the validation fold and reports those of the best NDCG@10 there
on the test fold, beside the defaults. `--ties random` puts events of one second into random order first (see
bench_tie_rule.py): published numbers keep the order of the file there, which the rule by title number does not.
"""

import json
import resource
import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path

import click
import numpy as np
from bench_tie_rule import shuffle_ties

from playbill.config import ProjectFolder, ProjectSettings
from playbill.datasets import make_split
from playbill.definitions.specs import BASELINES
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.baselines.ease import Ease
from playbill.evaluation.baselines.ials import Ials, IalsOptions
from playbill.evaluation.baselines.item_knn import ItemKnn
from playbill.evaluation.baselines.popularity import build_baseline, popular
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.evaluate import evaluate_case
from playbill.evaluation.measure import measure
from playbill.sources import ingest
from playbill.tables import Tables

ROOT = Path(__file__).parents[2]
SHOWN = ("hr@10", "ndcg@10", "mrr@10", "coverage@10", "novelty@10", "debiased_ndcg@10")
NEIGHBOURS, SHRINKAGES = (20, 50, 100, 200, 400), (0.0, 20.0, 100.0)
FACTORS, WEIGHTS, REGULARISATIONS = (64, 128), (0.1, 0.3, 1.0), (0.001, 0.003, 0.01)


class Timed:
    """A score function that counts the seconds it takes."""

    def __init__(self, function):
        self.function, self.title_ids = function, function.title_ids
        self.seconds = self.cpu_seconds = 0.0

    def score(self, requests):
        """Score, and count."""
        start, cpu = time.perf_counter(), time.process_time()
        scores = self.function.score(requests)
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - cpu
        return scores


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of your own files; default: MovieLens-100K.")
@click.option("--mapping", type=click.Path(path_type=Path), help="Column mapping of that folder.")
@click.option("--protocol", default="leave_one_out", show_default=True)
@click.option("--names", default=",".join(BASELINES.names()), show_default=True)
@click.option("--ties", type=click.Choice(["by_title", "random"]), default="by_title", show_default=True)
@click.option("--tune", is_flag=True, help="Choose the settings of item_knn, ease and ials on the validation fold.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(data, mapping, protocol, names, ties, tune, as_json):
    """Fit and measure each baseline on canvas home of the shipped model.

    Example: python tests/benchmarks/baselines.py --names popular,ease --json
    """
    with tempfile.TemporaryDirectory() as home:
        workspace = ProjectFolder(ROOT, ProjectSettings(home=home)).workspace("bench")
        if data is None:
            ingest(workspace, "movielens_100k")
        else:
            ingest(workspace, "parquet", {"path": data, "mapping": mapping})
        if ties == "random":
            shuffled = ProjectFolder(ROOT, ProjectSettings(home=home)).workspace("shuffled")
            shuffle_ties(Tables(workspace), Tables(shuffled), np.random.default_rng(0))
            workspace = shuffled
        tables = EvaluationTables.read(Tables(workspace))
    resolved = load_zoo(ROOT / "model_zoo").model("everycanvas")
    split = make_split(protocol, tables.interactions)
    case = build_case(tables, split, resolved, "home")
    makers = {name: partial(build_baseline, name) for name in names.split(",")}
    if tune:
        validation = build_case(tables, split, resolved, "home", fold="validation")
        makers |= {f"{name}, tuned": chosen(validation, name) for name in makers if name in SETTINGS}
    print(f"{'':<16}{' '.join(SHOWN)}")
    rows = [measured(case, name, make) for name, make in makers.items()]
    if as_json:
        print(json.dumps(summary(case, ties, rows)))


def neighbours(case, setting):
    """Fit item_knn with neighbours and shrinkage."""
    return ItemKnn.fit(case.catalogue, case.log.fitted_plays(), *setting, backoff=popular(case).shares)


def linear(case, setting):
    """Fit EASE with a penalty."""
    return Ease.fit(case.catalogue, case.log.fitted_plays(), setting, backoff=popular(case).shares)


def factors(case, setting):
    """Fit iALS with factors, the weight of what was not played, and regularisation."""
    size, weight, regularisation = setting
    options = IalsOptions(factors=size, unplayed_weight=weight, regularisation=regularisation)
    return Ials.fit(case.catalogue, case.log.fitted_plays(), options, backoff=popular(case).shares)


SETTINGS = {
    "item_knn": (neighbours, tuple(product(NEIGHBOURS, SHRINKAGES))),
    "ease": (linear, (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)),
    "ials": (factors, tuple(product(FACTORS, WEIGHTS, REGULARISATIONS))),
}
"""Baseline -> how it is fitted with a setting, and the settings that are tried."""


def chosen(validation, name):
    """Return how a baseline is fitted with the setting that does best on the validation fold; prints every one."""
    fit, settings = SETTINGS[name]
    found = {}
    for setting in settings:
        measured_there = measure(validation, {name: fit(validation, setting)}, (10,))
        found[setting] = float(measured_there[name].values["ndcg@10"].mean())
        print(f"  {name} {setting}: ndcg@10 {found[setting]:.4f} on the validation fold", flush=True)
    best = max(found, key=found.__getitem__)
    return partial(described, fit, best)


def described(fit, setting, case):
    """Fit with a setting, and keep it for the row."""
    function = fit(case, setting)
    function.setting = setting
    return function


def measured(case, name, make):
    """Fit one baseline, measure it and print what it reached."""
    start, cpu = time.perf_counter(), time.process_time()
    function = Timed(make(case))
    fitted, fitted_cpu = time.perf_counter() - start, time.process_time() - cpu
    row = evaluate_case(case, name, function, {}).rows[0]
    found = {
        "name": name,
        **({"setting": function.function.setting} if hasattr(function.function, "setting") else {}),
        **{metric: interval.value for metric, interval in row.metrics.items()},
        **{f"{metric}_interval": [interval.low, interval.high] for metric, interval in row.metrics.items()},
        **row.coverage,
        "fit_seconds": round(fitted, 2),
        "fit_cpu_seconds": round(fitted_cpu, 2),
        "score_seconds": round(function.seconds, 2),
        "score_cpu_seconds": round(function.cpu_seconds, 2),
    }
    print(line(found), flush=True)
    return found


def line(found):
    """Return a row for a reader."""
    parts = [f"{found[name]:.4f}" for name in SHOWN]
    low, high = found["ndcg@10_interval"]
    spent = f"fit {found['fit_cpu_seconds']} CPU s, score {found['score_cpu_seconds']} CPU s"
    about = f"ndcg@10 in [{low:.4f}, {high:.4f}], {spent}"
    return f"{found['name']:<16}{' '.join(parts)}  {about}"


def summary(case, ties, rows):
    """Return the line that scripts read."""
    return {
        "protocol": case.protocol,
        "ties": ties,
        "requests": len(case),
        "titles": len(case.catalogue),
        "baselines": {row["name"]: {key: value for key, value in row.items() if key != "name"} for row in rows},
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    main()
