"""What `playbill check` says will not be acted on is exactly that, key by key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.definitions.zoo import load_zoo

Edit = Callable[[str, str, str], None]
Write = Callable[[str, str], object]
PLAY = "{label: play, loss: softmax}"


def notes(folder: Path) -> list[str]:
    return [str(note) for note in load_zoo(folder).notes]


@pytest.mark.parametrize(
    "key",
    [
        "sampling: {strata: [country, tenure], floor: 0.02}",
        "evaluate: {protocol: replay, baselines: [popular], slices: [country]}",
        "promote: manual",
        "promote: auto",
        "update: {new_titles: mean_noise, replay: 0.1, holdout: 0.05, epochs: 2, rate: 0.05}",
        "adaptation: {country: none}",
        "adaptation: {country: gate, width: 16}",
        "contexts: {without: [country]}",
        "only: {country: [SE, FI]}",
        "init_from: every@champion",
        "init_from: {model: every:2, trunk: frozen}",
    ],
)
def test_keys_that_act_are_not_noted(zoo_folder: Path, edit: Edit, key: str) -> None:
    edit("models/every.yaml", "version: 1", f"version: 1\n{key}")
    assert notes(zoo_folder) == []


@pytest.mark.parametrize(
    "head",
    [
        "{label: play, loss: sampled_softmax, negatives: uniform}",
        "{label: play, loss: sampled_softmax, negatives: {policy: mixed, count: 8}}",
        "{label: play, loss: sampled_softmax, negatives: shown_not_played}",
        "{label: play, loss: bce, negatives: {policy: popularity, count: 8, exponent: 0.5}}",
        "{label: play, loss: bce, negatives: in_batch}",
        "{label: up, loss: bce, negatives: {policy: shown_not_played, count: 2}}",
        "{label: play, loss: softmax, reward: worth}",
        "{label: play, loss: bce, negatives: uniform, reward: worth}",
    ],
)
def test_heads_that_learn_from_both_sides_are_not_noted(zoo_folder: Path, edit: Edit, write: Write, head: str) -> None:
    write("rewards/worth.yaml", "kind: Reward\nname: worth\nversion: 1\nterms: {play: 1, up: 1}\n")
    edit("models/every.yaml", PLAY, head)
    assert notes(zoo_folder) == []


def test_an_auxiliary_head_acts_and_is_not_noted(zoo_folder: Path, edit: Edit) -> None:
    edit("models/every.yaml", PLAY, f"{PLAY}\n  genre: {{auxiliary: next_genres}}")
    assert notes(zoo_folder) == []


def test_a_policy_of_the_labels_own_zeros_needs_some(zoo_folder: Path, edit: Edit) -> None:
    edit("models/every.yaml", PLAY, "{label: play, loss: bce, negatives: shown_not_played}")
    (note,) = notes(zoo_folder)
    assert "label 'play' has no negatives" in note
