"""Events -> labels: one value for each event a label speaks of, as known at one moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import polars as pl

from playbill.clock import to_microseconds
from playbill.definitions.specs import LabelSpec
from playbill.errors import DataError, Problem
from playbill.labels.blocks import PLACE, Block, member_blocks
from playbill.labels.checks import extractor_inputs, require_columns, require_each_once, require_positives
from playbill.labels.extractors import extracted_values
from playbill.labels.history_columns import PLAYS, POPULARITY, daily_plays
from playbill.labels.rules import Rule, reads_of, rule_values
from playbill.tables.frames import utc_literal

KEYS = ("event_id", "member_id", "seq", "title_id")
PART = (*KEYS, "event_at", "recorded_at", "action")
COLUMNS = ("event_id", "title_id", "member_id", "seq", "value")

BLOCK = 250_000
"""Events of a block: of `BLOCKS_AT_ONCE` of them what labels look at is in memory, beside the log and the labels."""
BLOCKS_AT_ONCE = max(1, min(4, pl.thread_pool_size()))
"""More threads than this would wait for memory."""

_NEEDED = ("event_id", "member_id", "seq", "event_at", "action", "title_id")
_OPTIONAL = ("recorded_at", "request_id", "row_id")
_TYPES = pl.Schema({"event_id": pl.String(), "member_id": pl.String(), "seq": pl.Int64(), "title_id": pl.String()})


def label_events(
    labels: Sequence[LabelSpec],
    interactions: pl.DataFrame | pl.LazyFrame,
    as_of: datetime,
    availability: pl.DataFrame | None = None,
    titles: pl.DataFrame | None = None,
    *,
    require_rows: bool = False,
    block: int = BLOCK,
) -> pl.DataFrame:
    """Label events by several labels at once with what was known at `as_of`.

    What labels have in common (the order of events, what came before and after each) is computed once. Events are
    taken in blocks of whole members, and read in such blocks where the log is lazy.

    Args:
        labels: Definitions, each name once.
        interactions: Rows of the canonical log. Each member's must be complete from the start.
        as_of: Cut-off, with a zone. Events at it or later, and rows recorded after it, do not exist.
        availability: The canonical table, where a label needs it.
        titles: The canonical table, where a label needs it.
        require_rows: Raise when a label gives no event a value over zero, as training must.
        block: Events of a block, at least.

    Returns:
        event_id, member_id, seq, title_id and a float32 column per label; null is unlabelled, because the label
        does not speak of the event or it is too young. Only events with a value; sorted by member_id and seq.

    Raises:
        DataError: The log lacks columns the labels need or has an event twice, `as_of` has no zone, a name is given
            twice, an extractor failed, or `require_rows` and a label has no positive event. All labels' mistakes are
            named.
        StateError: A label needs a table that was not given.
    """
    names = [label.name for label in labels]
    schema = pl.Schema([*_TYPES.items(), *((name, pl.Float32()) for name in names)])
    some = pl.any_horizontal(pl.col(name).is_not_null() for name in names)
    parts = label_parts(labels, interactions, as_of, availability, titles, block=block)
    found = pl.concat([schema.to_frame(), *(part.select(schema.names()).cast(_TYPES).filter(some) for part in parts)])
    if require_rows:
        require_positives(labels, found, interactions, as_of)
    return found


def label_parts(
    labels: Sequence[LabelSpec],
    interactions: pl.DataFrame | pl.LazyFrame,
    as_of: datetime,
    availability: pl.DataFrame | None = None,
    titles: pl.DataFrame | None = None,
    *,
    block: int = BLOCK,
) -> Iterator[pl.DataFrame]:
    """Yield the events known at `as_of`, labelled or not, block after block: a lazy log is never whole in memory.

    Arguments, errors and values are those of `label_events`. The labels are checked against the log at once. Parts have
    the columns of `PART`, as far as the log has them, and a float32 column per label; sorted by member_id and seq
    within and across parts.
    """
    work = _Work.of(labels, interactions, as_of, availability, titles)
    return (
        part.rows.select(name for name in PART if name in part.rows.columns).with_columns(part.values)
        for part in work.parts(interactions, block)
    )


def label_columns(
    labels: Sequence[LabelSpec],
    interactions: pl.DataFrame,
    as_of: datetime,
    availability: pl.DataFrame | None = None,
    titles: pl.DataFrame | None = None,
    *,
    require_rows: bool = False,
) -> pl.DataFrame:
    """Return a float32 column per label with a row for each row of `interactions`, in their order.

    Arguments, errors and values are those of `label_events`.
    """
    names = [label.name for label in labels]
    work = _Work.of(labels, interactions, as_of, availability, titles)
    columns = {name: pl.repeat(None, interactions.height, dtype=pl.Float32, eager=True) for name in names}
    for part in work.parts(interactions, BLOCK):
        for value in part.values:
            columns[value.name] = columns[value.name].scatter(part.rows[PLACE], value)
    found = pl.DataFrame([column.alias(name) for name, column in columns.items()])
    if require_rows:
        require_positives(labels, found, interactions, as_of)
    return found


def extract(
    label: LabelSpec,
    interactions: pl.DataFrame | pl.LazyFrame,
    as_of: datetime,
    availability: pl.DataFrame | None = None,
    *,
    titles: pl.DataFrame | None = None,
    require_rows: bool = False,
) -> pl.DataFrame:
    """Label events by one label with what was known at `as_of`; arguments and errors are those of `label_events`.

    Returns:
        event_id, title_id, member_id, seq, value (float32), sorted by member_id and seq. An event that is not
        in it is unlabelled, because the label does not speak of it or it is too young; it is never a zero.
    """
    found = label_events([label], interactions, as_of, availability, titles, require_rows=require_rows)
    return found.rename({label.name: "value"}).select(COLUMNS)


def _known(as_of: datetime, recorded: bool) -> pl.Expr:
    """Say which events of a log exist at a moment."""
    moment = utc_literal(as_of)
    known = pl.col("event_at") < moment
    return known & (pl.col("recorded_at") <= moment) if recorded else known


@dataclass(frozen=True)
class _Part:
    rows: pl.DataFrame
    values: list[pl.Series]


@dataclass(frozen=True)
class _Work:
    """Labels to tell, checked against the log they are told of."""

    rules: list[Rule]
    plugins: list[LabelSpec]
    order: list[str]
    columns: list[str]
    as_of: datetime
    tables: dict[str, pl.DataFrame | None]

    @classmethod
    def of(
        cls,
        labels: Sequence[LabelSpec],
        interactions: pl.DataFrame | pl.LazyFrame,
        as_of: datetime,
        availability: pl.DataFrame | None,
        titles: pl.DataFrame | None,
    ) -> _Work:
        if as_of.tzinfo is None:
            raise DataError("labels", [Problem("as_of", f"{as_of.isoformat()} has no time zone")])
        rules = [Rule(label) for label in labels if label.extractor is None]
        plugins = [label for label in labels if label.extractor is not None]
        present = interactions.collect_schema().names()
        require_columns(labels, rules, _NEEDED, present)
        inputs = [name for label in plugins for name in extractor_inputs(label)]
        wanted = {*_NEEDED, *_OPTIONAL, *reads_of(rules), *inputs}
        tables: dict[str, pl.DataFrame | None] = {"availability": availability, "titles": titles}
        if any(POPULARITY in rule.columns for rule in rules):
            tables[PLAYS] = daily_plays(interactions, _known(as_of.astimezone(UTC), "recorded_at" in present))
        kept = [name for name in present if name in wanted]
        # In one zone: moments of the same other zone are subtracted by what its clocks show.
        return cls(rules, plugins, [label.name for label in labels], kept, as_of.astimezone(UTC), tables)

    def parts(self, interactions: pl.DataFrame | pl.LazyFrame, size: int) -> Iterator[_Part]:
        """Yield the known events of block after block with a column per label, in the labels' order."""
        blocks = member_blocks(interactions, self.columns, size)
        return (part for part in prefetch(self._part, blocks, BLOCKS_AT_ONCE) if part.rows.height)

    def _part(self, rows: pl.DataFrame) -> _Part:
        known = rows.filter(_known(self.as_of, "recorded_at" in self.columns))
        require_each_once(known)
        return _Part(known, self._values(known) if known.height else [])

    def _values(self, known: pl.DataFrame) -> list[pl.Series]:
        block = Block(known, to_microseconds(self.as_of))
        found = rule_values(self.rules, block, self.tables)
        for label in self.plugins:
            events = known.drop(PLACE, strict=False)
            found[label.name] = extracted_values(label, events, self.as_of, self.tables)
        labels = {label.name: label for label in (*(rule.label for rule in self.rules), *self.plugins)}
        return [self._matured(labels[name], known, found[name]) for name in self.order]

    def _matured(self, label: LabelSpec, known: pl.DataFrame, values: pl.Series) -> pl.Series:
        age = utc_literal(self.as_of) - pl.col("event_at")
        old = age >= pl.when(values == 0).then(label.zeros_mature_after).otherwise(label.matures_after)
        return known.select(pl.when(old).then(values).alias(label.name)).to_series()


Given = TypeVar("Given")
Done = TypeVar("Done")


def prefetch(work: Callable[[Given], Done], items: Iterable[Given], at_once: int) -> Iterator[Done]:
    """Yield `work(item)` of each item in order, with the next ones in work meanwhile, in `at_once` threads.

    Items are taken as they are needed: `at_once` of them, and their results, are in memory. Threads share the
    processors as far as the work is in numpy and polars, which let other threads run. What `work` raises is raised
    here, in its item's turn.
    """
    with ThreadPoolExecutor(at_once, thread_name_prefix="labels") as pool:
        waiting: deque[Future[Done]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
