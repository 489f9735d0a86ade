"""The zoo as shipped, the guide beside it, and the budget of `playbill check`."""

from __future__ import annotations

import ast
import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from playbill.definitions.specs import (
    BASELINES,
    EXTRACTORS,
    FALLBACKS,
    KINDS,
    LOSSES,
    TRUNKS,
    CandidatesSpec,
    ResolvedModel,
)
from playbill.definitions.specs.base import UNFINISHED
from playbill.definitions.specs.canvas import TERMS
from playbill.definitions.zoo import Zoo, load_zoo
from playbill.definitions.zoo.json_schema import kind_schema, replace_reference
from playbill.definitions.zoo.messages import keys_at
from playbill.definitions.zoo.parsing import yaml_files
from playbill.registry import Plugin, Registry

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide" / "zoo.md"


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return load_zoo(ROOT / "model_zoo", ROOT / "feature_repo")


def test_the_shipped_zoo_has_the_promised_definitions(zoo: Zoo) -> None:
    assert set(zoo.labels) >= {"discovery_play", "thumbs_up", "thumbs_down"}
    assert set(zoo.canvases) >= {"home", "more_like_this", "search", "coming_soon", "billboard"}
    assert set(zoo.rows) >= {"top_picks", "popular", "new_releases", "because_you_watched", "genre_rows"}
    assert zoo.notes == ()


def test_candidates_follow_what_each_canvas_is_for(zoo: Zoo) -> None:
    canvases = zoo.model("everycanvas").canvases
    assert canvases["home"].candidates.watched is False
    assert canvases["search"].candidates.watched is None
    assert canvases["coming_soon"].candidates.available == "upcoming"
    assert canvases["more_like_this"].candidates.exclude_source
    coming = {"coming_soon", "coming_later", "pre_launch"}
    assert {name for name, canvas in canvases.items() if canvas.candidates.available == "upcoming"} == coming
    assert canvases["kids"].candidates.kids is True
    assert all(row.candidates.kids is True for row in zoo.rows.values() if row.canvas == "kids")


def test_every_canvas_says_what_it_is_made_of_and_judged_by(zoo: Zoo) -> None:
    expected = {"home", "billboard", "search", "more_like_this", "post_play", "screensaver", "kids"}
    expected |= {"coming_soon", "coming_later", "pre_launch"}
    model = zoo.model("everycanvas")
    assert set(model.canvases) >= expected
    for name in sorted(expected):
        text = (ROOT / f"model_zoo/canvases/{name}.yaml").read_text()
        assert set(yaml.safe_load(text)) >= {"context", "candidates", "blend", "metric", "fallback"}, name
    for row in zoo.rows.values():
        assert row.blend is None or set(row.blend) <= {*model.model.heads, *TERMS}


def test_home_has_its_rows_in_the_order_of_the_page(zoo: Zoo) -> None:
    rows = [row.name for row in zoo.model("everycanvas").rows_of("home")]
    assert rows == list(zoo.canvases["home"].rows)
    assert rows[:3] == ["continue_watching", "top_picks", "because_you_watched"]


def test_every_model_survives_json_and_keeps_its_hash(zoo: Zoo) -> None:
    for name in zoo.models:
        model = zoo.model(name)
        again = ResolvedModel.from_json(model.to_json())
        assert again == model
        assert again.spec_hash == model.spec_hash


def test_every_model_has_a_card_and_the_zoo_no_code() -> None:
    for path in yaml_files(ROOT / "model_zoo"):
        if yaml.safe_load(path.read_text())["kind"] == "Model":
            card = path.with_name("card.md").read_text()
            assert "## Limits" in card
    assert "queries are made from title names" in (ROOT / "model_zoo/models/everycanvas/card.md").read_text()
    assert not list((ROOT / "model_zoo").rglob("*.py"))


def test_the_json_schemas_know_every_key_of_the_shipped_files() -> None:
    for path in yaml_files(ROOT / "model_zoo"):
        data = yaml.safe_load(path.read_text())
        schema = kind_schema(data["kind"])
        assert data.keys() <= schema["properties"].keys(), path
        assert set(schema["required"]) <= data.keys(), path


def test_the_guide_explains_every_key_as_the_specs_have_it() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert replace_reference(text) == text, "run `playbill schema --guide docs/guide/zoo.md`"
    for kind in KINDS:
        section = text.split(f"### {kind}\n")[1].split("\n### ")[0]
        hidden = {name for name, field in KINDS[kind].model_fields.items() if UNFINISHED in field.metadata}
        for key in set(keys_at(KINDS[kind], ())) - {"kind", "name", "version", "description", "extends"} - hidden:
            assert f"`{key}`" in section, (kind, key)


def test_every_key_of_every_spec_has_a_sentence() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| [^|]* \|(.*)\|$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 80
    assert not [key for key, texts in rows if not texts.strip()]


def test_the_examples_of_the_guide_are_right(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "model_zoo", tmp_path / "model_zoo")
    examples = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 3
    for number, text in enumerate(examples):
        (tmp_path / "model_zoo" / f"example_{number}.yaml").write_text(text)
    zoo = load_zoo(tmp_path / "model_zoo")
    assert {"finished"} <= zoo.labels.keys()
    assert set(zoo.model("finishers").model.heads) == {*zoo.model("everycanvas").model.heads, "finished"}


def test_check_takes_under_a_second_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from playbill.cli.main import main; main(['check', '--json'], standalone_mode=False); "
        "heavy = {'torch', 'ray', 'feast', 'mlflow', 'pandas', 'polars'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    seconds = []
    for _ in range(3):
        before = _seconds_of_children()
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        seconds.append(_seconds_of_children() - before)
        assert result.returncode == 0, result.stdout + result.stderr
        assert json.loads(result.stdout.splitlines()[-1])["ok"] is True
    assert min(seconds) < 1.0, seconds


def _seconds_of_children() -> float:
    """Of the processor, not of the wall: the tests beside this one are not what is measured."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _implementations() -> list[tuple[str, Plugin]]:
    registries: tuple[Registry, ...] = (TRUNKS, LOSSES, FALLBACKS, BASELINES, EXTRACTORS)
    return [(f"{registry.kind} {name}", registry[name]) for registry in registries for name in registry.names()]


@pytest.mark.parametrize(("name", "plugin"), _implementations(), ids=lambda value: value if type(value) is str else "")
def test_every_registered_name_has_its_implementation(name: str, plugin: Plugin) -> None:
    """Read from the source, so that the check needs no torch."""
    module, _, attribute = plugin.implementation.partition(":")
    path = (ROOT / "platform" / module.replace(".", "/")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert attribute in defined, f"{name}: {plugin.implementation}"


def test_the_tables_of_canvases_and_rows_say_what_the_files_say(zoo: Zoo) -> None:
    lines = (ROOT / "docs/guide/canvases.md").read_text(encoding="utf-8").splitlines()
    progress = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    model = zoo.model("everycanvas")
    assert set(progress) == {*model.canvases, *model.rows}
    for name, canvas in model.canvases.items():
        cells = [cell.strip() for cell in progress[name].split("|")[2:-1]]
        assert cells[0].split("; ")[0] == ", ".join(canvas.context)
        assert cells[2:] == [_blend(canvas.blend), canvas.metric, canvas.fallback], name
        _rules(canvas.candidates, cells[1])
    for name, row in model.rows.items():
        cells = [cell.strip() for cell in progress[name].split("|")[2:-1]]
        ranked = _blend(row.blend) if row.blend else f"policy `{row.policy}`"
        ranked += ", a chart" if row.chart else ""
        assert (cells[0], cells[2].split(", as on")[0]) == (row.canvas, ranked), name
        assert cells[3].startswith(f"{row.minimum_length}: ")
        _rules(row.candidates, cells[1])


def _blend(weights: dict[str, float]) -> str:
    return ", ".join(f"{head} {weight:g}" for head, weight in weights.items())


def _rules(rules: CandidatesSpec, texts: str) -> None:
    requested = set(rules.model_dump(exclude_defaults=True)) - {"available"}
    assert texts.split(":")[0] == rules.available
    assert set(re.findall(r"(?:^\w+: |; )(\w+):", texts)) == requested, texts
