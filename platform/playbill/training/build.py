"""From a definition and a training set to a network that is ready to learn.

Head biases start at base-rate log-odds, so that no step is spent on how rare a thing is. A title's bias on a canvas
starts at how much more it is played there than elsewhere: surfaces of one service may draw from different parts of the
catalogue, and a model that knows only how popular a title is at large would list what other surfaces show.
Axis letters: R examples, T titles, C canvases, S states of what could be seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from playbill.arrays import Bools, Floats64, Indices
from playbill.datasets import Encoder, TrainingSet
from playbill.datasets.encoding.row_entries import row_config
from playbill.definitions.specs import AdaptationSpec, ResolvedModel
from playbill.definitions.specs.canvas import LIKENESS_TERMS
from playbill.definitions.specs.head import AUXILIARY_TARGETS, GbceOptions, HeadSpec, loss_options, loss_plugin
from playbill.definitions.specs.model import TEXT_ENCODERS
from playbill.errors import ConfigError, StateError
from playbill.models import (
    AdaptationConfig,
    ContextConfig,
    EventConfig,
    HeadConfig,
    Network,
    NetworkConfig,
    RowConfig,
    TextConfig,
    TitleConfig,
    TitleInputs,
    TrunkConfig,
)
from playbill.models.svd import svd_vectors
from playbill.ranking.blend import blended
from playbill.training.contract import LoopSettings
from playbill.training.inherit import Parent, inherit

ONE = 2  # size of a vocabulary with one entry
NEIGHBOURS = 100  # of each title, kept where a blend asks how alike titles are


def network_config(resolved: ResolvedModel, encoder: Encoder) -> NetworkConfig:
    """Return the network's sizes: what the definition chooses and what the data decides."""
    model, sizes = resolved.model, encoder.network_sizes()
    heads = tuple(
        HeadConfig.model_validate(
            {
                "name": name,
                "loss": head.loss or "bce",
                "options": head.options,
                "target": _target(resolved, head),
                "level": head.leveled and (head.label is None or resolved.labels[head.label].level == "title"),
                "weight": head.weight,
                "negative_weight": getattr(head.negatives, "weight", 1.0),
            }
        )
        for name, head in model.heads.items()
    )
    several = sizes["events"]["canvases"] > ONE and any(head.ranks for head in heads)
    alike = LIKENESS_TERMS & blended(resolved)
    crossed = model.contexts.title_crossing and model.contexts.task and several
    return NetworkConfig(
        length=sizes["length"],
        trunk=TrunkConfig.of(model.trunk),
        titles=TitleConfig(
            **sizes["titles"],
            id_embedding=model.titles.id_embedding,
            metadata=bool(model.titles.metadata),
            age_gate=model.titles.age_gate,
            id_mask=model.titles.id_mask,
            fallback=model.titles.fallback == "kind",
            text_width=getattr(model.titles.text, "width", 0) if model.titles.metadata else 0,
            neighbours=NEIGHBOURS if alike else 0,
            companions=NEIGHBOURS if alike else 0,
        ),
        events=EventConfig(**sizes["events"]),
        context=ContextConfig(
            **sizes["context"],
            imputation=model.contexts.imputation,
            crossing=model.contexts.crossing,
            title_crossing=crossed,
        ),
        text=TextConfig(**sizes["text"]),
        rows=None if (rows := row_config(encoder.state)) is None else RowConfig.model_validate(rows),
        heads=heads,
        frozen=model.init_from is not None and model.init_from.trunk == "frozen",
        adaptation=adaptation_config(model.adaptation),
    )


def adaptation_config(spec: AdaptationSpec) -> AdaptationConfig | None:
    """Return how a network bends to countries, None where its definition does not want it."""
    if spec.country == "none":
        return None
    return AdaptationConfig(type=spec.country, rank=spec.rank, width=spec.width)


def _target(resolved: ResolvedModel, head: HeadSpec) -> str:
    if head.auxiliary is not None:
        return AUXILIARY_TARGETS[head.auxiliary]
    return resolved.labels[head.label].level if head.label else "title"


def loop_settings(resolved: ResolvedModel) -> LoopSettings:
    """Return the settings of the training loop that a definition asks for."""
    wanted = resolved.model.training.model_dump() | {"balance": resolved.model.balance.model_dump()}
    wanted["head_rates"] = {name: head.rate for name, head in resolved.model.heads.items() if head.rate is not None}
    return LoopSettings.model_validate({name: wanted[name] for name in LoopSettings.model_fields if name in wanted})


def build_network(resolved: ResolvedModel, data: TrainingSet, parent: Parent | None = None) -> Network:
    """Return a started network: weights by seed, statistics and title vectors from the training part of the log.

    What a parent has learnt goes in their place: see `inherit`.

    Raises:
        StateError: The definition starts from another version, and that is not given.
    """
    if resolved.model.init_from is not None and parent is None:
        raise StateError(
            f"model '{resolved.model.name}' starts from {resolved.model.init_from.model}, which only `playbill train` "
            "looks up; take 'init_from' out of the definition to train it afresh"
        )
    seed = resolved.model.training.seed
    torch.manual_seed(seed)
    config = network_config(resolved, data.encoder)
    network = Network(config)
    inputs = TitleInputs.from_arrays(data.titles)
    if config.titles.text_width:
        network.titles.start_texts(_text_table(resolved, data, config.text.buckets))
    network.calibrate(torch.from_numpy(np.ascontiguousarray(data.context.numeric)), inputs)
    titles = np.asarray(data.tokens[:, 0], dtype=np.int64)
    members = np.asarray(data.token_member, dtype=np.int64)
    network.start_levels(initial_biases(resolved, data))
    if config.context.title_crossing:
        network.start_canvases(torch.from_numpy(_lift(data, config)))
    network.likeness.fit(titles, members, inputs, seed)
    network.companions.fit(titles, members)
    if resolved.model.titles.svd_start and config.titles.id_embedding:
        vectors = svd_vectors(titles, members, config.titles.titles, config.trunk.dim, seed)
        network.start_titles(torch.from_numpy(vectors))
    if parent is not None:
        inherit(network, data.encoder, data.plays, parent)
    return network


def text_encoder(resolved: ResolvedModel) -> Any:
    """Return the text encoder that a definition asks for.

    Raises:
        ConfigError: What it comes from is not installed.
    """
    name = resolved.model.titles.text.type
    try:
        return TEXT_ENCODERS[name].load()
    except ImportError as error:
        package = error.name or name
        advice = "pip install 'playbill[train]'" if package.startswith("sklearn") else f"install {package}"
        raise ConfigError(f"titles.text: '{name}' needs '{package}', which is not installed: {advice}") from None


def _text_table(resolved: ResolvedModel, data: TrainingSet, buckets: int) -> torch.Tensor:
    """Return [buckets, E] what each gram of a synopsis says."""
    grams, offsets = (np.asarray(own) for own in (data.titles.synopsis_grams, data.titles.synopsis_offsets))
    model = resolved.model
    return torch.from_numpy(text_encoder(resolved)(grams, offsets, buckets, model.titles.text, model.training.seed))


def _lift(data: TrainingSet, config: NetworkConfig) -> Floats64:
    """Return [J, C, T] `canvas_lift` of each head that ranks, over the rows that it has as its targets."""
    rows, size = data.rows, (config.titles.titles, config.events.canvases)
    canvas, state = (np.asarray(values)[rows.request].astype(np.int64) for values in (data.context.canvas, data.state))
    titles, masks = rows.title.astype(np.int64), data.states.mask if len(data.states) else None
    found = []
    for head in (head.name for head in config.heads if head.ranks):
        own = rows.labels[head] > 0
        found.append(canvas_lift(titles[own], canvas[own], state[own], size, masks))
    return np.stack(found)


LEAST_SHARE = 1e-6  # a label is never taken to be rarer than this, nor more common than one less it


def initial_biases(resolved: ResolvedModel, data: TrainingSet) -> dict[str, float]:
    """Return head -> initial bias: the log-odds of its label or the mean of its number, in the head's units.

    Rows weigh as they do in training; drawn negatives count as zeros. A `gbce` head begins where all titles are alike.
    """
    found = {}
    for name, head in resolved.model.heads.items():
        if head.leveled and name in data.labels:
            label_R, weight_R = data.labels[name], data.rows.weights.get(name)
            usable_R = ~np.isnan(label_R) & (data.rows.title > 0)
            weights = None if weight_R is None else np.asarray(weight_R[usable_R], np.float64)
            if usable_R.any() and (weights is None or weights.sum() > 0):
                titles = data.encoder.trained_titles - 1
                found[name] = _level(head, np.asarray(label_R[usable_R], np.float64), weights, titles)
    return found


def _level(head: HeadSpec, labels: np.ndarray, weights: np.ndarray | None, titles: int) -> float:
    assert head.loss is not None
    options = loss_options(head.loss, head.options)
    if isinstance(options, GbceOptions):
        drawn = getattr(head.negatives, "count", None) or 1
        return math.log((1 - options.calibration * max(0.0, 1 - drawn / max(titles - 1, 1))) / drawn)
    if loss_plugin(head.loss).meaning == "value":
        cap = getattr(options, "cap", None)
        values = labels if cap is None else np.minimum(labels, cap)
        return float(np.average(values, weights=weights)) / float(getattr(options, "scale", 1.0))
    share = float(np.average(labels > 0, weights=weights))
    if head.draws:
        share /= 1.0 + share * float(getattr(head.negatives, "weight", 1.0))
    share = min(max(share, LEAST_SHARE), 1.0 - LEAST_SHARE)
    return math.log(share / (1.0 - share))


STRENGTH = 1.0
"""Examples that speak for a title being wanted on a canvas as elsewhere: one with far fewer of its own begins so."""

Masks = Callable[[Indices], Bools]
CELLS_AT_ONCE = 1 << 23


def canvas_lift(
    titles: Indices,
    canvases: Indices,
    states: Indices,
    size: tuple[int, int],
    masks: Masks | None = None,
    strength: float = STRENGTH,
) -> Floats64:
    """Return [C, T] the logarithm of how often a title was wanted on a canvas over how often it would be expected to.

    `log((n_ct + b) / (e_ct + b))`. Expected is that every example of the canvas falls to titles by their share at
    large, among those that could be seen in it: so titles of a canvas that shows only what is to come are compared with
    each other. A title with little to go by has a value near 0. Source: DuMouchel, "Bayesian data mining in large
    frequency tables", The American Statistician 1999, shrinks the same ratio; here the prior is set beforehand.

    Titles (0 = none), canvases and states of what could be seen are [R]; `size` is T and C, `masks` give [s, T] titles
    that could be seen in [s] states (None = all could always be), `strength` is b.
    """
    count, canvas_count = size
    known = titles > 0
    titles, canvases, states = titles[known], canvases[known], states[known]
    found = np.bincount(canvases * count + titles, minlength=canvas_count * count).astype(np.float64)
    observed_CT = found.reshape(canvas_count, count)
    share_T = observed_CT.sum(axis=0) + 1.0
    share_T[0] = 0.0
    share_T /= share_T.sum()
    expected_CT = np.zeros_like(observed_CT)
    if masks is None:
        expected_CT += observed_CT.sum(axis=1, keepdims=True) * share_T
    else:
        seen, place = np.unique(states, return_inverse=True)
        examples = np.bincount(canvases * len(seen) + place, minlength=canvas_count * len(seen)).astype(np.float64)
        examples_CS, step = examples.reshape(canvas_count, len(seen)), max(1, CELLS_AT_ONCE // count)
        for start in range(0, len(seen), step):
            own_ST = masks(seen[start : start + step]) * share_T
            own_ST /= np.maximum(own_ST.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
            expected_CT += examples_CS[:, start : start + step] @ own_ST
    lift: Floats64 = np.log((observed_CT + strength) / (expected_CT + strength))
    return lift
