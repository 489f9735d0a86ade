"""The baselines on MovieLens, full-catalogue ranking: quality with intervals, seconds to fit and to score.

    python tests/benchmarks/baselines.py --json
    python tests/benchmarks/baselines.py --data FOLDER --mapping docs/guide/mappings/ml_1m.yaml --names ease,ials --json

Works in a scratch project. `--ties random` puts events of one second into random order first (see bench_tie_rule.py):
published numbers keep the order of the file there, which Playbill's rule, by title number, does not.
"""

import json
import resource
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from bench_tie_rule import shuffle_ties

from playbill.config import Project, ProjectSettings
from playbill.datasets import make_split
from playbill.evaluation.baselines import build_baseline
from playbill.evaluation.build import build_case
from playbill.evaluation.data import EvaluationTables
from playbill.evaluation.evaluate import evaluate_case
from playbill.sources import ingest
from playbill.specs import BASELINES
from playbill.tables import Tables
from playbill.zoo import load_zoo

ROOT = Path(__file__).parents[2]


class Timed:
    """A score function that counts the seconds it takes."""

    def __init__(self, function):
        self.function, self.title_ids, self.seconds = function, function.title_ids, 0.0

    def score(self, requests):
        """Score, and count."""
        start = time.perf_counter()
        scores = self.function.score(requests)
        self.seconds += time.perf_counter() - start
        return scores


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of your own files; default: MovieLens-100K.")
@click.option("--mapping", type=click.Path(path_type=Path), help="Column mapping of that folder.")
@click.option("--protocol", default="leave_one_out", show_default=True)
@click.option("--names", default=",".join(BASELINES.names()), show_default=True)
@click.option("--ties", type=click.Choice(["by_title", "random"]), default="by_title", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(data, mapping, protocol, names, ties, as_json):
    """Fit and measure each baseline on canvas home of the shipped model."""
    with tempfile.TemporaryDirectory() as home:
        workspace = Project(ROOT, ProjectSettings(home=home)).workspace("bench")
        if data is None:
            ingest(workspace, "movielens_100k")
        else:
            ingest(workspace, "parquet", {"path": data, "mapping": mapping})
        if ties == "random":
            shuffled = Project(ROOT, ProjectSettings(home=home)).workspace("shuffled")
            shuffle_ties(Tables(workspace), Tables(shuffled), np.random.default_rng(0))
            workspace = shuffled
        tables = EvaluationTables.read(Tables(workspace))
    resolved = load_zoo(ROOT / "model_zoo").model("everycanvas")
    case = build_case(tables, make_split(protocol, tables.interactions), resolved, "home")
    rows = [measured(case, name) for name in names.split(",")]
    if as_json:
        print(json.dumps(summary(case, ties, rows)))


def measured(case, name):
    """Fit one baseline, measure it and print what it reached."""
    start = time.perf_counter()
    function = Timed(build_baseline(name, case))
    fitted = time.perf_counter() - start
    row = evaluate_case(case, name, function, {}).rows[0]
    found = {
        "name": name,
        **{metric: interval.value for metric, interval in row.metrics.items()},
        **{f"{metric}_interval": [interval.low, interval.high] for metric, interval in row.metrics.items()},
        **row.coverage,
        "fit_seconds": round(fitted, 2),
        "score_seconds": round(function.seconds, 2),
    }
    print(json.dumps(found), flush=True)
    return found


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
