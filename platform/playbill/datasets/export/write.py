"""Training sets on disk: the point-in-time rows of a model as partitioned parquet with a manifest.

```
DIR/manifest.json                              what went in, what came out, hashes
DIR/entities.parquet                           member_id, title_id, event_at, event_id of every row
DIR/rows/fold=train/day=2000-04-25/part-0000.parquet
```

The log and the labelled rows without features are in memory; features are joined, written and forgotten slice by
slice. Two builds from the same inputs are the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from playbill.clock import Clock
from playbill.datasets.examples.sampling import ExampleWeights, reward_versions
from playbill.datasets.export.manifest import (
    MANIFEST,
    ExportManifest,
    Inputs,
    PartRecord,
    RegistryRecord,
    StratumRecord,
    features_record,
    label_records,
    library_versions,
    model_record,
    write_rows,
)
from playbill.datasets.export.rows import (
    KEYS,
    Log,
    columns_of,
    fold_records,
    known_at,
    labelled_rows,
    slices,
    untaught_heads,
    with_features,
)
from playbill.datasets.export.stored import StoredDataset, differences
from playbill.datasets.protocol_choice import model_split
from playbill.datasets.splits import Split
from playbill.definitions.specs import ResolvedModel, prune_heads
from playbill.definitions.specs.resolved import content_hash
from playbill.errors import ConfigError, IntegrityError, StateError
from playbill.files import replaced_folder

if TYPE_CHECKING:
    from playbill.features import FeatureDoor, ServiceSchema
    from playbill.tables import Tables

ENTITIES = "entities.parquet"
ROWS = "rows"
VOCABULARIES = ("title", "member", "country", "canvas", "device", "language", "action", "genre")
SLICE_ROWS = 250_000  # rows whose features are in memory at once

Progress = Callable[[int, int, str], None]  # told rows done, rows in all, and where it is


@dataclass(frozen=True, slots=True)
class Exported:
    """A training set that is on disk."""

    folder: Path
    manifest: ExportManifest
    written: bool  # false where a sound one from the same inputs was there already and was left
    notes: tuple[str, ...] = ()  # what of the definition was left out, and why


@dataclass(frozen=True)
class Export:
    """A training set that was checked and named, and is not written yet. Made by `prepare`."""

    workspace: str
    tables: Tables
    features: FeatureDoor
    resolved: ResolvedModel
    schema: ServiceSchema
    log: Log
    split: Split
    inputs: Inputs
    registry: RegistryRecord
    weights: ExampleWeights | None = None

    @classmethod
    def prepare(
        cls,
        workspace: str,
        tables: Tables,
        resolved: ResolvedModel,
        features: FeatureDoor,
        clock: Clock,
        *,
        protocol: str | None = None,
        until: datetime | None = None,
        weights: ExampleWeights | None = None,
    ) -> Export:
        """Check what the rows depend on, and hash it.

        What is held out is by default that of the model. With `until` it is built as at this moment, and later events
        do not exist (default: the clock's now, or the end of the data where that is earlier, so that the same data
        gives the same rows whenever it is built). Labels are those matured by then.

        Raises:
            UnknownNameError: No such protocol or feature service; the nearest name is suggested.
            ConfigError: `until` has no zone or is after the clock.
            StateError: Nothing was ingested, applied or built, or features do not reach to the last event; the text
                names the command.
            DataError: The events cannot be split that way.
        """
        moment = _moment(until, clock, tables.data_end())
        schema: ServiceSchema = features.schema(resolved.model.features)
        log = known_at(tables, moment)
        split = model_split(resolved, log.interactions, protocol)
        resolved = prune_heads(resolved, untaught_heads(tables, resolved, log, split, moment))
        inputs, registry = _inputs(tables, resolved, features, split, moment)
        _require_built(inputs, log, workspace)
        resolved = resolved.model_copy(update={"notes": (*split.notes, *resolved.notes)})
        return cls(workspace, tables, features, resolved, schema, log, split, inputs, registry, weights)

    @property
    def name(self) -> str:
        """Folder name that belongs to these inputs: `MODEL-HASH`."""
        return f"{self.resolved.model.name}-{self.inputs.digest[:12]}"

    def write(self, folder: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Exported:
        """Write the training set beside `folder`, then rename it into place: it appears whole or not at all.

        A sound training set from the same inputs is left as it is. With `overwrite` one from other inputs, or a damaged
        one, is replaced; what is no training set never is.

        Raises:
            StateError: `folder` holds something else, or tables or features changed meanwhile.
            ServiceError: The disk is full or cannot be written; nothing is left of the attempt.
            DataError: A head's label has no positive row.
            IntegrityError: A held-out row is not later than what is trained on.
        """
        found = existing(folder, self.inputs, overwrite=overwrite)
        if isinstance(found, ExportManifest):
            return Exported(folder, found, written=False, notes=self.resolved.notes)
        with building(folder, replace=found is Existing.REPLACED) as beside:
            manifest = self._fill(beside, progress or (lambda *_: None))
            self._assert_unchanged()
            manifest.save(beside)
        return Exported(folder, manifest, written=True, notes=self.resolved.notes)

    def _fill(self, folder: Path, progress: Progress) -> ExportManifest:
        rows, as_of, strata = labelled_rows(
            self.tables, self.resolved, self.schema, self.log, self.split, self.inputs.moment, self.weights
        )
        entities = write_rows(rows.select(KEYS), folder, ENTITIES)
        parts: list[PartRecord] = []
        numbers: Counter[tuple[str, str]] = Counter()
        columns, done = columns_of(rows), 0
        for piece in slices(rows, SLICE_ROWS):
            full = with_features(piece, self.features, self.schema.service)
            columns = columns_of(full)
            for (fold, day), part in full.partition_by("fold", "day", as_dict=True, include_key=False).items():
                key = str(fold), str(day)
                progress(done, rows.height, " ".join(key))
                parts.append(_write_part(part, *key, numbers[key], folder))
                numbers[key] += 1
                done += part.height
        progress(done, rows.height, "")
        return ExportManifest(
            workspace=self.workspace,
            inputs=self.inputs,
            registry=self.registry,
            columns=columns,
            folds=fold_records(rows, as_of, tuple(self.inputs.heads)),
            strata=tuple(StratumRecord(**asdict(stratum)) for stratum in strata),
            entities=entities,
            parts=tuple(parts),
        )

    def _assert_unchanged(self) -> None:
        """Tables and features must be those that were hashed before; another process may have written them."""
        now, _ = _inputs(self.tables, self.resolved, self.features, self.split, self.inputs.moment)
        if now != self.inputs:
            raise StateError("tables or features changed while the training set was built; build it again")


def _write_part(part: pl.DataFrame, fold: str, day: str, number: int, folder: Path) -> PartRecord:
    path = f"{ROWS}/fold={fold}/day={day}/part-{number:04d}.parquet"
    return PartRecord.model_validate({**write_rows(part, folder, path).model_dump(), "fold": fold, "day": day})


def _moment(until: datetime | None, clock: Clock, data_end: datetime) -> datetime:
    now = clock.now()
    if until is None:
        return min(now, data_end)
    if until.tzinfo is None:
        raise ConfigError(f"a training set needs a moment with a time zone, got {until.isoformat()}")
    if until > now:
        raise ConfigError(
            f"a training set cannot be built as at {until.isoformat()}: the workspace's clock says {now.isoformat()}"
        )
    return until


def _inputs(
    tables: Tables, resolved: ResolvedModel, features: FeatureDoor, split: Split, moment: datetime
) -> tuple[Inputs, RegistryRecord]:
    found = features.provenance(resolved.model.features)
    heads, labels = label_records(resolved)
    inputs = Inputs(
        model=model_record(resolved),
        protocol=split.protocol,
        split=split.digest,
        moment=moment,
        tables=tables.snapshot_id(),
        vocabularies={kind: content_hash(list(tables.vocabulary(kind).entries)) for kind in VOCABULARIES},
        heads=heads,
        labels=labels,
        rewards=reward_versions(resolved),
        features=features_record(found, resolved.model.titles.snapshot_hours),
        libraries=library_versions(),
    )
    registry = RegistryRecord(project=found.project, version=found.registry_version, updated=found.registry_updated)
    return inputs, registry


def _require_built(inputs: Inputs, log: Log, workspace: str) -> None:
    """Check that features reach as far as the log: a window that was not emptied in time would be a wrong number."""
    last = log.interactions["event_at"].max()
    if not isinstance(last, datetime):
        return
    short = [
        f"'{name}' up to {view.built_until:%Y-%m-%d %H:%M:%S}"
        for name, view in inputs.features.views.items()
        if view.built_until is not None and view.built_until < last
    ]
    if short:
        raise StateError(
            f"features end before the last event, {last:%Y-%m-%d %H:%M:%S}: {', '.join(short)}. "
            f"Run `playbill -w {workspace} features build`, or use --until."
        )


class Existing(Enum):
    """What is where a training set is wanted."""

    NOTHING = "nothing"
    REPLACED = "replaced"  # a training set that may be overwritten


def existing(folder: Path, inputs: Inputs, *, overwrite: bool) -> ExportManifest | Existing:
    """Return the manifest of a sound training set from these inputs, or what is there instead.

    Raises:
        StateError: There is something that must not be replaced.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return Existing.NOTHING
    if not (folder / MANIFEST).is_file():
        raise StateError(f"{folder} holds something that is no training set; choose another --out")
    try:
        found = StoredDataset.open(folder).manifest
    except IntegrityError as error:
        return _replaced(f"{folder} holds a damaged training set ({error})", overwrite)
    if found.inputs == inputs:
        return found
    named = [difference.name for difference in differences(found.inputs, inputs)]
    more = f" and {len(named) - 8} more" if len(named) > 8 else ""
    return _replaced(f"{folder} holds a training set from other inputs: {', '.join(named[:8])}{more}", overwrite)


def _replaced(what: str, overwrite: bool) -> Existing:
    if not overwrite:
        raise StateError(f"{what}. Choose another --out, or replace it with --overwrite")
    return Existing.REPLACED


@contextmanager
def building(folder: Path, *, replace: bool) -> Iterator[Path]:
    """Lend an empty folder beside `folder`, and put it in its place at the end of the block.

    Raises:
        StateError: Something came to be at `folder` meanwhile.
        StorageError: The disk is full or cannot be written. `folder` is as it was, and nothing is left beside it.
    """
    with replaced_folder(folder, "the training set") as beside:
        yield beside
        if not replace and folder.exists() and any(folder.iterdir()):
            raise StateError(f"{folder} was made by another process meanwhile; nothing was changed")
