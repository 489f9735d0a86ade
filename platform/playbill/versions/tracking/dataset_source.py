"""Training sets on disk as MLflow sees them: a dataset source, a dataset, and the constructors under `mlflow.data`.

Loaded by MLflow through the entry points `mlflow.dataset_source` and `mlflow.dataset_constructor`. A run that has
one as its input leads back to the very rows: the source's JSON holds the folder and the digest of its manifest. A run
that was trained from the workspace's tables has these as its input, by the id of their snapshot.
"""

# MLflow reads the constructors' return annotations as classes, so annotations must not be postponed here.

import json
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource
from mlflow.entities import DatasetInput, InputTag
from mlflow.types import ColSpec, DataType, Schema

from playbill.config import ProjectFolder, Workspace
from playbill.datasets.export.manifest import MANIFEST, ExportManifest
from playbill.datasets.export.stored import StoredDataset
from playbill.errors import IntegrityError, PlaybillError
from playbill.tables import Tables
from playbill.versions.tracking.registry import PREFIX, Lineage
from playbill.versions.tracking.runs import RunHandle

SCHEME, TABLES_SCHEME = "playbill-dataset://", "playbill-tables://"
SOURCE_TYPE = "playbill"
DIGEST_LENGTH = 32  # MLflow's databases take 36 letters
EXPERIMENT = "datasets"

_CONTEXT = "mlflow.data.context"
_TYPES = {
    "String": DataType.string,
    "Float32": DataType.float,
    "Float64": DataType.double,
    "Int32": DataType.integer,
    "Int64": DataType.long,
    "Boolean": DataType.boolean,
}


class PlaybillDatasetSource(DatasetSource):  # type: ignore[misc]
    """Where a training set is, and which one it is by the digest of its manifest; None takes what is there."""

    def __init__(self, folder: Path | str, digest: str | None = None) -> None:
        self.folder = Path(folder).absolute()
        self.digest = digest

    @staticmethod
    def _get_source_type() -> str:
        return SOURCE_TYPE

    @property
    def uri(self) -> str:
        """`playbill-dataset:///the/folder`."""
        return SCHEME + quote(self.folder.as_posix())

    def load(self, verify: bool = True) -> StoredDataset:
        """Open the training set.

        Raises:
            StateError: It is gone.
            IntegrityError: It was changed, or is another one than the source speaks of.
        """
        found = StoredDataset.open(self.folder, verify=verify)
        if self.digest is not None and found.manifest.digest != self.digest:
            what = f"has digest {found.manifest.digest}, and was {self.digest} when it was logged"
            raise IntegrityError(f"training set {self.folder} {what}")
        return found

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        if isinstance(raw_source, StoredDataset):
            return True
        if isinstance(raw_source, str) and raw_source.startswith(SCHEME):
            return True
        return isinstance(raw_source, str | Path) and "://" not in str(raw_source) and _is_one(Path(raw_source))

    @classmethod
    def _resolve(cls, raw_source: Any) -> Self:
        if isinstance(raw_source, StoredDataset):
            return cls(raw_source.folder, raw_source.manifest.digest)
        folder = _folder_of(raw_source)
        return cls(folder, ExportManifest.load(folder).digest)

    def to_dict(self) -> dict[str, Any]:
        """Return the source for JSON."""
        return {"uri": self.uri, "digest": self.digest}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> "PlaybillDatasetSource | TablesSource":
        """Read what `to_dict` of this class, or of `TablesSource`, gave: MLflow knows both by one name."""
        if source_dict["uri"].startswith(TABLES_SCHEME):
            return TablesSource.from_dict(source_dict)
        return cls(_folder_of(source_dict["uri"]), source_dict.get("digest"))


class TablesSource(DatasetSource):  # type: ignore[misc]
    """The canonical tables of a workspace of a project, in the state (snapshot id) that a run was trained on."""

    def __init__(self, project: Path | str, workspace: str, snapshot_id: str) -> None:
        self.project, self.workspace, self.snapshot_id = Path(project).absolute(), workspace, snapshot_id

    @staticmethod
    def _get_source_type() -> str:
        return SOURCE_TYPE

    @property
    def uri(self) -> str:
        """`playbill-tables:///the/project#workspace`."""
        return f"{TABLES_SCHEME}{quote(self.project.as_posix())}#{quote(self.workspace)}"

    def load(self) -> Tables:
        """Open the tables.

        Raises:
            StateError: They are gone.
            IntegrityError: They hold something else by now.
        """
        tables = Tables(ProjectFolder.find(self.project).workspace(self.workspace)).require()
        if tables.snapshot_id() != self.snapshot_id:
            raise IntegrityError(
                f"the tables of workspace '{self.workspace}' are snapshot {tables.snapshot_id()} by now; "
                f"the run was trained on {self.snapshot_id}"
            )
        return tables

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return isinstance(raw_source, str) and raw_source.startswith(TABLES_SCHEME)

    @classmethod
    def _resolve(cls, raw_source: str) -> "TablesSource":
        return cls.from_dict({"uri": raw_source, "digest": ""})

    def to_dict(self) -> dict[str, Any]:
        """Return the source for JSON."""
        return {"uri": self.uri, "digest": self.snapshot_id}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> "TablesSource":
        """Read what `to_dict` gave."""
        folder, _, workspace = source_dict["uri"].removeprefix(TABLES_SCHEME).partition("#")
        return cls(unquote(folder), unquote(workspace), source_dict["digest"])


class TablesDataset(Dataset):  # type: ignore[misc]
    """The tables of a workspace as the input of a run: named by the workspace, with the snapshot as digest."""

    def __init__(self, workspace: Workspace, tables: Tables) -> None:
        self.tables = tables
        super().__init__(TablesSource(workspace.project.root, workspace.name, tables.snapshot_id()), workspace.name)

    def _compute_digest(self) -> str:
        return self.tables.snapshot_id()

    @property
    def profile(self) -> dict[str, Any]:
        """Rows by table, and the last moment of the log."""
        return {"rows": self.tables.row_counts(), "data_end": self.tables.data_end().isoformat()}

    @property
    def schema(self) -> None:
        """None: it is several tables."""

    def to_dict(self) -> dict[str, str]:
        """Return what MLflow stores with the run."""
        return {**super().to_dict(), "profile": json.dumps(self.profile)}


def log_tables(run: RunHandle, workspace: Workspace, tables: Tables) -> None:
    """Log a workspace's tables as what a run was trained on.

    Raises:
        StateError: Nothing has been ingested yet.
        ServiceError: MLflow cannot be reached.
    """
    entity = TablesDataset(workspace, tables)._to_mlflow_entity()
    with run.connection.guarded("logging what was trained on"):
        run.connection.client.log_inputs(run.run_id, [DatasetInput(entity, [InputTag(_CONTEXT, "training")])])


class PlaybillDataset(Dataset):  # type: ignore[misc]
    """A training set as the input of a run. Its digest is the entity frame's hash, its profile counts rows."""

    def __init__(self, stored: StoredDataset, name: str | None = None, digest: str | None = None) -> None:
        self.stored = stored
        source = PlaybillDatasetSource(stored.folder, stored.manifest.digest)
        super().__init__(source, name or stored.manifest.name, digest)

    def _compute_digest(self) -> str:
        return self.stored.manifest.entities.rows_sha256[:DIGEST_LENGTH]

    @property
    def profile(self) -> dict[str, Any]:
        """Rows, bytes and folds, and of each fold its rows, members, titles and labels."""
        manifest = self.stored.manifest
        folds = {
            fold: record.model_dump(include={"rows", "members", "titles", "labelled", "positive"})
            for fold, record in manifest.folds.items()
        }
        return {"rows": manifest.rows, "bytes": manifest.bytes, "parts": len(manifest.parts), "folds": folds}

    @property
    def schema(self) -> Schema:
        """The columns of the rows."""
        return Schema(
            [
                ColSpec(_TYPES.get(column.type, DataType.datetime), column.name, required=column.role == "key")
                for column in self.stored.manifest.columns
            ]
        )

    def to_dict(self) -> dict[str, str]:
        """Return what MLflow stores with the run."""
        own = {"schema": json.dumps({"mlflow_colspec": self.schema.to_dict()}), "profile": json.dumps(self.profile)}
        return {**super().to_dict(), **own}


def from_playbill(stored: StoredDataset, name: str | None = None, digest: str | None = None) -> PlaybillDataset:
    """Return an opened training set as an MLflow dataset; `mlflow.data.from_playbill`.

    By default its name is `MODEL:VERSION`, and MLflow shows the hash of the entity frame as its digest.
    """
    return PlaybillDataset(stored, name, digest)


def load_playbill(folder: Path | str, name: str | None = None, digest: str | None = None) -> PlaybillDataset:
    """Open a training set, by its folder or `playbill-dataset://` URI; `mlflow.data.load_playbill`.

    Every file is checked; name and digest are those of `from_playbill`.

    Raises:
        StateError: It is no training set.
        IntegrityError: It was changed.
    """
    return PlaybillDataset(StoredDataset.open(_folder_of(folder)), name, digest)


def log_dataset(run: RunHandle, stored: StoredDataset, context: str = "training") -> None:
    """Log a training set as an input of an open run, for a context that MLflow shows, with its manifest as an artifact.

    Raises:
        ServiceError: MLflow cannot be reached.
    """
    entity = PlaybillDataset(stored)._to_mlflow_entity()
    with run.connection.guarded("logging a training set"):
        run.connection.client.log_inputs(run.run_id, [DatasetInput(entity, [InputTag(_CONTEXT, context)])])
    run.log_artifact(stored.folder / MANIFEST, "dataset")


def dataset_tags(manifest: ExportManifest, git_revision: str | None = None) -> dict[str, str]:
    """Return the lineage of a training set as the tags that model versions carry too, and its own digests."""
    inputs = manifest.inputs
    lineage = Lineage(
        spec_hash=inputs.model.spec_hash,
        data_snapshot=inputs.tables,
        feature_service=inputs.features.service,
        feature_service_version=inputs.features.version,
        protocol=inputs.protocol,
        split_digest=inputs.split,
        watermark=manifest.folds["train"].labels_as_of,
        labels={name: label.version for name, label in inputs.labels.items()},
        rewards={version: version for version in inputs.rewards.values()},
        git_revision=git_revision,
    )
    own = {"dataset_digest": manifest.digest, "dataset_rows": manifest.rows_digest}
    return lineage.tags() | {PREFIX + name: value for name, value in own.items()}


def _folder_of(text: Path | str) -> Path:
    if isinstance(text, str) and text.startswith(SCHEME):
        return Path(unquote(text.removeprefix(SCHEME)))
    return Path(text)


def _is_one(folder: Path) -> bool:
    try:
        ExportManifest.load(folder)
    except (PlaybillError, OSError):
        return False
    return True
