"""Rewards against the labels they name, and heads against their rewards: every mistake with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.definitions.specs import reward_version, reward_versions
from playbill.definitions.zoo import load_zoo
from playbill.errors import UnknownNameError

Edit = Callable[[str, str, str], None]
Write = Callable[[str, str], None]
Mistakes = Callable[..., list[str]]

DONE = """\
kind: Label
name: done
version: 1
from: {action: play, where: "later_best_progress_of_title >= 0.9"}
window: 7d
matures_after: 7d
negatives: {actions: [play]}
"""
PAGE = """\
kind: Label
name: page
version: 1
level: page
from: {action: impression}
"""


def reward(terms: str, more: str = "") -> str:
    return f"kind: Reward\nname: worth\nversion: 1\nterms: {terms}\n{more}"


@pytest.fixture(autouse=True)
def _labels(write: Write) -> None:
    write("labels/done.yaml", DONE)
    write("labels/page.yaml", PAGE)


@pytest.mark.parametrize(
    ("terms", "more", "expected"),
    [
        ("{dona: 1}", "", "rewards/worth.yaml:4:9: terms.dona: unknown label 'dona'. Did you mean 'done'?"),
        ("{done: 1, page: 1}", "", "worth.yaml:4:18: terms.page: label 'page' is about a whole page"),
        ("{up: 1}", "delayed: [up]", "worth.yaml:5:11: delayed.0: label 'up' has no window"),
        ("{done: 1}", "delayed: [dune]", "delayed 'dune' is not among the terms. Did you mean 'done'?"),
        ("{done: {weight: 1, within: 3d}}", "", "terms.done.within: label 'done' is about the play or impression"),
        ("{done: {wieght: 1}}", "", "terms.done.wieght: unknown key 'wieght'. Did you mean 'weight'?"),
        ("{done: much}", "", "terms.done.weight: 'much' is not a number"),
        ("{up: {weight: 1, within: soon}}", "", "'soon' is no duration"),
        ("{up: {weight: 1, within: 3d, attribute: event}}", "", "'within', which is for `attribute: same_title`"),
        ("{done: 1, done:1: 2}", "", "label 'done' is a term twice"),
        ("{done: 1}", "clip: [1, 0]", "clip goes from low to high, not from 1 to 0"),
        ("{}", "", "worth.yaml:4:8: terms: "),
        ("{done: .nan}", "", "worth.yaml:4:15: terms.done"),
        ("{done: 1, up: 0}", "", "term 'up' counts for nothing: give it a weight or an 'otherwise', or take it out"),
        (
            "{done: 1, up: 1}",
            "matures_after: 5d",
            "worth.yaml:4:9: terms.done: is final after 7d, later than the 5d of the reward's 'matures_after'",
        ),
        ("{up: {weight: 1, within: 9d}}", "matures_after: 8d", "worth.yaml:4:9: terms.up: is final after 9d"),
    ],
)
def test_wrong_rewards_are_refused(write: Write, mistakes: Mistakes, terms: str, more: str, expected: str) -> None:
    write("rewards/worth.yaml", reward(terms, more))
    assert any(expected in line for line in mistakes()), mistakes()


def test_every_mistake_of_a_reward_is_reported_at_once(write: Write, mistakes: Mistakes) -> None:
    terms = "{dona: 1, page: 1, done: {weight: 1, within: 3d}, up: -1}"
    write("rewards/worth.yaml", reward(terms, "delayed: [up]\nmatures_after: 1d\n"))
    found = [line.partition("rewards/")[2] for line in mistakes()]
    assert [line.split(": ")[:2] for line in found] == [
        ["worth.yaml:4:9", "terms.dona"],
        ["worth.yaml:4:18", "terms.page"],
        ["worth.yaml:4:27", "terms.done"],
        ["worth.yaml:4:53", "terms.done.within"],
        ["worth.yaml:5:11", "delayed.0"],
    ]


def test_a_reward_may_promise_when_it_is_final(write: Write, mistakes: Mistakes) -> None:
    write("rewards/worth.yaml", reward("{done: 1, up: {weight: 1, within: 3d}}", "matures_after: 7d"))
    assert mistakes() == []


def test_a_right_reward_is_read(write: Write, zoo_folder: Path) -> None:
    write("rewards/worth.yaml", reward("{done: 0.6, up: {weight: 0.3, within: 7d}}", "delayed: [done, up]"))
    found = load_zoo(zoo_folder).rewards["worth"]
    assert found.terms["done"].weight == 0.6
    assert found.delayed == ("done", "up")


def test_a_reward_comes_with_the_labels_it_names_and_one_id(write: Write, edit: Edit, zoo_folder: Path) -> None:
    """A newer version of a label changes a reward that names no version, and none that names one."""
    write("rewards/worth.yaml", reward("{'done:1': 0.6, up: 0.3}", "delayed: ['done:1']"))
    write("rewards/newest.yaml", reward("{done: 0.6}").replace("worth", "newest"))
    edit("models/every.yaml", "label: play, loss: softmax}", "label: play, loss: softmax, reward: worth}")

    def ids() -> tuple[str, str]:
        zoo = load_zoo(zoo_folder)
        return reward_version(*zoo.reward("worth")), reward_version(*zoo.reward("newest:1"))

    before = ids()
    write("labels/done2.yaml", DONE.replace("version: 1", "version: 2").replace("0.9", "0.8"))
    after = ids()
    assert after[0] == before[0]
    assert after[1] != before[1]
    spec, labels = load_zoo(zoo_folder).reward("worth")
    assert (list(spec.terms), spec.delayed) == (["done", "up"], ("done",))
    assert labels["done"].version == 1
    assert reward_versions(load_zoo(zoo_folder).model("every")) == {"worth": before[0]}
    with pytest.raises(UnknownNameError, match="Did you mean 'worth'"):
        load_zoo(zoo_folder).reward("wort")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "{label: up, loss: bce,",
            "{label: up, loss: bce, reward: worth,",
            "heads.up.reward: label 'up' is of thumbs_up events, and rewards are about plays and impressions",
        ),
        (
            "{label: play, loss: softmax}",
            "{label: play, loss: softmax, reward: wort}",
            "heads.play.reward: unknown reward 'wort'. Did you mean 'worth'?",
        ),
        (
            "{label: play, loss: softmax}",
            "{label: 'done:1', loss: softmax, reward: worth}",
            "counts 'done', another version of that label than this model's",
        ),
        (
            "{label: play, loss: softmax}",
            "{label: play, loss: softmax, reward: against}",
            "heads.play.reward: no term of reward 'against' is ever above 0, so a 'softmax' loss would learn",
        ),
    ],
)
def test_heads_whose_reward_cannot_weigh_them_are_refused(
    write: Write, edit: Edit, mistakes: Mistakes, old: str, new: str, expected: str
) -> None:
    write("labels/done2.yaml", DONE.replace("version: 1", "version: 2").replace("0.9", "0.8"))
    write("rewards/worth.yaml", reward("{done: 1}"))
    write("rewards/against.yaml", reward("{done: {weight: -1, otherwise: -0.2}}").replace("worth", "against"))
    edit("models/every.yaml", old, new)
    assert any(expected in line for line in mistakes()), mistakes()


def test_a_binary_head_may_learn_what_is_not_wanted(write: Write, edit: Edit, mistakes: Mistakes) -> None:
    write("rewards/against.yaml", reward("{done: {weight: -1, otherwise: -0.2}}").replace("worth", "against"))
    edit("models/every.yaml", "{label: play, loss: softmax}", "{label: play, loss: bce, reward: against}")
    assert mistakes() == []


def test_one_model_has_one_version_of_a_reward(write: Write, edit: Edit, mistakes: Mistakes) -> None:
    write("rewards/worth.yaml", reward("{done: 1}"))
    write("rewards/worth2.yaml", reward("{done: 2}").replace("version: 1", "version: 2"))
    two = "{label: play, loss: softmax, reward: 'worth:1'}\n  again: {label: play, loss: softmax, reward: 'worth:2'}"
    edit("models/every.yaml", "{label: play, loss: softmax}", two)
    assert any("two versions of reward 'worth' in one model" in line for line in mistakes()), mistakes()


def test_a_bce_head_whose_zeros_weigh_nothing_is_noted(write: Write, edit: Edit, zoo_folder: Path) -> None:
    edit("labels/play.yaml", "version: 1", "version: 1\nnegatives: {shown_not_played: true}")
    edit("models/every.yaml", "{label: play, loss: softmax}", "{label: play, loss: bce, reward: worth}")
    write("rewards/worth.yaml", reward("{done: 1}"))
    assert any("hence no weight" in str(note) for note in load_zoo(zoo_folder).notes)
    write("rewards/worth.yaml", reward("{done: 1, play: {weight: 0, otherwise: -0.1}}"))
    assert not any("hence no weight" in str(note) for note in load_zoo(zoo_folder).notes)
