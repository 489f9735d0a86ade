"""The training set: tokens of every member, the requests to learn from, and batches of them for any rank."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from playbill.arrays import AnyInts, Floats32, Ints64
from playbill.datasets.arrays import TitleArrays
from playbill.datasets.availability import States
from playbill.datasets.batching.batches import Assembler, Batch, DrawnNegatives, Learnt, QueryPool, Task, draw_chances
from playbill.datasets.batching.horizon import Moments
from playbill.datasets.batching.windows import EpochPlan, Windows, drawn_windows, epoch_part, plan_epoch, with_batches
from playbill.datasets.encoding.context_columns import ContextColumns
from playbill.datasets.encoding.encoder import Encoder
from playbill.datasets.encoding.row_entries import PageRows
from playbill.datasets.examples.negatives import make_policy
from playbill.datasets.examples.rows import TrainingRows
from playbill.datasets.examples.sampling import Stratum
from playbill.definitions.specs import ResolvedModel, prune_heads
from playbill.definitions.specs.head import read_negatives
from playbill.errors import IntegrityError

WINDOWS_AT_ONCE, ROWS_AT_ONCE = 1 << 14, 1 << 20
"""Of the whole set, where something is counted over all of it: a worker's own memory then hardly grows with the log."""


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How batches are cut."""

    batch_slots: int  # tokens per batch of all ranks together, padding counted
    seed: int
    softmax: tuple[str, ...]  # heads that rank the target: against every title, or against drawn ones
    tasks: tuple[Task, ...]
    negatives: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Head -> options of the policy that draws its negatives."""
    horizons: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Head -> `within_s`, `half_life_s` and `most`, for heads that learn what is chosen within a time."""
    earlier_share: float | None = None
    """Share of the earlier windows of members that an epoch reads, others in each; None = all of them."""


@dataclass(frozen=True)
class TrainingSet:
    """Everything a training run reads. Letters: n tokens, R rows, m requests, T titles."""

    encoder: Encoder
    titles: TitleArrays
    names: tuple[str, ...]  # [T] names that search queries are made from
    tokens: AnyInts  # [n, 7] tokens of the training part, member after member
    token_member: AnyInts  # [n] number of the member
    rows: TrainingRows
    context: ContextColumns  # the m requests
    snapshot: AnyInts  # [m] index into `titles.snapshots`
    states: States  # which titles could be seen in the requests; none where all always could
    state: AnyInts  # [m] which of them each request is in
    windows: Windows
    settings: BatchSettings
    watermark: datetime  # nothing at or after this moment is in here
    strata: tuple[Stratum, ...] = ()  # groups that rows are drawn by; empty where every row is drawn once
    rewards: dict[str, str] = field(default_factory=dict)  # head -> version of the reward that weighs its examples
    pages: PageRows = field(default_factory=PageRows.none)  # rows of logged pages; none where no head is about rows
    # optional heads of the definition that nothing here teaches, and why. `trained` is without them
    left_out: dict[str, str] = field(default_factory=dict)
    events: int = 0  # events that went into the tokens
    # [m] when each request was made, microseconds since 1970; empty where no head has a horizon
    moment: Ints64 = field(default_factory=lambda: np.zeros(0, np.int64))
    attributes: dict[str, Ints64] = field(default_factory=dict)  # auxiliary head -> [T, W] what it predicts; 0 = none

    def trained(self, resolved: ResolvedModel) -> ResolvedModel:
        """Return the definition this was built from as it can be trained: without the heads left out here."""
        return prune_heads(resolved, self.left_out)

    @property
    def labels(self) -> dict[str, Floats32]:
        """Head -> [R]; nan = unlabelled."""
        return self.rows.labels

    @property
    def token_row(self) -> Ints64:
        """[n] row that predicts each token, -1 where nothing is learnt from it."""
        found = np.full(len(self.tokens), -1, np.int64)
        slots = np.arange(len(self.tokens)) + self.token_member
        own = np.nonzero(self.rows.next)[0]
        found[np.searchsorted(slots, self.rows.slot[own])] = own
        return found

    @property
    def plays(self) -> Floats32:
        """[T] plays of each title in the training part."""
        return self.titles.plays

    @cached_property
    def batch_weights(self) -> dict[str, float]:
        """Head -> weight of its rows in a batch of all ranks, on average; only heads whose rows weigh differently.

        A step divides by it. By the batch's own weight, a batch of rows that weigh little would count as much as one
        of rows that weigh a lot, and windows of one length, which share a batch, are of members alike.
        """
        if not self.rows.weights and not len(self.rows.copies):
            return {}
        windows, totals = self.windows_of(0), Counter[str]()
        made = sum(task.share for task in self.settings.tasks)
        for start in range(0, len(windows), WINDOWS_AT_ONCE):
            row, _ = self._assembler.rows_of(windows[start : start + WINDOWS_AT_ONCE])
            totals.update(self._assembler.targets.total_weights(row, made))
        return {head: total / self.steps() for head, total in totals.items() if total > 0}

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
        plan, windows = self._plan(epoch, world), self.windows_of(epoch)
        pool = self._pool(epoch)
        for number, (width, chosen) in enumerate(zip(plan.widths, plan.windows, strict=True)):
            seed = (self.settings.seed, epoch, number)
            chance = draw_chances(seed, len(chosen), width, len(self.settings.tasks))
            mine = slice(rank, None, world)
            shared = DrawnNegatives(chance[mine], pool, self._draw(windows[chosen], seed))
            yield self._assembler.batch(windows[chosen[mine]], width, shared)

    def rows_read(self, epoch: int) -> Iterator[tuple[Ints64, Ints64]]:
        """Yield for each batch of one process its logged rows, in their order, and the number of each one's member.

        Made rows come after them in a batch.
        """
        every = self.windows_of(epoch)
        for chosen in self._plan(epoch, 1).windows:
            windows = every[chosen]
            row, window = self._assembler.rows_of(windows)
            yield row, windows.member[window]

    def _draw(self, windows: Windows, seed: tuple[int, int, int]) -> dict[str, tuple[Ints64, Floats32]]:
        if not self._assembler.targets.policies:
            return {}
        row, _ = self._assembler.rows_of(windows)
        return self._assembler.targets.draw(row, self.plays, seed)

    @property
    def epoch_tokens(self) -> int:
        """Tokens that an epoch reads, windows that it reads several times counted as often."""
        return int(self.windows_of(0).length.sum())

    def windows_of(self, epoch: int) -> Windows:
        """Return the windows of an epoch: where there are strata, some are read several times."""
        share = self.settings.earlier_share
        if share is None:
            return self._every_window
        return self._drawn(self.windows[epoch_part(self.windows, share, self.settings.seed, epoch)])

    @cached_property
    def _every_window(self) -> Windows:
        return self._drawn(self.windows)

    def _drawn(self, windows: Windows) -> Windows:
        return drawn_windows(windows, self.rows.slot, self.rows.copies) if len(self.rows.copies) else windows

    def _plan(self, epoch: int, world: int) -> EpochPlan:
        windows, slots, seed = self.windows_of(epoch), self.settings.batch_slots, (self.settings.seed, epoch)
        if self.settings.earlier_share is None:
            return plan_epoch(windows, slots, seed, world)
        # Epochs differ in their windows: they share the widths of all of them, and have as many batches as the first.
        plan = plan_epoch(windows, slots, seed, world, self.windows.widths)
        return plan if epoch == 0 else with_batches(plan, self.steps(world))

    def _pool(self, epoch: int) -> QueryPool:
        wanted = np.zeros(len(self.names), np.bool_)
        if any(task.source == "title_names" for task in self.settings.tasks):
            for start in range(0, len(self.rows), ROWS_AT_ONCE):
                part = slice(start, start + ROWS_AT_ONCE)
                wanted[self.rows.title[part][self.rows.next[part]]] = True
        return QueryPool.make(self.names, wanted, self.encoder.state.text_buckets, self.settings.seed + 1_000 * epoch)

    @cached_property
    def _assembler(self) -> Assembler:
        policies = {head: make_policy(read_negatives(options)) for head, options in self.settings.negatives.items()}
        moments = None
        if self.settings.horizons:
            typed = np.diff(self.context.query_offsets, append=len(self.context.query_grams)) > 0
            alone = typed | (np.asarray(self.context.source_title) > 0)
            moments = Moments.of(self.rows, self.token_member, self.moment, alone)
        given = (self.tokens, self.rows, self.context, self.snapshot, self.states, self.state, self.pages)
        learnt, softmax = Learnt(*given, moments, self.attributes), frozenset(self.settings.softmax)
        return Assembler(learnt, softmax, self.settings.tasks, policies, self.settings.horizons)

    def save(self, folder: Path) -> None:
        """Write one .npy file per array, and what is no array as JSON, so that workers can map it into memory."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in self._arrays().items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        about = {
            "heads": list(self.rows.labels),
            "weighted": list(self.rows.weights),
            "auxiliary": list(self.attributes),
            "strata": [asdict(stratum) for stratum in self.strata],
            "rewards": self.rewards,
            "left_out": self.left_out,
            "events": self.events,
            "names": self.names,
            "settings": asdict(self.settings),
            "watermark": self.watermark.isoformat(),
        }
        (folder / "encoder.json").write_text(self.encoder.to_json(), encoding="utf-8")
        (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")

    def _arrays(self) -> dict[str, NDArray[Any]]:
        own = {name: getattr(self, name) for name in _OWN}
        heads = {
            f"{kind}.{place}": values
            for kind in _BY_HEAD
            for place, values in enumerate(getattr(self.rows, kind).values())
        }
        own |= {f"attributes.{place}": values for place, values in enumerate(self.attributes.values())}
        parts = {name: part for kind in _PARTS for name, part in _prefixed(kind, getattr(self, kind)).items()}
        return {**own, **heads, **parts}

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
            parts = {name: _part(folder, name, kind, about) for name, kind in _PARTS.items()}
            auxiliary = enumerate(about["auxiliary"])
            own["attributes"] = {head: _mapped(folder, f"attributes.{place}") for place, head in auxiliary}
            settings = _settings(about["settings"])
            strata = tuple(Stratum(**stratum) for stratum in about["strata"])
            watermark = datetime.fromisoformat(about["watermark"])
            names, rewards, left_out = tuple(about["names"]), dict(about["rewards"]), dict(about["left_out"])
            events = int(about["events"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"training set {folder} cannot be read: {error}") from None
        about = {"strata": strata, "rewards": rewards, "settings": settings, "watermark": watermark}
        about |= {"left_out": left_out, "events": events}
        return cls(encoder=encoder, names=names, **about, **own, **parts)


_OWN = ("tokens", "token_member", "snapshot", "state", "moment")
_PARTS: dict[str, Any] = {
    "titles": TitleArrays,
    "context": ContextColumns,
    "windows": Windows,
    "rows": TrainingRows,
    "states": States,
    "pages": PageRows,
}
_BY_HEAD = {"labels": "heads", "weights": "weighted"}
"""Fields of the rows that hold an array for each head, and where the heads are listed."""


def _prefixed(prefix: str, part: Any) -> dict[str, NDArray[Any]]:
    names = [own.name for own in fields(part) if own.name not in _BY_HEAD]
    return {f"{prefix}.{name}": getattr(part, name) for name in names}


def _part(folder: Path, prefix: str, kind: Any, about: dict[str, Any]) -> Any:
    found: dict[str, Any] = {}
    for name in (own.name for own in fields(kind)):
        if name in _BY_HEAD:
            heads = about[_BY_HEAD[name]]
            found[name] = {head: _mapped(folder, f"{name}.{place}") for place, head in enumerate(heads)}
        else:
            found[name] = _mapped(folder, f"{prefix}.{name}")
    return kind(**found)


def _mapped(folder: Path, name: str) -> NDArray[Any]:
    path = folder / f"{name}.npy"
    # An empty array cannot be mapped into memory
    header = np.load(path, mmap_mode=None, allow_pickle=False) if path.stat().st_size < 4_096 else None
    return header if header is not None else np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _settings(raw: dict[str, Any]) -> BatchSettings:
    tasks = tuple(Task(**{**task, "lacking": tuple(task["lacking"])}) for task in raw["tasks"])
    return BatchSettings(**{**raw, "softmax": tuple(raw["softmax"]), "tasks": tasks})
