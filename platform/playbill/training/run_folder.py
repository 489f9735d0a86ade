"""What one training run keeps on disk, so that a run that was killed goes on where it was.

```
FOLDER/run.json               MLflow run, and the version once it is registered
       checks/                what was found before the run, and the split
       parts/                 what the training set of a long log is built in
       training_set/          arrays of the training set, and start.safetensors: the network before its first step
       checkpoints/           see `training.checkpoint`
       bundle/                what is registered
       evaluation/            a report for each canvas that was measured
```
What is read back is compared with its digest first.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playbill import __version__
from playbill.datasets import Split, TrainingSet
from playbill.errors import IntegrityError, StateError
from playbill.evaluation.report import EvaluationReport
from playbill.files import file_digest, make_folder, remove_leftovers, replaced_folder, write_text
from playbill.models import Network, NetworkConfig
from playbill.models.weights import load_network, save_weights

STATE, DATA, START, EVALUATION = "run.json", "training_set", "start.safetensors", "evaluation"
PARTS = "parts"
DIGESTS, FEATURES = "digests.json", "features.json"
CHECKS, FOUND, SPLIT = "checks", "checks.json", "split.parquet"


@dataclass(frozen=True)
class Checks:
    """What the checks of data before a run found."""

    key: str  # hash of everything they read: where it is the same, so is what they find
    split: Split
    notes: tuple[str, ...]  # about views of the project's own

    @classmethod
    def of(cls, runs: Path, model: str, key: str, check: Callable[[], tuple[Split, tuple[str, ...]]]) -> Checks:
        """Return what an unfinished run of the model found when it read the very same; else check now."""
        for file in sorted(runs.glob(f"{model}-*/{CHECKS}/{FOUND}")):
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                if content["key"] == key:
                    return cls(key, Split.load(file.parent / SPLIT), tuple(map(str, content["notes"])))
            except (OSError, ValueError, KeyError, TypeError, IntegrityError, StateError):
                continue  # Damaged: they are made again.
        return cls(key, *check())


def sources_digest(folder: Path) -> str:
    """Return the SHA-256 of the Python files of a folder: names and content."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(f"{path.relative_to(folder)} {file_digest(path)}\n".encode())
    return found.hexdigest()


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, named by the hash of everything the run depends on."""

    path: Path

    @property
    def training_set(self) -> Path:
        """Folder of the training set's arrays."""
        return self.path / DATA

    def state(self) -> dict[str, Any] | None:
        """Return what was remembered, None for a run that never began.

        Raises:
            IntegrityError: It cannot be read.
        """
        file = self.path / STATE
        if not file.is_file():
            return None
        try:
            found = dict(json.loads(file.read_text(encoding="utf-8")))
            str(found["run_id"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{file} cannot be read ({error}); remove {self.path} to start afresh") from None
        return found

    def remember(self, **state: Any) -> None:
        """Replace what is remembered."""
        write_text(self.path / STATE, json.dumps(state), "the state of the run")

    def clear(self) -> None:
        """Forget the run."""
        shutil.rmtree(self.path, ignore_errors=True)

    def keep_checks(self, checks: Checks) -> None:
        """Write what the checks before the run found, where an attempt before has not."""
        if not (self.path / CHECKS).is_dir():
            with replaced_folder(self.path / CHECKS, "the checks of the run") as unfinished:
                checks.split.save(unfinished / SPLIT)
                text = json.dumps({"key": checks.key, "notes": checks.notes})
                (unfinished / FOUND).write_text(text, encoding="utf-8")

    def load_training_set(self) -> TrainingSet | None:
        """Return the training set of the attempt before.

        None where there is none, where it is of another release, or where a file is not what was written: it is then
        built again.
        """
        try:
            content = json.loads((self.training_set / DIGESTS).read_text(encoding="utf-8"))
            files = dict(content["sha256"])
            whole = all(file_digest(self.training_set / name) == sha256 for name, sha256 in files.items())
            if not whole or content["release"] != __version__:
                return None
            return TrainingSet.load(self.training_set)
        except (OSError, ValueError, KeyError, TypeError, IntegrityError):
            return None

    def load_start(self, config: NetworkConfig) -> Network | None:
        """Return the network before its first step, beside a training set that `load_training_set` has checked."""
        file = self.training_set / START
        return load_network(config, file) if file.is_file() else None

    def keep_training_set(self, data: TrainingSet, start: Network, feature_files: Mapping[str, Sequence[str]]) -> None:
        """Write the training set, the network that was started from it, and the digests of its feature files."""
        remove_leftovers(self.training_set)
        with replaced_folder(self.training_set, "the training set") as unfinished:
            data.save(unfinished)
            save_weights(start, unfinished / START)
            (unfinished / FEATURES).write_text(json.dumps(feature_files), encoding="utf-8")
            files = {path.name: file_digest(path) for path in sorted(unfinished.iterdir())}
            text = json.dumps({"release": __version__, "sha256": files})
            (unfinished / DIGESTS).write_text(text, encoding="utf-8")

    def new_parts(self) -> Path:
        """Return an empty folder to build a training set in; what an attempt before has left is dropped."""
        folder = self.path / PARTS
        shutil.rmtree(folder, ignore_errors=True)
        return make_folder(folder)

    def without_parts(self, data: TrainingSet) -> TrainingSet:
        """Return what was kept of a training set that was built in parts, and drop these; another one as it is."""
        if not (self.path / PARTS).is_dir():
            return data
        kept = TrainingSet.load(self.training_set)
        shutil.rmtree(self.path / PARTS, ignore_errors=True)
        return kept

    def feature_files(self) -> dict[str, list[str]]:
        """Return view -> digests of the feature files that the training set was built from."""
        found: dict[str, list[str]] = json.loads((self.training_set / FEATURES).read_text(encoding="utf-8"))
        return found

    def drop_training_set(self) -> None:
        """Give its disk back, and that of the checks: a finished run is not gone on with."""
        for folder in (self.training_set, self.path / CHECKS):
            shutil.rmtree(folder, ignore_errors=True)

    def reports(self, bundle: str) -> KeptReports:
        """Return the reports of a bundle, by its digest."""
        return KeptReports(self.path / EVALUATION, bundle)


@dataclass(frozen=True)
class KeptReports:
    """Canvases of one bundle, by its digest, that were measured, by the attempts before too."""

    folder: Path
    bundle: str

    def measured(self, canvas: str, measure: Callable[[], EvaluationReport]) -> EvaluationReport:
        """Return the kept report of a canvas; else measure it, and keep that."""
        file = self.folder / f"{canvas}-{self.bundle[:16]}.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["sha256"] == _text_digest(content["report"]):
                return EvaluationReport.from_json(content["report"])
        except (OSError, ValueError, KeyError, TypeError, IntegrityError):
            pass  # Never measured, or damaged: it is measured now.
        report = measure()
        text = report.to_json()
        write_text(file, json.dumps({"sha256": _text_digest(text), "report": text}), "the report")
        return report


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
