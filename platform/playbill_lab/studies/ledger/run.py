"""The models of a ledger, each trained once for each seed and measured on its canvases, or read from finished cells."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from playbill.arrays import Floats64, Indices
from playbill.datasets import TrainingSet
from playbill.definitions.specs import ResolvedModel
from playbill.errors import StateError
from playbill.evaluation.beside import Beside
from playbill_lab.studies.cells import cell_errors, digest, read_cell, write_cell
from playbill_lab.studies.ledger.arms import (
    Costs,
    ModelAnswerer,
    answers,
    baseline_values,
    canvas_rows,
    costs_of,
    fitted,
    rows_by_canvas,
    scorer_of,
)
from playbill_lab.studies.ledger.data import METRICS, LedgerOptions, LedgerService, PolicyRequest
from playbill_lab.studies.ledger.models import ledger_canvases, only_head, separate_model, with_recipe

CONSOLIDATED = "consolidated"
_FORMAT = 2  # Of what is kept: a cell of another one is made anew

DataOf = Callable[[ResolvedModel], TrainingSet]


@dataclass
class LedgerRun:
    """A ledger under way."""

    service: LedgerService
    cells: LedgerCells
    skipped: dict[str, str] = field(default_factory=dict)  # Canvas -> why it cannot be measured
    beside: Beside = field(default_factory=Beside)
    _rebuilt: dict[str, TrainingSet] = field(default_factory=dict)

    @property
    def options(self) -> LedgerOptions:
        """What is asked."""
        return self.service.options

    @property
    def resolved(self) -> ResolvedModel:
        """The consolidated model's definition."""
        return self.service.resolved

    def canvases(self) -> dict[str, Sequence[PolicyRequest]]:
        """Return the canvases that the log can measure, with their requests; why others cannot goes to `skipped`."""
        found: dict[str, Sequence[PolicyRequest]] = {}
        for canvas in ledger_canvases(self.resolved, self.options.canvases):
            try:
                found[canvas] = self.service.cases(canvas)
            except StateError as error:
                self.skipped[canvas] = str(error)
        if not found:
            raise StateError("\n  ".join(["no canvas could be measured", *self.skipped.values()]))
        return found

    def consolidated(self) -> list[LedgerCell]:
        """Return the consolidated model's cell for each seed."""
        return self.arm(CONSOLIDATED, self.resolved, lambda _: self.service.data)

    def baselines(self, canvas: str) -> dict[str, Floats64]:
        """Return what baselines reach on a canvas: name -> [N, metrics] over its requests, fold after fold."""
        return baseline_values(self.canvases()[canvas], self.resolved, self.beside, self.options.k)

    def separate(self, canvas: str) -> list[LedgerCell]:
        """Return the cells of the model that the consolidated one replaces on a canvas; see `in_process`."""
        in_process, taught = self.in_process(canvas), self.resolved.canvas(canvas).requested_as
        return self.arm(f"separate/{canvas}", in_process, lambda own: self.part(own, [taught]), (canvas,))

    def in_process(self, canvas: str) -> ResolvedModel:
        """Return the separate model of a canvas, with the heads that have something to learn there.

        Raises:
            StateError: None has.
        """
        known, where = self.service.data.rows.labels, self.resolved.canvas(canvas).requested_as

        def taught(head: str) -> bool:
            return head in known and rows_by_canvas(self.service.data, [head]).get(where, 0) > 0

        return separate_model(self.resolved, canvas, taught)

    def tasks(self) -> dict[str, list[LedgerCell]]:
        """Return head -> cells of a model of it alone, for heads that no canvas's own model has.

        The consolidated model predicts them too, so without it each would need a model. They are asked nothing here.
        """
        blended = {head for canvas in self.canvases() for head in self._heads_alone(canvas)}
        found = {}
        for head in self.heads():
            if head not in blended:
                canvases = [name for name, rows in rows_by_canvas(self.service.data, [head]).items() if rows]
                in_process = renamed(only_head(self.resolved, head), f"{head}_alone")
                found[head] = self.arm(f"task/{head}", in_process, lambda own: self.part(own, canvases), ())  # noqa: B023
        return found

    def _heads_alone(self, canvas: str) -> tuple[str, ...]:
        try:
            return tuple(self.in_process(canvas).model.heads)
        except StateError:
            return ()

    def part(self, resolved: ResolvedModel, canvases: Sequence[str]) -> TrainingSet:
        """Cut the training set to the rows of some canvases and the heads of a model."""
        heads = [head for head in resolved.model.heads if head in self.service.data.rows.labels]
        return canvas_rows(self.service.data, resolved, canvases, heads)

    def heads(self) -> tuple[str, ...]:
        """Return the heads that have rows to learn from, in the model's order."""
        return tuple(head for head in self.resolved.model.heads if head in self.service.data.rows.labels)

    def rebuilt(self, resolved: ResolvedModel) -> TrainingSet:
        """Build the training set of a model that reads something else; the last one is kept for its other seeds."""
        key = with_recipe(resolved, 0).spec_hash
        if key not in self._rebuilt:
            self._rebuilt.clear()
            self._rebuilt[key] = self.service.training_set(resolved)
        return self._rebuilt[key]

    def arm(
        self, name: str, resolved: ResolvedModel, data: DataOf, canvases: Sequence[str] | None = None
    ) -> list[LedgerCell]:
        """Return a cell for each seed, on some canvases (None = all); `data` makes the training set if needed."""
        cases = self.canvases()
        if canvases is not None:
            cases = {canvas: folds for canvas, folds in cases.items() if canvas in canvases}
        found = []
        for seed in self.options.seeds:
            seeded = with_recipe(resolved, seed)
            key = self.digest(name, seeded, cases)
            found.append(self.cells.get(f"{name}-{seed}", key, lambda: self._measured(seeded, data, cases)))  # noqa: B023
        return found

    def digest(self, name: str, resolved: ResolvedModel, cases: dict[str, Sequence[PolicyRequest]]) -> str:
        """Return a hash of everything that a cell follows from."""
        return digest(
            format=_FORMAT,
            name=name,
            model=resolved.spec_hash,
            whole=self.resolved.spec_hash,
            data=self.service.snapshot,
            features=self.service.features.schema(resolved.model.features).version,
            split=self.service.split.digest,
            members=self.options.members,
            cases=[one.case.digest for folds in cases.values() for one in folds],
            k=self.options.k,
        )

    def _measured(self, resolved: ResolvedModel, data: DataOf, cases: dict[str, Sequence[PolicyRequest]]) -> LedgerCell:
        trained, costs = self.trained(resolved, data(resolved))
        return LedgerCell(answers(trained, cases, self.options.k), costs)

    def trained(
        self, resolved: ResolvedModel, data: TrainingSet, service: LedgerService | None = None
    ) -> tuple[ModelAnswerer, Costs]:
        """Train a model, and return it over the catalogue of then with what it costs."""
        with tempfile.TemporaryDirectory(dir=self.cells.folder) as scratch:
            found, cpu_seconds, steps = fitted(data, resolved, Path(scratch) / "bundle")
            scorer = scorer_of(service or self.service, found, data)
        return ModelAnswerer(scorer, found.bundle.resolved), costs_of(found, scorer, data, cpu_seconds, steps)


def values_of(cells: Sequence[LedgerCell], canvas: str, metric: str = METRICS[0], fold: str | None = None) -> Floats64:
    """Return [S, N] one row of a canvas's requests for each seed; those of one fold where one is named."""
    wanted = pl.col("canvas") == canvas
    if fold is not None:
        wanted = wanted & (pl.col("fold") == fold)
    rows = [cell.values.filter(wanted).sort("place")[metric].to_numpy() for cell in cells]
    return np.stack(rows).astype(np.float64)


def members_of(cases: Sequence[PolicyRequest], fold: str | None = None) -> Indices:
    """Return [N] dense codes of the members of a canvas's requests, fold after fold; of one fold where one is named."""
    names = [one.case.frame["member_id"] for one in cases if fold in (None, one.case.fold)]
    if not names:
        return np.zeros(0, np.int64)
    return pl.concat(names).rank("dense").to_numpy().astype(np.int64) - 1


def renamed(resolved: ResolvedModel, name: str) -> ResolvedModel:
    """Return a model under another name."""
    return resolved.model_copy(update={"model": resolved.model.model_copy(update={"name": name})})


_METADATA = "playbill.ledger"


@dataclass(frozen=True)
class LedgerCell:
    """One model on one seed."""

    values: pl.DataFrame  # A row per request that it answered, or per labelled event that a head was asked about
    costs: Costs | None = None  # What training and serving it takes; None where nothing was trained


class LedgerCells:
    """A folder of cells; `progress` is called with the name of every cell that is made anew."""

    def __init__(self, folder: Path, progress: Callable[[str], None] | None = None) -> None:
        self.folder, self._progress = folder, progress or (lambda _name: None)
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, key: str, make: Callable[[], LedgerCell]) -> LedgerCell:
        """Return the cell that follows from what `key` is the digest of, or make and keep it.

        Raises:
            IntegrityError: There is a file, and it is no cell.
        """
        path = self.folder / f"{name.replace('/', '-')}-{key[:16]}.parquet"
        if path.is_file():
            with cell_errors(path, "a ledger"):
                values, about = read_cell(path, _METADATA)
                return LedgerCell(values, None if about is None else Costs(**about))
        cell = make()
        write_cell(path, cell.values, _METADATA, None if cell.costs is None else asdict(cell.costs))
        self._progress(name)
        return cell
