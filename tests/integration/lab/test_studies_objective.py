"""The study in its smallest size: what is in it, that it goes on where it was cut off, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.datasets import make_split
from playbill.errors import IntegrityError, ProblemsError, UnknownNameError
from playbill.metrics import Interval
from playbill_lab.studies.cells import Cell, Cells, Offline, agreements, digest
from playbill_lab.studies.objective.arms import BASE, CAPACITIES, OBJECTIVES, StudyOptions, StudyRecipe, study_model
from playbill_lab.studies.objective.report import plot_study, study_json, study_page
from playbill_lab.studies.objective.study import OFFLINE, Run, Study, judged, run_study

SMALL = StudyOptions(
    members=100,
    titles=40,
    log_days=14,
    test_members=60,
    test_days=1,
    seeds=(1,),
    objectives=("click_like", "long_term"),
    capacities=("small", "medium"),
    recipe=StudyRecipe(epochs=1, min_steps=2, history=10),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def study(zoo, folder) -> Study:
    return run_study(zoo, SMALL, folder)


def test_every_model_is_judged_offline_and_online(study: Study) -> None:
    models = ["click_like_small", "long_term_small", "click_like_medium", "long_term_medium"]
    assert [row.arm for row in study.offline] == models
    assert study.online.names == (BASE, "popular", "best_value", *models)
    assert all(set(OFFLINE) <= set(row.metrics) for row in study.offline)
    sizes = {row.arm: row.parameters for row in study.offline}
    assert sizes["click_like_small"] == sizes["long_term_small"] < sizes["click_like_medium"]
    assert len({row.examples for row in study.offline}) == 1
    assert study.online.members <= 60
    assert {row.name for row in study.contrasts} >= {
        "click_like: medium - small",
        "small: long_term - click_like",
        "long_term small - click_like medium",
    }


def test_json_page_and_picture_hold_all_of_it(study: Study, tmp_path: Path) -> None:
    read = json.loads(json.dumps(study_json(study), allow_nan=False))
    assert set(read["models"]) == {row.arm for row in study.offline}
    assert set(read["arms"]) == set(study.online.names)
    assert {row["metric"] for row in read["agreement"]} <= set(OFFLINE)
    page = study_page(study)
    assert all(f"| {name} |" in page for name in study.online.names)
    plot_study(study, tmp_path / "study.svg")
    drawn = (tmp_path / "study.svg").read_text()
    assert "click_like" in drawn
    assert len(drawn) < 200_000


def test_a_study_goes_on_where_it_was_cut_off(zoo, study: Study, folder: Path, monkeypatch) -> None:
    request: list[str] = []
    whole = Run.cell

    def counted(run: Run, arm: str) -> Cell:
        request.append(arm)
        return whole(run, arm)

    monkeypatch.setattr(Run, "cell", counted)
    next(folder.glob("popular-1-*.parquet")).unlink()
    again = run_study(zoo, SMALL, folder)
    assert request == ["popular"]
    assert again.online.frame().equals(study.online.frame())
    assert again.offline == study.offline


def test_other_sizes_models_or_worlds_are_other_cells(zoo, folder: Path) -> None:
    run = Run.of(zoo, SMALL, 1, folder)
    longer = Run.of(zoo, StudyOptions(**{**vars(SMALL), "test_days": 2}), 1, folder)
    other = Run.of(zoo, SMALL, 2, folder)
    learning = Run.of(zoo, StudyOptions(**{**vars(SMALL), "recipe": StudyRecipe(epochs=2)}), 1, folder)
    mine = run.digest("click_like_small")
    assert mine == Run.of(zoo, SMALL, 1, folder).digest("click_like_small")
    assert len({mine, longer.digest("click_like_small"), other.digest("click_like_small")}) == 3
    assert learning.digest("click_like_small") != mine
    assert learning.digest(BASE) == run.digest(BASE)


def test_what_came_after_the_log_says_what_held_out_plays_were_worth(small) -> None:
    """The same requests with and without the days that were waited; only their worth is known better."""
    log = small.log
    split = make_split("global_time_successive", log.interactions())
    waited = judged(small.fitted, log, split, "model", 5)
    early = type(log)(log.world, log.events, log.end)
    at_once = judged(small.fitted, early, split, "model", 5)
    assert waited.requests == at_once.requests
    assert waited.metrics["ndcg@10"] == at_once.metrics["ndcg@10"]
    assert waited.metrics["reward_ndcg@10"] != at_once.metrics.get("reward_ndcg@10")


def test_impossible_studies_are_refused_before_anything_runs(zoo, tmp_path: Path) -> None:
    wrong = StudyOptions(members=10, test_members=20, seeds=(1, 1), objectives=(), capacities=("small",))
    with pytest.raises(ProblemsError) as found:
        run_study(zoo, wrong, tmp_path / "study")
    for what in ("20 members cannot be tested", "seeds: '1' is there twice", "objectives: at least one"):
        assert what in str(found.value)
    assert not (tmp_path / "study").exists()
    with pytest.raises(UnknownNameError, match="Did you mean 'click_like'"):
        run_study(zoo, StudyOptions(objectives=("click_lik",)), tmp_path / "study")
    with pytest.raises(UnknownNameError, match="Did you mean 'large'"):
        study_model(zoo, "play", "larg", StudyRecipe())
    with pytest.raises(UnknownNameError, match="unknown reward 'longterm'"):
        study_model(zoo, "play", "small", StudyRecipe(), judged_by="longterm")


def test_models_differ_in_what_is_studied_alone(zoo) -> None:
    models = [study_model(zoo, goal, size, StudyRecipe()).model for goal in OBJECTIVES for size in CAPACITIES]
    assert [model.heads["objective"].reward for model in models[:: len(CAPACITIES)]] == list(OBJECTIVES)
    plain = {
        model.model_copy(update={"name": "m", "heads": {}, "trunk": models[0].trunk}).model_dump_json()
        for model in models
    }
    assert len(plain) == 1


def cell(offline: Offline | None = None) -> Cell:
    return Cell("arm", 3, pl.DataFrame({"member": [0, 1], "run": [0, 0], "value": [1.5, 2.0]}), offline)


OFF = Offline("arm", 3, {"ndcg@10": Interval(0.2, 0.1, 0.3)}, 9, 100, 50, 1.5)


@pytest.mark.parametrize("offline", [None, OFF])
def test_finished_cells_are_read_from_their_files(tmp_path: Path, offline: Offline | None) -> None:
    cells, request = Cells(tmp_path / "cells"), digest(days=3)
    assert cells.read("arm", 3, request) is None
    cells.write(cell(offline), request)
    found = cells.read("arm", 3, request)
    assert found is not None
    assert found.members.equals(cell().members)
    assert found.offline == offline
    assert cells.read("arm", 4, request) is cells.read("arm", 3, digest(days=4)) is None
    assert [path.suffix for path in (tmp_path / "cells").iterdir()] == [".parquet"]


def test_a_damaged_cell_is_named(tmp_path: Path) -> None:
    cells = Cells(tmp_path)
    cells.write(cell(OFF), "abc")
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(IntegrityError, match="is no cell of a study"):
        cells.read("arm", 3, "abc")
    pl.DataFrame({"member": [1]}).write_parquet(path)
    with pytest.raises(IntegrityError, match="is no cell of a study"):
        cells.read("arm", 3, "abc")


def test_agreement_is_the_correlation_of_ranks() -> None:
    fits = {"a": (0.1, 0.1), "b": (0.2, 0.2), "c": (0.3, 0.3), "d": (0.4, 0.9)}
    lives = {"a": (1.0, 4.0), "b": (2.0, 3.0), "c": (3.0, 2.0), "d": (9.0, 1.0)}
    offline = [
        Offline(name, seed, {"fit": Interval(fit, fit, fit)}, 1, 1, 1, 1.0)
        for name, both in fits.items()
        for seed, fit in zip((7, 8), both, strict=True)
    ]
    online = {
        name: pl.DataFrame({"run": [0, 0, 1], "value": [both[0] - 1, both[0] + 1, both[1]], "same": np.ones(3)})
        for name, both in lives.items()
    }
    (found,) = agreements(offline, online, ["fit"], ["value", "same"])
    assert found.by_seed == {7: pytest.approx(1.0), 8: pytest.approx(-1.0)}
    assert found.mean == pytest.approx(0.0)
    assert (found.best_offline, found.best_online) == ("d", "d")
    assert agreements(offline[:4], online, ["fit"], ["value"]) == ()
