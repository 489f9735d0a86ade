"""Quality and cost of the shipped model on MovieLens, by seed, under leave_one_out with full-catalogue ranking.

    python tests/benchmarks/bench_movielens.py --json
    python tests/benchmarks/bench_movielens.py --data FOLDER --mapping docs/guide/mappings/ml_1m.yaml --seeds 17 --json

Works in a scratch project, so nothing of yours is touched. Every number is one run's; the JSON line holds their means.
"""

import json
import resource
import statistics
import tempfile
from pathlib import Path

import click

from playbill.config import ProjectFolder, ProjectSettings
from playbill.evaluation import compare_arms
from playbill.features import FeatureDoor, build_features
from playbill.sources import ingest
from playbill.training.options import TrainOptions
from playbill.training.run import train

ROOT = Path(__file__).parents[2]


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of your own files; default: MovieLens-100K.")
@click.option("--mapping", type=click.Path(path_type=Path), help="Column mapping of that folder.")
@click.option("--protocol", default="leave_one_out", show_default=True)
@click.option("--seeds", default="17,18,19", show_default=True)
@click.option("--workers", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(data, mapping, protocol, seeds, workers, as_json):
    """Train once per seed, and print what each seed reached.

    Example: python tests/benchmarks/bench_movielens.py --seeds 17,18,19 --json
    """
    with tempfile.TemporaryDirectory() as home:
        settings = ProjectSettings(home=home, workspace="bench")
        workspace = ProjectFolder(ROOT, settings).workspace()
        if data is None:
            ingest(workspace, "movielens_100k")
        else:
            ingest(workspace, "parquet", {"path": data, "mapping": mapping})
        FeatureDoor(workspace).apply()
        build_features(workspace)
        found = [run(workspace, protocol, int(seed), workers) for seed in seeds.split(",")]
    rows, reports = [row for row, _ in found], [report for _, report in found]
    if as_json:
        print(json.dumps(summary(rows, protocol) | over_seeds(reports)))


def run(workspace, protocol, seed, workers):
    """Train, measure and print one seed; returns its row and its report on home."""
    outcome = train(workspace, "everycanvas", TrainOptions(protocol=protocol, seed=seed, workers=workers))
    report = outcome.evaluation.reports["home"]
    row = {
        "seed": seed,
        "train_seconds": outcome.train_seconds,
        "tokens_per_second": outcome.tokens_per_second,
        "total_seconds": outcome.seconds,
        "canvases": {
            canvas: {name: interval.value for name, interval in found.result.metrics.items()}
            for canvas, found in outcome.evaluation.reports.items()
        },
        "intervals": {name: interval for name, interval in ends(report.result.metrics).items()},
        "baselines": {
            found.name: {name: interval.value for name, interval in found.metrics.items()} for found in report.baselines
        },
        "differences": {found.baseline: ends(found.metrics)["ndcg@10"] for found in report.differences},
    }
    print(json.dumps(row), flush=True)
    return row, report


def over_seeds(reports):
    """Return intervals over members and seeds, how far seeds lie apart, and the lead over each baseline.

    With one seed the interval is over members alone, and nothing is claimed.
    """
    compared = compare_arms({"everycanvas": reports})
    arm = compared.rows[0]
    return {
        "intervals": ends(arm.metrics),
        "seed_spread": arm.spread,
        "minus_baselines": {
            row.other: {"intervals": ends(row.metrics), "adjusted_p": row.adjusted_p, "claims": row.claims}
            for row in compared.differences
        },
    }


def ends(metrics):
    """Return the ends of every interval."""
    return {name: [interval.low, interval.high] for name, interval in metrics.items()}


def summary(rows, protocol):
    """Return means over seeds on home, with their spread."""
    home = [row["canvases"]["home"] for row in rows]
    return {
        "protocol": protocol,
        "seeds": [row["seed"] for row in rows],
        **{name: statistics.mean(row[name] for row in home) for name in home[0]},
        "ndcg@10_by_seed": [row["ndcg@10"] for row in home],
        "baselines": rows[0]["baselines"],
        "train_seconds": statistics.median(row["train_seconds"] for row in rows),
        "tokens_per_second": statistics.median(row["tokens_per_second"] for row in rows),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    main()
