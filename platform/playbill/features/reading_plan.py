"""What a shell needs to read one member's features without importing Feast: noted when Feast has read its registry.

Importing Feast, its registry and pandas takes longer than all else in one answer. So `materialize` notes, for every
service that can be read from local files by Playbill's own code alone, where its values lie. A note counts while the
registry and its settings are what they were; then, and for all other services, Feast is asked.

On-demand views are pandas functions. One whose code is that of a shipped view is computed here with the same numbers,
to the bit; a service with any other is left to Feast.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from playbill.clock import to_microseconds
from playbill.config import Workspace
from playbill.features.reports import REQUEST_AT, FeatureColumn, OnlineFeatures, TitleSnapshots
from playbill.features.snapshots import dense_snapshots, is_after, shaped
from playbill.files import write_text
from playbill.tables.frames import epoch_us
from playbill_feast.asof_join import ViewValues
from playbill_feast.offline.parquet_files import parts_of, scan_parts
from playbill_feast.online.backend import PackedDatabase, ReadRequest
from playbill_feast.online.columns import moments_of, series_of
from playbill_feast.online.entity_keys import keys_of_values
from playbill_feast.online.row_layout import PackedField
from playbill_feast.online.sqlite_backend import SqliteBackend

Derived = Callable[[pl.DataFrame], Mapping[str, npt.NDArray[np.float32]]]
"""Request fields and the `view__feature` columns that a view reads -> its features."""


def code_digest(source: str) -> str:
    """Return a digest of a function's code: of its signature and statements, not of its docstring or layout."""
    try:
        function = ast.parse(source).body[0]
    except (SyntaxError, IndexError):
        function = None  # a lambda, say, in the middle of a statement
    if not isinstance(function, ast.FunctionDef):
        return hashlib.sha256(source.encode()).hexdigest()[:16]
    documented = ast.get_docstring(function) is not None
    code = "\n".join([function.name, ast.unparse(function.args), *map(ast.unparse, function.body[documented:])])
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def request_time(rows: pl.DataFrame) -> Mapping[str, npt.NDArray[np.float32]]:
    """When the request is made, in UTC: `request_time` of the shipped feature_repo."""
    hours = epoch_us(rows.get_column(REQUEST_AT)) // _HOUR_US
    day = (hours // 24 + _FIRST_DAY) % 7
    angle = 2 * np.pi * day / 7
    return {
        "hour_of_day": (hours % 24).astype(np.float32),
        "day_of_week_sin": np.sin(angle).astype(np.float32),
        "day_of_week_cos": np.cos(angle).astype(np.float32),
        "weekend": (day >= 5).astype(np.float32),
    }


def elapsed(**since: tuple[str, int]) -> Derived:
    """Return a view of whole seconds gone by: feature -> column of the moment counted from, and seconds in its unit."""

    def derive(rows: pl.DataFrame) -> Mapping[str, npt.NDArray[np.float32]]:
        at, passed = epoch_us(rows.get_column(REQUEST_AT)) // 1_000_000, {}
        for name, (column, unit) in since.items():
            begun = epoch_us(rows.get_column(column))
            values = (at - begun // 1_000_000).astype(np.float64) / unit
            passed[name] = np.where(begun == _NOT_A_TIME, np.nan, values).astype(np.float32)
        return passed

    return derive


_HOUR_US, _FIRST_DAY = 3_600_000_000, 3  # 1970-01-01 was a Thursday
_NOT_A_TIME = np.iinfo(np.int64).min


KNOWN: Mapping[str, Derived] = {
    "07a1d411f308d2ce": request_time,
    "32331f22fca35fd0": elapsed(age_days=("title_profile__launched_at", 86_400)),
    "eadb8a7cf8adbe80": elapsed(
        tenure_days=("member_profile__joined_at", 86_400),
        days_since_last_play=("member_activity__last_play_at", 86_400),
    ),
    "3b9a87d9534fd26e": elapsed(
        session_minutes=("member_session__started_at", 60),
        hours_since_last_event=("member_activity__last_event_at", 3_600),
    ),
}
"""Digest of a shipped view's code -> the same without pandas."""


def with_known(rows: pl.DataFrame, views: Mapping[str, str]) -> pl.DataFrame:
    """Append on-demand views to the full-named columns they read; `views` is view -> digest of its code."""
    derived = {view: KNOWN[digest](rows) for view, digest in views.items()}
    return rows.hstack(
        [pl.Series(f"{view}__{name}", values) for view, columns in derived.items() for name, values in columns.items()]
    )


class StoredNote(BaseModel):
    """One stored view of a service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    view: str
    keys: tuple[tuple[str, str], ...]
    """(join key, kind) in the order of names."""
    fields: tuple[tuple[str, str], ...]
    """(feature that the service reads, kind)."""
    ttl: timedelta | None
    path: Path
    """Its parquet file or folder."""
    at: str
    created: str | None


class ServiceNote(BaseModel):
    """One feature service, as registered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[FeatureColumn, ...]
    members: tuple[StoredNote, ...]
    """Views of members, read from the online store."""
    titles: tuple[StoredNote, ...]
    """Views of titles, read from their files."""
    derived_members: dict[str, str]
    """On-demand view of the request -> digest of its code."""
    derived_titles: dict[str, str]

    def of(self, *entities: str) -> tuple[FeatureColumn, ...]:
        """Return the columns of some entities."""
        return tuple(column for column in self.columns if column.entity in entities)


class PlainReader:
    """Reads one service's features by a note, without Feast. Answers what `FeatureDoor` would."""

    def __init__(self, workspace: Workspace, note: ServiceNote) -> None:
        self._project, self._note = workspace.name, note
        path = workspace.online_store_path
        assert path is not None  # what makes a note looked
        self._rows = PackedDatabase(SqliteBackend(path), f"online store {path}")
        self._columns = note.of("member", "request")

    def served(
        self, member_ids: Sequence[str | None], at: datetime, request: Mapping[str, Any] | None = None
    ) -> OnlineFeatures | None:
        """Return what `FeatureDoor.served` does; None where the store has values from after the moment.

        Those members are read from files, by Feast. No view that is read here depends on the `request`.

        Raises:
            ServiceError, StateError, IntegrityError: The store does not answer.
        """
        count, moment = len(member_ids), pl.Series("event_at", [to_microseconds(at)]).cast(pl.Datetime("us", "UTC"))
        given = [pl.Series(name, [value] * count) for name, value in (request or {}).items()]
        rows = pl.DataFrame([pl.Series("member_id", member_ids, pl.String), moment.new_from_index(0, count), *given])
        values, values_at = self._read(member_ids, at.astimezone(UTC))
        if is_after(values_at, at, count).any():
            return None
        inputs = values.hstack([rows.get_column("event_at").alias(REQUEST_AT)])
        found = shaped(with_known(inputs, self._note.derived_members), self._columns)
        return OnlineFeatures(rows.hstack(found), values_at, pl.Series([True] * count, dtype=pl.Boolean))

    def title_snapshots(self, moments: Sequence[datetime], title_ids: Sequence[str]) -> TitleSnapshots:
        """Return title features as `FeatureDoor.title_snapshots` does.

        Raises:
            DataError: A file is damaged, or a moment has no time zone.
        """
        views, derived = [_values(view) for view in self._note.titles], self._note.derived_titles
        columns = self._note.of("title")
        return dense_snapshots(columns, views, lambda rows: with_known(rows, derived), moments, title_ids)

    def _read(self, member_ids: Sequence[str | None], at: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Read every view: full-named columns, and the time of each view's values. Expired values are null."""
        views, count = self._note.members, len(member_ids)
        keys = {"member_id": list(member_ids)}
        requests = [
            ReadRequest(f"{self._project}/{view.view}", keys_of_values(view.keys, keys, count)) for view in views
        ]
        columns, times = list[pl.Series](), list[pl.Series]()
        for view, request, found in zip(
            views, requests, self._rows.backend.read(requests) if requests else [], strict=True
        ):
            opened = self._rows.open(request.view, found, [PackedField(*field) for field in view.fields])
            alive = opened.event_us >= to_microseconds(at - view.ttl) if view.ttl else None
            times.append(moments_of(view.view, opened.event_us))
            for (name, _), column in zip(view.fields, opened.columns, strict=True):
                columns.append(series_of(f"{view.view}__{name}", column, alive))
        return pl.DataFrame(columns), pl.DataFrame(times)


def _values(view: StoredNote) -> ViewValues:
    ((key, _),) = view.keys
    return ViewValues(
        name=view.view,
        frame=scan_parts(parts_of(view.path), view.path),
        keys={key: key},
        at=view.at,
        created=view.created,
        features={f"{view.view}__{name}": name for name, _ in view.fields},
        ttl=view.ttl,
    )


def read_note(workspace: Workspace, service: str) -> ServiceNote | None:
    """Return what is noted of a service; None where nothing is, or the registry has changed since."""
    try:
        noted = json.loads(_path(workspace).read_text(encoding="utf-8"))
        if noted["registry"] != _state(workspace):
            return None
        content = noted["services"].get(service)
        return None if content is None else ServiceNote.model_validate(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
        # Nothing, or what another version of Playbill wrote: Feast knows.
        return None


def write_notes(workspace: Workspace, notes: Callable[[], Mapping[str, ServiceNote]]) -> None:
    """Note every service of a workspace that can be read without Feast.

    `notes` reads the registry, whose state is taken before: what changes meanwhile makes the notes out of date.
    """
    state = _state(workspace)
    if state is None:
        return
    content = {"registry": state, "services": {name: note.model_dump(mode="json") for name, note in notes().items()}}
    write_text(_path(workspace), json.dumps(content), "the notes of feature services")


def _path(workspace: Workspace) -> Path:
    return workspace.feature_store_yaml.with_name("feature_services.json")


def _state(workspace: Workspace) -> str | None:
    """Return what changes with the registry or its settings; None where the registry is no local file."""
    url = workspace.feast_registry_url
    if not url.startswith("sqlite:///") or workspace.online_store_path is None:
        return None
    try:
        registry = Path(url.removeprefix("sqlite:///")).stat()
        settings = workspace.feature_store_yaml.read_bytes()
    except OSError:
        return None
    seen = f"{registry.st_mtime_ns} {registry.st_size} {registry.st_ino} "
    return hashlib.sha256(seen.encode() + settings).hexdigest()
