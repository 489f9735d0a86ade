"""Orders of rows on logged pages: which pages are asked, with what past, and what an order is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill.arrays import Floats64
from playbill.datasets import Request, make_split
from playbill.definitions.specs import CanvasSpec, HeadSpec, LabelSpec, ResolvedModel, RowSpec
from playbill.errors import ConfigError, StateError
from playbill.evaluation import EvaluationTables, evaluate_canvas, evaluate_model
from playbill.evaluation.canvases.row_cases import RowCase, build_row_case
from playbill.evaluation.canvases.row_orders import AsLogged, AsWritten, PopularRows, RowRanker, measured_order
from playbill.evaluation.metric_aggregation import Judging
from playbill.labels import extract
from playbill.metrics import auc, ranks_within
from playbill.ranking.page_rules import RowEntry

TITLES = [str(number) for number in range(1, 13)]
NAMES = ("top", "genre", "again")
QUICK = Judging(slices=("country", "tenure"), minimum_members=1, resamples=50)


def pages_of(tables: EvaluationTables) -> EvaluationTables:
    """The same log, where every play is from a page of three rows: which row, the play's number decides."""
    plays = tables.interactions.with_columns(
        canvas=pl.lit("home"), request_id=pl.format("r-{}", "event_id"), seq=10 * pl.col("seq")
    )
    chosen = pl.int_range(pl.len()) % 4  # 3: from none of them
    numbered = plays.with_columns(
        chosen=chosen,
        row_id=pl.when(chosen == 0)
        .then(pl.lit("top"))
        .when(chosen == 1)
        .then(pl.lit("genre:drama"))
        .otherwise(pl.lit("again")),
    )
    shown = [
        numbered.with_columns(
            event_id=pl.format("i{}-{}", pl.lit(place), "event_id"),
            action=pl.lit("impression"),
            row_id=pl.lit(name),
            title_id=pl.when(pl.col("chosen") == place).then("title_id").otherwise(pl.lit(TITLES[place])),
            position=pl.lit(0, pl.Int32),
            progress=pl.lit(None, pl.Float32),
            seq=pl.col("seq") - 5 + place,
        )
        for place, name in enumerate(("top", "genre:drama", "again"))
    ]
    away = pl.when(pl.col("chosen") == 3)
    played = numbered.with_columns(
        request_id=away.then(pl.lit("elsewhere")).otherwise("request_id"),
        row_id=away.then(None).otherwise("row_id"),
        position=pl.lit(None, pl.Int32),
    )
    columns = [*plays.columns, *(name for name in ("row_id", "position") if name not in plays.columns)]
    parts = [played.select(columns), *(one.select(columns) for one in shown)]
    return replace(tables, interactions=pl.concat(parts, how="vertical_relaxed").sort("member_id", "seq"))


def with_rows(resolved: ResolvedModel) -> ResolvedModel:
    """The model with rows on home, a head about them, and a canvas that ranks them."""
    label = LabelSpec.model_validate(
        {"name": "row_play", "version": 1, "level": "row", "extractor": "played_from", "window": "1d"}
        | {"matures_after": "30h"}
    )
    home = resolved.canvas("home")
    canvas = CanvasSpec.model_validate(
        {"name": "ranking", "version": 1, "target": "row", "rows_of": "home", "blend": {"row_play": 1.0}}
        | {"metric": "row_play", "context": home.context}
    )
    rows = {
        name: RowSpec.model_validate(
            {"name": name, "version": 1, "title": {"en": name}, "canvas": "home", "policy": "popular"}
        )
        for name in NAMES
    }
    heads = {**resolved.model.heads, "row_play": HeadSpec(label="row_play", loss="bce")}
    model = resolved.model.model_copy(update={"heads": heads, "canvases": (*resolved.model.canvases, "ranking")})
    update = {
        "model": model,
        "labels": {**resolved.labels, "row_play": label},
        "canvases": {**resolved.canvases, "ranking": canvas},
        "rows": rows,
    }
    return resolved.model_copy(update=update)


@pytest.fixture
def logged():
    return pages_of(world.tables_of(world.random_rows(), titles=TITLES))


@pytest.fixture
def resolved():
    return with_rows(world.resolved_of(home={"candidates": {"available": "now"}}))


@pytest.fixture
def split(logged):
    return make_split("global_time_successive", logged.interactions)


@pytest.fixture
def whole(logged, split, resolved) -> RowCase:
    return build_row_case(logged, split, resolved, "ranking")


@pytest.fixture
def case(whole: RowCase) -> RowCase:
    return whole.ordered()


def test_a_page_is_asked_before_its_first_event(case: RowCase, logged: EvaluationTables) -> None:
    requests = case.requests()
    assert {request.canvas for request in requests} == {"home"}
    assert {request.row for request in requests} == {None}
    events = {event["event_id"]: event for event in logged.interactions.iter_rows(named=True)}
    for request, event_id in zip(requests, case.frame["event_id"], strict=True):
        first = events[event_id]
        assert request.history is not None
        own = logged.interactions.filter(pl.col("member_id") == first["member_id"], pl.col("seq") < first["seq"])
        assert request.history["event_id"].to_list() == own["event_id"].to_list()
        assert first["request_id"] not in set(own["request_id"])


def test_rows_and_plays_are_those_of_the_log(
    case: RowCase, whole: RowCase, logged: EvaluationTables, resolved: ResolvedModel
) -> None:
    values = extract(resolved.labels["row_play"], logged.interactions, logged.end, logged.availability)
    texts = dict(values.select("event_id", "value").iter_rows())
    pages = case.frame["request_id"].to_list()
    by_event = {event["event_id"]: event for event in logged.interactions.iter_rows(named=True)}
    for number, event_id in enumerate(pages):
        own = by_event[event_id]
        expected = [
            (event["row_id"], texts[event["event_id"]] > 0)
            for event in logged.interactions.filter(
                pl.col("request_id") == own["request_id"], pl.col("action") == "impression"
            ).iter_rows(named=True)
        ]
        here = case.pages == number
        assert (
            list(zip(case.rows["row_id"].to_list(), case.played.tolist(), strict=True))[
                int(here.argmax()) : int(here.argmax()) + int(here.sum())
            ]
            == expected
        )
        assert sum(played for _, played in expected) >= 1
    assert case.left_out == len(whole) - len(case) > 0, "pages that nothing was played from say nothing of an order"
    assert case.rows["stated"].unique().sort().to_list() == [None, "drama"]


def test_measures_are_those_of_sorting_by_hand(case: RowCase) -> None:
    values = np.random.default_rng(0).normal(size=len(case.pages)).round(1)
    found = measured_order(case, values, (1, 3)).values
    for page in range(len(case)):
        own = np.nonzero(case.pages == page)[0]
        ordered = sorted(own.tolist(), key=lambda row: (-values[row], row))
        hits = [bool(case.played[row]) for row in ordered]
        best = sum(1 / np.log2(place + 2) for place in range(min(3, sum(hits))))
        gain = sum(hit / np.log2(place + 2) for place, hit in enumerate(hits[:3]))
        assert found["ndcg@3"][page] == pytest.approx(gain / best)
        assert found["hr@1"][page] == float(hits[0])
        assert found["mrr@3"][page] == pytest.approx(1 / (1 + hits.index(True)))
    with pytest.raises(ValueError, match="no number"):
        measured_order(case, np.full(len(case.pages), np.nan), (1,))


def test_ranks_are_within_groups() -> None:
    assert ranks_within(np.array([1.0, 3.0, 2.0, 5.0, 5.0]), np.array([0, 0, 0, 4, 4])).tolist() == [3, 1, 2, 1, 2]


def test_reference_orders_stand_beside_a_models(case: RowCase) -> None:
    assert (np.diff(AsLogged().values(case)) < 0).all()
    written = dict(zip(case.rows["name"].to_list(), AsWritten().values(case).tolist(), strict=True))
    assert written == {"top": 0.0, "genre": -1.0, "again": -2.0}
    assert set(PopularRows().values(case).tolist()) <= set(case.rates.values())
    assert set(case.rates) == set(NAMES)


class Heads:
    """Values rows by their names; says what it was asked."""

    title_ids = tuple(TITLES)

    def __init__(self, worth: Mapping[str, float]) -> None:
        self.worth, self.requested, self.entries = worth, list[Request](), list[RowEntry]()

    def page_states(self, requests: Sequence[Request]) -> list[Heads]:
        self.requested += requests
        return [self for _ in requests]

    def values(self, blend: Mapping[str, float]):
        assert blend == {"row_play": 1.0}

        def valued(rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Floats64:
            assert not above
            self.entries += rows
            return np.array([self.worth[row.name] for row in rows])

        return valued


def test_a_model_is_asked_by_its_heads_about_rows(logged, split, resolved, case: RowCase, whole: RowCase) -> None:
    heads = Heads({"top": 0.0, "genre": 1.0, "again": 2.0})
    report = evaluate_canvas(
        RowRanker(heads, resolved, "ranking", None), split, logged, resolved, "ranking", judging=QUICK
    )
    assert (report.canvas, report.n, report.left_out, report.catalogue) == ("ranking", len(case), case.left_out, 3)
    assert report.case_digest == case.digest
    assert [row.name for row in report.rows] == [resolved.model.name, "as_written", "popular_rows", "as_logged"]
    own = measured_order(case, np.array([heads.worth[name] for name in case.rows["name"]]), (10, 1, 3)).values
    assert report.result.metrics["ndcg@10"].value == pytest.approx(own["ndcg@10"].mean())
    assert {row.slice for row in report.slices} == {"country", "tenure"}
    assert len(heads.requested) == len(whole), "every page once, for the order and for the head"
    firsts = [TITLES.index(title) for title in whole.rows["title_id"]]
    assert [entry.head for entry in heads.entries] == firsts
    values = np.array([heads.worth[name] for name in whole.rows["name"]])
    (head,) = report.heads
    assert (head.head, head.rows, head.positives) == ("row_play", len(whole.pages), int(whole.played.sum()))
    assert head.metrics["auc"].value == pytest.approx(auc(values, whole.played.astype(float)))
    assert head.metrics["auc"].low < head.metrics["auc"].value < head.metrics["auc"].high
    assert {entry.genre for entry in heads.entries} == {None, "drama"}
    with pytest.raises(ConfigError, match="their own baselines"):
        evaluate_canvas(RowRanker(heads, resolved, "ranking", None), split, logged, resolved, "ranking", baselines=())


def test_a_whole_model_is_measured_with_its_rows(logged, split, resolved) -> None:
    heads = Heads({"top": 0.0, "genre": 1.0, "again": 2.0})
    found = evaluate_model(heads, split, logged, resolved, None, canvases=["ranking"], judging=QUICK)
    assert set(found.reports) == {"ranking"}
    assert "ranking/ndcg@10/minus=as_logged" in found.gate_metrics()


def test_a_log_without_pages_says_so(resolved) -> None:
    bare = world.tables_of(world.random_rows(), titles=TITLES)
    with pytest.raises(StateError, match="holds out no page on 'home'"):
        build_row_case(bare, make_split("global_time_successive", bare.interactions), resolved, "ranking")


def test_pages_of_some_members_are_a_case_of_their_own(case: RowCase) -> None:
    kept = np.arange(len(case)) % 2 == 1
    part = case.keep(kept)
    assert len(part) == int(kept.sum())
    assert part.digest != case.digest
    assert part.target_counts.tolist() == case.target_counts[kept].tolist()
    whole, own = (AsLogged().values(one) for one in (case, part))
    np.testing.assert_array_equal(
        measured_order(part, own, (3,)).values["ndcg@3"], measured_order(case, whole, (3,)).values["ndcg@3"][kept]
    )
