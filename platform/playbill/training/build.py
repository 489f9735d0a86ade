"""From a definition and a training set to a network that is ready to learn."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from playbill.datasets import Encoder, TrainingSet
from playbill.datasets.encoding.row_entries import row_config
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.canvas import LIKENESS_TERMS
from playbill.models import (
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
from playbill.training.canvas_lift import canvas_lift
from playbill.training.levels import head_levels
from playbill.training.settings import LoopSettings

ONE = 2
"""Size of a vocabulary with one entry."""
NEIGHBOURS = 100
"""Of each title, kept where a blend asks how alike titles are."""


def network_config(resolved: ResolvedModel, encoder: Encoder) -> NetworkConfig:
    """Return the network's sizes: what the definition chooses and what the data decides."""
    model, sizes = resolved.model, encoder.network_sizes()
    heads = tuple(
        HeadConfig.model_validate(
            {
                "name": name,
                "loss": head.loss,
                "options": head.options,
                "target": resolved.labels[head.label].level if head.label else "title",
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
        trunk=TrunkConfig.model_validate(model.trunk.model_dump()),
        titles=TitleConfig(
            **sizes["titles"],
            id_embedding=model.titles.id_embedding,
            metadata=bool(model.titles.metadata),
            age_gate=model.titles.age_gate,
            id_mask=model.titles.id_mask,
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
    )


def loop_settings(resolved: ResolvedModel) -> LoopSettings:
    """Return the settings of the training loop that a definition asks for."""
    wanted = resolved.model.training.model_dump() | {"balance": resolved.model.balance.model_dump()}
    return LoopSettings.model_validate({name: wanted[name] for name in LoopSettings.model_fields if name in wanted})


def build_network(resolved: ResolvedModel, data: TrainingSet) -> Network:
    """Return a started network: weights by seed, statistics and title vectors from the training part of the log."""
    seed = resolved.model.training.seed
    torch.manual_seed(seed)
    config = network_config(resolved, data.encoder)
    network = Network(config)
    inputs = TitleInputs.from_arrays(data.titles)
    network.calibrate(torch.from_numpy(np.ascontiguousarray(data.context.numeric)), inputs)
    titles = np.asarray(data.tokens[:, 0], dtype=np.int64)
    members = np.asarray(data.token_member, dtype=np.int64)
    network.start_levels(head_levels(resolved, data))
    if config.context.title_crossing:
        network.start_canvases(torch.from_numpy(_lift(data, config)))
    network.likeness.fit(titles, members, inputs, seed)
    network.companions.fit(titles, members)
    if resolved.model.titles.svd_start and config.titles.id_embedding:
        vectors = svd_vectors(titles, members, config.titles.titles, config.trunk.dim, seed)
        network.start_titles(torch.from_numpy(vectors))
    return network


def _lift(data: TrainingSet, config: NetworkConfig) -> NDArray[np.float64]:
    """Return [J, C, T] `canvas_lift` of each head that ranks, over the rows that it has as its targets."""
    rows, size = data.rows, (config.titles.titles, config.events.canvases)
    canvas, state = (np.asarray(values)[rows.request].astype(np.int64) for values in (data.context.canvas, data.state))
    titles, masks = rows.title.astype(np.int64), data.states.mask if len(data.states) else None
    found = []
    for head in (head.name for head in config.heads if head.ranks):
        own = rows.labels[head] > 0
        found.append(canvas_lift(titles[own], canvas[own], state[own], size, masks))
    return np.stack(found)
