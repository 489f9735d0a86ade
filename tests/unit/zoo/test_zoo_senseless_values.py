"""What is written well and makes no sense is refused, with the range that does; wrong shapes are named as they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

Edit = Callable[[str, str, str], None]
Write = Callable[[str, str], None]
Mistakes = Callable[..., list[str]]

MODEL, ROW, HOME = "models/every.yaml", "rows/again.yaml", "canvases/home.yaml"
TRUNK, TRAINING = "features: every_v1\ntrunk: {%s}", "features: every_v1\ntraining: {%s}"


def trunk(text: str) -> tuple[str, str, str]:
    return MODEL, "features: every_v1", TRUNK % text


def training(text: str) -> tuple[str, str, str]:
    return MODEL, "features: every_v1", TRAINING % text


def rules(text: str) -> tuple[str, str, str]:
    return ROW, "{watched: true}", text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (trunk("dim: 1000000"), "every.yaml:5:14: trunk.dim: '1000000' is out of range. At least 1 and at most 4,096."),
        (trunk("dim: 0"), "trunk.dim: '0' is out of range. At least 1 and at most 4,096."),
        (trunk("layers: 1000"), "trunk.layers: '1000' is out of range. At least 1 and at most 64."),
        (trunk("sharing: {type: mmoe, experts: 9999}"), "experts: '9999' is out of range. At most 64."),
        (training("epochs: 1000000000000"), "epochs: '1000000000000' is out of range. At least 1 and at most 1,000."),
        (training("epochs: 1e12"), "training.epochs: '1e12' is not a whole number."),
        (training("epochs: 2.5"), "training.epochs: '2.5' is not a whole number."),
        (training("learning_rate: 1000"), "learning_rate: '1000' is out of range. Above 0 and at most 1."),
        (training("learning_rate: fast"), "training.learning_rate: 'fast' is not a number."),
        (training("batch_slots: 1" + "0" * 60), "batch_slots: '1" + "0" * 39 + "...' is out of range."),
        ((MODEL, "weight: 0.3", "weight: 1e300"), "heads.up.weight: '1e300' is out of range."),
        ((HOME, "up: 0.2", "up: 1.0e+300"), "blend.up: '1e+300' is out of range. At least -1,000 and at most 1,000."),
        ((HOME, "up: 0.2", "up: .inf"), "blend.up: 'inf' is not a finite number."),
        ((HOME, "{play: 1.0, up: 0.2}", "{play: -1.0, up: 0}"), "home.yaml:4:8: blend: no weight is above 0"),
        (("rows/top.yaml", "{play: 1.0}", "{play: -1.0}"), "top.yaml:6:8: blend: no weight is above 0"),
        ((MODEL, "-1%", "1%"), "tolerance: '1%' needs a sign. Write -1% (may be 1% lower) or +1% (must be 1% higher)."),
        ((MODEL, "-1%", "-200%"), "gates.0.tolerance: '-200%' is out of range. From -100% to +1000%."),
        (("rows/top.yaml", "{en: Top}", "{en: 'More {genre}'}"), "rows/top.yaml:4:13: title.en: {genre} is filled in"),
        (
            (ROW, "{en: Again}", "{en: '{title}, {genre}'}\ngenerator: {each: watched_title}"),
            "title.en: {genre} is not filled in a row for each watched_title. There are {title}.",
        ),
        ((ROW, "policy: popular", "policy: popular\nminimum_length: 100000"), "minimum_length: '100000' is out of"),
        (rules("{finished_before: 999999999999d}"), "finished_before: '999999999999d' is too long, at most 36500d."),
        (rules("{top_in_country: 0}"), "top_in_country: '0' is out of range. At least 1 and at most 1,000."),
        (rules("{watched: maybe}"), "candidates.watched: 'maybe' is not true or false."),
        (rules("{kind: film}"), "again.yaml:6:20: candidates.kind: must be a list, not 'film'. Write [film]."),
        (rules("{kind: {film: yes}}"), "candidates.kind: must be a list, not a mapping. Write [...], or lines that"),
        (rules("[watched]"), "candidates: must be a mapping of keys to values, not a list. Its keys: available, char"),
        (
            (HOME, "{play: 1.0, up: 0.2}", "[play]"),
            "blend: must be a mapping of keys to values, not a list. Write {key",
        ),
        ((ROW, "{en: Again}", "Again"), "title: must be a mapping of keys to values, not 'Again'. Write {key: value}"),
        ((MODEL, "heads:\n", "heads: []\nhead:\n"), "heads: must be a mapping of keys to values, not a list."),
        (
            (ROW, "policy: popular", "candidates:\n\twatched: true"),
            "again.yaml:8:1: YAML syntax: a tab, and YAML inden",
        ),
        ((ROW, "policy: popular", "policy:\n  - a\n\t- b"), "again.yaml:9:1: YAML syntax: a tab, and YAML indents"),
        ((ROW, "policy: popular", "policy: popular\nkind: Row"), "kind: key 'kind' is given twice, first at line 1."),
    ],
)
def test_each_senseless_value_is_refused_in_one_sentence(
    edit: Edit, mistakes: Mistakes, change: tuple[str, str, str], expected: str
) -> None:
    edit(*change)
    assert any(expected in text for text in mistakes()), mistakes()


ROOTS: dict[str, Callable[[str], str]] = {
    "no version": lambda text: text.replace("version: 1\n", "", 1),
    "an unknown kind": lambda text: re.sub(r"^kind: (.)(.)", r"kind: \2\1", text),
    "no name": lambda text: re.sub(r"^name: .*\n", "", text, flags=re.MULTILINE),
    "a name in capitals": lambda text: re.sub(r"^name: (.*)", lambda found: f"name: {found[1].upper()}", text, flags=8),
    "a tab": lambda text: text + "\tdescription: x\n",
    "nothing": lambda text: "",
}


@pytest.mark.parametrize("root", ROOTS)
def test_consequences_of_a_mistake_are_not_reported(zoo_folder: Path, mistakes: Mistakes, root: str) -> None:
    for path in sorted(zoo_folder.rglob("*.yaml")):
        text = path.read_text()
        path.write_text(ROOTS[root](text))
        (found,) = mistakes()
        assert path.name in found
        path.write_text(text)


def test_a_file_that_could_not_be_read_comes_first(edit: Edit, write: Write, mistakes: Mistakes) -> None:
    edit("canvases/home.yaml", "metric: play", "metric: play:9")
    edit("rows/top.yaml", "kind: Row", "kind: Raw")
    found = mistakes()
    assert ["rows/top.yaml" in found[0], "canvases/home.yaml" in found[1]] == [True, True]
    write("labels/late.yaml", "")
    assert "labels/late.yaml" in mistakes()[0]


def test_a_version_that_could_not_be_read_is_no_missing_version(write: Write, edit: Edit, mistakes: Mistakes) -> None:
    write("labels/play_2.yaml", "kind: Label\nname: play\nversion: two\nfrom: {action: play}\n")
    edit("models/every.yaml", "label: play", "label: play:2")
    (found,) = mistakes()
    assert "labels/play_2.yaml:3:10: version: must be a whole number." in found


def test_a_label_that_waits_cannot_be_learnt_by_leave_one_out(edit: Edit, mistakes: Mistakes) -> None:
    edit("labels/up.yaml", "negatives:", "window: 7d\nmatures_after: 7d\nnegatives:")
    assert mistakes() == []  # left to the log, which then has to be cut by time
    edit(MODEL, "gates:", "evaluate: {protocol: leave_one_out}\ngates:")
    (found,) = mistakes()
    assert "every.yaml:8:15: heads.up.label: label 'up' waits 7d for an outcome, and protocol leave_one_out" in found
    edit(MODEL, "weight: 0.3", "weight: 0.3, optional: true")
    assert mistakes() == []
    edit(MODEL, "weight: 0.3, optional: true", "weight: 0.3")
    edit(MODEL, "leave_one_out", "global_time")
    assert mistakes() == []
