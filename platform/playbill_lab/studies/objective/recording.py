"""The study `objective_before_capacity` in MLflow."""

from __future__ import annotations

import json

from playbill.versions.tracking import Tracking
from playbill.versions.tracking.registry import PREFIX
from playbill_lab.ab.recording import EXPERIMENTS, log_picture, metrics_of
from playbill_lab.studies.objective.report import plot_study, study_json, study_page
from playbill_lab.studies.objective.study import Study


def record_study(tracking: Tracking, study: Study) -> str:
    """Keep the study `objective_before_capacity` in MLflow, and return the run's id."""
    name, whole = "objective_before_capacity", study_json(study)
    params = {key: whole[key] for key in ("objectives", "capacities", "recipe", "members", "days", "seeds")}
    tags = {PREFIX + "arms": ", ".join(study.online.names)}
    with tracking.start_run(EXPERIMENTS, name, tags, params) as run:
        run.log_metrics(metrics_of(study.online, {}))
        run.log_metrics({f"spearman/{row.metric}/{row.measure}": row.mean for row in study.agreements})
        run.log_table(study.online.frame(), name)
        run.log_text(json.dumps(whole, indent=1), f"{name}/report.json")
        run.log_text(study_page(study), f"{name}/report.md")
        log_picture(run, name, lambda path: plot_study(study, path))
        return run.run_id
