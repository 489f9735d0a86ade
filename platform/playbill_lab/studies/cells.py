"""Cells of a study (one arm on one seed), kept on disk so that a study goes on after a kill; and rank correlations.

Those ask whether offline metrics rank models as members do. Axis letters: M models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from playbill.errors import IntegrityError
from playbill.files import replaced_file
from playbill.metrics import Interval

_METADATA = "playbill.cell"


@dataclass(frozen=True)
class Offline:
    """One model on the held-out end of one log."""

    arm: str
    seed: int
    metrics: Mapping[str, Interval]  # Metric -> mean with its interval by member
    requests: int
    parameters: int
    examples: int
    train_seconds: float


@dataclass(frozen=True)
class Cell:
    """What one arm came to on one seed."""

    arm: str
    seed: int  # Of the world, its log and the luck
    members: pl.DataFrame  # A row per member of the test: member, run, and a column per measure
    offline: Offline | None = None  # How the model did on the log; None for an arm that is no model


class Cells:
    """A folder of cells."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, arm: str, seed: int, digest: str) -> Cell | None:
        """Return the cell of an arm that was made from the same things (see `digest`); None when there is none yet.

        Raises:
            IntegrityError: There is a file, and it is no cell.
        """
        path = self._path(arm, seed, digest)
        if not path.is_file():
            return None
        with cell_errors(path, "a study"):
            members, about = read_cell(path, _METADATA)
            return Cell(arm, seed, members, None if about is None else _offline(about))

    def write(self, cell: Cell, digest: str) -> None:
        """Keep a cell. It appears whole or not at all."""
        about = None if cell.offline is None else asdict(cell.offline)
        write_cell(self._path(cell.arm, cell.seed, digest), cell.members, _METADATA, about)

    def _path(self, arm: str, seed: int, digest: str) -> Path:
        return self.folder / f"{arm}-{seed}-{digest[:12]}.parquet"


@contextmanager
def cell_errors(path: Path, whose: str) -> Iterator[None]:
    """Raise IntegrityError where a file that is read in the block is no cell."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError, KeyError, ValueError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise IntegrityError(f"{path} is no cell of {whose} ({first}); remove it, and it is made anew") from None


def read_cell(path: Path, name: str) -> tuple[pl.DataFrame, Any]:
    """Return a cell's rows, and the JSON that is kept under a name beside them."""
    return pl.read_parquet(path), json.loads(pl.read_parquet_metadata(path)[name])


def write_cell(path: Path, rows: pl.DataFrame, name: str, about: Mapping[str, Any] | None) -> None:
    """Write what `read_cell` returns, whole or not at all."""
    with replaced_file(path, "the cell") as hidden:
        rows.write_parquet(hidden, metadata={name: json.dumps(about)})


def digest(**facts: Any) -> str:
    """Return a hash of everything a cell follows from, JSON-ready values or such as have a plain `str`."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _offline(about: dict[str, Any]) -> Offline:
    metrics = {name: Interval(*numbers) for name, numbers in about.pop("metrics").items()}
    return Offline(metrics=metrics, **about)


@dataclass(frozen=True)
class Agreement:
    """One offline metric beside one online measure."""

    metric: str  # Offline, on the held-out end of the log
    measure: str  # Online, a column of the test
    by_seed: Mapping[int, float]  # Spearman's rank correlation over the models, for each seed that tells models apart
    best_offline: str  # The model that the metric puts first, its mean over the seeds taken
    best_online: str  # The model that the measure puts first

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(list(self.by_seed.values())))


def agreements(
    offline: Sequence[Offline], online: Mapping[str, pl.DataFrame], metrics: Sequence[str], measures: Sequence[str]
) -> tuple[Agreement, ...]:
    """Compare every metric with every measure that tells models apart; none where there are fewer than three models.

    `online`: arm -> `run` (place of the seed) and a column per measure.
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
