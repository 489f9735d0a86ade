"""A trained model under evaluation: features by request, blended heads, every canvas."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill.datasets import Request, make_split
from playbill.definitions.specs.measures import BESIDE
from playbill.errors import StateError
from playbill.evaluation import CanvasScorer, Judging, beside, evaluate_canvas, evaluate_model
from playbill.evaluation.canvases import model as model_module

TITLES = [str(i) for i in range(1, 13)]
CANVASES = {
    "search": {"context": ["member", "query", "country"]},
    "more_like_this": {"context": ["member", "source_title"], "candidates": {"exclude_source": True}},
    "coming_soon": {"candidates": {"available": "upcoming"}},
}
QUICK = Judging(minimum_members=5, resamples=50)


class Heads:
    """Scores titles by their number; remembers what it was asked."""

    def __init__(self) -> None:
        self.title_ids, self.requested, self.moments = TITLES, [], []

    def remember(self, moments):
        self.moments += moments

    def score(self, requests, heads=None):
        self.requested.append(list(requests))
        return {"play": np.tile(np.linspace(3, -3, 12, dtype=np.float32), (len(requests), 1))}


class Door:
    """Features that say which member and moment they were asked for."""

    def __init__(self) -> None:
        self.frames = []

    def member_features(self, service, frame):
        self.frames.append((service, frame))
        return frame.with_columns(pl.col("member_id").alias("member__who"), pl.col("event_at").alias("member__when"))


def test_only_the_heads_of_the_blend_are_asked_for():
    requested = []

    class Named(Heads):
        def score(self, requests, heads=None):
            requested.append(set(heads))
            return super().score(requests)

    CanvasScorer(Named(), world.resolved_of(**CANVASES), "home", None).score([Request("home", world.day(1))])
    assert requested == [{"play"}]


@pytest.fixture
def data():
    frames = world.tables_of(world.random_rows(), titles=TITLES)
    return frames, make_split("leave_one_out", frames.interactions), world.resolved_of(**CANVASES)


def test_every_request_carries_its_own_features_as_of_its_moment(data, monkeypatch):
    frames, split, resolved = data
    monkeypatch.setattr(model_module, "REQUESTS_AT_ONCE", 7)
    heads, door = Heads(), Door()
    function = CanvasScorer(heads, resolved, "home", door)
    report = evaluate_canvas(function, split, frames, resolved, "home", baselines=(), judging=QUICK)
    requested = [request for part in heads.requested for request in part]
    assert report.n == len(requested) == 60
    assert max(len(part) for part in heads.requested) == 7
    for request in requested:
        assert request.features == {"member__who": request.member_id, "member__when": request.at}
        assert request.history["event_at"].max() < request.at
    assert heads.moments == [request.at for request in requested]
    ((service, frame),) = door.frames
    assert service == "tiny_v1"
    assert {"member_id", "event_at", "canvas", "query", "source_title_id"} <= set(frame.columns)


def test_heads_are_blended_as_the_canvas_says():
    class Two(Heads):
        def score(self, requests, heads=None):
            return {
                "play": np.array([[1.0, 0.0]], np.float32),
                "up": np.array([[-2.0, 2.0]], np.float32),
            }

    resolved = world.resolved_of()
    heads = {**resolved.model.heads, "up": resolved.model.heads["play"].model_copy(update={"loss": "bce"})}
    canvas = resolved.canvases["home"].model_copy(update={"blend": {"play": 1.0, "up": 0.5}})
    resolved = resolved.model_copy(
        update={"model": resolved.model.model_copy(update={"heads": heads}), "canvases": {"home": canvas}}
    )
    scorer = Two()
    scorer.title_ids = ["1", "2"]
    scores = CanvasScorer(scorer, resolved, "home", None).score([Request("home", world.day(0))])
    log_softmax = np.array([1.0, 0.0]) - np.log(np.e + 1)
    log_sigmoid = -np.log1p(np.exp(-np.array([-2.0, 2.0])))
    np.testing.assert_allclose(scores[0], log_softmax + 0.5 * log_sigmoid, rtol=1e-6)


def test_every_canvas_is_measured_in_its_own_way_or_said_not_to_be(data):
    frames, split, resolved = data
    steps = []
    found = evaluate_model(
        Heads(), split, frames, resolved, Door(), progress=lambda canvas, done, total: steps.append(canvas)
    )
    assert {name: report.protocol for name, report in found.reports.items()} == {
        "home": "leave_one_out",
        "search": "made_queries",
        "more_like_this": "co_play_pairs",
    }
    assert "has no held-out title among its candidates" in found.skipped["coming_soon"]
    assert {"home/ndcg@10", "search/hr@10", "more_like_this/mrr@10"} <= set(found.gate_metrics())
    assert list(dict.fromkeys(steps)) == ["home", "search", "more_like_this"]


def test_baselines_are_fitted_once_and_stand_beside_every_canvas(data, monkeypatch):
    fitted = []
    build = beside.build_baseline

    def counted(name, case):
        fitted.append(name)
        return build(name, case)

    monkeypatch.setattr(beside, "build_baseline", counted)
    frames, split, resolved = data
    found = evaluate_model(Heads(), split, frames, resolved, Door())
    assert len(found.reports) == 3
    for report in found.reports.values():
        assert {row.name for row in report.baselines} == set(BESIDE), report.canvas
        assert {row.baseline for row in report.differences} == set(BESIDE)
        assert f"{report.canvas}/ndcg@10/minus=item_knn/low" in found.gate_metrics()
    assert fitted == list(BESIDE)


def test_other_baselines_can_be_asked_for_on_any_canvas_of_titles(data):
    frames, split, resolved = data
    function = CanvasScorer(Heads(), resolved, "search", None)
    report = evaluate_canvas(function, split, frames, resolved, "search", baselines=("popular",))
    assert [row.name for row in report.baselines] == ["popular"]


def test_a_baseline_that_is_slow_with_so_many_titles_is_left_out_and_the_report_says_so(data, monkeypatch):
    monkeypatch.setitem(beside.MOST_TITLES, "ease", 3)
    frames, split, resolved = data
    function = CanvasScorer(Heads(), resolved, "home", None)
    report = evaluate_canvas(function, split, frames, resolved, "home", judging=QUICK)
    assert "ease" not in {row.name for row in report.baselines}
    assert any("'ease' is left out: it is slow with" in note for note in report.notes)
    chosen = evaluate_canvas(function, split, frames, resolved, "home", baselines=("ease",), judging=QUICK)
    assert [row.name for row in chosen.baselines] == ["ease"]


def test_no_measurable_canvas_is_an_error_with_the_reason(data):
    frames, split, resolved = data
    with pytest.raises(StateError, match=r"no canvas could be measured\n.*'coming_soon'"):
        evaluate_model(Heads(), split, frames, resolved, None, canvases=["coming_soon"])


def test_what_happens_after_a_request_cannot_change_its_rank(data):
    """Fields known only after the target event are shuffled; the requests that are scored stay the same."""
    from dataclasses import replace

    frames, split, resolved = data
    held = split.frame.filter(pl.col("fold").cast(pl.String) == "test")["event_id"].to_list()
    changed = frames.interactions.with_columns(
        progress=pl.when(pl.col("event_id").is_in(held)).then(0.77).otherwise(pl.col("progress")).cast(pl.Float32)
    )
    first, second = Heads(), Heads()
    for heads, tables in ((first, frames), (second, replace(frames, interactions=changed))):
        function = CanvasScorer(heads, resolved, "home", None)
        evaluate_canvas(function, split, tables, resolved, "home", baselines=(), judging=QUICK)
    for before, after in zip(first.requested[0], second.requested[0], strict=True):
        assert before.history.equals(after.history)
        assert (before.at, before.country, before.member_id) == (after.at, after.country, after.member_id)
