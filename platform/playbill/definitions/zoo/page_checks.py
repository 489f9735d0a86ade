"""What a canvas's page says about rows and about the heads of a model: mistakes that show only across files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from playbill.definitions.specs import CanvasSpec, LabelSpec, ModelSpec, RowSpec, split_reference
from playbill.definitions.specs.page import PageSpec
from playbill.definitions.zoo.parsing import Checked, Shelf, place_of
from playbill.definitions.zoo.resolve import rows_of_others
from playbill.definitions.zoo.yaml_tree import problem
from playbill.errors import Problem, nearest

Path = tuple[str | int, ...]


def check_page(
    shelf: Shelf, owner: Checked, model: ModelSpec, rows: list[Checked], known: list[str]
) -> Iterator[Problem]:
    """Check the page of a canvas: its heads are the model's, of the right level; its rows are the canvas's.

    Args:
        shelf: Of all definitions.
        owner: The canvas.
        model: Serves it.
        rows: Every row of the model.
        known: Names of the model's heads, those with mistakes included.
    """
    canvas = cast(CanvasSpec, owner.spec)
    page = canvas.page
    if page is None or "page" in owner.absent:
        return
    yield from _check_heads(shelf, owner, model, page, known)
    own = [row.spec.name for row in rows if split_reference(cast(RowSpec, row.spec).canvas)[0] == canvas.name]
    own += rows_of_others(shelf, model)
    named: list[tuple[Path, str]] = [(("page", "pinned", at), one) for at, one in enumerate(page.pinned)]
    if page.placed is not None:
        named.append((("page", "placed", "row"), page.placed.row))
    for path, reference in named:
        name = split_reference(reference)[0]
        if name not in own and not shelf.unread_as("Row", name):
            close = nearest(name, own)
            hint = f"Did you mean '{close}'?" if close else f"Rows: {', '.join(own) or 'none'}."
            what = f"model '{model.name}' has no row '{name}' on canvas '{canvas.name}'"
            yield problem(place_of(owner, path), path, what, hint)


def check_levels(
    shelf: Shelf, checked: Checked, model: ModelSpec, canvases: list[Checked], rows: list[Checked]
) -> Iterator[Problem]:
    """Check that heads about rows and pages learn yes or no, and that lists blend heads about what they list.

    Args:
        shelf: Of all definitions.
        checked: The model.
        model: Its definition.
        canvases: Its canvases.
        rows: Its rows.
    """
    levels = {name: _level(shelf, model, name) for name in model.heads}
    for name, level in levels.items():
        head = model.heads[name]
        if level in (None, "title"):
            continue
        if head.loss != "bce" or head.negatives is not None:
            path: Path = ("heads", name)
            what = f"a head about a {level} learns whether its label holds, so its loss is 'bce' without 'negatives'"
            yield problem(place_of(checked, path), path, what)
    for owner in (*canvases, *rows):
        blend, ranked = cast(CanvasSpec | RowSpec, owner.spec).blend or {}, getattr(owner.spec, "target", "title")
        for name in model.heads if "blend" not in owner.absent else ():
            own = levels[name]
            if name not in blend or own in (None, ranked):
                continue
            path = ("blend", name)
            what = f"head '{name}' of model '{model.name}' is about a {own} and scores no {ranked}s"
            level = "Blend it under the canvas's 'page'." if ranked == "title" else "Use one whose label is about rows."
            yield problem(place_of(owner, path, key=True), path, what, level)


def _check_heads(shelf: Shelf, owner: Checked, model: ModelSpec, page: PageSpec, known: list[str]) -> Iterator[Problem]:
    asked: list[tuple[Path, str, str]] = [(("page", "blend", head), head, "row") for head in page.blend]
    if page.placed is not None:
        asked.append((("page", "placed", "head"), page.placed.head, "page"))
    if page.expected is not None:
        asked.append((("page", "expected", "head"), page.expected.head, "title"))
    for path, head, level in asked:
        yield from _check_head(shelf, owner, model, path, (head, level), known)
        if level == "title" and head in model.heads and model.heads[head].loss != "bce":
            what = f"head '{head}' of model '{model.name}' has loss '{model.heads[head].loss}' and no probabilities"
            yield problem(place_of(owner, path), path, what, "Use a head with loss 'bce' for a row's expected play.")


def _level(shelf: Shelf, model: ModelSpec, head: str) -> str | None:
    """Return what a head is about, or None while mistakes hide it."""
    reference = model.heads[head].label
    if reference is None:
        return "title"
    found = shelf.find("Label", reference)
    return cast(LabelSpec, found.spec).level if found is not None and found.knows("level", "extractor") else None


def _check_head(
    shelf: Shelf, owner: Checked, model: ModelSpec, path: Path, asked: tuple[str, str], known: list[str]
) -> Iterator[Problem]:
    head, level = asked
    place = place_of(owner, path, key=path[1] == "blend")
    if head not in known:
        close = nearest(head, known)
        hint = f"Did you mean '{close}'?" if close else f"Heads: {', '.join(known)}."
        yield problem(place, path, f"model '{model.name}' has no head '{head}'", hint)
        return
    own = _level(shelf, model, head) if head in model.heads else level
    if own not in (None, level):
        what = f"head '{head}' of model '{model.name}' is about a {own}, not about a {level}"
        yield problem(place, path, what, f"Use a head whose label has `level: {level}`.")
