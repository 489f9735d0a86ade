"""Do offline metrics rank models as members do? Rank correlations over the models of a study.

Axis letters: M models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from playbill_lab.studies.cells import Offline


@dataclass(frozen=True)
class Agreement:
    """One offline metric beside one online measure.

    Args:
        metric: Offline, on the held-out end of the log.
        measure: Online, a column of the test.
        by_seed: Spearman's rank correlation over the models, for each seed that tells models apart.
        best_offline: The model that the metric puts first, its mean over the seeds taken.
        best_online: The model that the measure puts first.
    """

    metric: str
    measure: str
    by_seed: Mapping[int, float]
    best_offline: str
    best_online: str

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(list(self.by_seed.values())))


def agreements(
    offline: Sequence[Offline], online: Mapping[str, pl.DataFrame], metrics: Sequence[str], measures: Sequence[str]
) -> tuple[Agreement, ...]:
    """Compare every metric with every measure that tells models apart; none where there are fewer than three models.

    Args:
        offline: Every model on every log.
        online: Arm -> `run` (place of the seed) and a column per measure.
        metrics: Those that every model has.
        measures: Columns of `online`.
    """
    models = list(dict.fromkeys(row.arm for row in offline))
    seeds = list(dict.fromkeys(row.seed for row in offline))
    if len(models) < 3:
        return ()
    scores = {(row.arm, row.seed): row.metrics for row in offline}
    by_run = {name: online[name].group_by("run").mean().sort("run") for name in models}
    found = []
    for metric in metrics:
        fits = np.array([[scores[model, seed][metric].value for seed in seeds] for model in models])
        for measure in measures:
            lives = np.stack([by_run[model][measure].to_numpy() for model in models])
            ranks = {
                seed: float(spearmanr(fits[:, run], lives[:, run]).statistic)
                for run, seed in enumerate(seeds)
                if np.ptp(fits[:, run]) > 0 and np.ptp(lives[:, run]) > 0
            }
            best = (models[int(values.mean(axis=1).argmax())] for values in (fits, lives))
            if ranks:
                found.append(Agreement(metric, measure, ranks, *best))
    return tuple(found)
