"""The models of the study: one network in two sizes, three things it may seek. Nothing else differs.

All learn from the same examples, a member's first play of a title; the reward weighs them. `click` takes every play
that began, `play` those that went on, `long_term` what keeps members. So an objective is one line of YAML in the zoo,
`heads.objective.reward`, and so it is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from playbill.errors import UnknownNameError
from playbill.experiments.live_features import NO_FEATURES
from playbill.specs import CanvasSpec, HeadSpec, LabelSpec, ModelSpec, ResolvedModel
from playbill.zoo import Zoo

Kind = TypeVar("Kind")

OBJECTIVES = {"click": "click_like", "play": "play", "long_term": "long_term"}
"""Objective -> reward of the zoo that weighs its examples."""
JUDGED_BY = "long_term"
"""The reward that offline reports are about, beside plays."""

HEAD = "objective"
LABEL = "first_play"
CANVASES = ("home", "billboard", "kids", "post_play", "screensaver")
"""What the models answer; search and lists beside a title are questions of another kind."""


@dataclass(frozen=True)
class Capacity:
    """A size of the network.

    Args:
        dim: Width of every vector.
        layers: Blocks of the trunk.
        heads: Attention heads.
    """

    dim: int
    layers: int
    heads: int


CAPACITIES = {"small": Capacity(16, 1, 1), "large": Capacity(96, 2, 2)}


@dataclass(frozen=True)
class Recipe:
    """What all models of a study share.

    Args:
        epochs: Passes over the log.
        min_steps: Steps at least.
        history: Tokens of a member's past.
        seed: Of weights, order and dropout.
    """

    epochs: int = 4
    min_steps: int = 300
    history: int = 60
    seed: int = 17


def study_model(zoo: Zoo, objective: str, capacity: str, recipe: Recipe) -> ResolvedModel:
    """Return the definition of one model of the study.

    Args:
        zoo: Where its rewards and their labels are.
        objective: One of `OBJECTIVES`.
        capacity: One of `CAPACITIES`.
        recipe: What all models share.

    Raises:
        UnknownNameError: There is no such objective or capacity, or the zoo lacks a reward or label.
    """
    for kind, name, known in (("objective", objective, OBJECTIVES), ("capacity", capacity, CAPACITIES)):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    rewards = {name: _found("reward", name, zoo.rewards) for name in {OBJECTIVES[objective], JUDGED_BY}}
    labels = {name: _found("label", name, zoo.labels) for reward in rewards.values() for name in reward.terms}
    return ResolvedModel(
        model=_model(objective, capacity, recipe),
        labels={LABEL: _label(), **labels},
        rewards=rewards,
        canvases={name: _canvas(name) for name in CANVASES},
        rows={},
    )


def _found(kind: str, name: str, known: Mapping[str, Kind]) -> Kind:
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


def _label() -> LabelSpec:
    return LabelSpec.model_validate(
        {
            "name": LABEL,
            "version": 1,
            "description": "A play of something new to the member, however short.",
            "from": {"action": "play", "where": "prior_plays_of_title = 0"},
            "matures_after": "0h",
        }
    )


def _canvas(name: str) -> CanvasSpec:
    return CanvasSpec.model_validate(
        {
            "name": name,
            "version": 1,
            "context": ["country", "device", "language", "hour_of_week"],
            "candidates": {"available": "now", "watched": False},
            "blend": {HEAD: 1.0},
            "metric": LABEL,
        }
    )


def _model(objective: str, capacity: str, recipe: Recipe) -> ModelSpec:
    size = CAPACITIES[capacity]
    head = HeadSpec.model_validate({"label": LABEL, "loss": "softmax", "reward": OBJECTIVES[objective]})
    return ModelSpec.model_validate(
        {
            "name": f"{objective}_{capacity}",
            "version": 1,
            "features": NO_FEATURES,
            "canvases": CANVASES,
            "rows": [],
            "history": {"length": recipe.history},
            "titles": {"metadata": ["genres", "kind", "original_language", "synopsis"]},
            "trunk": {"type": "gated_transformer", "dim": size.dim, "layers": size.layers, "heads": size.heads},
            "heads": {HEAD: head},
            "training": {
                "epochs": recipe.epochs,
                "min_steps": recipe.min_steps,
                "stride": recipe.history,
                "seed": recipe.seed,
            },
            "evaluate": {
                "protocol": "global_time_successive",
                "baselines": ["popular_7d"],
                "slices": [],
                "reward": JUDGED_BY,
            },
        }
    )
