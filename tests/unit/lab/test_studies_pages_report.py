"""The study of pages as JSON, a table, a picture and an MLflow run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.metrics import Interval
from playbill_lab.ab.report import MEASURES, compare
from playbill_lab.studies.pages.facts import RewardError
from playbill_lab.studies.pages.report import HEADLINES, pages_frame, pages_json, pages_page, plot_pages, record_pages
from playbill_lab.studies.pages.study import PagesOptions, PagesStudy

ARMS = ("fixed", "greedy")


@pytest.fixture
def study() -> PagesStudy:
    def interval(value: float) -> Interval:
        return Interval(value, value - 0.1, value + 0.1)

    def lived(seed: int) -> pl.DataFrame:
        rng = np.random.default_rng(seed)
        rows = {"member": np.arange(40), "run": np.zeros(40, np.int64)}
        return pl.DataFrame(rows | {name: rng.random(40) for name in MEASURES})

    values = {"fixed": 0.5, "greedy": 0.7}
    return PagesStudy(
        options=PagesOptions(arms=ARMS),
        arms={arm: {name: interval(value) for name in HEADLINES} for arm, value in values.items()},
        differences={arm: {name: interval(value - 0.5) for name in HEADLINES} for arm, value in values.items()},
        coverage={"fixed": 0.25, "greedy": 0.5},
        error=RewardError(10, 0.3, 0.6, 0.9, 0.02, 0.2, 0.21, 0.8, 0.81, 0.7, 0.71),
        online=compare({arm: lived(seed) for seed, arm in enumerate(ARMS)}, days=3, seeds=(1,), about={}),
        fitted=SimpleNamespace(parameters=12, seconds=1.0),  # type: ignore[arg-type]
        pages=7,
    )


def test_json_and_tables_tell_every_arm(study: PagesStudy) -> None:
    whole = json.loads(json.dumps(pages_json(study)))
    assert whole["arms"]["greedy"]["page_ndcg"]["value"] == 0.7
    assert whole["arms"]["greedy"]["page_ndcg"]["difference"] == pytest.approx(0.2)
    assert whole["arms"]["fixed"]["coverage"]["value"] == 0.25
    assert set(whole["simulated_ab"]["arms"]) == set(ARMS)
    assert whole["reward_error"]["constant_log_loss"] == 0.6
    assert pages_frame(study).height == len(ARMS) * len(HEADLINES)
    page = pages_page(study)
    assert "| page_ndcg | 0.5000 (0.4000 to 0.6000) | 0.7000 (0.6000 to 0.8000) |" in page
    assert "| A/B plays_per_day |" in page


def test_the_picture_is_drawn(study: PagesStudy, tmp_path: Path) -> None:
    plot_pages(study, tmp_path / "pages.svg")
    drawn = (tmp_path / "pages.svg").read_text()
    assert drawn.count('<g id="axes_') == len(HEADLINES) + 4


class Run:
    """Takes what a run would keep."""

    run_id = "r1"

    def __init__(self, kept: dict[str, Any]) -> None:
        self.kept = kept

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.kept.setdefault("metrics", {}).update(metrics)

    def log_table(self, frame: pl.DataFrame, name: str) -> None:
        self.kept[name] = frame

    def log_text(self, text: str, path: str) -> None:
        self.kept[path] = text

    def log_artifact(self, path: Path, folder: str) -> None:
        self.kept[f"{folder}/{path.name}"] = path.stat().st_size


def test_the_run_keeps_numbers_tables_and_the_picture(study: PagesStudy) -> None:
    kept: dict[str, Any] = {}
    tracking = SimpleNamespace(start_run=lambda *about: Run(kept))
    assert record_pages(tracking, study) == "r1"  # type: ignore[arg-type]
    assert kept["metrics"]["greedy/page_ndcg"] == 0.7
    assert "greedy/ab_value" in kept["metrics"]
    assert kept["metrics"]["reward_error/ece"] == 0.02
    assert kept["figures/pages.png"] > 1000
    assert json.loads(kept["pages/report.json"])["pages"] == 7
