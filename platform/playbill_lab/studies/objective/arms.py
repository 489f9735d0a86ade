"""The arms of the study: one network in several sizes, and rewards it may seek. Nothing else differs.

All learn from the same examples, a member's first play of a title; the reward weighs them. `click_like` takes every
play that began, `play` those that went on, `long_term` what keeps members. So an objective is one line of YAML in the
zoo, `heads.objective.reward`, and so it is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from playbill.definitions.specs import CanvasSpec, HeadSpec, LabelSpec, ModelSpec, ResolvedModel
from playbill.definitions.zoo import Zoo
from playbill.errors import Problem, ProblemsError, UnknownNameError
from playbill_lab.ab.results import repeated
from playbill_lab.bridge.live_features import NO_FEATURES

Kind = TypeVar("Kind")

OBJECTIVES = ("click_like", "play", "long_term")
"""Rewards of the zoo that weigh the examples, from the least to the most aligned with what keeps members."""
JUDGED_BY = "long_term"  # The reward that offline reports are about, beside plays

BASE = "plackett_luce"  # The policy that writes the log, and the arm that others are compared with
BESIDE = ("popular", "best_value")  # Arms that show the scale: no personal list at all, and the most that could be had

HEAD = "objective"
LABEL = "first_play"
CANVASES = ("home", "billboard", "kids", "post_play", "screensaver")
"""What the models answer; search and lists beside a title are questions of another kind."""


@dataclass(frozen=True)
class Capacity:
    """A size of the network."""

    dim: int
    layers: int
    heads: int


CAPACITIES = {"small": Capacity(16, 1, 1), "medium": Capacity(48, 2, 2), "large": Capacity(96, 3, 4)}
"""Sizes by name, the smallest first."""


@dataclass(frozen=True)
class StudyRecipe:
    """What all models of a study share."""

    epochs: int = 3
    min_steps: int = 300
    history: int = 60  # Tokens of a member's past
    seed: int = 17


@dataclass(frozen=True)
class StudyOptions:
    """Sizes of the study."""

    members: int = 6000
    titles: int = 500
    log_days: int = 42
    test_members: int = 3000
    test_days: int = 28
    seeds: tuple[int, ...] = (1, 2, 3)  # One world, log, training and test for each
    objectives: tuple[str, ...] = OBJECTIVES  # Rewards of the zoo, from the least to the most aligned
    capacities: tuple[str, ...] = ("small", "large")  # Some of `CAPACITIES`, the smallest first
    judged_by: str = JUDGED_BY  # Reward that the offline report is about, beside plays
    recipe: StudyRecipe = field(default_factory=StudyRecipe)  # Of training; its seed is replaced by that of the run

    @property
    def models(self) -> dict[str, tuple[str, str]]:
        """Every model -> its objective and capacity."""
        return {f"{goal}_{size}": (goal, size) for size in self.capacities for goal in self.objectives}

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm, the first one the one to beat."""
        return (BASE, *BESIDE, *self.models)

    def check(self) -> None:
        """Refuse a study that cannot be run, before anything is.

        Raises:
            ProblemsError: More members would be tested than there are, or there is nothing to compare; all is named.
        """
        problems = []
        if self.test_members > self.members:
            what = f"{self.test_members} members cannot be tested, the log has {self.members}."
            problems.append(Problem("test_members", what, f"At most {self.members}."))
        for name in ("seeds", "objectives", "capacities"):
            given = getattr(self, name)
            if not given:
                problems.append(Problem(name, "at least one is needed."))
            problems += repeated(name, given)
        if problems:
            raise ProblemsError("the study", problems)


def study_model(
    zoo: Zoo, objective: str, capacity: str, recipe: StudyRecipe, judged_by: str = JUDGED_BY
) -> ResolvedModel:
    """Return the definition of one model of the study, whose offline report is about the reward `judged_by`.

    Raises:
        UnknownNameError: There is no such reward or capacity, or the zoo lacks a label.
    """
    if capacity not in CAPACITIES:
        raise UnknownNameError("capacity", capacity, CAPACITIES)
    rewards = {name: _found("reward", name, zoo.rewards) for name in {objective, judged_by}}
    labels = {name: _found("label", name, zoo.labels) for reward in rewards.values() for name in reward.terms}
    return ResolvedModel(
        model=_model(objective, capacity, recipe, judged_by),
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
            "context": ["member", "country", "device", "language", "hour_of_week"],
            "candidates": {"available": "now", "watched": False} | ({"kids": True} if name == "kids" else {}),
            "blend": {HEAD: 1.0},
            "metric": LABEL,
        }
    )


def _model(objective: str, capacity: str, recipe: StudyRecipe, judged_by: str) -> ModelSpec:
    return model_spec(
        f"{objective}_{capacity}",
        recipe,
        CAPACITIES[capacity],
        canvases=CANVASES,
        rows=[],
        titles={"metadata": ["genres", "kind", "original_language", "synopsis"]},
        heads={HEAD: HeadSpec.model_validate({"label": LABEL, "loss": "softmax", "reward": objective})},
        evaluate=EVALUATE | {"reward": judged_by},
    )


EVALUATE = {"protocol": "global_time_successive", "baselines": ["popular_7d"], "slices": []}


def model_spec(name: str, recipe: StudyRecipe, size: Capacity, **sections: Any) -> ModelSpec:
    """Return the definition of a gated transformer over members' histories, with other sections as given."""
    training = {"epochs": recipe.epochs, "min_steps": recipe.min_steps, "stride": recipe.history, "seed": recipe.seed}
    shared = {
        "name": name,
        "version": 1,
        "features": NO_FEATURES,
        "history": {"length": recipe.history},
        "trunk": {"type": "gated_transformer", "dim": size.dim, "layers": size.layers, "heads": size.heads},
        "training": training,
    }
    return ModelSpec.model_validate(shared | sections)
