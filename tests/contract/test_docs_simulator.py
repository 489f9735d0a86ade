"""What the guide to the simulated service shows is so: its law, its world, its code."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from playbill_lab.simulator import World, WorldSpec, simulate
from playbill_lab.simulator.world import canvases
from playbill_lab.simulator.world.behaviour_model import LAW
from playbill_lab.simulator.world.spec import read_world_file
from playbill_lab.testing import PolicyConformance

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "simulator.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def block(word):
    (found,) = [text for text in PYTHON if word in text]
    return found


def row(name):
    """Return the last row of that name: the law comes after what is in the world."""
    return re.findall(rf"^\| {name} \| (.*) \|$", GUIDE, re.MULTILINE)[-1]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("looking", [canvases.CANVAS_PLACES[canvases.HOME].look, canvases.NEXT_ROW]),
        ("click", [LAW.click_base, LAW.click_taste, LAW.click_intent, LAW.click_appeal, LAW.click_pull, LAW.foreign]),
        ("click", [LAW.seen, LAW.started, LAW.reminded, LAW.wanted]),
        ("play", [LAW.play_base, LAW.play_taste, LAW.play_intent, LAW.play_started]),
        ("gladness", [LAW.glad_taste, LAW.glad_intent, LAW.glad_quality]),
        ("ending", [LAW.leave_base]),
        ("thumbs", [LAW.up_base, LAW.down_base]),
        ("satisfaction", [LAW.finished, LAW.left, LAW.deep, LAW.glad_most, round(100 * (1 - LAW.keep))]),
        ("visits", [LAW.visit_effect]),
        ("churn", [LAW.h_most, LAW.h_base]),
    ],
)
def test_the_guides_formulas_are_those_of_the_code(name, numbers):
    written = [float(text) for text in re.findall(r"\d+\.\d+|\d+", row(name))]
    missing = [number for number in numbers if abs(number) not in written]
    assert not missing, row(name)


def test_the_guides_canvases_and_rows_are_those_of_the_code():
    assert set(re.findall(r"`(\w+)`", row("canvases"))) == set(canvases.CANVASES)
    assert set(re.findall(r"`(\w+)`", row("rows of home"))) == set(canvases.ROWS)


def test_the_world_file_is_read(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / "world.yaml").write_text(text)
    spec = read_world_file(tmp_path / "world.yaml", {"days": 30})
    assert (spec.seed, spec.members, spec.days, spec.titles) == (11, 20000, 30, 1500)
    assert [country.code for country in spec.countries] == ["SE", "KR"]


class TestThePolicyOfTheGuide(PolicyConformance):
    def policy(self):
        module = types.ModuleType("shop_policies")
        sys.modules["shop_policies"] = module
        exec(block("class Newest"), module.__dict__)
        return module.Newest()


def test_the_comparison_of_the_guide_runs():
    names = {}
    text = block("simulated_ab").replace("members=2000, days=28", "members=60, days=7, titles=50")
    exec(text, names)
    assert names["report"].names == ("plackett_luce", "popular", "best_value")
    assert names["report"].of("popular").difference is not None


def test_true_outcomes_are_read_as_the_guide_says():
    world = World.make(WorldSpec(members=60, days=7, titles=50))
    names = {"world": world, "simulate": simulate}
    exec(block("read_world").split("\nworld = ")[1].split("\n", 1)[1], names)
    assert {"days", "value", "satisfaction", "plays", "hours", "churned_at"} <= set(names["outcome"].members.columns)
    assert world.truth.quality.shape == (50,)
    assert np.isfinite(world.truth.taste).all()
