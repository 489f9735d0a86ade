"""Policies of negatives: accuracy over the whole catalogue, popularity bias, CPU seconds.

Example: python tests/benchmarks/negatives.py --json
Small:   python tests/benchmarks/negatives.py --members 300 --titles 150 --days 14 --steps 9 --json

One network and one log for all; what its only head is told apart from is all that differs: every title (`softmax`),
or what each policy draws. `in_batch_uncorrected` leaves the correction out, to show what it is for. The last line is
one JSON object: tasks, policies (per task and policy), impossible_negatives, seconds.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from negatives_tasks import Task, fitted, impossible, model, movielens, simulated, training_set
from rich.console import Console
from rich.table import Table

from playbill.datasets.examples.negatives import InBatch
from playbill.evaluation.compare import ArmsReport, compare_arms
from playbill.evaluation.report import EvaluationReport

FULL, UNCORRECTED = "softmax", "in_batch_uncorrected"
COUNT = 256
MIXED = {"policy": "mixed", "shares": {"in_batch": 0.5, "uniform": 0.5}}
HEADS = {
    FULL: {"loss": FULL},
    "shown_not_played": {"loss": "sampled_softmax", "negatives": {"policy": "shown_not_played"}},
    **{
        name: {"loss": "sampled_softmax", "negatives": {"count": COUNT, **own}}
        for name, own in {
            "uniform": {"policy": "uniform"},
            "popularity": {"policy": "popularity"},
            "in_batch": {"policy": "in_batch"},
            "mixed": MIXED,
            UNCORRECTED: {"policy": "in_batch"},
        }.items()
    },
}
METRICS = ("ndcg@10", "hr@10", "debiased_ndcg@10", "novelty@10")


@contextmanager
def uncorrected() -> Iterator[None]:
    """Let in-batch negatives count as if every title came equally often."""
    right = InBatch.draw

    def draw(self, pool, random):
        drawn, expected = right(self, pool, random)
        return drawn, np.full_like(expected, len(drawn) / len(expected))

    InBatch.draw = draw
    try:
        yield
    finally:
        InBatch.draw = right


def run(task: Task, given: argparse.Namespace) -> dict:
    """Fit and judge every policy on one task with every seed."""
    names = [name for name in given.policies if task.slates or name != "shown_not_played"]
    reports: dict[str, list[EvaluationReport]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    checked: dict[str, tuple[int, int]] = {}
    for seed in given.seeds:
        for name in names:
            report, spent, found = kept(task, name, seed, given)
            reports[name].append(report)
            seconds[name].append(spent)
            checked[name] = tuple(map(sum, zip(checked.get(name, (0, 0)), found, strict=True)))
            print(f"{task.name} {name} seed {seed}: ndcg@10 {report.result.metrics['ndcg@10'].value:.4f}", flush=True)
    return summary(task, compare_arms(reports), reports, seconds, checked)


def kept(task: Task, name: str, seed: int, given: argparse.Namespace) -> tuple[EvaluationReport, float, tuple]:
    """Return the report of one fit, its seconds, and (negatives, impossible ones), read again where they are kept."""
    sizes = (given.members, given.titles, given.days) if task.slates else ()
    place = "-".join(map(str, (task.name, name, seed, given.steps, given.dim, *sizes)))
    file = given.keep / f"{place}.pickle" if given.keep else None
    if file is not None and file.is_file():
        return pickle.loads(file.read_bytes())
    resolved = model(HEADS[name], seed, given.steps, given.dim)
    with uncorrected() if name == UNCORRECTED else nullcontext():
        data, requests = training_set(task, resolved)
        report, spent = fitted(task, resolved, data, name)
        found = report, spent, impossible(task, data, requests)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(found))
    return found


def summary(task, arms: ArmsReport, reports, seconds, checked) -> dict:
    """Return a task's numbers by policy."""
    differences = {one.other: one for one in arms.differences}
    rows = {row.name: row for row in arms.rows}
    first = next(iter(seconds))
    found = {}
    for name, own in reports.items():
        accuracy = {metric: interval(rows[name].metrics[metric]) for metric in rows[name].metrics}
        mean = {m: statistics.fmean(one.result.metrics[m].value for one in own) for m in METRICS[2:]}
        against = differences.get(name)
        count, wrong = checked[name]
        found[name] = {
            **accuracy,
            **mean,
            "coverage@10": statistics.fmean(one.result.coverage["coverage@10"] for one in own),
            "ndcg_spread_of_seeds": rows[name].spread.get("ndcg@10"),
            "train_seconds": statistics.median(seconds[name]),
            "seconds_ratio": statistics.median(seconds[name]) / statistics.median(seconds[first]),
            "negatives_checked": count,
            "impossible_negatives": wrong,
        }
        if against is not None:
            lost = against.metrics["ndcg@10"]
            found[name]["ndcg_minus_softmax"] = [-lost.value, -lost.high, -lost.low]
            found[name]["adjusted_p"] = against.adjusted_p["ndcg@10"]
            found[name]["differs"] = "ndcg@10" in against.claims
    popular = {metric: interval(value) for metric, value in rows["popular"].metrics.items()}
    lead = interval(differences["popular"].metrics["ndcg@10"])
    about = {"protocol": arms.protocol, "requests": arms.n, "members": arms.members, f"{first}_minus_popular": lead}
    return about | {"policies": found, "popular": popular}


def interval(value) -> list[float]:
    """Return the value and the ends of its interval."""
    return [value.value, value.low, value.high]


def show(name: str, task: dict) -> None:
    """Print a task's table."""
    title = f"{name}: {task['protocol']}, {task['requests']:,} requests of {task['members']:,} members"
    columns = ("NDCG@10", "minus softmax", "HR@10", "debiased", "novelty", "coverage", "CPU s", "ratio", "impossible")
    table = Table("policy", *columns, title=title)
    for policy, row in task["policies"].items():
        value, low, high = row["ndcg@10"]
        lost = row.get("ndcg_minus_softmax")
        table.add_row(
            policy,
            f"{value:.4f} [{low:.4f}, {high:.4f}]",
            "" if lost is None else f"{lost[0]:+.4f} [{lost[1]:+.4f}, {lost[2]:+.4f}]{' *' if row['differs'] else ''}",
            f"{row['hr@10'][0]:.4f}",
            f"{row['debiased_ndcg@10']:.4f}",
            f"{row['novelty@10']:.2f}",
            f"{row['coverage@10']:.3f}",
            f"{row['train_seconds']:.1f}",
            f"{row['seconds_ratio']:.2f}",
            f"{row['impossible_negatives']} of {row['negatives_checked']:,}",
        )
    Console(width=190).print(table)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: tuple(text.split(","))  # noqa: E731
    parser.add_argument("--tasks", type=words, default=("simulated",), help="and movielens_100k")
    parser.add_argument("--policies", type=words, default=tuple(HEADS), help="comma-separated; the first is the base")
    parser.add_argument("--members", type=int, default=2000, help="of the simulated service")
    parser.add_argument("--titles", type=int, default=1000, help="of the simulated service")
    parser.add_argument("--days", type=int, default=42, help="of the simulated log")
    parser.add_argument("--seeds", type=lambda text: tuple(map(int, text.split(","))), default=(1, 2, 3))
    parser.add_argument("--steps", type=int, default=250, help="of the optimiser, at least")
    parser.add_argument("--dim", type=int, default=32, help="width of the network")
    parser.add_argument("--keep", type=Path, help="folder for finished fits: started again, a run goes on from them")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


def main() -> None:
    """Compare the policies."""
    given, begun = arguments(), time.perf_counter()
    torch.set_num_threads(1)
    tasks = {}
    for name in given.tasks:
        task = movielens() if name == "movielens_100k" else simulated(given.members, given.titles, given.days, 1)
        tasks[name] = run(task, given)
        show(name, tasks[name])
    wrong = sum(row["impossible_negatives"] for task in tasks.values() for row in task["policies"].values())
    about = {"impossible_negatives": wrong, "seeds": given.seeds, "steps": given.steps, "dim": given.dim}
    if given.json:
        print(json.dumps({"tasks": tasks} | about | {"seconds": round(time.perf_counter() - begun, 1)}))


if __name__ == "__main__":
    main()
