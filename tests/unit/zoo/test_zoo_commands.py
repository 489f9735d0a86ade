"""The commands check, schema and init."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from playbill import config
from playbill.cli.main import main
from playbill.errors import UnknownNameError

Edit = Callable[[str, str, str], None]


@pytest.fixture
def project(zoo_folder: Path) -> Path:
    folder = zoo_folder.parent
    (folder / "playbill.toml").write_text("")
    (folder / "feature_repo").mkdir()
    (folder / "feature_repo" / "services.py").write_text("every = FeatureService(name='every_v1', features=[])\n")
    return folder


def playbill(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def last_object(result: Result) -> dict[str, object]:
    read: dict[str, object] = json.loads(result.output.splitlines()[-1])
    return read


def test_check_says_what_it_checked(project: Path) -> None:
    result = playbill("--project", project, "check")
    assert result.exit_code == 0, result.output
    for name in ("play:1", "home:1", "again:1", "every:1", "every_v1", "7 definitions are right"):
        assert name in result.output


def test_check_json_is_one_object(project: Path) -> None:
    answer = last_object(playbill("--project", project, "check", "--json"))
    assert answer["ok"] is True
    assert answer["checked"] == {
        "labels": 2,
        "rewards": 0,
        "canvases": 2,
        "rows": 2,
        "models": 1,
        "ensembles": 0,
    }
    assert answer["models"].keys() == {"every"}  # type: ignore[attr-defined]


def test_check_lists_all_mistakes_and_exits_with_one(project: Path, edit: Edit) -> None:
    edit("labels/up.yaml", "action: thumbs_up", "action: thumb_up")
    edit("models/every.yaml", "every_v1", "every_v9")
    result = playbill("--project", project, "check")
    assert result.exit_code == 1
    assert "2 problems" in result.output
    assert "model_zoo/labels/up.yaml:4:16" in result.output
    assert "Did you mean 'every_v1'" in result.output
    result = playbill("--project", project, "check", "--json")
    assert result.exit_code == 1
    problems = last_object(result)["problems"]
    assert [problem["file"] for problem in problems] == [  # type: ignore[attr-defined]
        "model_zoo/labels/up.yaml",
        "model_zoo/models/every.yaml",
    ]


def test_check_lock_publishes_only_what_is_right(project: Path, edit: Edit) -> None:
    edit("labels/up.yaml", "action: thumbs_up", "action: thumb_up")
    assert playbill("--project", project, "check", "--lock").exit_code == 1
    assert not (project / "model_zoo" / "zoo.lock").exists()
    edit("labels/up.yaml", "action: thumb_up", "action: thumbs_up")
    assert "published Label up:1" in playbill("--project", project, "check", "--lock").output
    edit("labels/up.yaml", "thumbs_down", "abandon")
    assert "Label up:1 is published and its content has changed" in playbill("--project", project, "check").output


def test_check_lock_leaves_the_installation_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbill.cli.check.TEMPLATES", project)
    result = playbill("--project", project, "check", "--lock")
    assert result.exit_code == 1
    assert "came with the installation" in result.output
    assert not (project / "model_zoo" / "zoo.lock").exists()


def test_check_deep_asks_the_feature_door(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []

    def schema(service: str) -> None:
        requested.append(service)
        raise UnknownNameError("feature service", service, ["every_v2"])

    door = ModuleType("playbill.features")
    door.FeatureDoor = lambda workspace: SimpleNamespace(schema=schema)  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "playbill.features", door)
    result = playbill("--project", project, "check", "--deep")
    assert requested == ["every_v1"]
    assert result.exit_code == 1
    assert "model every: features: unknown feature service 'every_v1'. Did you mean 'every_v2'?" in result.output


def test_schema_writes_one_file_per_kind_and_an_umbrella(tmp_path: Path) -> None:
    result = playbill("schema", tmp_path / "schemas", "--json")
    assert result.exit_code == 0
    files = last_object(result)["files"]
    assert len(files) == 7  # type: ignore[arg-type]
    model = json.loads((tmp_path / "schemas" / "model.schema.json").read_text())
    assert model["properties"]["features"]["description"].startswith("Feast FeatureService")
    assert model["additionalProperties"] is False
    assert model["required"] == ["kind", "name", "version"]
    assert {"required": ["extends"]} in model["anyOf"]
    assert model["$defs"]["TrunkOptions"]["properties"]["type"]["enum"] == ["gated_transformer", "hstu", "sasrec"]
    assert "popular_7d" in json.dumps(json.loads((tmp_path / "schemas" / "row.schema.json").read_text()))
    umbrella = json.loads((tmp_path / "schemas" / "definition.schema.json").read_text())
    for branch in umbrella["allOf"]:
        assert (tmp_path / "schemas" / branch["then"]["$ref"]).is_file()


def test_schema_refuses_a_guide_without_markers(tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text("# Guide\n")
    result = playbill("schema", "--guide", tmp_path / "guide.md")
    assert result.exit_code == 1
    assert "markers" in result.output


def test_init_starts_a_project_that_checks(tmp_path: Path) -> None:
    result = playbill("init", tmp_path / "mine", "--json")
    assert result.exit_code == 0, result.output
    files = last_object(result)["files"]
    assert "playbill.toml" in files  # type: ignore[operator]
    assert "model_zoo/models/everycanvas/card.md" in files  # type: ignore[operator]
    assert not any("__pycache__" in name for name in files)  # type: ignore[attr-defined]
    answer = last_object(playbill("--project", tmp_path / "mine", "check", "--json"))
    assert answer["ok"] is True
    assert answer["model_zoo"] == str(tmp_path / "mine" / "model_zoo")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "feature_repo",
        "model_zoo",
        "playbill.toml",
    ]


def test_init_minimal_starts_the_smallest_project_that_checks(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    result = playbill("init", mine, "--minimal", "--json")
    assert result.exit_code == 0, result.output
    written = sorted(path.relative_to(mine).as_posix() for path in mine.rglob("*") if path.is_file())
    assert sorted(last_object(result)["files"]) == written  # type: ignore[call-overload]
    assert sum(len((mine / name).read_text().splitlines()) for name in written) < 150
    answer = last_object(playbill("--project", mine, "check", "--json"))
    assert answer["ok"] is True
    assert answer["notes"] == []
    refused = playbill("init", mine, "--minimal")
    assert "already has playbill.toml, model_zoo, feature_repo, mapping.yaml; nothing was written" in refused.output


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "model_zoo").mkdir()
    result = playbill("init", tmp_path)
    assert result.exit_code == 1
    assert "already has model_zoo; nothing was written" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["model_zoo"]


def test_init_uses_the_templates_of_an_installed_wheel(
    tmp_path: Path, zoo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (zoo_folder.parent / "feature_repo").mkdir()
    monkeypatch.setattr(config, "CHECKOUT", tmp_path / "nowhere")
    monkeypatch.setattr(config, "TEMPLATES", zoo_folder.parent)
    assert playbill("init", tmp_path / "mine").exit_code == 0
    assert (tmp_path / "mine" / "model_zoo" / "models" / "every.yaml").is_file()


def test_init_leaves_nothing_behind_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CHECKOUT", tmp_path / "nowhere")
    monkeypatch.setattr(config, "TEMPLATES", tmp_path / "nowhere")
    result = playbill("init", tmp_path / "mine")
    assert result.exit_code == 1
    assert "lacks its templates" in result.output
    assert list((tmp_path / "mine").iterdir()) == []
