"""What a network reads: dataclasses of tensors, made from numpy arrays with the same field names.

Axis letters: B members, L history, T titles, N prediction rows, F features, S snapshots, C categorical fields.
Bags are flat, as `torch.nn.functional.embedding_bag` wants them; see `playbill.datasets.arrays`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

INT = torch.int64
FLOAT = torch.float32
BOOL = torch.bool


def to_tensor(values: Any, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Turn an array into a tensor of `dtype` on `device`, copying only where needed."""
    if isinstance(values, Tensor):
        return values.to(device=device, dtype=dtype)
    array = np.ascontiguousarray(values)
    if not array.flags.writeable:
        array = array.copy()
    return torch.from_numpy(array).to(device=device, dtype=dtype)


class Arrays:
    """Shared conversions of the dataclasses below. `DTYPES` names every field and its type."""

    DTYPES: ClassVar[Mapping[str, torch.dtype]] = {}

    @classmethod
    def from_arrays(cls, arrays: Any, device: torch.device | str = "cpu") -> Self:
        """Build from any object with attributes of the same names (numpy arrays, lists or tensors).

        Raises:
            AttributeError: A field is missing on `arrays`.
        """
        return cls(**{name: _convert(getattr(arrays, name), kind, device) for name, kind in cls.DTYPES.items()})

    def to(self, device: torch.device | str) -> Self:
        """Return the same batch on another device."""
        return type(self).from_arrays(self, device)

    def named(self) -> dict[str, Any]:
        """Return every field by name, without copying."""
        return {own.name: getattr(self, own.name) for own in fields(self)}  # type: ignore[arg-type]


def flat_tensors(name: str, part: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a batch by the dotted name of its place, for a file of named tensors."""
    if isinstance(part, Tensor):
        yield name, part.clone()  # fields may share memory, tensors of a file may not
        return
    for own, value in (part if isinstance(part, Mapping) else part.named()).items():
        yield from flat_tensors(f"{name}.{own}", value)


def _convert(values: Any, dtype: torch.dtype, device: torch.device | str) -> Any:
    if isinstance(values, Mapping):
        return {name: to_tensor(value, dtype, device) for name, value in values.items()}
    return to_tensor(values, dtype, device)


@dataclass(frozen=True, slots=True)
class HistoryBatch(Arrays):
    """Events of B members, oldest first, right-padded to L. Everything here is known before the request."""

    title: Tensor  # [B, L] title index
    actions: Tensor  # [B, L] bit set of actions: bit i = action i of the encoder
    canvas: Tensor  # [B, L] index
    device: Tensor  # [B, L] index
    language: Tensor  # [B, L] index
    gap: Tensor  # [B, L] bucket of the time since the event before; 0 = first or unknown
    duration: Tensor  # [B, L] bucket of the time watched; 0 = unknown
    length: Tensor  # [B] number of events that are not padding

    DTYPES: ClassVar[Mapping[str, torch.dtype]] = {
        name: INT for name in ("title", "actions", "canvas", "device", "language", "gap", "duration", "length")
    }


@dataclass(frozen=True, slots=True)
class ContextBatch(Arrays):
    """N requests. Row n reads state `state[n]`, which has seen only events before that request."""

    state: Tensor  # [N] flat index into the [B, L + 1] states: `b * (L + 1) + number of events seen`
    canvas: Tensor  # [N] index; 0 = a canvas the model does not know
    country: Tensor  # [N] index
    device: Tensor  # [N] index
    language: Tensor  # [N] index
    hour_of_week: Tensor  # [N] 0 = unknown, else 1 + hour of the week (1 to 168)
    source_title: Tensor  # [N] title index; 0 = the canvas has none
    query_grams: Tensor  # [G] gram ids of all queries, flat
    query_offsets: Tensor  # [N] start of each row's grams; an empty bag = no query
    numeric: Tensor  # [N, Fm] member and request features; nan = missing
    categorical: Tensor  # [N, Cm] indices of categorical member and request features
    snapshot: Tensor  # [N] index into `TitleInputs.snapshots`
    row: Tensor  # [N] name of the row; 0 = none, or unknown
    row_position: Tensor  # [N] bucket of the row's place on the page; 0 = unknown
    by_name: Tensor  # [N] 1 where the name of the source title stands for the query

    DTYPES: ClassVar[Mapping[str, torch.dtype]] = {
        **dict.fromkeys(("state", "canvas", "country", "device", "language", "hour_of_week", "source_title"), INT),
        **dict.fromkeys(("query_grams", "query_offsets", "categorical", "snapshot"), INT),
        "numeric": FLOAT,
    }
    LATER: ClassVar[tuple[str, ...]] = ("row", "row_position", "by_name")
    """Fields that arrays may lack: no request says any."""

    @classmethod
    def from_arrays(cls, arrays: Any, device: torch.device | str = "cpu") -> Self:
        """Build from any object with attributes of the same names; those of `LATER` may be absent.

        Raises:
            AttributeError: A field is missing on `arrays`.
        """
        found = {name: _convert(getattr(arrays, name), kind, device) for name, kind in cls.DTYPES.items()}
        nothing = torch.zeros_like(found["canvas"])
        later = {name: getattr(arrays, name, nothing) for name in cls.LATER}
        return cls(**found, **{name: _convert(values, INT, device) for name, values in later.items()})


@dataclass(frozen=True, slots=True)
class NegativeBatch(Arrays):
    """What N rows are told apart from in a head that does not rank against every title.

    Letters: S titles drawn for the batch, C titles shown in a row's own request.
    """

    title: Tensor  # [S] drawn titles, with repeats
    expected: Tensor  # [S] how often each was to be expected in the draw
    usable: Tensor  # [N, S] whether the row may be told apart from it
    shown: Tensor  # [N, C] titles of the row's own request; 0 = none

    DTYPES: ClassVar[Mapping[str, torch.dtype]] = {"title": INT, "expected": FLOAT, "usable": BOOL, "shown": INT}


@dataclass(frozen=True, slots=True)
class FurtherBatch(Arrays):
    """Targets of N rows beside their own titles, in a head with a horizon. Letter: F further titles of a row."""

    title: Tensor  # [N, F] 0 = none
    share: Tensor  # [N, F] of the row's weight; its own title has what is left

    DTYPES: ClassVar[Mapping[str, torch.dtype]] = {"title": INT, "share": FLOAT}

    def of(self, chosen: Tensor) -> FurtherBatch:
        """Return those of some rows."""
        return FurtherBatch(self.title[chosen], self.share[chosen])


@dataclass(frozen=True, slots=True)
class TargetBatch(Arrays):
    """What happened in N requests."""

    title: Tensor  # [N] title index the labels are about; a row with 0 trains nothing
    labels: dict[str, Tensor]
    """Head name -> [N]; nan = unlabelled. Ranking heads use rows above 0, weighted by the label."""
    weight: Tensor  # [N] weight of the row in every head
    weights: dict[str, Tensor] = field(default_factory=dict)
    """Head name -> [N] weight of the row in that head alone, for some heads."""
    available: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=BOOL))
    """[G, T] titles that could be seen in G states of the catalogue; no rows = every title, always."""
    group: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=INT))
    """[N] row of `available`; empty where that is."""
    negatives: dict[str, NegativeBatch] = field(default_factory=dict)
    """Head name -> its negatives, for heads that do not rank against every title."""
    further: dict[str, FurtherBatch] = field(default_factory=dict)
    """Head -> what else its rows have as their targets, for heads with a horizon."""
    attributes: dict[str, Tensor] = field(default_factory=dict)
    """Auxiliary head -> [N, W] attributes of each row's title, such as its genres; 0 = none."""
    rows: dict[str, Tensor] = field(default_factory=dict)
    """Field of `rows.FIELDS` -> [N, 1 + A] the row that each title begins, and those above it; for heads about rows."""

    DTYPES: ClassVar[Mapping[str, torch.dtype]] = {"title": INT, "labels": FLOAT, "weight": FLOAT}
    LATER: ClassVar[Mapping[str, torch.dtype]] = {
        **{"weights": FLOAT, "available": BOOL},
        **dict.fromkeys(("group", "rows", "attributes"), INT),
    }
    """Fields that arrays may lack."""

    @classmethod
    def from_arrays(cls, arrays: Any, device: torch.device | str = "cpu") -> Self:
        """Build from any object with attributes of the same names; those with a default may be absent.

        Raises:
            AttributeError: A field is missing on `arrays`.
        """
        found = {name: _convert(getattr(arrays, name), kind, device) for name, kind in cls.DTYPES.items()}
        for name, kind in cls.LATER.items():
            if hasattr(arrays, name):
                found[name] = _convert(getattr(arrays, name), kind, device)
        negatives = getattr(arrays, "negatives", {})
        found["negatives"] = {head: NegativeBatch.from_arrays(own, device) for head, own in negatives.items()}
        further = getattr(arrays, "further", {})
        found["further"] = {head: FurtherBatch.from_arrays(own, device) for head, own in further.items()}
        return cls(**found)


@dataclass(frozen=True, slots=True)
class TitleInputs(Arrays):
    """T titles, row 0 = padding."""

    index: Tensor  # [T] row of the id table; 0 = none (a title the model was not trained with)
    genres: Tensor  # [G] genre indices of all titles, flat
    genre_offsets: Tensor  # [T] start of each title's genres
    kind: Tensor  # [T] index
    language: Tensor  # [T] index of the original language
    release_year: Tensor  # [T] bucket
    name_grams: Tensor  # [G] gram ids of all names, flat
    name_offsets: Tensor  # [T] start of each title's name grams
    synopsis_grams: Tensor  # [G] gram ids of all synopses, flat
    synopsis_offsets: Tensor  # [T] start of each title's synopsis grams
    age_days: Tensor  # [T] days since launch at the moment of training or scoring; nan = unknown, negative = to come
    plays: Tensor  # [T] plays in the training data, 0 for a title it has not seen
    has_id: Tensor  # [T] whether the id vector may be used (the title has training plays)
    numeric: Tensor  # [T, Fs] static features; nan = missing
    categorical: Tensor  # [T, Cs] indices of static categorical features
    snapshots: Tensor  # [S, T, F] features of titles at S moments; nan = missing

    DTYPES: ClassVar[Mapping[str, torch.dtype]] = {
        **dict.fromkeys(("index", "genres", "genre_offsets", "kind", "language", "release_year"), INT),
        **dict.fromkeys(("name_grams", "name_offsets", "synopsis_grams", "synopsis_offsets", "categorical"), INT),
        **dict.fromkeys(("age_days", "plays", "numeric", "snapshots"), FLOAT),
        "has_id": BOOL,
    }

    @property
    def count(self) -> int:
        """T, padding row included."""
        return self.index.shape[0]


def pad_rows(context: ContextBatch, targets: TargetBatch, multiple: int) -> tuple[ContextBatch, TargetBatch]:
    """Add rows that train nothing until their number is a multiple of `multiple`.

    A CPU's matrix kernels are made anew for every shape they meet, which costs more than a few idle rows.
    """
    extra = -context.state.shape[0] % multiple
    if not extra:
        return context, targets

    def padded(values: Tensor, fill: float = 0) -> Tensor:
        return torch.cat([values, values.new_full((extra, *values.shape[1:]), fill)])

    flat = {"query_grams": context.query_grams}
    ends = {"query_offsets": padded(context.query_offsets, context.query_grams.shape[0])}
    rest = {name: padded(values) for name, values in context.named().items() if name not in {*flat, *ends}}
    return ContextBatch(**flat, **ends, **rest), _padded_targets(targets, padded)


def _padded_targets(targets: TargetBatch, padded: Callable[..., Tensor]) -> TargetBatch:
    return TargetBatch(
        title=padded(targets.title),
        labels={name: padded(label, float("nan")) for name, label in targets.labels.items()},
        weight=padded(targets.weight),
        weights={name: padded(weight) for name, weight in targets.weights.items()},
        available=targets.available,
        group=padded(targets.group) if targets.available.shape[0] else targets.group,
        negatives={
            name: NegativeBatch(own.title, own.expected, padded(own.usable), padded(own.shown))
            for name, own in targets.negatives.items()
        },
        further={name: FurtherBatch(padded(own.title), padded(own.share)) for name, own in targets.further.items()},
        attributes={name: padded(own) for name, own in targets.attributes.items()},
        rows={name: padded(own) for name, own in targets.rows.items()},
    )
