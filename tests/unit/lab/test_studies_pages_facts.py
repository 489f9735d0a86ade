"""The held-out page reward: it finds the cascade that made a log, and rewards pages that put plays where eyes are."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.errors import StateError
from playbill_lab.studies.pages.facts import Looks, PageReward, reward_error

ROWS, COLUMNS = 3, 4
ON, DOWN = 0.8, 0.7


def chance_of(appeal: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(2 * appeal - 1)))


def browse(pages: int, seed: int) -> tuple[Looks, float]:
    """Let visits look at pages of titles with an appeal; also return the share that played."""
    rng = np.random.default_rng(seed)
    looks: list[tuple[float, int, int, bool, float, float]] = []
    plays = 0
    for _ in range(pages):
        appeal = rng.normal(size=(ROWS, COLUMNS))
        row, done = 0, False
        while row < ROWS and not done:
            for column in range(COLUMNS):
                played = rng.random() < chance_of(appeal[row, column])
                last = column == COLUMNS - 1
                on = not played and not last and rng.random() < ON
                left = not played and not on
                down = left and row < ROWS - 1 and rng.random() < DOWN
                told_on = np.nan if played or last else float(on)
                told_down = float(down) if left and row < ROWS - 1 else np.nan
                looks.append((appeal[row, column], row, column, played, told_on, told_down))
                if played or (left and not down):
                    done, plays = True, plays + played
                    break
                if left:
                    break
            row += 1
    columns = [np.array(values) for values in zip(*looks, strict=True)]
    found = Looks(columns[0][:, None], columns[1], columns[2], columns[3], *columns[4:])
    return found, plays / pages


def test_the_cascade_expects_as_many_plays_as_there_are() -> None:
    fitted, _ = browse(4000, 1)
    held_out, share = browse(4000, 2)
    model = PageReward.fit(fitted)
    appeal = np.random.default_rng(3).normal(size=(4000, ROWS, COLUMNS, 1))
    there = np.ones(appeal.shape[:3], np.bool_)
    assert model.reward(appeal, there).mean() == pytest.approx(share, abs=0.02)
    error = reward_error(model, fitted, held_out)
    assert error.log_loss < 0.8 * error.constant_log_loss
    assert error.ece < 0.03
    assert error.expected == pytest.approx(error.observed, abs=0.02)
    assert error.expected_on == pytest.approx(ON, abs=0.02)
    assert error.expected_down == pytest.approx(DOWN, abs=0.03)
    assert error.went_down == pytest.approx(DOWN, abs=0.03)


def test_what_is_liked_is_worth_more_further_up_and_empty_places_are_worth_nothing() -> None:
    model = PageReward.fit(browse(3000, 1)[0])
    appeal = np.full((2, ROWS, COLUMNS, 1), -2.0)
    appeal[0, 0, 0], appeal[1, 2, 3] = 2.0, 2.0
    there = np.ones(appeal.shape[:3], np.bool_)
    top, bottom = model.reward(appeal, there)
    assert top > bottom + 0.2
    assert model.reward(appeal, np.zeros_like(there)).tolist() == [0.0, 0.0]
    # A row of one title is left after it: the next row is reached, places that are not there are not looked at.
    short = there.copy()
    short[:, 0, 1:] = False
    looked, _ = model.looks_at(appeal, short)
    assert (looked[:, 0, 1:] == 0).all()
    assert (looked[:, 1, 0] > 0).all()


def test_looks_that_all_ended_alike_teach_nothing() -> None:
    looks = browse(50, 1)[0]
    still = Looks(
        looks.features, looks.row, looks.column, np.zeros(len(looks), np.bool_), looks.went_on, looks.went_down
    )
    with pytest.raises(StateError, match="all ended alike"):
        PageReward.fit(still)
