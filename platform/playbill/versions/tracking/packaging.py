"""A bundle as an MLflow model: models-from-code, so nothing is pickled, with the bundle and our wheel as artifacts.

Our servers read titles from the canonical tables. A plain MLflow model has no workspace, so it carries a copy of them
as they were known at registration.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from playbill.clock import parse_moment
from playbill.config import Workspace
from playbill.files import replaced_folder
from playbill.tables import Tables, workspace_clock
from playbill.versions.tracking.connection import Connection
from playbill.versions.tracking.registry import DIGEST, TAG_LENGTH, ModelRegistry
from playbill.versions.tracking.runs import RunHandle, Runs
from playbill.versions.tracking.wheel import requirement, write_wheel

BUNDLE, CATALOGUE, PACKAGE = "bundle", "catalogue", "package"
BUNDLE_PATH = f"artifacts/{BUNDLE}"  # where the bundle is inside an MLflow model
MODEL_CODE = Path(__file__).with_name("pyfunc_model.py")

SPEC = "spec.json"  # the bundle's definition
HOME = "home"
EXAMPLE = {
    "canvas": HOME,
    "k": 10,
    "history": ["1", "2"],
    "query": "",
    "source_title_id": "",
    "country": "ZZ",
    "at": "1998-04-23T00:00:00Z",
}
"""One request, as `mlflow models serve` takes it, of a model that serves `home`."""
_PACKAGES = "_MODULES_TO_PACKAGES"  # MLflow's map of installed modules, None until something needs it


@dataclass(frozen=True, slots=True)
class Packager:
    """Logs bundles as pyfunc models and registers them."""

    connection: Connection
    runs: Runs
    registry: ModelRegistry
    catalogue: Callable[[], CatalogueCopy]

    def register(self, run: RunHandle, bundle: Path, digest: str, model: str, tags: Mapping[str, Any]) -> int:
        """Log a verified bundle in its run, make it a version of `model`, and return the version's number.

        A run that was killed after it had registered this bundle gets the version it made.
        """
        for made in self.registry.versions(model):
            if (made.run_id, made.digest) == (run.run_id, digest):
                return made.version
        texts = {name: str(value)[:TAG_LENGTH] for name, value in tags.items() if value is not None}
        texts[DIGEST] = digest
        with self.runs.active(run, close=False) as mlflow:
            info = self._log(mlflow, bundle, model, texts)
            name = self.registry.ensure_model(model)
            with self.connection.guarded(f"registering a version of '{name}'"):
                row = self.connection.client.create_model_version(
                    name, source=info.model_uri, run_id=run.run_id, model_id=info.model_id, tags=texts
                )
        return int(row.version)

    def _log(self, mlflow: Any, bundle: Path, model: str, tags: Mapping[str, str]) -> Any:
        with tempfile.TemporaryDirectory() as scratch, self.connection.guarded(f"storing model '{model}'"):
            # Artifacts keep the names of the folders they come from.
            staged = {name: Path(scratch) / name for name in (BUNDLE, CATALOGUE, PACKAGE)}
            shutil.copytree(bundle, staged[BUNDLE])
            self.catalogue().write(staged[CATALOGUE])
            wheel = write_wheel(staged[PACKAGE])
            with _without_scan():
                return mlflow.pyfunc.log_model(
                    name=model,
                    python_model=str(MODEL_CODE),
                    artifacts={name: str(folder) for name, folder in staged.items()},
                    pip_requirements=[requirement(wheel, f"artifacts/{PACKAGE}")],
                    signature=_signature(),
                    input_example=example_request(bundle),
                    tags=dict(tags),
                )


@contextmanager
def _without_scan() -> Iterator[None]:
    """Keep MLflow from reading the list of files of every installed package, which takes up to seconds.

    It does so to warn of requirements that are not what is installed; those of a logged model are this very MLflow and
    this very Playbill. Its map from modules to packages is put back, since other models' requirements are found by it.
    """
    from mlflow.utils import requirements_utils as theirs

    before = getattr(theirs, _PACKAGES, {})
    if before is None:
        setattr(theirs, _PACKAGES, {"mlflow": ["mlflow"]})
    try:
        yield
    finally:
        if before is None:
            setattr(theirs, _PACKAGES, None)


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    texts, numbers = Array(DataType.string), Array(DataType.double)
    optional = [("history", texts), *((name, "string") for name in ("query", "source_title_id", "country", "at"))]
    inputs = [
        ColSpec("string", "canvas"),
        ColSpec("long", "k", required=False),
        *(ColSpec(kind, name, required=False) for name, kind in optional),
    ]
    outputs = [ColSpec(texts, "title_ids"), ColSpec(texts, "names"), ColSpec(numbers, "scores")]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def example_request(bundle: Path) -> Any:
    """Return a request for a canvas that the model serves: MLflow tries it."""
    import pandas as pd

    served = json.loads((bundle / SPEC).read_text(encoding="utf-8")).get("canvases") or (HOME,)
    return pd.DataFrame([EXAMPLE | {"canvas": HOME if HOME in served else next(iter(served))}])


TITLES, AVAILABILITY, ABOUT = "titles.parquet", "availability.parquet", "catalogue.json"


@dataclass(frozen=True)
class CatalogueCopy:
    """Canonical titles and availability, and the moment they were copied at."""

    titles: pl.DataFrame
    availability: pl.DataFrame
    as_of: datetime

    @classmethod
    def of(cls, workspace: Workspace) -> CatalogueCopy:
        """Copy the workspace's tables as they are at its clock.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        tables = Tables(workspace)
        return cls(tables.titles(), tables.availability(), workspace_clock(workspace).now())

    def write(self, folder: Path) -> None:
        """Write it as a folder, which is made."""
        with replaced_folder(folder, "the catalogue's copy") as beside:
            self.titles.write_parquet(beside / TITLES)
            self.availability.write_parquet(beside / AVAILABILITY)
            (beside / ABOUT).write_text(json.dumps({"as_of": self.as_of.isoformat()}), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> CatalogueCopy:
        """Read what `write` wrote."""
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        titles, availability = pl.read_parquet(folder / TITLES), pl.read_parquet(folder / AVAILABILITY)
        return cls(titles, availability, parse_moment(about["as_of"]))
