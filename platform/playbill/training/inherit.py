"""Weights of one network into another that was built from other data: by name, not by place.

A row of a table belongs to a title, a canvas, a genre. Two training sets number them differently, and each has some
that the other lacks, so every axis that counts a vocabulary is given the labels along it, and values go where the same
labels meet. Axes without labels (width, layers) have one meaning everywhere. What the parent does not know begins by
these rules:

- a title: its own fresh vector, turned and scaled into the parent's space by the titles that both know (orthogonal
  Procrustes; Schönemann, Psychometrika 1966);
- a value of a field that the parent has: as its unknown value of that field; a field that it lacks adds nothing, nor
  does a genre or a number of a title that it lacks;
- everything else, such as a head of another name, loss or target: as in a fresh network.

Statistics of numeric features go with the weights that read them. Axis letters: T titles, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from playbill.arrays import Floats32
from playbill.datasets import Encoder, TrainingSet
from playbill.datasets.encoding.encoder import EncoderState
from playbill.datasets.encoding.tokens import DURATIONS, GAPS, HOURS_OF_WEEK, ROW_POSITIONS, year_buckets
from playbill.definitions.specs import ResolvedModel
from playbill.models import HeadConfig, Network, NetworkConfig
from playbill.ranking.scoring.bundle import Bundle

Label = tuple[str, str]
"""What one row or column stands for: its field, and its value there."""
Axes = tuple[Sequence[Label] | None, ...]
"""Of a tensor: the labels along each axis, None where places mean the same everywhere."""

OF_THE_LOG = ("likeness.", "companions.", "history_terms.")  # counted from the log, not trained
IDS = "titles.id.weight"
FIELDS = ("titles.metadata.fields.table.weight", "events.fields.table.weight", "context.fields.table.weight")
FALLBACK, GENRES = "titles.fallback.weight", "titles.metadata.genres.weight"
UNKNOWN = ""
NO_LABEL = ("none", UNKNOWN)


@dataclass(frozen=True)
class Parent:
    """A registered version that a model starts from."""

    reference: str  # `model:version`
    bundle: Bundle

    @property
    def digest(self) -> str:
        """Digest of its bundle."""
        return self.bundle.digest

    @property
    def state(self) -> EncoderState:
        """Its vocabularies."""
        return self.bundle.encoder.state

    @property
    def titles(self) -> tuple[str, ...]:
        """The titles that it has learnt an identity of: those that were played where it was trained."""
        return tuple(self.bundle.titles.filter(self.bundle.titles["plays"] > 0)["title_id"].to_list())


@dataclass(frozen=True, slots=True)
class Inherited:
    """How much of one vocabulary was taken over."""

    kind: str
    taken: int
    total: int
    new: tuple[str, ...]  # what the parent does not know, the first of them

    def __str__(self) -> str:
        return f"{self.taken:,} of {self.total:,} {self.kind}"


def inherited(
    state: EncoderState, plays: Floats32, heads: Iterable[str], parent: Parent, shown: int = 5
) -> list[Inherited]:
    """Return what a model with these vocabularies and heads takes from a parent, by vocabulary; empty ones left out.

    Of titles those count that were played, by `plays` [T].
    """
    own, other = _vocabularies(state), _vocabularies(parent.state) | {"titles": parent.titles}
    own["titles"] = tuple(title for title, count in zip(state.titles, plays[1:], strict=True) if count > 0)
    own["heads"], other["heads"] = tuple(heads), tuple(head.name for head in parent.bundle.config.heads)
    found = []
    for kind, values in own.items():
        known = set(other[kind])
        new = [value for value in values if value not in known]
        if values:
            found.append(Inherited(kind, len(values) - len(new), len(values), tuple(new[:shown])))
    return found


def _vocabularies(state: EncoderState) -> dict[str, tuple[str, ...]]:
    of_titles = (*state.title_snapshot, *state.title_categorical, *state.title_vectors)
    columns = (*state.numeric, *state.categorical, *of_titles)
    return {
        "titles": state.titles,
        "actions": state.actions,
        "canvases": state.canvases,
        "countries": state.countries,
        "devices": state.devices,
        "languages": state.languages,
        "genres": state.genres,
        "kinds": state.kinds,
        "original languages": state.original_languages,
        "row names": tuple(state.row_texts) or state.rows,
        "features": columns,
    }


@torch.no_grad()
def inherit(network: Network, encoder: Encoder, plays: Floats32, parent: Parent) -> None:
    """Give a started network the weights of a parent, by the rules above.

    `plays` [T] are those of each title in the training part: the vector of one without any is noise, so the parent's
    space is not found by it.
    """
    state, theirs = encoder.state, parent.state
    own = NamedTensors(network, axes_of(network.config, state, state.titles, years_among(state, theirs)))
    played = set(parent.titles)
    known = tuple(title if title in played else UNKNOWN for title in theirs.titles)
    other = NamedTensors(
        parent.bundle.network(), axes_of(parent.bundle.config, theirs, known, years_among(theirs, theirs))
    )
    fresh_TD = network.titles.id.weight.clone()
    if network.titles.given is not None:
        network.titles.given.weight.zero_()  # a fresh one is noise, which a frozen tower would keep
    for name in own.tensors.keys() & other.tensors.keys():
        take(name, own, other)
    here, _ = _places(own.axes[IDS][0], other.axes[IDS][0], network.config.titles.titles)
    _turn_new_titles(network.titles.id.weight, fresh_TD, here, torch.from_numpy(np.asarray(plays)) > 0)
    network.forget_titles()


def knowing(data: TrainingSet, resolved: ResolvedModel, parent: Parent | None) -> TrainingSet:
    """Return what a model learns from with the titles that its parent has learnt known too, where it reads a part only.

    A title that nobody played in that part keeps the identity that it has; else a model of a small country would have
    forgotten most of the catalogue before its first step.
    """
    if parent is None or resolved.model.only is None:
        return data
    before = dict(parent.bundle.titles.select("title_id", "plays").iter_rows())
    theirs_T = np.array([0.0, *(before.get(title, 0.0) for title in data.encoder.state.titles)], np.float32)
    plays_T = np.maximum(np.asarray(data.plays, np.float32), theirs_T).astype(data.plays.dtype)
    return replace(data, titles=replace(data.titles, plays=plays_T, has_id=plays_T > 0))


class NamedTensors:
    """A network's tensors by name, each head's by what it predicts and how, and the labels along their axes."""

    def __init__(self, network: Network, axes: dict[str, Axes]) -> None:
        heads = [_head_name(head) for head in network.config.heads]
        sharing = f"sharing {network.config.trunk.sharing} of {heads}"
        self.axes, self.tensors = axes, dict[str, Tensor]()
        for name, tensor in network.state_dict().items():
            part, _, rest = name.partition(".")
            if part == "heads":
                place, _, rest = rest.partition(".")
                name = f"heads.{heads[int(place)]}.{rest}"
            elif part == "sharing":
                name = f"{sharing}.{rest}"
            if not name.startswith(OF_THE_LOG):
                self.tensors[name] = tensor


def take(name: str, own: NamedTensors, other: NamedTensors, *, start: bool = True) -> None:
    """Copy what has the same labels. A tensor of another size along an axis without labels stays as it is.

    With `start` new values of fields begin as the parent's unknown value of their field.
    """
    here, there = own.tensors[name], other.tensors[name]
    none: Axes = (None,) * here.ndim
    axes, their_axes = own.axes.get(name, none), other.axes.get(name, none)
    if here.ndim != there.ndim or any(
        labels is None and size != their_size
        for labels, size, their_size in zip(axes, here.shape, there.shape, strict=True)
    ):
        return
    if start and name in (*FIELDS, FALLBACK, GENRES):
        _start_new(here, there, axes[0] or (), their_axes[0] or (), unknown=name != GENRES)
    pairs = [_places(*found) for found in zip(axes, their_axes, here.shape, strict=True)]
    here[_grid([to for to, _ in pairs])] = there[_grid([of for _, of in pairs])].to(here)


def _grid(places: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return an index of every combination of places along the axes."""
    sizes = [[-1 if axis == own else 1 for axis in range(len(places))] for own in range(len(places))]
    return tuple(place.view(size) for place, size in zip(places, sizes, strict=True))


def _places(own: Sequence[Label] | None, other: Sequence[Label] | None, size: int) -> tuple[Tensor, Tensor]:
    """Return the places along an axis of what both have: here, and there. Of a label that stands twice the first."""
    if own is None or other is None:
        return torch.arange(size), torch.arange(size)
    place = {label: index for index, label in reversed(list(enumerate(other)))}
    pairs = [(index, place[label]) for index, label in enumerate(own) if label in place]
    found = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _start_new(here: Tensor, there: Tensor, own: Sequence[Label], other: Sequence[Label], *, unknown: bool) -> None:
    """Start every row of a table of fields as the parent's unknown value of its field, or at 0."""
    place = {label: index for index, label in enumerate(other)}
    for index, (field, _) in enumerate(own):
        of_unknown = place.get((field, UNKNOWN)) if unknown else None
        here[index] = 0.0 if of_unknown is None else there[of_unknown]


def _turn_new_titles(own_TD: Tensor, fresh_TD: Tensor, known: Tensor, played_T: Tensor) -> None:
    """Start titles that the parent does not know; `known` are the places of the others, none (0) among them."""
    known_T = torch.zeros(len(own_TD), dtype=torch.bool)
    known_T[known] = True
    both_T = known_T & played_T
    left, values, right = torch.linalg.svd(fresh_TD[both_T].double().T @ own_TD[both_T].double())
    scale = values.sum() / fresh_TD[both_T].double().square().sum().clamp(min=1e-12)
    own_TD[~known_T] = (scale * fresh_TD[~known_T].double() @ left @ right).to(own_TD)


def axes_of(config: NetworkConfig, state: EncoderState, titles: Sequence[str], years: Sequence[str]) -> dict[str, Axes]:
    """Return the labels along the axes of every tensor that counts a vocabulary, by the names of `NamedTensors`.

    `titles` and `years` are the values of titles' rows and of buckets of years, where they are not the state's own.
    """
    title, canvas = _labels("title", titles), _labels("canvas", state.canvases)
    snapshot = _numeric(state.title_snapshot)
    heads = [_head_name(head) for head in config.heads]
    crossed = [
        (name, value) for name, head in zip(heads, config.heads, strict=True) if head.ranks for _, value in canvas
    ]
    rows = config.rows
    row_names = _labels("row", [] if rows is None else map(str, rows.names))
    found: dict[str, Axes] = {
        IDS: (title, None),
        FALLBACK: (_labels("kind", state.kinds), None),
        "titles.given.weight": (None, _numeric(state.title_vectors)),
        "events.actions.weight": (None, _labels("action", state.actions)[1:] or [NO_LABEL]),
        "context.numeric.weight": (None, _numeric(state.numeric)),
        GENRES: (_labels("genre", state.genres), None),
        "rows.name.weight": (row_names, None),
        "rows.genre.weight": (_labels("genre", [] if rows is None else map(str, rows.genres)), None),
        "title_bias.weight": (title, [("head", name) for name in heads]),
        "canvas_titles.weight": (title, crossed),
    }
    normalised = {
        "titles.static": state.title_vectors,
        "titles.dynamic": state.title_snapshot,
        "context.normalise": state.numeric,
    }
    for name, features in normalised.items():
        found |= dict.fromkeys((f"{name}.mean", f"{name}.scale"), ([("value", feature) for feature in features],))
    found |= {name: (_field_labels(fields), None) for name, fields in zip(FIELDS, _fields(state, years), strict=True)}
    found |= _adaptation_axes(config, heads, _labels("country", state.countries))
    attributes = {"genres": _labels("genre", state.genres), "kind": _labels("kind", state.kinds)}
    for name, head in zip(heads, config.heads, strict=True):
        if head.target in attributes:
            found[f"heads.{name}.out.weight"] = (attributes[head.target], None)
            found[f"heads.{name}.out.bias"] = (attributes[head.target],)
        found[f"heads.{name}.snapshot"] = (snapshot,)
        found[f"heads.{name}.snapshot_canvas.weight"] = (canvas, snapshot)
        found[f"heads.{name}.bias.weight"] = (row_names, None)
    return found


def _adaptation_axes(config: NetworkConfig, heads: Sequence[str], country: list[Label]) -> dict[str, Axes]:
    """Return the labels of what bends a network to countries; a country that the parent lacks begins neutral."""
    unit = [("unit", f"{name} {place}") for name in heads for place in range(config.trunk.dim)]
    known = country[1:] or None
    return {
        "adaptation.vectors": (known, [("head", name) for name in heads], None),
        "adaptation.country.weight": (country, None),
        "adaptation.own.down.weight": (unit, None),
        "adaptation.own.down.bias": (unit,),
        "adaptation.down": (known, None, None),
        "adaptation.up": (known, None, None),
        "adaptation.shift": (known, None),
    }


def _fields(state: EncoderState, years: Sequence[str]) -> tuple[dict[str, Sequence[str]], ...]:
    """Return the fields of each of `FIELDS` and their values, in the order of the modules that have these tables."""
    shared = {"device": state.devices, "language": state.languages}
    return (
        {"kind": state.kinds, "original_language": state.original_languages, "year": years, **state.title_categorical},
        {"canvas": state.canvases, **shared, "gap": _buckets(GAPS), "duration": _buckets(DURATIONS)},
        {
            "canvas": state.canvases,
            "country": state.countries,
            **shared,
            "hour_of_week": _buckets(HOURS_OF_WEEK),
            "row": state.rows,
            "row_position": _buckets(ROW_POSITIONS) if state.row_positions else (),
            # A project's own feature may have the name of a field.
            **{f"feature {name}": values for name, values in state.categorical.items()},
        },
    )


def _field_labels(fields: dict[str, Sequence[str]]) -> list[Label]:
    """Return the labels of tables of fields below each other; a field without values has no table."""
    return [label for field, values in fields.items() if values for label in _labels(field, values)] or [NO_LABEL]


def _labels(field: str, values: Iterable[str]) -> list[Label]:
    return [(field, UNKNOWN), *((field, value) for value in values)]


def _numeric(features: Sequence[str]) -> list[Label]:
    """Return the labels of a normaliser's output: the values, then whether each is missing."""
    return [(part, name) for part in ("value", "missing") for name in features]


def _buckets(size: int) -> list[str]:
    return [str(bucket) for bucket in range(1, size)]


def years_among(state: EncoderState, edges: EncoderState) -> list[str]:
    """Return for each of a state's buckets of release years which bucket between other edges it belongs to."""
    if not state.year_edges:
        return ["1"]
    years = np.asarray([state.year_edges[0] - 1, *state.year_edges], np.float64)
    return [str(bucket) for bucket in year_buckets(years, edges.year_edges)]


def _head_name(head: HeadConfig) -> str:
    """Return what a head is known by in another network: a head that learns otherwise is another one."""
    return f"{head.name} ({head.loss} of a {head.target}{', with a level' if head.level else ''})"
