"""Rows of a source that cannot be used: refused together, or set aside with their reasons where the mapping says so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from playbill.schema import TABLES
from playbill.sources.tabular.columns import Fault
from playbill.tables import RowMistake, example_row
from playbill.tables.validation import broken_rows

_REFERENCES = {"interactions": ("title_id", "source_title_id"), "availability": ("title_id",)}


@dataclass(frozen=True, slots=True)
class RowsSetAside:
    """Rows of one table that were left out."""

    table: str
    """The canonical table."""
    rows: int
    """How many."""
    offered: int
    """Rows of the table in all."""
    reasons: dict[str, int]
    """What was wrong -> rows; a row may have several."""
    file: Path
    """ndjson with one object a row: `reasons`, and `row` as the source has it. In the scratch folder."""


@dataclass
class Cleaner:
    """Parts the sound rows of one table from those with faults, batch by batch."""

    table: str
    """The canonical table."""
    limit: float | None
    """Share of the rows that may be set aside; None refuses every faulty row."""
    now: datetime
    """The clock's moment; event times after it are mistakes."""
    folder: Path
    """Where rows that are set aside are written."""
    known_titles: pl.Series | None = None
    """Ids that rows may name, or None where they are not looked up here."""
    repeated_ids: pl.Series | None = None
    """Event ids of the source's own that occur more than once; the first row of each is sound."""
    offered: int = 0
    set_aside: int = 0
    _mistakes: list[RowMistake] = field(default_factory=list)
    _reasons: dict[str, int] = field(default_factory=dict)
    _first_bad: str = ""
    _taken: pl.Series = field(default_factory=lambda: pl.Series("event_id", dtype=pl.String))

    def clean(self, rows: pl.DataFrame, frame: pl.DataFrame, unread: Sequence[Fault]) -> pl.Series:
        """Return which rows of a batch, as canonical columns too, are sound; take note of the others.

        `unread` are values that could not be read; they are null in `frame`.
        """
        self.offered += frame.height
        faults = [*unread, *_rule_faults(self.table, frame, unread, self.now)]
        if self.limit is not None:
            faults += self._faults_between_rows(frame, _sound(frame.height, faults))
        sound = _sound(frame.height, faults)
        self._mistakes += [fault.mistake for fault in faults]
        if faults and self.limit is not None:
            self._put_aside(rows, ~sound, faults)
        return sound

    @property
    def refused(self) -> bool:
        """Whether the rows seen so far cannot be taken: there are faults, and more than may be set aside."""
        if self.limit is None:
            return bool(self._mistakes)
        return self.set_aside > self.limit * self.offered

    def mistakes(self) -> list[RowMistake]:
        """Return what the load is refused for; nothing where every faulty row may be set aside."""
        if self.limit is None or not self.refused:
            return self._mistakes if self.limit is None else []
        allowed = int(self.limit * self.offered)
        what = (
            f"more rows with mistakes than may be set aside ({self.limit * 100:g} % of {self.offered:,}: {allowed:,})"
        )
        hint = "Mend them, or raise the limit of set_aside."
        return [RowMistake("set_aside", what, self.set_aside, self._first_bad, hint), *self._mistakes]

    def result(self) -> RowsSetAside | None:
        """Return what was set aside, or None when nothing was."""
        if not self.set_aside:
            return None
        return RowsSetAside(self.table, self.set_aside, self.offered, dict(self._reasons), self._file)

    @property
    def _file(self) -> Path:
        return self.folder / f"set_aside-{self.table}.ndjson"

    def _faults_between_rows(self, frame: pl.DataFrame, sound: pl.Series) -> Iterator[Fault]:
        """Yield rows that repeat the key of an earlier sound row, or name a title that is not there."""
        key = [name for name in TABLES[self.table].key if name in frame.columns]
        if self.table != "interactions" and key:
            first = frame.select(*key, _sound=sound).select(pl.struct(pl.all()).is_first_distinct()).to_series()
            yield from _fault(key[-1], f"the key ({', '.join(key)}) of an earlier row", frame, sound & ~first)
        elif self.repeated_ids is not None:
            yield from _fault("event_id", "the event_id of an earlier row", frame, self._seen_before(frame, sound))
        for name in _REFERENCES.get(self.table, ()):
            if self.known_titles is not None and name in frame.columns:
                strange = frame.select(pl.col(name).is_not_null() & ~pl.col(name).is_in(self.known_titles.implode()))
                yield from _fault(name, "a title that is not in titles", frame, strange.to_series() & sound)

    def _seen_before(self, frame: pl.DataFrame, sound: pl.Series) -> pl.Series:
        """Say which rows have an event id that was there before, in this batch or an earlier one."""
        ids = frame.get_column("event_id")
        repeated = self.repeated_ids if self.repeated_ids is not None else ids.clear()
        first = frame.select("event_id", _sound=sound).select(pl.struct(pl.all()).is_first_distinct()).to_series()
        taken = ids.is_in(self._taken.implode()) if len(self._taken) else pl.repeat(False, len(ids), eager=True)
        again = sound & ids.is_in(repeated.implode()) & (~first | taken)
        self._taken = pl.concat([self._taken, ids.filter(sound & ids.is_in(repeated.implode()))]).unique()
        return again

    def _put_aside(self, rows: pl.DataFrame, bad: pl.Series, faults: Sequence[Fault]) -> None:
        self.set_aside += int(bad.sum())
        self._first_bad = self._first_bad or example_row(rows.filter(bad).head(1))
        named = {_reason(fault.mistake): fault.rows.filter(bad) for fault in faults}
        for reason, broken in named.items():
            self._reasons[reason] = self._reasons.get(reason, 0) + int(broken.sum())
        with self._file.open("a", encoding="utf-8") as file:
            for number, row in enumerate(rows.filter(bad).iter_rows(named=True)):
                reasons = [reason for reason, broken in named.items() if broken[number]]
                file.write(json.dumps({"reasons": reasons, "row": row}, default=str, ensure_ascii=False) + "\n")


def _rule_faults(table: str, frame: pl.DataFrame, unread: Sequence[Fault], now: datetime) -> Iterator[Fault]:
    """Yield what canonical rows may not be, whatever else is wrong with a row; an unread value is no null."""
    for mistake, rows in broken_rows(table, frame, now):
        broken = rows
        for fault in unread:
            if fault.mistake.column == mistake.column:
                broken = broken & ~fault.rows
        yield from _fault(mistake.column, mistake.what, frame, broken, mistake.hint)


def _fault(column: str, what: str, frame: pl.DataFrame, broken: pl.Series, hint: str = "") -> Iterator[Fault]:
    if broken.any():
        # Names with `_` in front are our own.
        example = example_row(frame.filter(broken).head(1).select(pl.exclude("^_.*$")))
        yield Fault(RowMistake(column, what, int(broken.sum()), example, hint), broken)


def _sound(height: int, faults: Sequence[Fault]) -> pl.Series:
    sound = pl.repeat(True, height, eager=True)
    for fault in faults:
        sound = sound & ~fault.rows
    return sound


def _reason(mistake: RowMistake) -> str:
    return f"{mistake.column}: {mistake.what}"
