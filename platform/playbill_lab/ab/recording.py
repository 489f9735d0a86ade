"""A/B tests in MLflow: their numbers, tables and pictures, and which versions they were about."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from playbill.versions.tracking import RunHandle, Tracking
from playbill.versions.tracking.registry import PREFIX
from playbill_lab.ab.experiment import ServedAb
from playbill_lab.ab.report import AbReport, plot

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
    params = {"members": report.members, "days": report.days, "seeds": list(report.seeds), **plain(report.about)}
    with tracking.start_run(EXPERIMENTS, f"simulated A/B: {', '.join(report.names)}", tags, params) as run:
        run.log_metrics(metrics_of(report, named))
        run.log_table(report.frame(), "simulated_ab")
        run.log_text(json.dumps(report.as_json(), indent=1), "simulated_ab/report.json")
        log_picture(run, "simulated_ab", lambda path: plot(report, path))
    for version in found.versions.values():
        tracking.set_version_tag(version.model, version.version, SIMULATED_AB, run.run_id)
    return run.run_id


def metrics_of(report: AbReport, named: Mapping[str, str]) -> dict[str, float]:
    """Return every mean and difference by arm; an alias means another version tomorrow, so versions are named."""
    found = {}
    for row in report.arms:
        name = f"{named.get(row.arm, row.arm)}/{row.measure}"
        found[name] = row.mean.value
        if row.difference is not None:
            found[f"{name}/difference"] = row.difference.value
    return found


def plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is no mapping, as parameters of a run."""
    return {name: value for name, value in about.items() if not isinstance(value, Mapping)}


def log_picture(run: RunHandle, name: str, draw: Callable[[Path], None]) -> None:
    """Keep a picture as a figure of a run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.png"
        draw(path)
        run.log_artifact(path, "figures")
