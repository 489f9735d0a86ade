"""The guide of contexts says what the code does: its fields, rules and switches exist, and its examples run."""

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

from playbill.datasets.encoding.text import QUERY_LETTERS
from playbill.definitions.specs import CONTEXTS, CanvasSpec, ContextColumn, ContextsSpec
from playbill.definitions.specs.context import BUILT_IN, own_fields
from playbill.registry import Plugin
from playbill.serving.messages import QUERY_LIMIT

TEXT = (Path(__file__).parents[2] / "docs/guide/contexts.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_guides_fields_are_those_of_the_schema() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", section("Fields"), re.MULTILINE)) == set(BUILT_IN)


def test_the_guides_switches_are_those_of_the_specs() -> None:
    switches = re.findall(r"^\| `(\w+)` \|", section("Switches"), re.MULTILINE)
    assert set(switches) == set(ContextsSpec.model_fields)


def test_definitions_in_the_guide_are_accepted() -> None:
    canvas, model = (yaml.safe_load(block) for block in blocks("yaml"))
    assert CanvasSpec.model_validate(canvas).impute == {"query": "source_title_name"}
    assert ContextsSpec.model_validate(model["contexts"]) == ContextsSpec()


def test_the_numbers_of_queries_are_those_of_the_code() -> None:
    assert f"more than {QUERY_LETTERS} characters | the first {QUERY_LETTERS}" in TEXT
    assert f"more than {QUERY_LIMIT:,} are refused" in TEXT


def test_the_example_of_queries_runs() -> None:
    exec(blocks("python")[0], {})


def test_the_example_of_an_own_field_registers_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, object] = {}
    exec(blocks("python")[1], found)
    name, value = re.findall(r'^(\w+) = "(.*)"', blocks("ini")[0], re.MULTILINE)[0]
    point = EntryPoint(name, value, "playbill.contexts")
    monkeypatch.setattr("playbill.registry.entry_points", lambda group: [point])
    monkeypatch.setattr(EntryPoint, "load", lambda self: found[self.value.partition(":")[2]])
    monkeypatch.setattr(Plugin, "load", lambda self: found[self.implementation.partition(":")[2]])
    monkeypatch.delitem(vars(CONTEXTS), "_outside", raising=False)
    try:
        canvas = {"name": "porch", "version": 1, "context": ["weather"], "blend": {"play": 1.0}, "metric": "play"}
        fields = own_fields(CanvasSpec.model_validate(canvas).context)
    finally:
        vars(CONTEXTS).pop("_outside", None)
    assert fields == {"weather": ContextColumn("outside.weather", "categorical")}
