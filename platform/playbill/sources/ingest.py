"""`ingest`: run one source into a workspace, or rehearse it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from playbill.clock import WallClock
from playbill.config import Workspace
from playbill.errors import ConfigError, nearest
from playbill.schema import INTERACTIONS
from playbill.sources.canonicalise import Progress, write_offer
from playbill.sources.cleaning import RowsSetAside
from playbill.sources.observing import Ties
from playbill.sources.registry import SOURCES, Source
from playbill.tables import RowMistake, Tables, TableWriter

SET_ASIDE = "set_aside"
"""Folder of a workspace with the rows that the last ingest set aside, a file for each table."""

_SAMPLE_ROWS = 3


@dataclass(frozen=True)
class IngestReport:
    """What an ingest wrote, or would write."""

    source: str
    workspace: str
    """Name of the workspace."""
    route: str
    """Where the data came from, in words."""
    terms: str
    """Terms of use; empty for a user's own data."""
    dry_run: bool
    """Nothing was written."""
    rows: dict[str, int]
    """Canonical table -> rows."""
    first_event: datetime
    """Time of the earliest event."""
    last_event: datetime
    """Time of the latest event."""
    actions: dict[str, int]
    """Action -> number of events."""
    snapshot_id: str | None
    """Content hash of the tables; None for a dry run."""
    seconds: float
    """How long it took."""
    samples: dict[str, pl.DataFrame] = field(repr=False)
    """Canonical table -> its first rows."""
    notes: tuple[str, ...] = ()
    """What is odd about the data though it was taken, and what was changed in it; one sentence each."""
    ties: Ties = field(default_factory=Ties)
    """Plays that share their moment with another play of the same member."""
    set_aside: tuple[RowsSetAside, ...] = ()
    """Canonical table -> what was left out, by reason."""
    protocol: str = ""
    """How models are held out of this log unless something names another protocol; empty for a dry run."""
    protocol_reason: str = ""
    """What of the log speaks for it."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the samples, ready for JSON."""
        return {
            "source": self.source,
            "workspace": self.workspace,
            "route": self.route,
            "terms": self.terms,
            "dry_run": self.dry_run,
            "rows": self.rows,
            "first_event": self.first_event.isoformat(),
            "last_event": self.last_event.isoformat(),
            "actions": self.actions,
            "snapshot_id": self.snapshot_id,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
            "ties": asdict(self.ties),
            "protocol": self.protocol,
            "protocol_reason": self.protocol_reason,
            "set_aside": {
                one.table: {
                    "rows": one.rows,
                    "reasons": one.reasons,
                    "file": None if self.dry_run else str(one.file),
                }
                for one in self.set_aside
            },
        }


def ingest(
    workspace: Workspace,
    source: str,
    options: Mapping[str, Any] | None = None,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> IngestReport:
    """Replace a workspace's canonical tables by a source's data.

    Event times are checked against the wall clock, whatever the workspace's own: it is historical data.

    Args:
        workspace: Where to write.
        source: A registered source, such as "movielens_100k".
        options: Options of the source, such as `{"path": ...}`.
        dry_run: Check everything and report what would be written, and write nothing.
        progress: Called with a stage, the amount done, and the total where it is known.

    Raises:
        UnknownNameError: There is no such source.
        ConfigError: The source does not take these options.
        DataError: The data has mistakes; all are named, and the tables are as before.
        DefinitionError: The mapping has mistakes; all are named.
        ServiceError: The data cannot be reached.
    """
    started = time.perf_counter()
    report = progress or (lambda stage, done, total: None)
    chosen = _build(source, options or {})
    tables = Tables(workspace)
    with TemporaryDirectory(prefix="playbill-") as scratch:
        offer, route = chosen.open(Path(scratch), report)
        with tables.rehearse(WallClock()) if dry_run else tables.replace(WallClock()) as writer:
            watching = _Watching(writer)
            written = write_offer(offer, watching, report)
            report("check and write", 0, None)
        set_aside = written.set_aside if dry_run else _keep(written.set_aside, workspace.folder / SET_ASIDE)
    report("check and write", 1, 1)
    first, last = watching.span()
    return IngestReport(
        source=source,
        workspace=workspace.name,
        route=route,
        terms=chosen.terms,
        dry_run=dry_run,
        rows=writer.rows,
        first_event=first,
        last_event=last,
        actions=watching.actions,
        snapshot_id=None if dry_run else tables.snapshot_id(),
        seconds=time.perf_counter() - started,
        samples=watching.samples,
        notes=written.notes,
        ties=written.observed.ties,
        set_aside=set_aside,
    )


def _keep(found: tuple[RowsSetAside, ...], folder: Path) -> tuple[RowsSetAside, ...]:
    """Put the files of rows that were set aside into the workspace, in place of those of the ingest before."""
    if folder.is_dir():
        shutil.rmtree(folder)
    if not found:
        return ()
    folder.mkdir()
    return tuple(replace(one, file=Path(shutil.move(one.file, folder / f"{one.table}.ndjson"))) for one in found)


def _build(source: str, options: Mapping[str, Any]) -> Source:
    plugin = SOURCES[source]
    spec = plugin.load_options()
    if spec is None:
        built: Source = plugin.load()()
        return built
    try:
        checked = spec.model_validate(dict(options))
    except ValidationError as error:
        lines = "; ".join(_explain(item, spec.model_fields) for item in error.errors())
        raise ConfigError(f"source '{source}': {lines}") from None
    built = plugin.load()(checked)
    return built


def _explain(item: Mapping[str, Any], known: Mapping[str, FieldInfo]) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        about = known[name].description
        return f"it needs '{name}'" + (f": {about}" if about else "")
    if item["type"] == "extra_forbidden":
        close = nearest(name, known)
        hint = f"did you mean '{close}'?" if close else f"it takes {', '.join(known)}"
        return f"it takes no '{name}', {hint}"
    return f"{name}: {item['msg']}"


class _Watching:
    """Hands batches on to a table writer and remembers what a report needs."""

    def __init__(self, writer: TableWriter) -> None:
        self._writer = writer
        self._moments: list[datetime] = []
        self.actions: dict[str, int] = {}
        self.samples: dict[str, pl.DataFrame] = {}

    def write(self, table: str, frame: pl.DataFrame) -> None:
        self._writer.write(table, frame)
        self.samples.setdefault(table, frame.head(_SAMPLE_ROWS))
        if table != INTERACTIONS.name:
            return
        ends = frame.select(pl.col("event_at").min().alias("first"), pl.col("event_at").max().alias("last")).row(0)
        self._moments += [moment for moment in ends if moment is not None]
        for action, count in frame.group_by("action").len().sort("action").iter_rows():
            self.actions[str(action)] = self.actions.get(str(action), 0) + count

    def note(self, table: str, mistakes: list[RowMistake]) -> None:
        self._writer.note(table, mistakes)

    def span(self) -> tuple[datetime, datetime]:
        return min(self._moments), max(self._moments)
