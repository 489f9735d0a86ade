"""Experiments in MLflow: their numbers, tables and pictures, and which versions they were about."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from playbill.experiments.ab_report import AbReport, plot
from playbill.experiments.ledger import Ledger
from playbill.experiments.ledger_plot import plot_ledger
from playbill.experiments.ledger_report import ledger_frames, ledger_json, ledger_metrics
from playbill.experiments.objective_before_capacity import Study
from playbill.experiments.objective_plot import plot_study
from playbill.experiments.objective_report import study_json, study_page
from playbill.experiments.served_ab import ServedAb
from playbill.tracking import RunHandle, Tracking
from playbill.tracking.lineage import PREFIX

EXPERIMENTS = "experiments"
"""MLflow's experiment, after the workspace's name."""
SIMULATED_AB = PREFIX + "simulated_ab"
"""Tag of a version: the run of the last simulated A/B that it was an arm of."""


def record_ab(tracking: Tracking, found: ServedAb) -> str:
    """Keep a simulated A/B in MLflow.

    The run's tags name the arms, and each version's digest; every version that took part is tagged with the run.

    Returns:
        The run's id.
    """
    report = found.report
    tags = {PREFIX + "arms": ", ".join(report.names)}
    tags |= {f"{PREFIX}arm.{version.reference}": str(version.digest) for version in found.versions.values()}
    named = {arm: version.reference for arm, version in found.versions.items()}
    params = {"members": report.members, "days": report.days, "seeds": list(report.seeds), **_plain(report.about)}
    with tracking.start_run(EXPERIMENTS, f"simulated A/B: {', '.join(report.names)}", tags, params) as run:
        run.log_metrics(_metrics(report, named))
        run.log_table(report.frame(), "simulated_ab")
        run.log_text(json.dumps(report.as_json(), indent=1), "simulated_ab/report.json")
        _picture(run, "simulated_ab", lambda path: plot(report, path))
    for version in found.versions.values():
        tracking.set_version_tag(version.model, version.version, SIMULATED_AB, run.run_id)
    return run.run_id


def record_study(tracking: Tracking, study: Study) -> str:
    """Keep the study `objective_before_capacity` in MLflow, and return the run's id."""
    name, whole = "objective_before_capacity", study_json(study)
    params = {key: whole[key] for key in ("objectives", "capacities", "recipe", "members", "days", "seeds")}
    tags = {PREFIX + "arms": ", ".join(study.online.names)}
    with tracking.start_run(EXPERIMENTS, name, tags, params) as run:
        run.log_metrics(_metrics(study.online, {}))
        run.log_metrics({f"spearman/{row.metric}/{row.measure}": row.mean for row in study.agreements})
        run.log_table(study.online.frame(), name)
        run.log_text(json.dumps(whole, indent=1), f"{name}/report.json")
        run.log_text(study_page(study), f"{name}/report.md")
        _picture(run, name, lambda path: plot_study(study, path))
        return run.run_id


def record_ledger(tracking: Tracking, ledger: Ledger) -> str:
    """Keep a consolidation ledger in MLflow: its numbers, tables and pictures; return the run's id."""
    name = f"ledger: {ledger.model}"
    tags = {PREFIX + "ledger": ledger.model, PREFIX + "parts": ", ".join(ledger.options.parts)}
    with tracking.start_run(EXPERIMENTS, name, tags, _plain(asdict(ledger.options))) as run:
        run.log_metrics(ledger_metrics(ledger))
        for table, frame in ledger_frames(ledger).items():
            run.log_table(frame, table)
        run.log_text(json.dumps(ledger_json(ledger), indent=1), "ledger/report.json")
        with tempfile.TemporaryDirectory() as folder:
            for path in plot_ledger(ledger, Path(folder)):
                run.log_artifact(path, "figures")
        return run.run_id


def _metrics(report: AbReport, named: Mapping[str, str]) -> dict[str, float]:
    """Return every mean and difference by arm; an alias means another version tomorrow, so versions are named."""
    found = {}
    for row in report.arms:
        name = f"{named.get(row.arm, row.arm)}/{row.measure}"
        found[name] = row.mean.value
        if row.difference is not None:
            found[f"{name}/difference"] = row.difference.value
    return found


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in about.items() if not isinstance(value, Mapping)}


def _picture(run: RunHandle, name: str, draw: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.png"
        draw(path)
        run.log_artifact(path, "figures")
