"""The model of the study of pages: titles, rows and visits in one network, from one log."""

from __future__ import annotations

from dataclasses import dataclass

from playbill.experiments.live_features import NO_FEATURES
from playbill.simulator.canvases import ROWS
from playbill.specs import CanvasSpec, LabelSpec, ModelSpec, ResolvedModel, RowSpec
from playbill.specs.page import PageSpec
from playbill.zoo import Zoo

LABELS = ("row_play", "visit_continues", "discovery_play")
PAGE_ARMS = ("fixed", "independent", "greedy", "beam")
"""Who orders the rows; what is in them is the same model's in every arm."""
PLACED = {"row": "continue_watching", "head": "visit_continues", "first_from": 0.3, "otherwise": 1}
WRITTEN = (
    *("continue_watching", "top_picks", "top_10", "because_you_watched", "new_releases", "trending", "my_list"),
    *("genre_rows", "gems_for_you", "watch_it_again", "popular"),
)
"""The order in which the arm `fixed` shows rows: the simulated service's own list of them."""


@dataclass(frozen=True)
class PagesRecipe:
    """How the model is trained.

    Args:
        dim: Width.
        layers: Blocks of the trunk.
        history: Tokens of a member's past.
        epochs: Passes over the log.
        min_steps: Steps at least.
        seed: Of weights, order and dropout.
    """

    dim: int = 48
    layers: int = 2
    history: int = 60
    epochs: int = 3
    min_steps: int = 300
    seed: int = 17


def pages_model(zoo: Zoo, recipe: PagesRecipe) -> ResolvedModel:
    """Return the definition of the model: three heads of the zoo's labels, one canvas, the simulated service's rows."""
    return ResolvedModel(
        model=_model(recipe),
        labels={name: _label(zoo, name) for name in LABELS},
        rewards={},
        canvases={"home": _home()},
        rows={name: _row(name) for name in WRITTEN},
    )


def page_spec(arm: str, *, placed: bool = True) -> PageSpec:
    """Return what a page of the simulated service keeps to under an arm."""
    return PageSpec.model_validate(
        {
            "arm": arm,
            "blend": {"row_play": 1.0},
            "placed": PLACED if placed and arm != "fixed" else None,
            "maximum_rows": 8,
        }
    )


def _label(zoo: Zoo, name: str) -> LabelSpec:
    return zoo.labels[name]


def _home() -> CanvasSpec:
    return CanvasSpec.model_validate(
        {
            "name": "home",
            "version": 1,
            "context": ["member", "country", "device", "language", "hour_of_week"],
            "candidates": {"available": "now", "watched": False},
            "blend": {"discovery_play": 1.0},
            "metric": "discovery_play",
        }
    )


def _row(name: str) -> RowSpec:
    """Return a row of the simulated service: what may be in it is the service's own rule."""
    assert name in ROWS
    body = {"name": name, "version": 1, "title": {"en": name.replace("_", " ")}, "canvas": "home"}
    return RowSpec.model_validate({**body, "minimum_length": 1, "blend": {"discovery_play": 1.0}})


def _model(recipe: PagesRecipe) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "pages",
            "version": 1,
            "features": NO_FEATURES,
            "canvases": ["home"],
            "rows": list(WRITTEN),
            "history": {"length": recipe.history},
            "titles": {"metadata": ["genres", "kind", "original_language"]},
            "trunk": {"type": "gated_transformer", "dim": recipe.dim, "layers": recipe.layers, "heads": 2},
            "heads": {
                "discovery_play": {"label": "discovery_play", "loss": "softmax"},
                "row_play": {"label": "row_play", "loss": "bce"},
                "visit_continues": {"label": "visit_continues", "loss": "bce", "weight": 0.3},
            },
            "training": {
                "epochs": recipe.epochs,
                "min_steps": recipe.min_steps,
                "stride": recipe.history,
                "seed": recipe.seed,
            },
            "evaluate": {"protocol": "global_time_successive", "baselines": ["popular_7d"], "slices": []},
        }
    )
