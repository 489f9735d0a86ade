"""What canonical rows must satisfy, and a log that gathers every mistake of a load before it is reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache

import polars as pl
import polars.selectors as cs

from playbill.errors import DataError, Problem, did_you_mean
from playbill.schema import ACTIONS, EARLIEST, KINDS, LATEST, NAMESPACED, TABLES, UNKNOWN_COUNTRY
from playbill.tables.frames import canonical_frame, utc_literal

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
_PYTHON_MOMENTS = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def kind_hint(kind: str) -> str:
    """Return the nearest known kind of title as a question, or the rule for new ones."""
    return did_you_mean(kind.lower(), KINDS, "A kind of your own needs a namespace, such as 'shop.podcast'.")


def is_known_action(action: str) -> bool:
    """Say whether `action` is one of ours or a source's namespaced one such as `kuairand.follow`."""
    return action in ACTIONS or NAMESPACED.fullmatch(action) is not None


def action_hint(action: str) -> str:
    """Return the nearest known action as a question, or the rule for new ones."""
    return did_you_mean(action, ACTIONS, "A source's own action needs a namespace, such as 'shop.buy'.")


@dataclass(frozen=True, slots=True)
class Places:
    """Where each row of a batch was written, for messages."""

    word: str
    """What the numbers count: line, row or item."""
    numbers: pl.Series
    """One number per row, starting from 1."""

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


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One row that breaks one rule: its number in the frame, the column, and the rule in words with the value."""

    row: int
    column: str
    what: str
    hint: str = ""


def row_problems(table: str, frame: pl.DataFrame, now: datetime | None) -> list[RowProblem]:
    """Return every broken rule of every row of a canonical frame, by row. See `check_frame` for the rules.

    `now` is the clock's moment; None lets rows lie after it, as rows that were accepted once may.
    """
    found = []
    for rule, broken in _broken_rules(table, frame, now):
        values = frame.filter(broken).get_column(rule.column).to_list() if rule.shows_value else None
        for place, row in enumerate(broken.arg_true().to_list()):
            value = values[place] if values is not None else None
            what = f"{rule.what}." if value is None else f"{rule.what}: {_short(value)}."
            found.append(RowProblem(row, rule.column, what, rule.advice(value)))
    return sorted(found, key=lambda problem: problem.row)


def check_frame(
    table: str, frame: pl.DataFrame, now: datetime, log: ProblemLog, places: Places | None = None
) -> pl.DataFrame | None:
    """Bring a batch into canonical shape and note every mistake in `log`.

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
    """Describe the first row briefly, leaving out its nulls, and moments that Python has no datetime for."""
    moments, (low, high) = cs.datetime(time_zone="UTC"), _PYTHON_MOMENTS
    first = frame.head(1).with_columns(pl.when(moments.is_between(low, high)).then(moments))
    row = {name: value for name, value in first.row(0, named=True).items() if value is not None}
    text = ", ".join(f"{name}={_short(value)}" for name, value in row.items())
    return text if len(text) <= _EXAMPLE_WIDTH else text[: _EXAMPLE_WIDTH - 3] + "..."


def _short(value: object) -> str:
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return text if len(text) <= _EXAMPLE_WIDTH else text[: _EXAMPLE_WIDTH - 3] + "..."


def broken_rows(table: str, frame: pl.DataFrame, now: datetime) -> Iterator[tuple[RowMistake, pl.Series]]:
    """Yield every rule that rows break, with a mask of the rows that do. See `check_frame` for the rules.

    Rules about columns that the frame does not have are left out; event times after `now` are mistakes.
    """
    for rule, broken in _broken_rules(table, frame, now):
        example = frame.filter(broken).head(1)
        hint = rule.advice(example.get_column(rule.column)[0])
        yield RowMistake(rule.column, rule.what, int(broken.sum()), example_row(example), hint), broken


def _row_mistakes(table: str, frame: pl.DataFrame, now: datetime, places: Places | None) -> Iterator[RowMistake]:
    for mistake, broken in broken_rows(table, frame, now):
        yield replace(mistake, places=places.of(broken)) if places else mistake


def _broken_rules(table: str, frame: pl.DataFrame, now: datetime | None) -> Iterator[tuple[_Rule, pl.Series]]:
    """Yield the rules that rows break, with a mask of these rows."""
    rules = [*_lasting_rules(table), *_clock_rules(table, now)]
    usable = [rule for rule in rules if rule.column in frame.columns and rule.needs <= set(frame.columns)]
    if not usable or frame.is_empty():
        return
    if not frame.select(pl.any_horizontal(rule.broken for rule in usable).any()).item():
        return
    counts = frame.select(
        rule.broken.fill_null(False).sum().alias(str(index)) for index, rule in enumerate(usable)
    ).row(0)
    for rule, count in zip(usable, counts, strict=True):
        if count:
            yield rule, frame.select(rule.broken.fill_null(False).alias("broken")).get_column("broken")


@dataclass(frozen=True, slots=True)
class _Rule:
    column: str
    what: str
    broken: pl.Expr
    hint: str = ""
    needs: frozenset[str] = frozenset()
    shows_value: bool = False
    """Whether the value tells more than the rule; the text of one that cannot be stored is not repeated."""

    def advice(self, value: object) -> str:
        """Return the hint for one broken value."""
        hints = {"action": action_hint, "kind": kind_hint}
        return hints[self.column](str(value)) if self.column in hints and value else self.hint


def _null_rules(table: str) -> Iterator[_Rule]:
    for column in TABLES[table].columns:
        if column.nullable:
            continue
        hint = f"Write '{UNKNOWN_COUNTRY}' for an unknown country." if column.name == "country" else ""
        yield _Rule(column.name, "null", pl.col(column.name).is_null(), hint)
        if column.type == "string":
            yield _Rule(column.name, "an empty string", pl.col(column.name) == "", hint)


def _clock_rules(table: str, now: datetime | None) -> Iterator[_Rule]:
    if now is not None:
        limit, what = utc_literal(now), f"a moment after the clock ({now.isoformat()})"
        for column in PAST.get(table, ()):
            yield _Rule(column, what, pl.col(column) > limit, shows_value=True)


@cache
def _lasting_rules(table: str) -> tuple[_Rule, ...]:
    """Return the rules that do not depend on the clock."""
    return (*_null_rules(table), *_range_rules(table), *_value_rules(table))


def _range_rules(table: str) -> Iterator[_Rule]:
    if table == "interactions":
        first, last = utc_literal(EARLIEST), utc_literal(LATEST)
        what = f"a moment outside {EARLIEST:%Y-%m-%d} to {LATEST:%Y-%m-%d}"
        for column in PAST[table]:
            # The value is not shown: Python has no datetime for the farthest ones.
            yield _Rule(column, what, ~pl.col(column).is_between(first, last))


def _value_rules(table: str) -> Iterator[_Rule]:
    spec = TABLES[table]
    for text in spec.columns:
        if text.type == "string":
            # The other half of `text_problem`, half a surrogate pair, cannot be in a frame at all.
            yield _Rule(text.name, "text with a NUL character", pl.col(text.name).str.contains("\0", literal=True))
    names = spec.names()
    for column, (low, high) in RANGES.items():
        if column in names:
            inside = pl.col(column).is_between(low, high) & pl.col(column).is_finite()
            yield _Rule(column, f"a value outside {low:g} to {high:g}", ~inside, shows_value=True)
    if table == "titles":
        known = ", ".join(KINDS)
        own = pl.col("kind").str.contains(f"^(?:{NAMESPACED.pattern})$")
        strange = ~(pl.col("kind").is_in(KINDS) | own) & (pl.col("kind") != "")
        yield _Rule("kind", f"a kind that is none of {known}", strange, shows_value=True)
    if table == "interactions":
        namespaced = pl.col("action").str.contains(f"^(?:{NAMESPACED.pattern})$")
        unknown = ~(pl.col("action").is_in(ACTIONS) | namespaced) & (pl.col("action") != "")
        yield _Rule("action", "an unknown action", unknown, shows_value=True)
        titleless = pl.col("action").is_in(TITLE_ACTIONS) & pl.col("title_id").is_null()
        what = f"no title for an action that needs one ({', '.join(TITLE_ACTIONS)})"
        yield _Rule("title_id", what, titleless, needs=frozenset({"action"}))
