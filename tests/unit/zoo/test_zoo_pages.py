"""Mistakes of a canvas's page: heads of another level, rows of another canvas, heads that are not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.definitions.specs.canvas import PageSpec
from playbill.definitions.zoo import load_zoo

Edit = Callable[[str, str, str], None]
Write = Callable[[str, str], None]
Mistakes = Callable[..., list[str]]

LABELS = {
    "labels/row_play.yaml": "kind: Label\nname: row_play\nversion: 1\nlevel: row\nextractor: played_from\n"
    "window: 1d\nmatures_after: 30h\n",
    "labels/visit.yaml": "kind: Label\nname: visit\nversion: 1\nlevel: page\nextractor: visit_continues\n"
    "window: 1d\nmatures_after: 30h\n",
}
HEADS = (
    "  row_play: {label: row_play, loss: bce}\n  visit: {label: visit, loss: bce}\n"
    "evaluate: {protocol: global_time}\ntasks:"
)


@pytest.fixture
def paged(write: Write, edit: Edit) -> Callable[[str], None]:
    """Give the model heads about rows and visits, and home a page."""

    def page(text: str) -> None:
        for name, body in LABELS.items():
            write(name, body)
        edit("models/every.yaml", "tasks:", HEADS)
        edit("canvases/home.yaml", "rows: [top]", f"rows: [top]\npage: {text}")

    return page


RIGHT = (
    "{expected: {head: up}, blend: {row_play: 1.0}, pinned: [top], placed: {row: again, head: visit}, "
    "viewports: {mobile: phone}}"
)


def test_a_right_page_has_no_mistakes(paged: Callable[[str], None], mistakes: Mistakes) -> None:
    paged(RIGHT)
    assert mistakes() == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{row_play: 1.0}", "{row_plai: 1.0}", "no head 'row_plai'. Did you mean 'row_play'?"),
        ("{row_play: 1.0}", "{up: 1.0}", "head 'up' of model 'every' is about a title, not about a row"),
        ("head: visit", "head: row_play", "head 'row_play' of model 'every' is about a row, not about a page"),
        ("{head: up}", "{head: row_play}", "head 'row_play' of model 'every' is about a row, not about a title"),
        ("{head: up}", "{head: upp}", "no head 'upp'. Did you mean 'up'?"),
        ("{head: up}", "{head: play}", "head 'play' of model 'every' has loss 'softmax' and no probabilities"),
        ("[top]", "[tops]", "has no row 'tops' on canvas 'home'. Did you mean 'top'?"),
        ("row: again", "row: agan", "has no row 'agan' on canvas 'home'. Did you mean 'again'?"),
        ("mobile: phone", "mobile: fone", "unknown viewport 'fone'. Did you mean 'phone'?"),
        ("row: again", "row: top", "row 'top' is pinned, so it cannot be placed"),
    ],
)
def test_each_mistake_of_a_page_is_named(
    paged: Callable[[str], None], mistakes: Mistakes, old: str, new: str, expected: str
) -> None:
    assert old in RIGHT
    paged(RIGHT.replace(old, new))
    assert any(expected in mistake for mistake in mistakes()), mistakes()


def test_no_list_of_titles_blends_a_head_about_rows(
    paged: Callable[[str], None], edit: Edit, mistakes: Mistakes
) -> None:
    paged(RIGHT)
    edit("canvases/search.yaml", "{play: 1.0}", "{play: 1.0, row_play: 0.1}")
    edit("models/every.yaml", "row_play: {label: row_play, loss: bce}", "row_play: {label: row_play, loss: softmax}")
    found = mistakes()
    assert any("'row_play' of model 'every' is about a row and scores no titles" in mistake for mistake in found)
    assert any("so its loss is 'bce'" in mistake for mistake in found)


def test_keys_as_they_were_called_before_are_read_with_a_note(
    paged: Callable[[str], None], edit: Edit, zoo_folder: Path
) -> None:
    paged("{strategy: beam, expected: {head: up, examination_prob: 0.5}}")
    now = load_zoo(zoo_folder)
    edit("canvases/home.yaml", "strategy: beam", "arm: beam")
    edit("canvases/home.yaml", "examination_prob: 0.5", "look: 0.5")
    before = load_zoo(zoo_folder)
    assert before.canvases["home"] == now.canvases["home"]
    assert [note.what for note in before.notes if note not in now.notes] == [
        "'arm' is called 'strategy' now; the earlier key is read for one more release.",
        "'look' is called 'examination_prob' now; the earlier key is read for one more release.",
    ]


def test_renamed_keys_change_neither_hashes_nor_stored_definitions() -> None:
    page = PageSpec.model_validate({"strategy": "beam", "expected": {"head": "up", "examination_prob": 0.5}})
    stored = page.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert stored == {"arm": "beam", "expected": {"head": "up", "look": 0.5}}
    assert PageSpec.model_validate(stored) == page


def test_a_key_beside_its_earlier_name_is_a_mistake(paged: Callable[[str], None], mistakes: Mistakes) -> None:
    paged("{strategy: beam, arm: greedy}")
    assert any("unknown key 'arm'" in mistake for mistake in mistakes()), mistakes()
