"""The study of pages in MLflow: its numbers, tables and picture."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from playbill.tracking import Tracking
from playbill.tracking.lineage import PREFIX
from playbill_lab.ab.recording import EXPERIMENTS
from playbill_lab.studies.pages.report import pages_frame, pages_json, pages_page, plot_pages
from playbill_lab.studies.pages.study import PagesStudy

NAME = "pages"


def record_pages(tracking: Tracking, study: PagesStudy) -> str:
    """Keep the study in MLflow, and return the run's id."""
    whole = pages_json(study)
    params = {name: whole[name] for name in ("members", "log_days", "pages", "parameters", "seed")}
    tags = {PREFIX + "arms": ", ".join(study.options.arms)}
    with tracking.start_run(EXPERIMENTS, NAME, tags, params) as run:
        run.log_metrics({f"{arm}/{name}": one.value for arm, own in study.arms.items() for name, one in own.items()})
        run.log_metrics({f"{row.arm}/ab_{row.measure}": row.mean.value for row in study.online.arms})
        run.log_metrics({f"reward_error/{name}": float(value) for name, value in whole["reward_error"].items()})
        run.log_table(pages_frame(study), NAME)
        run.log_text(json.dumps(whole, indent=1), f"{NAME}/report.json")
        run.log_text(pages_page(study), f"{NAME}/report.md")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{NAME}.png"
            plot_pages(study, path)
            run.log_artifact(path, "figures")
        return run.run_id
