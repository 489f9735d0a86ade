"""What a definition does not need cannot stop it: broken files elsewhere, rows of other models, parts of a parent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from playbill.cli.main import main
from playbill.definitions.zoo import load_zoo, open_zoo
from playbill.errors import DefinitionError, UnknownNameError

Edit = Callable[[str, str, str], None]
Write = Callable[[str, str], None]
Mistakes = Callable[..., list[str]]

OTHER = """\
kind: Model
name: other
version: 1
features: every_v1
canvases: [home]
heads:
  play: {label: play, loss: softmax}
  up: {label: up, loss: bce}
  mine: {label: play, loss: softmax}
"""
MINE = "kind: Row\nname: mine\nversion: 1\ntitle: {en: Mine}\ncanvas: home\nblend: {mine: 1.0}\n"
CHILD = "kind: Model\nname: child\nversion: 1\nextends: every\ncanvases: [home]\n"
AS_SEARCH = (
    "kind: Row\nname: like\nversion: 1\ntitle: {en: Like}\ncanvas: home\nscored_as: search\nblend: {play: 1.0}\n"
)


def test_a_broken_file_stops_only_what_is_made_of_it(zoo_folder: Path, write: Write, edit: Edit) -> None:
    write("canvases/porch.yaml", "kind: Canvas\nname: porch\nversion: 1\n\tblend: {play: 1}\nmetric: play\n")
    write("models/other.yaml", OTHER.replace("[home]", "[home, porch]"))
    zoo = open_zoo(zoo_folder)
    assert zoo.model("every").canvases.keys() == {"home", "search"}
    assert set(zoo.models) == {"every"}
    with pytest.raises(DefinitionError, match=r"model other in .*: 1 problem\n.*porch.yaml:4:1: YAML syntax: a tab"):
        zoo.model("other")
    with pytest.raises(UnknownNameError, match=r"unknown model 'evry'. Did you mean 'every'"):
        zoo.model("evry")
    edit("labels/up.yaml", "kind: Label", "kind: Lable")
    with pytest.raises(DefinitionError, match=r"labels/up.yaml:1:7: kind: unknown kind 'Lable'"):
        open_zoo(zoo_folder).model("every")
    assert open_zoo(zoo_folder).find("Label", "play").name == "play"


def test_a_mistake_between_a_model_and_a_shared_canvas_is_the_models(zoo_folder: Path, write: Write) -> None:
    write("models/other.yaml", OTHER.replace("  up: {label: up, loss: bce}\n", ""))
    zoo = open_zoo(zoo_folder)
    assert zoo.model("every").model.name == "every"
    with pytest.raises(DefinitionError, match=r"home.yaml:4:20: blend.up: model 'other' has no head 'up'"):
        zoo.model("other")


def test_a_mistake_in_a_parent_is_one_in_its_children(zoo_folder: Path, write: Write, edit: Edit) -> None:
    write("models/child.yaml", CHILD)
    write("models/other.yaml", OTHER)
    edit("models/every.yaml", "weight: 0.3", "weight: -3")
    zoo = open_zoo(zoo_folder)
    assert set(zoo.models) == {"other"}
    with pytest.raises(DefinitionError, match=r"every.yaml:8:38: heads.up.weight"):
        zoo.model("child")


def test_mistakes_elsewhere_are_counted_once(zoo_folder: Path, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    write("models/other.yaml", OTHER.replace("label: up", "label: upp"))
    zoo = open_zoo(zoo_folder)
    with caplog.at_level(logging.WARNING, "playbill.definitions.zoo"):
        zoo.model("every")
        assert "other" not in zoo.models
    text = "left out: definitions with 1 mistake, in model_zoo/models/other.yaml; `playbill check` lists them"
    assert caplog.messages == [text]
    with pytest.raises(DefinitionError, match="1 problem"):
        load_zoo(zoo_folder)


def test_commands_read_what_they_need(zoo_folder: Path, write: Write) -> None:
    folder = zoo_folder.parent
    (folder / "playbill.toml").write_text("")
    (folder / "feature_repo").mkdir()
    (folder / "feature_repo" / "services.py").write_text("every = FeatureService(name='every_v1', features=[])\n")
    write("canvases/porch.yaml", "kind: Canvas\nname: porch\n")

    def playbill(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["--project", str(folder), *arguments])
        return result.exit_code, result.output

    assert playbill("check")[0] == 1
    for arguments in (("labels", "explain"), ("impact", "label:up", "--no-versions")):
        code, text = playbill(*arguments)
        assert code == 0, text
        assert "every" in text
    code, text = playbill("train", "every")
    assert (code, "porch" in text, "ingest" in text) == (1, False, True), text


def test_a_row_that_only_another_model_can_fill_is_left_out(
    zoo_folder: Path, write: Write, edit: Edit, mistakes: Mistakes
) -> None:
    before = load_zoo(zoo_folder).model("every")
    write("rows/mine.yaml", MINE)
    assert mistakes() == [
        "model_zoo/rows/mine.yaml:6:9: blend.mine: model 'every' has no head 'mine'. Heads: play, up."
    ], "no model has the head, so it is a mistake"
    write("models/other.yaml", OTHER)
    edit("canvases/home.yaml", "rows: [top]", "rows: [mine, top]\npage: {pinned: [mine]}")
    assert mistakes() == []
    zoo = load_zoo(zoo_folder)
    assert list(zoo.model("other").rows) == ["mine", "top", "again"]
    assert zoo.model("other").canvases["home"].page.pinned == ("mine",)  # type: ignore[union-attr]
    every = zoo.model("every")
    assert (list(every.rows), every.canvases["home"].rows) == (["top", "again"], ("top",))
    assert every.canvases["home"].page.pinned == ()  # type: ignore[union-attr]
    note = "rows/mine.yaml:2:1: row 'mine' is left out of model 'every:1', which has no head 'mine'."
    assert [str(found) for found in zoo.notes] == [f"model_zoo/{note}"]
    edit("canvases/home.yaml", "rows: [mine, top]\npage: {pinned: [mine]}", "rows: [top]")
    assert load_zoo(zoo_folder).model("every").spec_hash == before.spec_hash


def test_a_model_that_names_its_rows_must_be_able_to_fill_them(write: Write, edit: Edit, mistakes: Mistakes) -> None:
    write("rows/mine.yaml", MINE)
    write("models/other.yaml", OTHER)
    edit("models/every.yaml", "heads:", "rows: [top, mine]\nheads:")
    assert mistakes() == [
        "model_zoo/rows/mine.yaml:6:9: blend.mine: model 'every' has no head 'mine'. Heads: play, up."
    ]


def test_a_child_inherits_nothing_of_canvases_it_does_not_have(
    zoo_folder: Path, write: Write, edit: Edit, mistakes: Mistakes
) -> None:
    write("rows/like.yaml", AS_SEARCH)
    edit("models/every.yaml", "  - {metric", "  - {metric: ndcg@10, canvas: search, tolerance: -2%}\n  - {metric")
    write("models/child.yaml", CHILD)
    assert mistakes() == []
    zoo = load_zoo(zoo_folder)
    child, every = zoo.model("child"), zoo.model("every")
    assert (list(every.model.tasks), len(every.model.gates), "like" in every.rows) == (["search"], 2, True)
    assert (list(child.model.tasks), len(child.model.gates), "like" in child.rows) == ([], 1, False)
    assert sorted(str(note) for note in zoo.notes) == [
        "model_zoo/models/child.yaml:4:1: extends: Model child:1 does not inherit the gate of canvas 'search', "
        "which it does not have.",
        "model_zoo/models/child.yaml:4:1: extends: Model child:1 does not inherit the task of canvas 'search', "
        "which it does not have.",
        "model_zoo/rows/like.yaml:2:1: row 'like' is left out of model 'child:1', which has no canvas 'search'.",
    ]
    write("models/child.yaml", CHILD + "tasks: {search: {from: title_names}}\n")
    assert any("child.yaml:6:9: tasks.search: the model has no canvas 'search'" in text for text in mistakes())


def test_a_child_of_everycanvas_with_one_canvas_is_right(shipped_zoo: Path) -> None:
    text = "kind: Model\nname: small\nversion: 1\nextends: everycanvas\ncanvases: [home]\n"
    (shipped_zoo / "models" / "small.yaml").write_text(text)
    small = load_zoo(shipped_zoo).model("small")
    assert small.rows.keys() == load_zoo(shipped_zoo).model("everycanvas").rows.keys() - {
        "because_you_watched",
        "characters",
        "popular_with_kids",
    }
