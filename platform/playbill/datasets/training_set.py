"""The training set: tokens of every member, the requests to learn from, and batches of them for any rank."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from playbill.datasets.arrays import Float, Int, TitleArrays
from playbill.datasets.batches import Assembler, Batch, QueryPool, Task, draw_chances
from playbill.datasets.encoder import ContextColumns, Encoder
from playbill.datasets.windows import Plan, Windows, plan_epoch
from playbill.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How batches are cut."""

    batch_slots: int
    """Tokens per batch of all ranks together, padding counted."""
    seed: int
    softmax: tuple[str, ...]
    """Heads that rank the target against every title."""
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class TrainingSet:
    """Everything a training run reads. Letters: n tokens, m labelled tokens, T titles.

    Args:
        encoder: How it was encoded; goes into the checkpoint.
        titles: The titles, with their snapshots.
        names: [T] names that search queries are made from.
        tokens: [n, 7] tokens of the training part, member after member.
        token_member: [n] number of the member.
        token_row: [n] row of the request that led to the token, -1 where nothing is learnt from it.
        context: The m requests.
        snapshot: [m] index into `titles.snapshots`.
        labels: Head -> [m]; nan = unlabelled.
        windows: Of tokens.
        settings: Of batches.
        watermark: Nothing at or after this moment is in here.
    """

    encoder: Encoder
    titles: TitleArrays
    names: tuple[str, ...]
    tokens: Int
    token_member: Int
    token_row: Int
    context: ContextColumns
    snapshot: Int
    labels: dict[str, Float]
    windows: Windows
    settings: BatchSettings
    watermark: datetime

    @property
    def plays(self) -> Float:
        """[T] plays of each title in the training part."""
        return self.titles.plays

    def steps(self, world: int = 1) -> int:
        """Return the batches per epoch, the same number on every rank."""
        return len(self._plan(0, world))

    def epoch(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Yield one epoch's batches for one rank.

        Every rank gets a part of every batch, and the parts together are what a single process gets. The order,
        the made rows and the hidden fields depend on nothing but the settings' seed and `epoch`.

        Raises:
            StateError: There are fewer windows than ranks.
        """
        plan = self._plan(epoch, world)
        pool = self._pool(epoch)
        for number, (width, chosen) in enumerate(zip(plan.widths, plan.windows, strict=True)):
            seed = (self.settings.seed, epoch, number)
            chance = draw_chances(seed, len(chosen), width, len(self.settings.tasks))
            mine = slice(rank, None, world)
            yield self._assembler.batch(
                self.windows.start[chosen[mine]],
                self.windows.length[chosen[mine]],
                self.windows.first[chosen[mine]],
                width,
                chance[mine],
                pool,
            )

    def _plan(self, epoch: int, world: int) -> Plan:
        return plan_epoch(self.windows, self.settings.batch_slots, (self.settings.seed, epoch), world)

    def _pool(self, epoch: int) -> QueryPool:
        wanted = np.zeros(len(self.names), np.bool_)
        if any(task.source == "title_names" for task in self.settings.tasks):
            wanted[self.tokens[self.token_row >= 0, 0]] = True
        return QueryPool.make(self.names, wanted, self.encoder.state.text_buckets, self.settings.seed + 1_000 * epoch)

    @cached_property
    def _assembler(self) -> Assembler:
        return Assembler(
            self.tokens,
            self.token_row,
            self.context,
            self.snapshot,
            self.labels,
            frozenset(self.settings.softmax),
            self.settings.tasks,
        )

    def save(self, folder: Path) -> None:
        """Write one .npy file per array, and what is no array as JSON, so that workers can map it into memory."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in self._arrays().items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        about = {
            "heads": list(self.labels),
            "names": self.names,
            "settings": asdict(self.settings),
            "watermark": self.watermark.isoformat(),
        }
        (folder / "encoder.json").write_text(self.encoder.to_json(), encoding="utf-8")
        (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")

    def _arrays(self) -> dict[str, NDArray[Any]]:
        own = {name: getattr(self, name) for name in _OWN}
        labels = {f"labels.{place}": values for place, values in enumerate(self.labels.values())}
        return {
            **own,
            **labels,
            **_prefixed("titles", self.titles),
            **_prefixed("context", self.context),
            **_prefixed("windows", self.windows),
        }

    @classmethod
    def load(cls, folder: Path) -> TrainingSet:
        """Read what `save` wrote; arrays stay on disk until they are read.

        Raises:
            IntegrityError: Something is missing or damaged.
        """
        try:
            about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
            encoder = Encoder.from_json((folder / "encoder.json").read_text(encoding="utf-8"))
            own: dict[str, Any] = {name: _mapped(folder, name) for name in _OWN}
            labels = {name: _mapped(folder, f"labels.{place}") for place, name in enumerate(about["heads"])}
            parts: dict[str, Any] = {
                name: kind(**{field.name: _mapped(folder, f"{name}.{field.name}") for field in fields(kind)})
                for name, kind in _PARTS.items()
            }
            settings = _settings(about["settings"])
            watermark = datetime.fromisoformat(about["watermark"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"training set {folder} cannot be read: {error}") from None
        return cls(
            encoder=encoder,
            names=tuple(about["names"]),
            labels=labels,
            settings=settings,
            watermark=watermark,
            **own,
            **parts,
        )


_OWN = ("tokens", "token_member", "token_row", "snapshot")
_PARTS: dict[str, Any] = {"titles": TitleArrays, "context": ContextColumns, "windows": Windows}


def _prefixed(prefix: str, part: Any) -> dict[str, NDArray[Any]]:
    return {f"{prefix}.{field.name}": getattr(part, field.name) for field in fields(part)}


def _mapped(folder: Path, name: str) -> NDArray[Any]:
    path = folder / f"{name}.npy"
    # An empty array cannot be mapped into memory.
    header = np.load(path, mmap_mode=None, allow_pickle=False) if path.stat().st_size < 4_096 else None
    return header if header is not None else np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _settings(raw: dict[str, Any]) -> BatchSettings:
    tasks = tuple(Task(**{**task, "lacking": tuple(task["lacking"])}) for task in raw["tasks"])
    return BatchSettings(raw["batch_slots"], raw["seed"], tuple(raw["softmax"]), tasks)
