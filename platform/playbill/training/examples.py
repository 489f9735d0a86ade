"""What a run says in MLflow about the examples it learns from."""

from __future__ import annotations

from typing import Any

from playbill.datasets import TrainingSet
from playbill.datasets.examples.sampling import strata_frame
from playbill.versions.tracking import RunHandle


def examples_summary(data: TrainingSet) -> dict[str, Any]:
    """Return how many rows there are and what weighs them, as parameters."""
    shown = len(data.rows) - int(data.rows.next.sum())
    summary: dict[str, Any] = {"rows": len(data.rows), "shown": shown}
    if data.rewards:
        summary["rewards"] = dict(data.rewards)
    if data.strata:
        drawn = sum(stratum.drawn for stratum in data.strata)
        least = min(data.strata, key=lambda stratum: stratum.sampled_share)
        summary["strata"] = {"count": len(data.strata), "drawn": drawn, "least_share": round(least.sampled_share, 6)}
    return summary


def log_examples(run: RunHandle, data: TrainingSet) -> None:
    """Store the table of strata: the share of each in the log and in an epoch, and the weight that restores it."""
    if data.strata:
        run.log_table(strata_frame(data.strata), "strata")
