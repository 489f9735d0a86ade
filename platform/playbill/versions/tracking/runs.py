"""Runs: parameters, curves, tables, figures and tags of one piece of work.

MLflow takes letters, digits and `_-. :/` in a metric's name. Ours read `home/ndcg@10` and
`home/country=US-MN/ndcg@10`; there they are `home/ndcg_at_10` and `home/country:US-MN/ndcg_at_10`.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from playbill.clock import Clock, WallClock
from playbill.config import Workspace
from playbill.datasets.splits import REQUESTS
from playbill.errors import IntegrityError, StateError
from playbill.versions.tracking.connection import ALREADY_THERE, NOT_FOUND, Connection, error_code
from playbill.versions.tracking.numbers import NUMBERS, StoredNumbers, read_numbers, write_numbers
from playbill.versions.tracking.open_runs import abandoned, held_open
from playbill.versions.tracking.registry import OTHER_FILES, PROTOCOL, REQUESTS_VERSION, SPLIT_DIGEST, origin_tags

PARAMS_PER_CALL = 100
METRICS_PER_CALL = 900
TAG_LENGTH = 5000
PARAM_LENGTH = 6000


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The numbers of one version under one protocol and split.

    Only evaluations with equal `protocol`, `split_digest` and `requests_version` may be compared.
    """

    protocol: str
    split_digest: str
    # flat name -> number: from the run's table, or its own metrics where it was made without one
    metrics: Mapping[str, float]
    run_id: str
    stored: StoredNumbers | None = None  # the table, with the values of single requests beside it
    problem: str = ""  # why the table cannot be read; then nothing may be concluded from what is absent
    requests_version: str = REQUESTS  # version of what held-out requests carried, see `datasets.splits.REQUESTS`
    other_files: str = ""  # views that were read from other files than the version was trained on, as text

    def requests(self, canvas: str) -> pl.DataFrame | None:
        """Return a canvas's values by request, see `StoredNumbers.requests`; None when none were kept."""
        return None if self.stored is None else self.stored.requests(canvas)


@dataclass(frozen=True, slots=True)
class RunHandle:
    """A run to log to, from any thread. Made by `Tracking.start_run`."""

    connection: Connection
    run_id: str
    experiment_id: str
    clock: Clock = field(default_factory=WallClock)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers in as few calls as MLflow allows; call it once per epoch, not per step.

        Numbers that are not finite are left out. The MLflow UI shows our `home/ndcg@10` as `home/ndcg_at_10`; `step` is
        the epoch, or whatever the curve's axis is.
        """
        from mlflow.entities import Metric

        now_ms = int(self.clock.now().timestamp() * 1000)
        rows = [
            Metric(to_mlflow(name), float(value), now_ms, step)
            for name, value in metrics.items()
            if math.isfinite(value)
        ]
        with self.connection.guarded("logging metrics"):
            for chunk in _chunks(rows, METRICS_PER_CALL):
                self.connection.client.log_batch(self.run_id, metrics=chunk)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; nested mappings become dotted names, other values JSON."""
        from mlflow.entities import Param

        rows = [Param(name, value[:PARAM_LENGTH]) for name, value in _flatten(params)]
        with self.connection.guarded("logging parameters"):
            for chunk in _chunks(rows, PARAMS_PER_CALL):
                self.connection.client.log_batch(self.run_id, params=chunk)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags. None is left out, long values are cut at 5,000 letters."""
        from mlflow.entities import RunTag

        rows = [RunTag(name, str(value)[:TAG_LENGTH]) for name, value in tags.items() if value is not None]
        with self.connection.guarded("setting tags"):
            for chunk in _chunks(rows, PARAMS_PER_CALL):
                self.connection.client.log_batch(self.run_id, tags=chunk)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or a folder with all it holds, under `folder` of the run's artifacts."""
        with self.connection.guarded(f"storing {path.name}"):
            if path.is_dir():
                target = f"{folder}/{path.name}" if folder else path.name
                self.connection.client.log_artifacts(self.run_id, str(path), target)
            else:
                self.connection.client.log_artifact(self.run_id, str(path), folder)

    def log_table(self, frame: pl.DataFrame, name: str) -> None:
        """Store a frame as `tables/NAME.json`, which the MLflow UI shows and compares as a table."""
        columns = {column: values.to_list() for column, values in frame.to_dict().items()}
        with self.connection.guarded(f"storing table '{name}'"):
            self.connection.client.log_table(self.run_id, columns, f"tables/{name}.json")

    def log_numbers(self, metrics: Mapping[str, float], requests: Mapping[str, pl.DataFrame] | None = None) -> None:
        """Store an evaluation's numbers, and values by request of canvases, as the table that gates then read."""
        digest = write_numbers(self.connection, self.run_id, metrics, requests or {})
        self.set_tags({NUMBERS: digest})

    def log_dict(self, data: Mapping[str, Any], name: str) -> None:
        """Store a mapping as the artifact `NAME`, JSON or YAML by its ending."""
        with self.connection.guarded(f"storing {name}"):
            self.connection.client.log_dict(self.run_id, dict(data), name)

    def log_text(self, text: str, name: str) -> None:
        """Store text as the artifact `NAME`."""
        with self.connection.guarded(f"storing {name}"):
            self.connection.client.log_text(self.run_id, text, name)

    def log_figure(self, figure: Any, name: str) -> None:
        """Store a matplotlib figure as `figures/NAME.png`."""
        with self.connection.guarded(f"storing figure '{name}'"):
            self.connection.client.log_figure(self.run_id, figure, f"figures/{name}.png")


class Runs:
    """Experiments and runs of one workspace."""

    def __init__(self, workspace: Workspace, connection: Connection, clock: Clock) -> None:
        self.workspace, self.connection, self.clock = workspace, connection, clock

    def experiment_id(self, experiment: str) -> str:
        """Return the id of experiment `WORKSPACE/experiment`, made when there is none.

        Raises:
            StateError: It was deleted in MLflow and has to be restored there first.
        """
        name = f"{self.workspace.name}/{experiment}"
        client = self.connection.client
        with self.connection.guarded(f"opening experiment '{name}'"):
            found = client.get_experiment_by_name(name) or self._make_experiment(name)
        if found.lifecycle_stage != "active":
            command = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            raise StateError(f"experiment '{name}' was deleted in MLflow, bring it back: {command}")
        return str(found.experiment_id)

    def _make_experiment(self, name: str) -> Any:
        # A server decides where its artifacts are; a bare database would put them in the current folder.
        place = f"{self.workspace.artifacts.rstrip('/')}/{name}" if self.connection.is_database else None
        try:
            self.connection.client.create_experiment(name, artifact_location=place)
        except Exception as error:
            if error_code(error) not in ALREADY_THERE:
                raise
        return self.connection.client.get_experiment_by_name(name)

    @contextmanager
    def start(
        self,
        experiment: str,
        name: str,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        resume: str | None = None,
        command: str = "playbill",
    ) -> Iterator[RunHandle]:
        """Open a run that is also MLflow's active run in this thread; see `Tracking.start_run`."""
        self._close_abandoned()
        run = self._open(experiment, name, resume, command)
        run.set_tags(tags or {})
        if not resume:
            run.log_params(params or {})
        with held_open(self.workspace.runs, run.run_id), self.active(run, close=True):
            yield run

    def _close_abandoned(self) -> None:
        """End the runs whose process was killed on this machine; MLflow would show them as running for ever."""
        for run_id in abandoned(self.workspace.runs):
            run = self._find(run_id)
            if run is not None and run.info.status == "RUNNING":
                with self.connection.guarded(f"ending run {run_id}"):
                    self.connection.client.set_terminated(run_id, "KILLED")

    def _open(self, experiment: str, name: str, resume: str | None, command: str) -> RunHandle:
        experiment_id = self.experiment_id(experiment)
        if resume:
            return RunHandle(self.connection, resume, experiment_id, self.clock)
        with self.connection.guarded(f"starting run '{name}'"):
            origin = origin_tags(self.workspace.project.root, command)
            made = self.connection.client.create_run(experiment_id, run_name=name, tags=origin)
        return RunHandle(self.connection, made.info.run_id, experiment_id, self.clock)

    @contextmanager
    def active(self, run: RunHandle, *, close: bool) -> Iterator[Any]:
        """Make `run` MLflow's active run in this thread; yields the `mlflow` module.

        With `close` it ends with FINISHED, FAILED or KILLED, else with FINISHED only if it was not running before.
        """
        with self.connection.everywhere() as mlflow:
            current = mlflow.active_run()
            if current is not None and current.info.run_id == run.run_id:
                yield mlflow
                return
            with self.connection.guarded("starting a run"):
                running = self.connection.client.get_run(run.run_id).info.status == "RUNNING"
                mlflow.start_run(run_id=run.run_id, nested=current is not None)
            status = "FINISHED"
            try:
                yield mlflow
            except BaseException as error:
                status = "FAILED" if isinstance(error, Exception) else "KILLED"
                raise
            finally:
                with self.connection.guarded("ending a run"):
                    mlflow.end_run("RUNNING" if running and not close else status)

    @contextmanager
    def evaluation(
        self, experiment: str, name: str, tags: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> Iterator[RunHandle]:
        """Open a run that holds the metrics of an evaluation; more may be logged to it inside the block."""
        with self.start(experiment, name, tags) as run:
            run.log_metrics(metrics)
            yield run

    def search(self, experiment: str, tag: str, value: str) -> list[Evaluation]:
        """Return the evaluations logged with a tag of that value, newest first."""
        client = self.connection.client
        with self.connection.guarded("reading evaluations"):
            there = client.get_experiment_by_name(f"{self.workspace.name}/{experiment}")
            if there is None:
                return []
            found = client.search_runs(
                [there.experiment_id],
                filter_string=f"tags.`{tag}` = '{value}' AND attributes.status = 'FINISHED'",
                order_by=["attributes.start_time DESC"],
            )
        return [self._as_evaluation(run) for run in found]

    def exists(self, run_id: str) -> bool:
        """Return whether a run exists and was not deleted."""
        run = self._find(run_id)
        return run is not None and run.info.lifecycle_stage == "active"

    def evaluation_of(self, run_id: str) -> list[Evaluation]:
        """Return the evaluation held by a run that trained a version; none when the run is gone."""
        run = self._find(run_id)
        return [] if run is None else [self._as_evaluation(run)]

    def _as_evaluation(self, run: Any) -> Evaluation:
        tags, run_id = run.data.tags, run.info.run_id
        key = tags.get(PROTOCOL, ""), tags.get(SPLIT_DIGEST, "")
        # Runs from before the tag gave requests the row of the answer.
        common = {"requests_version": tags.get(REQUESTS_VERSION, "1"), "other_files": tags.get(OTHER_FILES, "")}
        if NUMBERS not in tags:
            metrics = {from_mlflow(name): float(value) for name, value in run.data.metrics.items()}
            return Evaluation(*key, metrics, run_id, **common)
        try:
            stored = read_numbers(self.connection, run_id, tags[NUMBERS])
        except IntegrityError as error:
            return Evaluation(*key, {}, run_id, problem=str(error), **common)
        return Evaluation(*key, stored.metrics, run_id, stored, **common)

    def _find(self, run_id: str) -> Any:
        client = self.connection.client
        with self.connection.guarded(f"reading run {run_id}"):
            try:
                return client.get_run(run_id)
            except Exception as error:
                if error_code(error) not in NOT_FOUND:
                    raise
                return None


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield f"{prefix}{name}", text


def _chunks(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


_CUTOFF = re.compile(r"@(\d+)\b")
_CUTOFF_THERE = re.compile(r"_at_(\d+)\b")
_REFUSED = re.compile(r"[^\w.\- :/]")


def to_mlflow(name: str) -> str:
    """Spell one of our metric names in MLflow's alphabet.

    Whatever else it refuses becomes `-` and its code, such as `-3c` for `<`, so names stay apart.
    """
    return _REFUSED.sub(lambda match: f"-{ord(match[0]):x}", _CUTOFF.sub(r"_at_\1", name).replace("=", ":"))


def from_mlflow(name: str) -> str:
    """Spell an MLflow metric name as ours."""
    return _CUTOFF_THERE.sub(r"@\1", name).replace(":", "=")
