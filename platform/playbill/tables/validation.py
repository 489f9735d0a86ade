"""What canonical rows must satisfy, and a log that gathers every mistake of a load before it is reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from playbill.errors import DataError, Problem, nearest
from playbill.schema import ACTIONS, KINDS, TABLES, UNKNOWN_COUNTRY
from playbill.tables.frames import NAMESPACED, TIMESTAMP, canonical_frame

RANGES = {"progress": (0.0, 1.0), "propensity": (0.0, 1.0), "duration_s": (0.0, float("inf"))}
"""Inclusive limits of numeric columns of interactions and slates."""

PAST = {
    "titles": ("valid_from", "recorded_at"),
    "availability": ("recorded_at",),
    "members": ("valid_from", "recorded_at", "joined_at"),
    "interactions": ("event_at", "recorded_at"),
}
"""Timestamps that may not lie after the clock. Launches may: a title can be announced."""

TITLE_ACTIONS = ("play", "thumbs_up", "thumbs_down", "my_list_add", "my_list_remove")
"""Actions that mean nothing without a title."""

_EXAMPLE_WIDTH = 200
_PLACES_SHOWN = 5


def is_known_action(action: str) -> bool:
    """Say whether `action` is one of ours or a source's namespaced one such as `kuairand.follow`."""
    return action in ACTIONS or NAMESPACED.fullmatch(action) is not None


def action_hint(action: str) -> str:
    """Return the nearest known action as a question, or the rule for new ones."""
    close = nearest(action, ACTIONS)
    return f"Did you mean '{close}'?" if close else "A source's own action needs a namespace, such as 'shop.buy'."


@dataclass(frozen=True, slots=True)
class Places:
    """Where each row of a batch was written, for messages.

    Attributes:
        word: What the numbers count: line, row or item.
        numbers: One number per row, starting from 1.
    """

    word: str
    numbers: pl.Series

    def of(self, broken: pl.Series) -> str:
        """Return the places of some rows in words: `line 3`, or `lines 3, 7 and 12`."""
        found = self.numbers.filter(broken).to_list()
        shown, rest = found[:_PLACES_SHOWN], len(found) - _PLACES_SHOWN
        if len(found) == 1:
            return f"{self.word} {found[0]}"
        listed = ", ".join(map(str, shown))
        return f"{self.word}s {listed} and {rest} more" if rest > 0 else f"{self.word}s {listed}"


@dataclass(frozen=True, slots=True)
class RowMistake:
    """Rows that break one rule; `places` says where they are, if that is known."""

    column: str
    what: str
    rows: int
    example: str
    hint: str = ""
    places: str = ""


@dataclass
class ProblemLog:
    """Mistakes of one load. The same mistake in several batches is one problem with their total count."""

    _structural: dict[tuple[str, str], str] = field(default_factory=dict)
    _rows: dict[tuple[str, str], RowMistake] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._structural or self._rows)

    def add(self, where: str, what: str, hint: str = "") -> None:
        """Note a mistake that is not about single rows."""
        self._structural.setdefault((where, what), hint)

    def add_rows(self, table: str, mistakes: Iterable[RowMistake]) -> None:
        """Note rows that break a rule."""
        for mistake in mistakes:
            where = (f"{table}.{mistake.column}", mistake.what)
            before = self._rows.get(where)
            total = mistake.rows + (before.rows if before else 0)
            first = before or mistake
            self._rows[where] = RowMistake(first.column, first.what, total, first.example, first.hint, first.places)

    def touches(self, table: str) -> bool:
        """Say whether anything was noted about a table."""
        return any(where.split(".")[0] == table for where, _ in (*self._structural, *self._rows))

    def problems(self) -> list[Problem]:
        """Return everything noted so far."""
        listed = [Problem(where, what, hint) for (where, what), hint in self._structural.items()]
        for (where, what), mistake in self._rows.items():
            count = f"{mistake.rows} row{'s' if mistake.rows != 1 else ''}"
            hint = " ".join(part for part in (mistake.hint, f"For example {mistake.example}.") if part)
            placed = f" ({mistake.places})" if mistake.places else ""
            listed.append(Problem(where, f"{what} in {count}{placed}.", hint))
        return listed

    def raise_if_any(self, subject: str) -> None:
        """Raise one error with every problem.

        Raises:
            DataError: Something was noted.
        """
        if self:
            raise DataError(subject, self.problems())


def check_frame(
    table: str, frame: pl.DataFrame, now: datetime, log: ProblemLog, places: Places | None = None
) -> pl.DataFrame | None:
    """Bring a batch into canonical shape and note every mistake in `log`.

    Args:
        table: Name of a canonical table.
        frame: The batch.
        now: The clock's moment; event times after it are mistakes.
        log: Where mistakes are noted.
        places: Where the rows are written, to be named.

    Returns:
        The canonical batch, or None when it has any mistake.
    """
    shaped, mistakes = canonical_frame(table, frame)
    for mistake in mistakes:
        log.add(f"{table}.{mistake.column}", mistake.what, mistake.hint)
    broken = list(_row_mistakes(table, shaped, now, places))
    log.add_rows(table, broken)
    return None if mistakes or broken else shaped


def example_row(frame: pl.DataFrame) -> str:
    """Describe the first row briefly, leaving out its nulls."""
    row = {name: value for name, value in frame.row(0, named=True).items() if value is not None}
    text = ", ".join(f"{name}={_short(value)}" for name, value in row.items())
    return text if len(text) <= _EXAMPLE_WIDTH else text[: _EXAMPLE_WIDTH - 3] + "..."


def _short(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _row_mistakes(table: str, frame: pl.DataFrame, now: datetime, places: Places | None) -> Iterator[RowMistake]:
    rules = [*_null_rules(table), *_time_rules(table, now), *_value_rules(table)]
    usable = [rule for rule in rules if rule.column in frame.columns and rule.needs <= set(frame.columns)]
    if not usable or frame.is_empty():
        return
    counts = frame.select(
        rule.broken.fill_null(False).sum().alias(str(index)) for index, rule in enumerate(usable)
    ).row(0)
    for rule, count in zip(usable, counts, strict=True):
        if count:
            broken = frame.select(rule.broken.fill_null(False).alias("broken")).get_column("broken")
            example = frame.filter(broken).head(1)
            hint = rule.hint
            if rule.column == "action":
                hint = action_hint(str(example.get_column("action")[0]))
            found = places.of(broken) if places else ""
            yield RowMistake(rule.column, rule.what, count, example_row(example), hint, found)


@dataclass(frozen=True, slots=True)
class _Rule:
    column: str
    what: str
    broken: pl.Expr
    hint: str = ""
    needs: frozenset[str] = frozenset()


def _null_rules(table: str) -> Iterator[_Rule]:
    for column in TABLES[table].columns:
        if column.nullable:
            continue
        hint = f"Write '{UNKNOWN_COUNTRY}' for an unknown country." if column.name == "country" else ""
        yield _Rule(column.name, "null", pl.col(column.name).is_null(), hint)
        if column.type == "string":
            yield _Rule(column.name, "an empty string", pl.col(column.name) == "", hint)


def _time_rules(table: str, now: datetime) -> Iterator[_Rule]:
    limit = pl.lit(now, dtype=TIMESTAMP)
    for column in PAST.get(table, ()):
        yield _Rule(column, f"a moment after the clock ({now.isoformat()})", pl.col(column) > limit)


def _value_rules(table: str) -> Iterator[_Rule]:
    names = TABLES[table].names()
    for column, (low, high) in RANGES.items():
        if column in names:
            inside = pl.col(column).is_between(low, high) & pl.col(column).is_not_nan()
            yield _Rule(column, f"a value outside {low:g} to {high:g}", ~inside)
    if table == "titles":
        known = ", ".join(KINDS)
        yield _Rule("kind", f"a kind that is none of {known}", ~pl.col("kind").is_in(KINDS))
    if table == "interactions":
        namespaced = pl.col("action").str.contains(f"^(?:{NAMESPACED.pattern})$")
        unknown = ~(pl.col("action").is_in(ACTIONS) | namespaced) & (pl.col("action") != "")
        yield _Rule("action", "an unknown action", unknown)
        titleless = pl.col("action").is_in(TITLE_ACTIONS) & pl.col("title_id").is_null()
        what = f"no title for an action that needs one ({', '.join(TITLE_ACTIONS)})"
        yield _Rule("title_id", what, titleless, needs=frozenset({"action"}))
