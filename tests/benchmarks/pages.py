"""Pages: one model for titles, rows and visits; arms that order rows, by what members did, a held-out reward, and live.

Example: python tests/benchmarks/pages.py --json
Small:   python tests/benchmarks/pages.py --members 400 --titles 150 --log-days 16 --judged-days 5 --pages 60 \
             --test-members 80 --test-days 3 --epochs 1 --min-steps 30 --json
The last line is one JSON object: arms (arm -> Recall@m-by-n, page_ndcg, diversity, duplicate_rate, held_out_reward
and more, each with its interval and its difference from the first arm), reward_error, simulated_ab, seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from playbill.config import ProjectFolder, shipped_folder
from playbill.definitions.zoo import load_zoo
from playbill.versions.tracking import Tracking
from playbill_lab.studies.pages.policy import PAGE_ARMS, PagesRecipe
from playbill_lab.studies.pages.report import pages_json, pages_page, plot_pages, record_pages
from playbill_lab.studies.pages.study import PagesOptions, run_pages


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults, recipe = PagesOptions(), PagesRecipe()
    for name in ("members", "titles", "log_days", "judged_days", "test_members", "test_days", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    parser.add_argument("--pages", type=int, default=defaults.most_pages, help="pages judged, at most")
    parser.add_argument("--epochs", type=int, default=recipe.epochs)
    parser.add_argument("--min-steps", type=int, default=recipe.min_steps)
    parser.add_argument("--base", default=defaults.base, help="the policy that writes the log")
    parser.add_argument("--arms", default=",".join(PAGE_ARMS), help="comma-separated, the first is the one to beat")
    parser.add_argument("--page", type=Path, help="write the table here, as Markdown")
    parser.add_argument("--plot", type=Path, help="draw the result here, .svg or .png")
    parser.add_argument("--project", type=Path, help="a project folder: keep the run in its MLflow")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    options = PagesOptions(
        members=given.members,
        titles=given.titles,
        log_days=given.log_days,
        judged_days=given.judged_days,
        most_pages=given.pages,
        test_members=given.test_members,
        test_days=given.test_days,
        seed=given.seed,
        base=given.base,
        arms=tuple(given.arms.split(",")),
        recipe=PagesRecipe(epochs=given.epochs, min_steps=given.min_steps),
    )
    started = time.perf_counter()

    def tell(text: str) -> None:
        print(f"[{time.perf_counter() - started:6.0f} s] {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        study = run_pages(load_zoo(shipped_folder("model_zoo")), options, Path(folder) / "bundle", tell)
    print(pages_page(study), file=sys.stderr)
    if given.page:
        given.page.write_text(pages_page(study), encoding="utf-8")
    if given.plot:
        plot_pages(study, given.plot)
    if given.project:
        print(
            f"MLflow run {record_pages(Tracking(ProjectFolder.find(given.project).workspace()), study)}",
            file=sys.stderr,
        )
    if given.json:
        print(json.dumps(pages_json(study) | {"seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()
