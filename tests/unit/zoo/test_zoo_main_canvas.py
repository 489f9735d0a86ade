"""Which canvas is meant when none is named."""

from pathlib import Path

import pytest

from playbill.definitions.zoo import load_zoo

ZOO = Path(__file__).parents[3] / "model_zoo"


@pytest.mark.parametrize(("model", "canvas"), [("everycanvas", "home"), ("kuairand", "kuairand.tab_1")])
def test_home_where_there_is_one_else_the_first(model, canvas):
    assert load_zoo(ZOO).model(model).main_canvas == canvas


def test_home_need_not_come_first():
    resolved = load_zoo(ZOO).model("everycanvas")
    canvases = dict(reversed(resolved.canvases.items()))
    assert next(iter(canvases)) != "home"
    assert resolved.model_copy(update={"canvases": canvases}).main_canvas == "home"
