"""What one training run keeps on disk, so that a run that was killed goes on where it was.

```
FOLDER/run.json               MLflow run, and the version once it is registered
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
from playbill.datasets import TrainingSet
from playbill.errors import IntegrityError
from playbill.evaluation.report import EvaluationReport
from playbill.files import remove_leftovers, replaced_folder, write_text
from playbill.models import Network, NetworkConfig
from playbill.models.weights import load_network, save_weights
from playbill.training.checkpoint import digest

STATE, DATA, START, EVALUATION = "run.json", "training_set", "start.safetensors", "evaluation"
DIGESTS, FEATURES = "digests.json", "features.json"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Args:
        path: Named by the hash of everything the run depends on.
    """

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

    def load_training_set(self) -> TrainingSet | None:
        """Return the training set of the attempt before.

        None where there is none, where it is of another release, or where a file is not what was written: it is then
        built again.
        """
        try:
            content = json.loads((self.training_set / DIGESTS).read_text(encoding="utf-8"))
            files = dict(content["sha256"])
            whole = all(digest(self.training_set / name) == sha256 for name, sha256 in files.items())
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
            files = {path.name: digest(path) for path in sorted(unfinished.iterdir())}
            text = json.dumps({"release": __version__, "sha256": files})
            (unfinished / DIGESTS).write_text(text, encoding="utf-8")

    def feature_files(self) -> dict[str, list[str]]:
        """Return view -> digests of the feature files that the training set was built from."""
        found: dict[str, list[str]] = json.loads((self.training_set / FEATURES).read_text(encoding="utf-8"))
        return found

    def drop_training_set(self) -> None:
        """Give its disk back: a finished run is not gone on with."""
        shutil.rmtree(self.training_set, ignore_errors=True)

    def reports(self, bundle: str) -> KeptReports:
        """Return the reports of a bundle, by its digest."""
        return KeptReports(self.path / EVALUATION, bundle)


@dataclass(frozen=True)
class KeptReports:
    """Canvases of one bundle that were measured, by the attempts before too.

    Args:
        folder: Of the reports.
        bundle: Digest of what they measure. Reports of another are not looked at.
    """

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
