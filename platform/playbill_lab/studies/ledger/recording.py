"""A consolidation ledger in MLflow."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from playbill.versions.tracking import Tracking
from playbill.versions.tracking.registry import PREFIX
from playbill_lab.ab.recording import EXPERIMENTS, plain
from playbill_lab.studies.ledger.plot import plot_ledger
from playbill_lab.studies.ledger.report import Ledger, ledger_frames, ledger_json, ledger_metrics


def record_ledger(tracking: Tracking, ledger: Ledger) -> str:
    """Keep a consolidation ledger in MLflow: its numbers, tables and pictures; return the run's id."""
    name = f"ledger: {ledger.model}"
    tags = {PREFIX + "ledger": ledger.model, PREFIX + "parts": ", ".join(ledger.options.parts)}
    with tracking.start_run(EXPERIMENTS, name, tags, plain(asdict(ledger.options))) as run:
        run.log_metrics(ledger_metrics(ledger))
        for table, frame in ledger_frames(ledger).items():
            run.log_table(frame, table)
        run.log_text(json.dumps(ledger_json(ledger), indent=1), "ledger/report.json")
        with tempfile.TemporaryDirectory() as folder:
            for path in plot_ledger(ledger, Path(folder)):
                run.log_artifact(path, "figures")
        return run.run_id
