"""Mistakes of a canvas of rows: of what page, judged by what, blending what, and saying what the page says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.definitions.zoo import load_zoo

Edit = Callable[[str, str, str], None]
Write = Callable[[str, str], None]
Mistakes = Callable[..., list[str]]

LABEL = """\
kind: Label
name: row_play
version: 1
level: row
extractor: played_from
window: 1d
matures_after: 30h
"""
CANVAS = """\
kind: Canvas
name: ranking
version: 1
target: row
rows_of: home
blend: {row_play: 1.0}
metric: row_play
"""


@pytest.fixture
def ranking(write: Write, edit: Edit) -> Callable[[str], None]:
    """Give the model a head about rows, and a canvas that ranks them."""

    def ranked(text: str) -> None:
        write("labels/row_play.yaml", LABEL)
        write("canvases/ranking.yaml", text)
        edit("models/every.yaml", "canvases: [home, search]", "canvases: [home, search, ranking]")
        edit(
            "models/every.yaml",
            "tasks:",
            "  row_play: {label: row_play, loss: bce}\nevaluate: {protocol: global_time}\ntasks:",
        )

    return ranked


def test_a_canvas_of_rows_has_the_rows_of_its_page(
    ranking: Callable[[str], None], edit: Edit, zoo_folder: Path, mistakes: Mistakes
) -> None:
    ranking(CANVAS)
    edit("canvases/home.yaml", "metric: play", "metric: play\ncontext: [member, device]\nfallback: popular")
    assert mistakes() == []
    resolved = load_zoo(zoo_folder).model("every")
    home, own = resolved.canvas("home"), resolved.canvas("ranking")
    assert (own.target, own.requested_as, home.requested_as) == ("row", "home", "home")
    assert (own.context, own.fallback, own.candidates) == (home.context, home.fallback, home.candidates)
    assert own.context == ("member", "device")
    assert (own.rows, own.blend) == ((), {"row_play": 1.0})
    assert type(resolved).from_json(resolved.to_json()) == resolved


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("rows_of: home", "rows_of: hom", "unknown canvas 'hom'. Did you mean 'home'?"),
        ("rows_of: home", "rows_of: search", "model 'every' has no rows on canvas 'search'"),
        ("rows_of: home", "rows_of: ranking", "canvas 'ranking' ranks rows itself"),
        ("target: row\n", "", "'rows_of' needs 'target: row'"),
        ("rows_of: home\n", "", "'target: row' needs 'rows_of'"),
        ("metric: row_play", "metric: play", "label 'play' is about a title, and this canvas ranks rows"),
        ("{row_play: 1.0}", "{play: 1.0}", "head 'play' of model 'every' is about a title and scores no rows"),
        ("{row_play: 1.0}", "{text: 1.0}", "'text' scores titles, and this canvas ranks rows"),
        ("version: 1", "version: 1\ncontext: [member]", "a canvas of rows has that of 'home'. Leave 'context' out."),
        ("version: 1", "version: 1\nfallback: popular", "a canvas of rows has that of 'home'. Leave 'fallback' out."),
    ],
)
def test_each_mistake_of_a_canvas_of_rows_is_named(
    ranking: Callable[[str], None], mistakes: Mistakes, old: str, new: str, expected: str
) -> None:
    assert old in CANVAS
    ranking(CANVAS.replace(old, new))
    assert any(expected in mistake for mistake in mistakes()), mistakes()


def test_the_model_has_the_page_too(ranking: Callable[[str], None], edit: Edit, mistakes: Mistakes) -> None:
    ranking(CANVAS)
    edit("models/every.yaml", "canvases: [home, search, ranking]", "canvases: [search, ranking]")
    assert any("model 'every' ranks its rows but has no canvas 'home'" in mistake for mistake in mistakes())
