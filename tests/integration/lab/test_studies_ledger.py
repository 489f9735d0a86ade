"""The models of a ledger, and what it says of answers made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.datasets import TrainingSet, make_split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import Zoo
from playbill.errors import IntegrityError, ProblemsError, UnknownNameError
from playbill.metrics import Interval
from playbill.training.build import build_network, loop_settings
from playbill_lab.bridge.live_features import NoFeatures
from playbill_lab.bridge.simulated_log import training_set
from playbill_lab.studies.ledger.arms import Costs, canvas_rows, rows_by_canvas
from playbill_lab.studies.ledger.data import LedgerOptions
from playbill_lab.studies.ledger.head_gains import auc_gain
from playbill_lab.studies.ledger.ladder import Stacked, best_by_canvas, k_means, unit, without_member
from playbill_lab.studies.ledger.models import (
    definition_size,
    heads_of,
    only_head,
    separate_model,
    shared_size,
    with_recipe,
)
from playbill_lab.studies.ledger.report import canvas_cells
from playbill_lab.studies.ledger.run import LedgerCell, LedgerCells
from playbill_lab.studies.ledger.table import BaselineRow, CanvasRow

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def resolved(zoo: Zoo) -> ResolvedModel:
    """The shipped model, small."""
    found = zoo.model("everycanvas")
    trunk = found.model.trunk.model_copy(update={"dim": 16, "layers": 1, "heads": 1})
    model = found.model.model_copy(update={"trunk": trunk, "features": "none"})
    return found.model_copy(update={"model": model})


@pytest.fixture(scope="module")
def data(small, resolved: ResolvedModel) -> TrainingSet:
    split = make_split("global_time", small.log.interactions())
    return training_set(small.log, resolved, split, NoFeatures())


def test_a_separate_model_is_the_same_but_for_its_canvas_and_heads(resolved: ResolvedModel) -> None:
    for canvas in resolved.canvases:
        alone = separate_model(resolved, canvas)
        assert list(alone.canvases) == [canvas]
        assert set(alone.model.heads) == set(heads_of(resolved, canvas))
        assert {row.canvas for row in alone.rows.values()} <= {canvas}
        assert set(alone.model.tasks) <= {canvas}
        for part in ("trunk", "history", "titles", "training", "features", "contexts"):
            assert getattr(alone.model, part) == getattr(resolved.model, part)
    with pytest.raises(UnknownNameError, match="billboard"):
        separate_model(resolved, "bilboard")


def test_networks_differ_by_the_heads_alone(small, data: TrainingSet, resolved: ResolvedModel) -> None:
    whole = data.trained(resolved)
    alone = separate_model(whole, "billboard")
    part = canvas_rows(data, alone, ["billboard"], tuple(alone.model.heads))
    sizes = []
    for model, rows in ((whole, data), (alone, part)):
        network = build_network(model, rows)
        of_heads = (network.heads, network.title_bias, network.canvas_titles)
        own = sum(weight.numel() for part in of_heads for weight in part.parameters())
        sizes.append(sum(weight.numel() for weight in network.parameters()) - own)
    assert sizes[0] == sizes[1]


def test_a_separate_model_learns_from_its_own_rows_alone(data: TrainingSet, resolved: ResolvedModel) -> None:
    alone = separate_model(data.trained(resolved), "billboard")
    heads = tuple(alone.model.heads)
    part = canvas_rows(data, alone, ["billboard"], heads)
    counts = rows_by_canvas(part, heads)
    assert counts["billboard"] == rows_by_canvas(data, heads)["billboard"] > 0
    assert sum(counts.values()) == counts["billboard"]


def test_what_has_to_be_defined_is_counted_once_each(resolved: ResolvedModel) -> None:
    alone = {canvas: separate_model(resolved, canvas) for canvas in resolved.canvases}
    one, many = definition_size(resolved), shared_size(alone)
    assert many["files"] < sum(definition_size(model)["files"] for model in alone.values())
    assert one["lines"] < many["lines"]
    assert shared_size({"a": resolved, "b": resolved}) == definition_size(resolved)


def test_a_head_alone_is_blended_everywhere(resolved: ResolvedModel) -> None:
    alone = only_head(resolved, "thumbs_up")
    assert list(alone.model.heads) == ["thumbs_up"]
    assert set(alone.canvases) == set(resolved.canvases)


def test_the_lowest_rung_does_not_know_its_member(resolved: ResolvedModel) -> None:
    assert any("member" in canvas.context for canvas in resolved.canvases.values())
    assert not any("member" in canvas.context for canvas in without_member(resolved).canvases.values())


def test_a_recipe_changes_training_alone(resolved: ResolvedModel) -> None:
    changed = with_recipe(resolved, 5, epochs=2, min_steps=None)
    assert (changed.model.training.seed, changed.model.training.epochs) == (5, 2)
    assert changed.model.training.min_steps == resolved.model.training.min_steps
    assert changed.canvases == resolved.canvases


def test_steps_that_are_asked_for_are_not_bounded_by_the_passes_of_the_definition(resolved: ResolvedModel) -> None:
    bounded = with_recipe(resolved, 5, max_epochs=2)
    assert loop_settings(bounded).total_epochs(steps_per_epoch=1) == max(2, bounded.model.training.epochs)
    assert loop_settings(with_recipe(bounded, 5, min_steps=40)).total_epochs(steps_per_epoch=1) == 40


def test_cells_are_made_once_and_kept(tmp_path: Path) -> None:
    progress: list[str] = []
    cells = LedgerCells(tmp_path / "cells", progress.append)
    cell = LedgerCell(pl.DataFrame({"canvas": ["home"], "ndcg": [0.5]}), Costs(1.0, 2.0, 3, 4, 5, 6))
    first = cells.get("separate/home-17", "a" * 64, lambda: cell)
    again = LedgerCells(tmp_path / "cells").get("separate/home-17", "a" * 64, lambda: pytest.fail("made anew"))
    assert again.costs == first.costs == cell.costs
    assert again.values.equals(cell.values)
    assert progress == ["separate/home-17"]
    other = cells.get("separate/home-17", "b" * 64, lambda: LedgerCell(cell.values))
    assert other.costs is None
    path = next((tmp_path / "cells").glob(f"*{'a' * 16}*"))
    path.write_bytes(b"nothing")
    with pytest.raises(IntegrityError, match="remove it"):
        cells.get("separate/home-17", "a" * 64, lambda: cell)


def test_what_cannot_be_run_is_refused_at_once() -> None:
    with pytest.raises(ProblemsError, match=r"(?s)'ablation'.*'ablations'.*17 is there twice"):
        LedgerOptions(parts=("ablation",), seeds=(17, 17)).check()


def test_the_weight_of_a_stack_is_chosen_on_the_validation_fold() -> None:
    def answered(validation: float, test: float) -> pl.DataFrame:
        folds, values = ["validation", "test"], [validation, test]
        return pl.DataFrame({"canvas": ["home"] * 2, "fold": folds, "place": [0, 1], "ndcg": values})

    found = best_by_canvas({0.0: answered(0.2, 0.9), 1.0: answered(0.3, 0.1)})
    assert found.sort("place")["ndcg"].to_list() == [0.3, 0.1]


def test_a_stack_adds_standardised_scores_to_its_own_titles() -> None:
    class Given:
        def __init__(self, titles: tuple[str, ...], scores: list[list[float]]) -> None:
            self.title_ids, self._scores = titles, np.array(scores)

        def score(self, requests: object) -> np.ndarray:
            return self._scores

    ours, theirs = Given(("a", "b"), [[0.0, 1.0]]), Given(("b", "c", "a"), [[2.0, 4.0, 6.0]])
    spread = np.std([2.0, 4.0, 6.0])
    assert Stacked(ours, theirs, 0.5).score([]) == pytest.approx(np.array([[1.0 / spread, 1.0 - 1.0 / spread]]))
    assert Stacked(ours, theirs, 0.0).score([]) == pytest.approx(np.array([[0.0, 1.0]]))


def test_points_around_two_directions_have_two_centres() -> None:
    draw = np.random.default_rng(0)
    points = unit(np.repeat(np.eye(4)[:2], 50, axis=0) + 0.05 * draw.normal(size=(100, 4)))
    centres = k_means(points, 2, seed=1)
    assert sorted((centres @ np.eye(4)[:2].T).argmax(axis=1).tolist()) == [0, 1]


def test_a_better_head_gains_and_the_same_head_does_not() -> None:
    draw = np.random.default_rng(3)
    label = draw.integers(0, 2, 400).astype(np.float64)
    members = np.repeat(np.arange(100), 4)
    weak, strong = ([label * lift + draw.normal(size=400) for _ in range(3)] for lift in (0.2, 2.0))
    assert auc_gain(strong, weak, label, members, 100).low > 0.1
    same = auc_gain(weak, weak, label, members, 50)
    assert same.value == same.low == same.high == 0.0
    json.dumps(same._asdict())


def test_the_table_names_the_best_baseline_and_those_that_the_one_model_is_not_ahead_of() -> None:
    baselines = {
        "popular": BaselineRow(Interval(0.10, 0.09, 0.11), Interval(0.05, 0.03, 0.07)),
        "ease": BaselineRow(Interval(0.16, 0.15, 0.17), Interval(-0.01, -0.03, 0.01)),
    }
    own, relative = Interval(0.15, 0.14, 0.16), Interval(0.5, 0.4, 0.6)
    row = CanvasRow("home", "played ndcg@10", own, own, relative, 90, 40, True, 10, 0, {}, {}, baselines)
    assert row.better
    assert (row.best_baseline, row.not_ahead_of) == ("ease", ("ease",))
    assert canvas_cells(row)[-3:] == ("ease 0.1600", "-0.0100 [-0.0300, +0.0100]", "! ease")
    alone = replace(row, baselines={"popular": baselines["popular"]})
    assert canvas_cells(alone)[-1] == ""
