"""Checkpoints of a training run: one folder per epoch, written beside its place and then renamed into it.

```
FOLDER/epoch-0003/weights.safetensors    parameters and statistics after epoch 3
                  average.safetensors    running average of the parameters
                  best.safetensors       chosen weights so far, when the run keeps its best epoch
                  optimizer.pt           optimizer state (tensors only)
                  state.json             epoch, settings digest, reports, balance, sha256 of the other files
```
The layout is the same in process and under Ray. A folder that is there is whole; a damaged file is refused.
"""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from playbill.errors import IntegrityError, StateError
from playbill.files import file_digest, put_in_place, remove, remove_leftovers, replaced_folder, storage_errors
from playbill.models.weights import load_tensors, save_tensors

STATE = "state.json"
WEIGHTS = "weights.safetensors"
AVERAGE = "average.safetensors"
BEST = "best.safetensors"
OPTIMIZER = "optimizer.pt"
_PREFIX = "epoch-"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on after `epoch` as if it had never stopped.

    The random state is not among it: every epoch starts from a seed made of the run's seed, epoch and rank.
    """

    epoch: int  # finished epochs
    step: int  # finished optimizer steps
    settings: str  # digest of the settings and network configuration the run was started with
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    reports: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_epoch: int | None = None
    balance: dict[str, Tensor] = field(default_factory=dict)  # what the balance of heads has learned


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint and drop all but the newest `keep`. Returns its folder.

    A crash at any moment leaves the earlier checkpoints untouched.
    """
    final = folder / f"{_PREFIX}{checkpoint.epoch:04d}"
    remove_leftovers(final)
    with replaced_folder(final, "the checkpoint") as unfinished:
        _fill(unfinished, checkpoint)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def _fill(unfinished: Path, checkpoint: Checkpoint) -> None:
    save_tensors(checkpoint.weights, unfinished / WEIGHTS)
    save_tensors(checkpoint.average, unfinished / AVERAGE)
    if checkpoint.best is not None:
        save_tensors(checkpoint.best, unfinished / BEST)
    # torch writes to a path by itself and hides why it failed; through a file the system's own error comes out.
    with (unfinished / OPTIMIZER).open("wb") as file:
        torch.save(checkpoint.optimizer, file)
    state = {
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "settings": checkpoint.settings,
        "best_epoch": checkpoint.best_epoch,
        "balance": {name: values.tolist() for name, values in checkpoint.balance.items()},
        "reports": checkpoint.reports,
        "sha256": {path.name: file_digest(path) for path in sorted(unfinished.iterdir())},
    }
    (unfinished / STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")


def checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def adopt_checkpoint(files: Path, folder: Path) -> Path:
    """Move the files of a checkpoint that came from elsewhere into a run's folder, under the name of its epoch.

    Raises:
        IntegrityError: Its state cannot be read.
    """
    state = _read_state(files)
    final = folder / f"{_PREFIX}{state['epoch']:04d}"
    with storage_errors("the checkpoint", final):
        put_in_place(files, final)
    remove(files)
    return final


def load_checkpoint(path: Path, settings: str | None) -> Checkpoint:
    """Read one checkpoint folder; `settings` is the digest of those of the run that wants to go on, None for any.

    Raises:
        IntegrityError: A file is missing or is not what was written.
        StateError: The checkpoint belongs to a run with other settings.
    """
    state = _checked_state(path)
    if settings is not None and state["settings"] != settings:
        raise StateError(f"{path} belongs to a run with other settings; choose a fresh folder for this run")
    has_best = BEST in state["sha256"]
    return Checkpoint(
        epoch=state["epoch"],
        step=state["step"],
        settings=state["settings"],
        weights=load_tensors(path / WEIGHTS),
        average=load_tensors(path / AVERAGE),
        optimizer=_read_optimizer(path / OPTIMIZER),
        reports=state["reports"],
        best=load_tensors(path / BEST) if has_best else None,
        best_epoch=state["best_epoch"],
        balance={name: torch.tensor(values) for name, values in state["balance"].items()},
    )


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8", errors="replace"))
        dict(state["sha256"]), list(state["reports"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"has no readable {STATE}: {error}") from None
    return state


def _damaged(path: Path, what: str) -> IntegrityError:
    return IntegrityError(f"checkpoint {path} {what}; remove this folder to go on from the epoch before")


def _checked_state(path: Path) -> dict[str, Any]:
    state = _read_state(path)
    for name, sha256 in state["sha256"].items():
        file = path / name
        if not file.is_file():
            raise _damaged(path, f"lacks {name}")
        if file_digest(file) != sha256:
            raise _damaged(path, f"has a damaged {name}")
    return state


def _read_optimizer(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise IntegrityError(f"{path} is no optimizer state: {error}") from None
    return found
