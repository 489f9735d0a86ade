"""`manifest.json` of a training set on disk: what went in, what came out, and the hashes that prove both.

Nothing in it is the time of writing: two builds from the same inputs are the same bytes.

Parquet files are the same bytes for the same rows, and so are hashes of what rows say.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from playbill import __version__
from playbill.datasets.splits import FOLDS, Fold
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.resolved import content_hash
from playbill.errors import IntegrityError, StateError
from playbill.features.reports import FeatureProvenance
from playbill.files import file_digest

MANIFEST = "manifest.json"

Role = Literal["key", "context", "moment", "label", "weight", "sampling", "request_feature", "title_feature"]
Moment = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


class Record(BaseModel):
    """A piece of the manifest. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelRecord(Record):
    """The definition the rows were made for."""

    name: str
    version: int
    spec_hash: str


class LabelRecord(Record):
    """A label's definition."""

    version: int
    definition: str  # SHA-256 of everything it says


class ViewRecord(Record):
    """A feature view, see `playbill.features.ViewProvenance`."""

    kind: Literal["stored", "on_demand"]
    definition: str
    version: int | None = None
    rows: int | None = None
    event_from: Moment | None = None
    event_until: Moment | None = None
    created_from: Moment | None = None
    created_until: Moment | None = None
    files: str | None = None
    encoder: str | None = None
    snapshot_id: str | None = None
    built_since: Moment | None = None
    built_until: Moment | None = None


class FeaturesRecord(Record):
    """The feature service and every view behind it."""

    service: str
    version: str
    snapshot_hours: int  # title features are read at multiples of this many hours
    views: dict[str, ViewRecord]


class Inputs(Record):
    """Everything the rows depend on."""

    model: ModelRecord
    protocol: str
    split: str  # digest of the split: which events are held out
    moment: Moment  # nothing that happened at it or later, or was recorded after it, is in the rows or labels
    tables: str  # snapshot id of the canonical tables
    vocabularies: dict[str, str]  # SHA-256 of the entries, by kind
    heads: dict[str, str]  # head -> its label
    labels: dict[str, LabelRecord]
    rewards: dict[str, str] = Field(default_factory=dict)  # head -> version of the reward that weighs its rows
    features: FeaturesRecord
    libraries: dict[str, str]  # versions of what decides values and bytes

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_nothing(serialise(self), "rewards")

    @property
    def digest(self) -> str:
        """SHA-256 of the inputs."""
        return content_hash(self.model_dump(mode="json"))


class RegistryRecord(Record):
    """Which state of Feast's registry was read. A record only: definitions are hashed in `features`."""

    project: str
    version: str | None
    updated: Moment | None


class ColumnRecord(Record):
    """A column of the rows."""

    name: str
    type: str
    role: Role


class FileRecord(Record):
    """A file of the training set."""

    path: str  # relative to the folder
    rows: int
    bytes: int
    sha256: str  # of the file's bytes
    rows_sha256: str  # of what the rows say, in whatever order they lie


class PartRecord(FileRecord):
    """The rows of one fold and day, or a part of them."""

    fold: Fold
    day: date


class FoldRecord(Record):
    """One fold."""

    rows: int
    members: int
    titles: int
    first: Moment | None
    last: Moment | None
    labels_as_of: Moment  # what labels could know; younger rows are unlabelled
    labelled: dict[str, int]  # head -> rows with a label
    positive: dict[str, int]  # head -> rows whose label is over zero


class StratumRecord(Record):
    """A group of rows of the train fold, see `playbill.datasets.examples.sampling.Stratum`."""

    name: str
    rows: int
    share: float
    drawn: int
    sampled_share: float
    weight: float


class ExportManifest(Record):
    """All of `manifest.json` but its own digest."""

    schema_version: Literal[1] = 1
    workspace: str
    inputs: Inputs
    registry: RegistryRecord
    columns: tuple[ColumnRecord, ...]
    folds: dict[Fold, FoldRecord]
    strata: tuple[StratumRecord, ...] = ()
    """What the rows of the train fold are drawn by, smallest first; empty where each is drawn once."""
    entities: FileRecord  # the entity frame: member_id, title_id, event_at, event_id of every row
    parts: tuple[PartRecord, ...]

    @field_validator("folds")
    @classmethod
    def _in_order(cls, folds: dict[Fold, FoldRecord]) -> dict[Fold, FoldRecord]:
        if missing := [name for name in FOLDS if name not in folds]:
            raise ValueError(f"lacks {', '.join(missing)}")
        return dict(sorted(folds.items(), key=lambda item: FOLDS.index(item[0])))

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_nothing(serialise(self), "strata")

    @property
    def name(self) -> str:
        """`model:version`."""
        return f"{self.inputs.model.name}:{self.inputs.model.version}"

    @property
    def rows(self) -> int:
        """Rows of all folds."""
        return sum(part.rows for part in self.parts)

    @property
    def bytes(self) -> int:
        """Size of the parts."""
        return sum(part.bytes for part in self.parts)

    @property
    def rows_digest(self) -> str:
        """SHA-256 of the contents alone: equal for equal rows, whatever wrote them and when."""
        parts = sorted((part.fold, part.day.isoformat(), part.rows_sha256) for part in self.parts)
        return content_hash([[column.model_dump() for column in self.columns], self.entities.rows_sha256, parts])

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, and so of every file's bytes."""
        return content_hash(self.model_dump(mode="json"))

    def save(self, folder: Path) -> None:
        """Write `manifest.json`, with the digests in it to read at a glance."""
        digests = {"digest": self.digest, "inputs_digest": self.inputs.digest, "rows_digest": self.rows_digest}
        content = {**self.model_dump(mode="json"), **digests}
        (folder / MANIFEST).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ExportManifest:
        """Read what `save` wrote.

        Raises:
            StateError: There is no manifest in the folder.
            IntegrityError: It cannot be read, or it was changed.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise StateError(f"{folder} is no training set: it has no {MANIFEST}. Run `playbill dataset build MODEL`.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            digests = {name: content.pop(name) for name in ("digest", "inputs_digest", "rows_digest")}
            found = cls.model_validate(content)
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise IntegrityError(f"{path} cannot be read: {_reason(error)}") from None
        if digests != {"digest": found.digest, "inputs_digest": found.inputs.digest, "rows_digest": found.rows_digest}:
            raise IntegrityError(f"{path} was changed: its digests are not those of what it says")
        return found


def _without_nothing(content: dict[str, Any], key: str) -> dict[str, Any]:
    """Leave a key out where it says nothing, so that a manifest from before there was one keeps its digests."""
    if not content.get(key):
        content.pop(key, None)
    return content


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])


def model_record(resolved: ResolvedModel) -> ModelRecord:
    """Return the record of a model's definition."""
    model = resolved.model
    return ModelRecord(name=model.name, version=model.version, spec_hash=resolved.spec_hash)


def label_records(resolved: ResolvedModel) -> tuple[dict[str, str], dict[str, LabelRecord]]:
    """Return head -> label, and the record of each label a head learns."""
    heads = {name: head.label for name, head in resolved.model.heads.items() if head.label is not None}
    labels = {name: resolved.labels[name] for name in heads.values()}
    return heads, {
        name: LabelRecord(version=label.version, definition=content_hash(label.model_dump(mode="json", by_alias=True)))
        for name, label in labels.items()
    }


def features_record(found: FeatureProvenance, snapshot_hours: int) -> FeaturesRecord:
    """Return the record of a service's features."""
    views: dict[str, ViewRecord] = {}
    for view in found.views:
        fields: dict[str, Any] = {name: getattr(view, name) for name in ViewRecord.model_fields}
        views[view.view] = ViewRecord(**fields)
    return FeaturesRecord(
        service=found.service, version=found.service_version, snapshot_hours=snapshot_hours, views=views
    )


def library_versions() -> dict[str, str]:
    """Return the versions of what decides values and bytes."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"playbill": __version__, "polars": pl.__version__, "pyarrow": pa.__version__, "python": python}


ROW_GROUP = 131_072
_FIXED: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "row_group_size": ROW_GROUP,
    "use_dictionary": True,
    "write_statistics": True,
    "version": "2.6",
    "data_page_version": "1.0",
}
"""Every setting of the writer that decides bytes; what a later pyarrow changes is in the manifest as its version."""


def write_rows(frame: pl.DataFrame, folder: Path, path: str) -> FileRecord:
    """Write rows with a unique event_id as one parquet file in the training set's folder, in their order."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(_table(frame), target, **_FIXED)
    return FileRecord(
        path=path,
        rows=frame.height,
        bytes=target.stat().st_size,
        sha256=file_digest(target),
        rows_sha256=rows_digest(frame),
    )


def rows_digest(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of what the rows say, whatever the order of rows and columns.

    Rows are put in the order of their event_id and columns in that of their names; each column is hashed as its
    name, type, which values are missing, and the values' bytes (little-endian; text as lengths and UTF-8).
    """
    ordered = frame.select(sorted(frame.columns)).sort("event_id")
    total = hashlib.sha256(f"{frame.height}\n".encode())
    # Arrow from here on: a polars call per column and part costs ten times the hashing.
    for name, kind, column in zip(ordered.columns, ordered.dtypes, _table(ordered).columns, strict=True):
        array = column.combine_chunks()
        total.update(f"{name} {kind}\n".encode())
        total.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)).tobytes())
        for values in _text(array) if kind == pl.String else _numbers(array):
            total.update(values)
    return total.hexdigest()


def _table(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _text(array: pa.Array) -> Iterator[bytes]:
    known = array.fill_null("")
    ends = np.frombuffer(known.buffers()[1], "<i8")[known.offset : known.offset + len(known) + 1]
    yield np.diff(ends).tobytes()
    if content := known.buffers()[2]:
        yield memoryview(content)[ends[0] : ends[-1]].tobytes()


def _numbers(array: pa.Array) -> Iterator[bytes]:
    if pa.types.is_temporal(array.type):
        array = array.view(pa.int64() if array.type.bit_width == 64 else pa.int32())
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(array.type):
        # Adding zero makes -0.0 and 0.0, which are equal, the same bytes; so does one kind of nan.
        values = np.where(np.isnan(values), np.nan, values + values.dtype.type(0)).astype(values.dtype)
    yield values.astype(values.dtype.newbyteorder("<")).tobytes()
