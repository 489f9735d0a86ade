"""Every mistake of every file at once, each with its place and the nearest right name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.definitions.zoo import load_zoo, placed
from playbill.errors import DefinitionError

Edit = Callable[[str, str, str], None]
Write = Callable[[str, str], None]
Mistakes = Callable[..., list[str]]


def test_a_right_zoo_has_no_mistakes(mistakes: Mistakes) -> None:
    assert mistakes() == []


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "labels/play.yaml",
            "from:",
            "form:",
            "labels/play.yaml:4:1: form: unknown key 'form'. Did you mean 'from'?",
        ),
        (
            "labels/play.yaml",
            "version: 1",
            "version: one",
            "labels/play.yaml:3:10: version: must be a whole number.",
        ),
        ("labels/play.yaml", "version: 1", "", "labels/play.yaml:1:1: version: is missing."),
        ("labels/play.yaml", "kind: Label", "kind: Lable", "unknown kind 'Lable'. Did you mean 'Label'?"),
        ("labels/play.yaml", "kind: Label\n", "", "labels/play.yaml:1:1: kind: is missing."),
        (
            "canvases/home.yaml",
            "metric: play",
            "metric: plai",
            "home.yaml:5:9: metric: unknown label 'plai'. Did you",
        ),
        ("canvases/home.yaml", "metric: play", "metric: play:2", "label 'play' has no version 2. Versions: 1."),
        (
            "canvases/home.yaml",
            "up: 0.2",
            "upp: 0.2",
            "home.yaml:4:20: blend.upp: model 'every' has no head 'upp'.",
        ),
        ("canvases/home.yaml", "[top]", "[top, tops]", "home.yaml:6:13: rows.1: unknown row 'tops'. Did you mean"),
        ("canvases/home.yaml", "[top]", "[top, top]", "home.yaml:6:13: rows.1: 'top' is listed twice."),
        ("canvases/home.yaml", "name: home", "name: kids", "its candidates need kids: true"),
        ("rows/again.yaml", "{watched: true}", "{watchd: true}", "unknown key 'watchd'. Did you mean 'watched'?"),
        ("rows/again.yaml", "{watched: true}", "{launches_within: 7d}", "it needs available: upcoming"),
        ("rows/again.yaml", "{watched: true}", "{in_progress: true, watched: false}", "nothing satisfies both"),
        (
            "rows/again.yaml",
            "policy: popular",
            "policy: trendin",
            "unknown fallback 'trendin'. Did you mean 'trending'?",
        ),
        ("rows/again.yaml", "policy: popular", "policy: popular\nfallback: newest", "needs when_short: fallback"),
        ("rows/again.yaml", "{en: Again}", "{english!: Again}", "'english!' is no language"),
        ("canvases/search.yaml", "query", "qury", "context.1: unknown context field 'qury'. Did you mean 'query'?"),
        (
            "canvases/search.yaml",
            "[member, query, country]",
            "[member, country]",
            "makes a query, which canvas 'search' has not",
        ),
        (
            "rows/top.yaml",
            "canvas: home",
            "canvas: hom",
            "rows/top.yaml:5:9: canvas: unknown canvas 'hom'. Did you",
        ),
        ("rows/top.yaml", "canvas: home", "canvas: search", "rows.0: row 'top' is on canvas 'search'."),
        (
            "rows/top.yaml",
            "{play: 1.0}",
            "{plays: 1.0}",
            "blend.plays: model 'every' has no head 'plays'. Did you",
        ),
        ("rows/top.yaml", "{play: 1.0}", "{play: much}", "blend.play: 'much' is not a number."),
        ("models/every.yaml", "label: up", "label: upp", "every.yaml:8:15: heads.up.label: unknown label 'upp'."),
        (
            "models/every.yaml",
            "loss: bce",
            "loss: bcee",
            "heads.up.loss: unknown loss 'bcee'. Did you mean 'bce'?",
        ),
        (
            "models/every.yaml",
            "[home, search]",
            "[home, serch]",
            "canvases.1: unknown canvas 'serch'. Did you mean",
        ),
        ("models/every.yaml", "[home, search]", "[home, home]", "canvases.1: 'home' is listed twice."),
        ("models/every.yaml", "search: {from", "serch: {from", "tasks.serch: the model has no canvas 'serch'."),
        (
            "models/every.yaml",
            "canvas: home",
            "canvas: hom",
            "gates.0.canvas: 'hom' is not measured. Did you mean",
        ),
        (
            "models/every.yaml",
            "{label: up, loss: bce, weight: 0.3}",
            "{auxiliary: next_genres}",
            "blend.up: head 'up' of model 'every' is auxiliary and scores no titles",
        ),
        (
            "models/every.yaml",
            "weight: 0.3}\ntasks:\n  search: {from: title_names}\ngates:\n  - {metric: ndcg@10, canvas: home",
            "weight: 0.3}\n  genre: {auxiliary: next_genres}\ngates:\n  - {metric: auc, canvas: home, head: genre",
            "gates.0.head: 'genre' is not measured. Known: play, up.",
        ),
        ("models/every.yaml", "label: up, loss", "auxiliary: next_genres, loss", "has a loss of its own"),
        ("models/every.yaml", "{label: up, loss: bce", "{auxiliary: next_genre", "heads.up.auxiliary: "),
        ("models/every.yaml", "ndcg@10", "ndcg@20", "gates.0.metric: cut-off 20 is not in evaluate.k."),
        ("models/every.yaml", "tolerance: -1%", "tolerance: -1", "gates.0.tolerance: '-1' is no percentage"),
        ("models/every.yaml", "features: every_v1\n", "", "every.yaml:1:1: features: is missing."),
        (
            "models/every.yaml",
            "weight: 0.3",
            "weight: -1",
            "heads.up.weight: '-1' is out of range. Above 0 and at most 1,000.",
        ),
    ],
)
def test_each_mistake_is_reported_with_its_place(
    edit: Edit, mistakes: Mistakes, file: str, old: str, new: str, expected: str
) -> None:
    edit(file, old, new)
    assert any(expected in text for text in mistakes()), mistakes()


def test_mistakes_of_all_files_come_together_also_those_across_files(edit: Edit, mistakes: Mistakes) -> None:
    edit("labels/play.yaml", "prior_plays_of_title", "prior_plays_of_titles")
    edit("canvases/home.yaml", "metric: play", "metrik: play")
    edit("canvases/home.yaml", "up: 0.2", "upp: 0.2")
    edit("models/every.yaml", "label: up", "label: upp")
    edit("models/every.yaml", "weight: 0.3", "wait: 0.3")
    found = mistakes()
    for expected in (
        "'prior_plays_of_titles'",
        "'metrik'",
        "metric: is missing",
        "head 'upp'. Did",
        "label 'upp'",
        "'wait'",
    ):
        assert sum(expected in text for text in found) == 1, (expected, found)
    assert len(found) == 6


def test_one_mistake_causes_no_others(edit: Edit, mistakes: Mistakes) -> None:
    edit("models/every.yaml", "play: {label: play, loss: softmax}", "play: {label: play, loss: sotfmax}")
    assert len(mistakes()) == 1
    edit("labels/play.yaml", "action: play", "action: plai")
    assert len(mistakes()) == 2


def test_a_where_is_pointed_at_in_the_file(edit: Edit, mistakes: Mistakes) -> None:
    edit("labels/play.yaml", "prior_plays_of_title = 0", "progress >= 0.1 and contry = 'US'")
    (found,) = mistakes()
    assert "labels/play.yaml:4:50: from.where: unknown column 'contry'. Did you mean 'country'?" in found
    assert found.splitlines()[-1].index("^") == found.splitlines()[-2].index("contry")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("a: [1, 2", "YAML syntax"),
        ("a: b: c", "YAML syntax: mapping values are not allowed in this context"),
        ("kind: Label\n---\nkind: Row\n", "expected a single document"),
        ("- 1\n", "a definition is a mapping"),
        ("just words", "a definition is a mapping"),
        ("kind: Label\nkind: Row\nname: x\nversion: 1\n", "key 'kind' is given twice, first at line 1"),
        (
            "kind: Row\nname: x\nversion: 1\ntitle: {no: Nei}\n",
            "title: a key must be text, 'no' is not. Put it in",
        ),
        ("kind: Label\nname: &a [*a]\nversion: 1\n", "endless"),
        ("kind: Label\nname: x\nversion: 1\nfrom: !!python/object:os.system {}\n", "tag"),
        ("kind: Label\nname: x\nversion: 1\nfrom: !secret y\n", "tag '!secret' is not allowed"),
        ("kind: Label\n<<: {name: x}\nversion: 1\n", "'<<' is not used here. Use 'extends: name'"),
        ("kind: Label\nname: x\nversion: " + "9" * 5000 + "\n", "cannot be read"),
        ("kind: Label\nname: 7\nversion: 1\n", "name: must be text"),
        ("kind: [Label]\nname: x\nversion: 1\n", "unknown kind"),
        ("[" * 5000, "YAML syntax"),
    ],
)
def test_malformed_yaml_is_reported_with_its_place(write: Write, mistakes: Mistakes, text: str, expected: str) -> None:
    write("labels/odd.yaml", text)
    found = mistakes()
    assert any(expected in problem for problem in found), found
    assert all(problem.startswith("model_zoo/labels/odd.yaml:") for problem in found)


def test_a_file_that_is_not_text_is_reported(zoo_folder: Path, mistakes: Mistakes) -> None:
    (zoo_folder / "labels" / "odd.yaml").write_bytes(b"kind: Label\nname: \xff\xfe\n")
    assert mistakes() == ["model_zoo/labels/odd.yaml:1:1: is not UTF-8 text (byte 18)."]


def test_a_definition_written_twice_is_reported(write: Write, mistakes: Mistakes) -> None:
    write("labels/zz.yaml", "kind: Label\nname: play\nversion: 1\nfrom: {action: play}\n")
    (found,) = mistakes()
    assert "labels/zz.yaml:2:1: name: Label play:1 is defined twice, first in model_zoo/labels/play.yaml" in found


def test_a_missing_and_an_empty_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="no such folder"):
        load_zoo(tmp_path / "nowhere")
    with pytest.raises(DefinitionError, match="there is no definition in it"):
        load_zoo(tmp_path)


def test_problems_are_sorted_and_readable_by_scripts(zoo_folder: Path, edit: Edit) -> None:
    edit("models/every.yaml", "loss: bce", "loss: bcee")
    edit("labels/up.yaml", "action: thumbs_up", "action: thumb_up")
    with pytest.raises(DefinitionError) as caught:
        load_zoo(zoo_folder)
    first, second = map(placed, caught.value.problems)
    assert (first["file"], first["line"], first["column"]) == ("model_zoo/labels/up.yaml", 4, 16)
    assert second["path"] == "heads.up.loss"
    assert second["hint"] == "Did you mean 'bce'?"


ENSEMBLE = """kind: Ensemble
name: both
version: 1
members:
  global: every@champion
  taste: {model: taste@champion, canvas: home}
  trending: {term: popular_7d}
gate: [country]
guard: {slice: country, worst: -2%}
"""
TASTE = "kind: Model\nname: taste\nversion: 1\nfeatures: every_v1\ncanvases: [home]\n"
TASTE += "heads: {play: {label: play, loss: softmax}, up: {label: up, loss: bce}}\n"


def test_all_mistakes_between_an_ensemble_and_its_members_are_named(
    write: Write, edit: Edit, mistakes: Mistakes
) -> None:
    edit("models/every.yaml", "{label: play, loss: softmax}", "{label: play, loss: softmax, terms: [popular_7d]}")
    write("models/taste.yaml", TASTE)
    write("ensembles/both.yaml", ENSEMBLE)
    assert mistakes() == []
    wrong = ENSEMBLE.replace("{model: taste@champion, canvas: home}", "taste:7")
    wrong = wrong.replace("popular_7d", "ease").replace("slice: country", "slice: title_age")
    write(
        "ensembles/both.yaml",
        wrong.replace("gate: [", "gates:\n- {metric: ndcg@10, canvas: hom, tolerance: 0%}\ngate: ["),
    )
    edit("models/every.yaml", "features: every_v1", "features: every_v1\nevaluate: {slices: [country]}")
    found = mistakes()
    assert [line.split(": ", 1)[1].split(". ")[0] for line in found] == [
        "members.taste: model 'taste' lacks canvas search",
        "members.trending.term: no head of 'every' has the term 'ease'",
        "gates.0.canvas: 'hom' is not measured",
        "guard.slice: 'title_age' is not measured, so nothing could hold the guard",
    ]
    assert "Name one that it is asked on instead: {model: taste:7, canvas: home}." in found[0]
    assert "Terms: popular_7d." in found[1]
    write("ensembles/both.yaml", ENSEMBLE.replace("canvas: home}", "canvas: hom}").replace("every@", "evry@"))
    assert "unknown model 'evry'. Did you mean 'every'?" in mistakes()[0]
    write("ensembles/both.yaml", ENSEMBLE.replace("canvas: home}", "canvas: hom}"))
    assert "model 'taste' has no canvas 'hom'. Did you mean 'home'?" in mistakes()[0]
    write("ensembles/both.yaml", ENSEMBLE.replace("name: both", "name: taste"))
    assert "name: a model is called 'taste' too" in mistakes()[0]
