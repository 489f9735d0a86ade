"""What of a feature service reached a model: features planted in a score are found, others are not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill.datasets import make_split
from playbill.errors import StateError
from playbill.evaluation.feature_report import coverage, feature_report
from playbill.evaluation.rendering.plots import importance_figure

TITLES = [str(i) for i in range(1, 13)]


class Door:
    """A member's favourite title, known before every request, and a feature of noise."""

    def member_features(self, service, frame):
        favourite = frame["member_id"].str.slice(1).cast(pl.Float64) % len(TITLES)
        noise = pl.Series(np.random.default_rng(3).random(frame.height))
        vector = {"mine__vector[0]": noise, "mine__vector[1]": favourite}
        return frame.with_columns(mine__favourite=favourite, mine__noise=noise, mine__constant=pl.lit(1.0), **vector)


class Model:
    """Likes the member's favourite and titles of a high number."""

    title_ids = tuple(TITLES)

    def __init__(self, orders=None):
        self.orders = orders or {}

    def with_shuffled(self, feature, order):
        return Model({feature: order})

    def remember(self, moments):
        """Nothing to read ahead."""

    def score(self, requests, heads=None):
        numbers = np.array([float(title) for title in TITLES])
        numbers = sum(numbers[self.orders.get(name, slice(None))] for name in ("own__number", "own__vector")) / 2
        favourite = np.array([request.features["mine__favourite"] for request in requests])
        vector = np.array([request.features["mine__vector[1]"] for request in requests])
        liked = (np.arange(len(TITLES)) == favourite[:, None]) & (np.arange(len(TITLES)) == vector[:, None])
        return {"play": (0.6 * liked + 0.1 * numbers).astype(np.float32)}


def rows(members=40):
    """Everybody plays their favourite last of all, in the validation and in the test event."""
    found = []
    for member in range(members):
        favourite = member % len(TITLES)
        others = [
            title for place, title in enumerate(TITLES) if place not in (favourite, (favourite + 1) % len(TITLES))
        ]
        found += [(f"m{member}", title, float(day)) for day, title in enumerate(others[:4])]
        found += [(f"m{member}", TITLES[favourite], 10.0), (f"m{member}", TITLES[(favourite + 1) % len(TITLES)], 11.0)]
    return found


NUMERIC = ("mine__favourite", "mine__noise", "mine__constant", "mine__vector[0]", "mine__vector[1]")


def trained(numeric=NUMERIC, empty=False):
    """As much of a training set as the report reads."""
    state = SimpleNamespace(
        numeric=numeric,
        categorical={"mine__word": ("a",)},
        title_snapshot=("own__number", "own__noise"),
        title_categorical={"own__kind": ("film",)},
        title_vectors=("own__vector[0]", "own__vector[1]", "own__vector[2]"),
    )
    values = np.full((10, len(numeric)), 1.0)
    values[:4, 1] = np.nan
    context = SimpleNamespace(numeric=values, categorical=np.zeros((10, 1), np.int64))
    snapshots = np.full((2, len(TITLES) + 1, 2), np.nan if empty else 1.0, np.float32)
    titles = SimpleNamespace(
        snapshots=snapshots,
        categorical=np.ones((len(TITLES) + 1, 1), np.int64),
        numeric=np.ones((len(TITLES) + 1, 3), np.float32),
    )
    return SimpleNamespace(encoder=SimpleNamespace(state=state), context=context, titles=titles)


@pytest.fixture
def report():
    tables = world.tables_of(rows(), titles=TITLES)
    split = make_split("leave_one_out", tables.interactions)
    return lambda: feature_report(Model(), trained(), split, tables, world.resolved_of(), Door(), seed=5)


def test_what_the_score_reads_comes_first_and_noise_is_nothing(report):
    found = report()
    uses = {use.feature: use for use in found.features}
    assert {use.feature for use in found.features[:2]} == {"mine__favourite", "mine__vector"}
    assert uses["mine__favourite"].importance > 5 * uses["mine__favourite"].error > 0
    assert uses["mine__favourite"].ndcg > 0.2
    assert uses["mine__noise"].importance == uses["mine__constant"].importance == 0.0
    assert uses["own__noise"].importance == 0.0
    assert uses["own__number"].importance != 0.0
    assert uses["mine__vector"].importance > 0.1  # its numbers change places together
    assert uses["own__vector"].importance != 0.0
    assert found.requests == 40


def test_the_same_seed_gives_the_same_numbers(report):
    assert report() == report()


def test_coverage_is_of_training_requests_and_of_titles():
    assert coverage(trained()) == {
        "mine__favourite": 1.0,
        "mine__noise": pytest.approx(0.6),
        "mine__constant": 1.0,
        "mine__word": 0.0,
        "own__number": 1.0,
        "own__noise": 1.0,
        "own__kind": 1.0,
        "mine__vector": 1.0,
        "own__vector": 1.0,
    }
    assert coverage(trained(empty=True))["own__number"] == 0.0


def test_features_without_a_value_are_named_and_the_table_has_every_one(report):
    found = report()
    assert found.absent == ("mine__word",)
    table = found.table()
    assert table.height == 9
    assert table.filter(pl.col("feature") == "mine__noise")["missing"].item() == pytest.approx(0.4)
    (line,) = found.lines(most=2)
    assert "40 validation requests on home" in line
    assert "mine__favourite +" in line
    assert len(importance_figure(found).axes[0].patches) == 9


def test_a_log_without_targets_to_validate_on_is_told_and_still_has_coverage(report, monkeypatch):
    def nothing(*_, **__):
        raise StateError("no play was held out")

    monkeypatch.setattr("playbill.evaluation.feature_report.build_case", nothing)
    found = report()
    assert (found.requests, found.note) == (0, "no play was held out")
    assert {use.importance for use in found.features} == {None}
    assert "not measured" in found.lines()[0]
