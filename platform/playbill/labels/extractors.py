"""Labels in Python: an extractor is a function of whole members' events, registered by a decorator or an entry point.

```python
@label_extractor("minutes", version=1, inputs=("duration_s",), window=timedelta(days=1), options=MinutesOptions)
def minutes(events: pl.DataFrame, context: LabelContext) -> pl.Series: ...
```

An outside package names the decorated function under the entry-point group `playbill.labels`:

```text
[project.entry-points."playbill.labels"]
minutes = "my_package.labels:minutes"
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from playbill.definitions.specs import EXTRACTORS, LabelSpec, Spec
from playbill.definitions.specs.label import ExtractorPlugin, Level
from playbill.errors import DataError, PlaybillError, Problem, StateError


@dataclass(frozen=True, slots=True)
class LabelContext:
    """What an extractor is given beside the events."""

    label: LabelSpec
    """The label's definition; its `level` says what a value is about."""
    options: Any
    """Its options, checked by the spec the extractor registered; None where it takes none."""
    as_of: datetime
    """What is known. No event at or after it, and none recorded after it, is among the events."""
    window: timedelta | None
    """How long after an event its outcome counts; None where neither label nor extractor says."""
    titles: pl.DataFrame | None = None
    """The canonical table, where the extractor asked for it."""
    availability: pl.DataFrame | None = None
    """The canonical table, where the extractor asked for it."""


Extract = Callable[[pl.DataFrame, LabelContext], pl.Series]
"""Returns [n] numbers for [n] events: null or NaN is unlabelled.

The events are all those of some members, sorted by member_id and seq; a value may depend on events of the same member
only, for members come in blocks. Events younger than the label's `matures_after` are made null by the caller.
"""


def label_extractor(
    name: str,
    *,
    version: int = 1,
    inputs: tuple[str, ...] = (),
    tables: tuple[str, ...] = (),
    window: timedelta | None = None,
    levels: tuple[Level, ...] = ("title", "row", "page"),
    actions: tuple[str, ...] = (),
    options: type[Spec] | None = None,
) -> Callable[[Extract], ExtractorPlugin]:
    """Register the decorated function as a label extractor that YAML names as `extractor: NAME`.

    The arguments are the fields of `ExtractorPlugin`; `options` is the spec of the label's `options`. What the
    decorator returns is the registered plug-in, which can be called like the function.

    Raises:
        DuplicateNameError: Another extractor has the name.
    """

    def register(function: Extract) -> ExtractorPlugin:
        plugin = ExtractorPlugin(
            f"{function.__module__}:{function.__qualname__}",
            version=version,
            inputs=inputs,
            tables=tables,
            window=window,
            levels=levels,
            actions=actions,
            function=function,
            spec=options,
        )
        EXTRACTORS.claim(name, plugin)
        return plugin

    return register


def extracted_values(
    label: LabelSpec, events: pl.DataFrame, as_of: datetime, tables: Mapping[str, pl.DataFrame | None]
) -> pl.Series:
    """Return [n] float32 of a label's extractor for n events; null is unlabelled.

    Raises:
        StateError: It needs a table that was not given.
        DataError: It failed, or gave something else than a number or null for each event.
    """
    plugin = label.plugin
    assert plugin is not None
    for name in plugin.tables:
        if tables.get(name) is None:
            raise StateError(f"extractor '{label.extractor}' needs the {name} table; run `playbill ingest` first")
    own = {name: tables[name] for name in plugin.tables}
    context = LabelContext(label, label.extractor_options(), as_of, label.attribution_window, **own)
    try:
        found = plugin.load()(events, context)
    except PlaybillError:
        raise
    except Exception as error:
        raise _wrong(label, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, pl.Series):
        raise _wrong(label, f"gave a {type(found).__name__} instead of a polars Series of a number for each event")
    if len(found) != events.height:
        raise _wrong(label, f"gave {len(found)} values for {events.height} events")
    if not (found.dtype.is_numeric() or found.dtype in (pl.Boolean, pl.Null)):
        raise _wrong(label, f"gave values of type {found.dtype} instead of numbers")
    return found.cast(pl.Float32).fill_nan(None)


def _wrong(label: LabelSpec, what: str) -> DataError:
    return DataError(f"label {label.name}", [Problem(f"extractor '{label.extractor}'", what)])
