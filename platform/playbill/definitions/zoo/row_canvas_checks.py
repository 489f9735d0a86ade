"""What a canvas of rows says about the canvas whose rows it ranks: mistakes that show only across files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from playbill.definitions.specs import CanvasSpec, LabelSpec, ModelSpec, RowSpec, split_reference
from playbill.definitions.specs.canvas import OF_THE_PAGE
from playbill.definitions.zoo.parsing import Checked, Shelf, place_of
from playbill.definitions.zoo.yaml_tree import problem
from playbill.errors import Problem

Path = tuple[str | int, ...]
_RANKED: Path = ("rows_of",)


def check_row_canvas(shelf: Shelf, owner: Checked, canvas: CanvasSpec) -> Iterator[Problem]:
    """Check that a canvas of rows says nothing that its page says, ranks rows of titles, and is judged by rows.

    Args:
        shelf: Of all definitions.
        owner: The canvas.
        canvas: Its definition; one of titles has nothing to be checked here.
    """
    if canvas.rows_of is None:
        return
    for key in OF_THE_PAGE:
        if key in canvas.model_fields_set:
            what = f"a canvas of rows has that of '{canvas.rows_of}'"
            yield problem(place_of(owner, (key,), key=True), (key,), what, f"Leave '{key}' out.")
    found = shelf.find("Canvas", canvas.rows_of)
    if found is not None and cast(CanvasSpec, found.spec).target != "title" and "rows_of" not in owner.absent:
        what = f"canvas '{canvas.rows_of}' ranks rows itself"
        yield problem(place_of(owner, _RANKED), _RANKED, what, "Name a canvas of titles that has rows.")
    label = shelf.find("Label", canvas.metric)
    if label is not None and "metric" not in owner.absent and (level := cast(LabelSpec, label.spec).level) != "row":
        path: Path = ("metric",)
        what = f"label '{canvas.metric}' is about a {level}, and this canvas ranks rows"
        yield problem(place_of(owner, path), path, what, "Use a label with `level: row`.")


def check_ranked_rows(shelf: Shelf, owner: Checked, model: ModelSpec, rows: list[Checked]) -> Iterator[Problem]:
    """Check that a model has the canvas whose rows it ranks, and rows on it.

    Args:
        shelf: Of all definitions.
        owner: A canvas of the model.
        model: Its definition.
        rows: Every row of the model.
    """
    canvas = cast(CanvasSpec, owner.spec)
    if canvas.rows_of is None or "rows_of" in owner.absent:
        return
    place = place_of(owner, _RANKED)
    if canvas.asked_as not in [split_reference(reference)[0] for reference in model.canvases]:
        what = f"model '{model.name}' ranks its rows but has no canvas '{canvas.rows_of}'"
        yield problem(place, _RANKED, what, f"Add '{canvas.asked_as}' to the model's canvases.")
    elif not shelf.unread_as("Row") and not any(
        split_reference(cast(RowSpec, row.spec).canvas)[0] == canvas.asked_as for row in rows
    ):
        yield problem(place, _RANKED, f"model '{model.name}' has no rows on canvas '{canvas.rows_of}'")
