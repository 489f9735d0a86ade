"""The guide to labels says what the definitions say, and its examples run."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

from playbill.definitions.specs import LabelSpec
from playbill.definitions.zoo import load_zoo
from playbill.labels import describe
from playbill.testing.made_log import made_log

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide" / "labels.md").read_text(encoding="utf-8")
LABELS = load_zoo(ROOT / "model_zoo").labels
SHIPPED = {path.stem for path in (ROOT / "model_zoo" / "labels").glob("*.yaml")}
UNITS = {"m": "minutes", "min": "minutes", "minutes": "minutes", "h": "hours", "hours": "hours"}


def table() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `([a-z_0-9]+)` \|(.*)\|$", GUIDE, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def length(text: str) -> timedelta:
    """Read `1 day for zeros`, `30 h` or `now` as a length of time."""
    if text.startswith("now"):
        return timedelta(0)
    found = re.match(r"(\d+) ([a-z]+)", text)
    assert found, text
    unit = UNITS.get(found[2], "days")
    return timedelta(**{unit: int(found[1])})


def test_every_shipped_label_is_in_the_table() -> None:
    assert set(table()) == SHIPPED


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_table_has_the_windows_and_ages_of_the_definition(name: str) -> None:
    label, (*_, window, progress) = LABELS[name], table()[name]
    own = label.attribution_window or label.negatives.window
    assert (length(window) if window else None) == own
    assert window.endswith("for zeros") == (label.attribution_window is None and own is not None)
    ones, _, zeros = progress.partition(", ")
    assert length(ones) == label.matures_after
    assert (length(zeros) if zeros else length(ones)) == label.zeros_mature_after


def test_what_explain_prints_is_what_it_says_today() -> None:
    found = describe(LABELS["completion"])
    for line in (
        f"  1      {found.ones}; final {found.ones_known}",
        f"  0      {found.zeros}; final {found.zeros_known}",
    ):
        assert line in GUIDE
    assert f"completion version {found.version}: of a {found.level}, window {found.window}" in GUIDE


def test_definitions_in_the_guide_are_accepted(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    for number, text in enumerate(blocks):
        (tmp_path / f"{number}.yaml").write_text(text)
    assert len(load_zoo(tmp_path).labels) == len(blocks) > 0


@pytest.mark.usefixtures("own_plugins")
def test_the_guides_extractor_passes_the_suite_for_extractors(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, suite, *_ = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    package, module = ModuleType("my_package"), ModuleType("my_package.labels")
    package.labels = module  # type: ignore[attr-defined]
    for name, each in (("my_package", package), ("my_package.labels", module)):
        monkeypatch.setitem(sys.modules, name, each)
    # What the guide shows is run as a reader would; `from __future__` of this file must not reach it.
    exec(compile(extractor, "labels.md", "exec", dont_inherit=True), module.__dict__)
    space: dict[str, type] = {}
    exec(compile(suite, "labels.md", "exec", dont_inherit=True), space)
    tried = space["TestMinutes"]()
    spec = LabelSpec.model_validate({"name": "tried", "version": 1, **tried.label})
    events = made_log().sort("member_id", "seq")
    tried.test_it_says_something(spec, events)
    tried.test_what_is_told_stays(spec, events, days=20)
    tried.test_nulls_are_no_mistake(spec, events)
    assert tried.extract(spec, events).max() <= 90
