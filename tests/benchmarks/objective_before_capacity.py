"""Objective before capacity: model size x what it seeks, offline and in a simulated A/B.

Example: python tests/benchmarks/objective_before_capacity.py --json
Small:   python tests/benchmarks/objective_before_capacity.py --members 600 --titles 150 --log-days 21 \
             --test-members 200 --test-days 5 --seeds 1 --epochs 1 --min-steps 20 --json
A run that was cut off goes on where it was, if both are given the same --cells FOLDER.
The last line is one JSON object: models (offline), arms (online), contrasts, agreement, members, days, seeds, seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

from playbill.config import shipped_folder
from playbill.definitions.zoo import load_zoo
from playbill_lab.studies.objective.arms import CAPACITIES, OBJECTIVES, StudyOptions, StudyRecipe
from playbill_lab.studies.objective.report import plot_study, study_json, study_page
from playbill_lab.studies.objective.study import run_study


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults, recipe = StudyOptions(), StudyRecipe()
    for name in ("members", "titles", "log_days", "test_members", "test_days"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    parser.add_argument("--seeds", type=numbers, default=defaults.seeds, help="comma-separated")
    parser.add_argument("--objectives", type=names, default=OBJECTIVES, help="comma-separated rewards")
    parser.add_argument(
        "--capacities", type=names, default=defaults.capacities, help=f"comma-separated, of {', '.join(CAPACITIES)}"
    )
    parser.add_argument("--epochs", type=int, default=recipe.epochs)
    parser.add_argument("--min-steps", type=int, default=recipe.min_steps)
    parser.add_argument("--cells", type=Path, help="keep finished cells here, and make only those that are missing")
    parser.add_argument("--page", type=Path, help="write the tables here, as Markdown")
    parser.add_argument("--plot", type=Path, help="draw the result here, .svg or .png")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    options = StudyOptions(
        members=given.members,
        titles=given.titles,
        log_days=given.log_days,
        test_members=given.test_members,
        test_days=given.test_days,
        seeds=given.seeds,
        objectives=given.objectives,
        capacities=given.capacities,
        recipe=StudyRecipe(epochs=given.epochs, min_steps=given.min_steps),
    )
    started = time.perf_counter()

    def tell(text: str) -> None:
        print(f"[{time.perf_counter() - started:6.0f} s] {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        study = run_study(load_zoo(shipped_folder("model_zoo")), options, given.cells or Path(folder), tell)
    Console(stderr=True, width=200).print(study.online.table())
    if given.page:
        given.page.write_text(study_page(study), encoding="utf-8")
    if given.plot:
        plot_study(study, given.plot)
    if given.json:
        print(json.dumps(study_json(study) | {"seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()
