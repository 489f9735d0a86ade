"""The folder of one built view: part files that are only ever added, and the state they were built from.

```
features/VIEW.parquet/part-0002-00000.parquet    rows; generation and number
features/VIEW.parquet/_state.json                what the parts were built from; readers skip it
features/.VIEW.parquet.3f2a/                     a build in progress, or the leftover of a killed one
```

A part is written beside and renamed, then the state is. Killed in between, the next run computes the same increment and
replaces the part by the same rows or more. A whole build is a new folder that is swapped in by one rename.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import polars as pl

from playbill.features.store_errors import at_the_door
from playbill.files import exclusive, file_digest, remove_leftovers, replaced_file, replaced_folder, write_text
from playbill_feast.errors import StoreDataError
from playbill_feast.offline.parquet_files import STATE, require_sound

_FORMAT = 1
_ADVICE = "Run `playbill features build`."


@dataclass(frozen=True, slots=True)
class ViewState:
    """What the parts of a view were built from."""

    version: str
    """`EventView.version` at the time."""
    until_us: int
    """States up to this moment are there, microseconds since 1970."""
    since_us: int | None
    """States from this moment are there; None is from the first event."""
    snapshot_id: str
    """The tables' state."""
    log: Mapping[str, str]
    """Files of the event log, with digests."""
    genres: Mapping[str, str]
    """What the view reads of every title, as one text each; empty if it reads nothing of them."""
    generation: int = 0
    """Number of the whole build the parts belong to."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """File -> rows, old to new."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """File -> SHA-256 of its content; what reads the parts compares it (`offline.files.scan_parts`)."""

    @property
    def rows(self) -> int:
        """Rows of all parts, corrected ones included."""
        return sum(self.parts.values())

    def following(self, old: ViewState) -> ViewState:
        """Return this state as an increment on `old`: time does not go back, and the beginning stays."""
        return replace(self, until_us=max(self.until_us, old.until_us), since_us=old.since_us)


@at_the_door
class ViewFolder:
    """The folder of one view's parts.

    Args:
        path: HOME/NAME/features/VIEW.parquet. It need not exist, and may be the single file of an older build.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def state(self) -> ViewState | None:
        """Return what the parts were built from; None if that is not known or a part is gone."""
        try:
            content = json.loads((self.path / STATE).read_text(encoding="utf-8"))
            if content.pop("format") != _FORMAT:
                return None
            state = ViewState(**content)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return state if all((self.path / name).is_file() for name in state.parts) else None

    def sound_state(self) -> ViewState | None:
        """Return what the parts were built from, None also where one is damaged: then the view has to be built anew."""
        state = self.state()
        try:
            require_sound([self.path / name for name in state.parts] if state else [], _ADVICE)
        except StoreDataError:
            return None
        return state

    def replace(self, frames: Iterable[pl.DataFrame], state: ViewState) -> ViewState:
        """Build the view anew from `frames` and put it in the place of what is there."""
        old = self.state()
        generation = 1 if old is None else old.generation + 1
        with self._building() as folder:
            parts = _write_all(frames, folder, generation)
            digests = {name: file_digest(folder / name) for name in parts}
            done = replace(state, generation=generation, parts=parts, digests=digests)
            _save(done, folder)
        return done

    def append(self, frame: pl.DataFrame, state: ViewState, old: ViewState) -> ViewState:
        """Add one part of new and corrected rows, and note the new state. No rows add no part."""
        parts, digests = dict(old.parts), dict(old.digests)
        if not frame.is_empty():
            name = _part(old.generation, len(parts))
            _write(frame, self.path / name)
            parts[name], digests[name] = frame.height, file_digest(self.path / name)
        done = replace(state, generation=old.generation, parts=parts, digests=digests)
        _save(done, self.path)
        return done

    def compact(self, state: ViewState, small: int) -> ViewState:
        """Merge the parts after the last one of at least `small` rows; rows and their order stay as they are."""
        names = list(state.parts)
        first = max((index + 1 for index, name in enumerate(names) if state.parts[name] >= small), default=0)
        kept, merged = names[:first], names[first:]
        generation = state.generation + 1
        with self._building() as folder:
            parts, digests = {}, {}
            for number, name in enumerate(kept):
                moved = _part(generation, number)
                parts[moved] = state.parts[name]
                os.link(self.path / name, folder / moved)
                digests[moved] = state.digests.get(name) or file_digest(folder / moved)
            require_sound([self.path / name for name in merged], _ADVICE)
            rows = pl.concat([pl.read_parquet(self.path / name) for name in merged], how="diagonal_relaxed")
            last = _part(generation, first)
            _write(rows, folder / last)
            parts[last], digests[last] = rows.height, file_digest(folder / last)
            done = replace(state, generation=generation, parts=parts, digests=digests)
            _save(done, folder)
        return done

    def scan(self, state: ViewState) -> pl.LazyFrame:
        """Open the parts, old to new."""
        files = [self.path / name for name in state.parts]
        require_sound(files, _ADVICE)
        return pl.scan_parquet(files, hive_partitioning=False)

    @contextmanager
    def _building(self) -> Iterator[Path]:
        remove_leftovers(self.path)
        with replaced_folder(self.path, "the view") as folder:
            yield folder


@contextmanager
def building(features: Path) -> Iterator[None]:
    """Let one process at a time build views of a workspace.

    Raises:
        StateError: Another one is at it.
        StorageError: The folder cannot be written.
    """
    busy = f"another process is building {features}. Wait until it is done, then try again."
    with exclusive(features / ".lock", busy):
        yield


def _part(generation: int, number: int) -> str:
    return f"part-{generation:04d}-{number:05d}.parquet"


def _write_all(frames: Iterable[pl.DataFrame], folder: Path, generation: int) -> dict[str, int]:
    """Write a part per frame; the next frame is computed meanwhile. Two are in memory at once."""
    parts: dict[str, int] = {}
    with ThreadPoolExecutor(max_workers=1) as pool:
        writing: Future[None] | None = None
        for number, frame in enumerate(frames):
            if writing is not None:
                writing.result()
            name = _part(generation, number)
            parts[name] = frame.height
            writing = pool.submit(_write, frame, folder / name)
        if writing is not None:
            writing.result()
    return parts


def _write(frame: pl.DataFrame, path: Path) -> None:
    remove_leftovers(path)
    with replaced_file(path, "the view's part") as beside:
        frame.write_parquet(beside, compression="zstd", row_group_size=256_000)


def _save(state: ViewState, folder: Path) -> None:
    content = {"format": _FORMAT, **{item.name: getattr(state, item.name) for item in fields(state)}}
    write_text(folder / STATE, json.dumps(content, indent=1), "the view's state")
