"""The model of the study of pages: titles, rows and visits in one network, from one log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playbill.errors import UnknownNameError
from playbill.specs import CanvasSpec, LabelSpec, ModelSpec, ResolvedModel, RowSpec
from playbill.specs.page import PageSpec
from playbill.zoo import Zoo
from playbill_lab.bridge.live_features import NO_FEATURES
from playbill_lab.simulator.world.canvases import ROWS

LABELS = ("row_play", "visit_continues", "discovery_play", "shown_play")
PAGE_ARMS = ("fixed", "independent/titles", "greedy/titles", "beam/titles", "greedy/both", "greedy/rows")
"""Who orders the rows, and by what: see `page_spec`. What is in the rows is the same model's in every arm."""
EXPECTED = "shown_play"
"""The head that says what the titles of a row are worth."""
VALUES: dict[str, dict[str, Any]] = {
    "titles": {"expected": {"head": EXPECTED}},
    "rows": {"blend": {"row_play": 1.0}},
    "both": {"expected": {"head": EXPECTED, "weight": 0.5}, "blend": {"row_play": 0.5}},
}
"""What a row is worth: the expected play of the titles it shows now, what a head about rows says, or both."""
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
    """Return the definition of the model: four heads of the zoo's labels, one canvas, the simulated service's rows."""
    return ResolvedModel(
        model=_model(recipe),
        labels={name: _label(zoo, name) for name in LABELS},
        rewards={},
        canvases={"home": _home()},
        rows={name: _row(name) for name in WRITTEN},
    )


def page_spec(arm: str) -> PageSpec:
    """Return what a page of the simulated service keeps to.

    Args:
        arm: `fixed`, or one of `PageSpec.arm` with one of `VALUES`: `greedy/titles`. With a third part, `free`, no row
            is placed by what the visit is for.

    Raises:
        UnknownNameError: The second part is none of them.
    """
    order, _, rest = arm.partition("/")
    by, _, free = rest.partition("/")
    if order != "fixed" and by not in VALUES:
        raise UnknownNameError("value of rows", by, VALUES)
    placed = None if order == "fixed" or free else PLACED
    return PageSpec.model_validate({"arm": order, **VALUES.get(by, {}), "placed": placed, "maximum_rows": 8})


def _label(zoo: Zoo, name: str) -> LabelSpec:
    return zoo.labels[name]


def _home() -> CanvasSpec:
    return CanvasSpec.model_validate(
        {
            "name": "home",
            "version": 1,
            "context": ["member", "row", "country", "device", "language", "hour_of_week"],
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
                EXPECTED: {"label": "shown_play", "loss": "bce"},
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
