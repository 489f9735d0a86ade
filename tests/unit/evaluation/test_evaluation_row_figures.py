"""Figures of one row, on a log small enough to work the numbers out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill.datasets import make_split
from playbill.definitions.specs import RowSpec
from playbill.definitions.specs.resolved import LeftOut
from playbill.errors import ComparisonError, ConfigError, StateError, UnknownNameError
from playbill.evaluation import EvaluationReport, Judging, RowFigure, assert_comparable, evaluate_row
from playbill.evaluation.cases import case as candidates_module

TITLES = [str(number) for number in range(1, 8)]
GENRES = {"1": "Drama", "2": "Drama", "3": "Comedy", "4": "Comedy", "5": "Drama", "6": "Drama", "7": "Comedy"}
QUICK = Judging(slices=(), minimum_members=30, resamples=50)
RULES = {"available": "now", "watched": False}
ROWS = {
    "dramas": {"candidates": {**RULES, "genres": ["Drama"]}, "blend": {"play": 1.0}},
    "genre_rows": {"title": {"en": "{genre}"}, "blend": {"play": 1.0}, "generator": {"each": "genre"}},
    "because": {
        "title": {"en": "Because of {title}"},
        "candidates": {**RULES, "exclude_source": True},
        "blend": {"play": 1.0},
        "generator": {"each": "watched_title"},
        "scored_as": "more_like_this",
    },
    "week": {"policy": "popular_7d"},
    "chart": {"candidates": {"available": "now"}, "policy": "popular_7d", "chart": True},
    "again": {"candidates": {"available": "now", "watched": True}, "blend": {"play": 1.0}},
}
"""The last play of each member is held out, the one before it validates, so only the first is learnt from."""
PLAYS = [("a", "341"), ("b", "135"), ("c", "314"), ("d", "352")]


class ByNumber:
    """A model that likes small numbers best; remembers what it was asked."""

    title_ids = TITLES

    def __init__(self) -> None:
        self.requests = []

    def remember(self, moments):
        pass

    def score(self, requests, heads=None):
        self.requests += requests
        return {"play": np.tile(np.linspace(3, -3, len(TITLES), dtype=np.float32), (len(requests), 1))}


@pytest.fixture
def resolved():
    beside = {"context": ["member", "source_title"], "candidates": {"available": "now"}}
    model = world.resolved_of(more_like_this=beside)
    plain = {"version": 1, "canvas": "home", "candidates": RULES, "title": {"en": "A row"}}
    rows = {name: RowSpec.model_validate(plain | own | {"name": name}) for name, own in ROWS.items()}
    return model.model_copy(update={"rows": rows})


@pytest.fixture
def log():
    """The tables with every held-out play of a member in a row, as `log(a='dramas', ...)`."""

    def made(**row_ids):
        rows = [(member, title, float(step)) for member, titles in PLAYS for step, title in enumerate(titles)]
        tables = world.tables_of(rows, titles=TITLES)
        last = pl.col("seq") == pl.col("seq").max().over("member_id")
        shown = pl.col("member_id").replace_strict(row_ids, default=None, return_dtype=pl.String)
        events = tables.interactions.with_columns(
            request_id=pl.format("r-{}", "event_id"), row_id=pl.when(last).then(shown), seq=10 * pl.col("seq")
        )
        genres = pl.Series([[GENRES[title]] for title in TITLES], dtype=pl.List(pl.String))
        return replace(tables, interactions=events, titles=tables.titles.with_columns(genres=genres))

    return made


def measured(tables, resolved, name, scorer=None, *, baselines=("popular",), **options) -> EvaluationReport:
    split = make_split("leave_one_out", tables.interactions)
    figure = RowFigure.of(resolved, name, **options)
    scorer = scorer or ByNumber()
    return evaluate_row(figure, scorer, split, tables, resolved, None, baselines=baselines, judging=QUICK)


def candidates_of(tables, resolved, name) -> dict[str, str]:
    """Return each member's candidates, as one text."""
    case = RowFigure.of(resolved, name).case(tables, make_split("leave_one_out", tables.interactions))
    masks = np.concatenate([chunk.candidates for chunk in case.chunks()])
    return {
        member: "".join(np.array(TITLES)[mask]) for member, mask in zip(case.frame["member_id"], masks, strict=True)
    }


def test_everybody_ranks_the_rows_own_candidates_for_its_own_plays(log, resolved) -> None:
    """`a` played 1 of 1256: place 1. `b` played 5 of 256: place 2. `c` played a comedy; `d` played in another row."""
    tables = log(a="dramas", b="dramas", c="dramas", d="week")
    assert candidates_of(tables, resolved, "dramas") == {"a": "1256", "b": "256"}
    report = measured(tables, resolved, "dramas", baselines=("popular", "ease"))
    expected = (1 + 1 / math.log2(3)) / 2
    assert (report.n, report.left_out, report.subject, report.label) == (2, 1, "home, row dramas", "discovery_play")
    assert report.result.metrics["ndcg@10"].value == pytest.approx(expected)
    # Learnt from are 3, 1, 3 and 3: of the candidates only 1 was played, and equal ones come by number.
    assert [row.name for row in report.baselines] == ["popular", "ease"]
    assert report.baselines[0].metrics["ndcg@10"].value == pytest.approx(expected)
    assert report.baselines[0].metrics["mrr@10"].value == pytest.approx(0.75)
    assert any("1 held-out titles were no candidates" in note for note in report.notes)
    assert any("only 2 requests of 2 members" in note for note in report.notes)


def test_a_generated_row_is_planned_once_a_day(log, resolved, monkeypatch) -> None:
    planned = []
    plain = candidates_module.plan_of
    monkeypatch.setattr(
        candidates_module, "plan_of", lambda spec, row_id, *rest: planned.append(row_id) or plain(spec, row_id, *rest)
    )
    tables = log(a="genre_rows:Drama", b="genre_rows:Drama")
    case = RowFigure.of(resolved, "genre_rows").case(tables, make_split("leave_one_out", tables.interactions))
    days = case.frame.select("row_id", pl.col("at").dt.date()).n_unique()
    planned.clear()
    assert [chunk.candidates.shape[0] for chunk in case.chunks()] == [2]
    assert len(planned) == days == 1


def test_the_row_is_known_and_a_report_says_which_one(log, resolved) -> None:
    scorer = ByNumber()
    report = measured(log(a="dramas", b="dramas", d="week"), resolved, "dramas", scorer)
    assert {(request.canvas, request.row) for request in scorer.requests} == {("home", "dramas")}
    again = EvaluationReport.from_json(report.to_json())
    assert (again.canvas, again.row, again.label) == ("home", "dramas", "discovery_play")
    whole = replace(report, row=None)
    with pytest.raises(ComparisonError, match="rows differ"):
        assert_comparable(whole, report)


def test_what_was_opened_on_the_page_before_the_play_is_no_part_of_its_past(log, resolved) -> None:
    plain = log(a="dramas", b="dramas")
    last = pl.col("seq") == pl.col("seq").max().over("member_id")
    opened = plain.interactions.filter(last).with_columns(
        event_id=pl.format("d-{}", "event_id"), action=pl.lit("details_view"), seq=pl.col("seq") - 1
    )
    tables = replace(plain, interactions=pl.concat([plain.interactions, opened]).sort("member_id", "seq"))
    scorer = ByNumber()
    report = measured(tables, resolved, "dramas", scorer)
    assert report.n == len(scorer.requests) == 2
    for request in scorer.requests:
        assert request.history["action"].to_list() == ["play", "play"]


def test_a_generated_row_is_about_what_the_log_says(log, resolved) -> None:
    """Comedies left are 47 and 47; dramas are 256 for `b`, who knows no Horror row; `d` has no genre in its id."""
    tables = log(a="genre_rows:Drama", b="genre_rows:Drama", c="genre_rows:Comedy", d="genre_rows:Horror")
    assert candidates_of(tables, resolved, "genre_rows") == {"a": "1256", "b": "256", "c": "47"}
    assert candidates_of(tables, resolved, "genre_rows:Comedy") == {"c": "47"}
    both, one = (measured(tables, resolved, name) for name in ("genre_rows", "genre_rows:Comedy"))
    assert (both.n, both.left_out, one.n, one.left_out) == (3, 1, 1, 0)
    assert one.result.metrics["mrr@10"].value == 1.0
    with pytest.raises(StateError, match=r"row_id is 'genre_rows' and should be 'genre_rows:' with the genre"):
        measured(log(a="genre_rows"), resolved, "genre_rows")


def test_what_a_generated_row_is_about_is_part_of_its_case(log, resolved) -> None:
    first, other = (
        measured(log(a="genre_rows:Drama", b=row), resolved, "genre_rows") for row in ("genre_rows:Drama", "week")
    )
    assert first.case_digest != other.case_digest


def test_a_row_that_the_log_shows_seldom_is_asked_at_what_was_played_anywhere(log, resolved) -> None:
    """Of the four last plays 1, 5 and 2 are dramas."""
    tables, scorer = log(a="week", b="dramas"), ByNumber()
    split = make_split("leave_one_out", tables.interactions)
    figure = replace(RowFigure.of(resolved, "dramas"), anywhere=True)
    report = evaluate_row(figure, scorer, split, tables, resolved, None, baselines=(), judging=QUICK)
    assert (report.n, report.left_out) == (3, 1)
    assert {(one.row, one.row_position) for one in scorer.requests} == {("dramas", None)}
    with pytest.raises(ConfigError, match="row 'genre_rows' is generated: name one"):
        replace(RowFigure.of(resolved, "genre_rows"), anywhere=True).case(tables, split)


def test_a_row_about_a_title_is_asked_with_it_as_more_like_this(log, resolved) -> None:
    tables, scorer = log(a="because:3", b="because:7"), ByNumber()
    assert candidates_of(tables, resolved, "because") == {"a": "12567", "b": "2456"}
    report = measured(tables, resolved, "because", scorer)
    assert {(one.canvas, one.member_id, one.source_title_id) for one in scorer.requests} == {
        ("more_like_this", "a", "3"),
        ("more_like_this", "b", "7"),
    }
    assert (report.canvas, report.n) == ("home", 2)


def test_a_row_by_a_policy_is_ranked_by_it_and_ties_by_the_model(log, resolved) -> None:
    """`c` left 2, 4, 5, 6 and 7, which nobody had played: the model puts 4 second; a chart does not ask it."""
    tables = log(a="week", c="week", d="chart")
    report = measured(tables, resolved, "week", baselines=("popular_7d",))
    ndcg = (1 + 1 / math.log2(3)) / 2
    assert report.result.metrics["ndcg@10"].value == pytest.approx(ndcg)
    assert report.result.metrics["ndcg@10"] == report.baselines[0].metrics["ndcg@10"]
    upside_down = ByNumber()
    upside_down.score = lambda requests, heads=None: {
        "play": np.tile(np.arange(7, dtype=np.float32), (len(requests), 1))
    }
    turned = measured(tables, resolved, "week", upside_down, baselines=("popular_7d",))
    assert turned.result.metrics["mrr@10"].value == pytest.approx((1 + 1 / 4) / 2)
    assert "ranked by the policy popular_7d" in turned.notes[0]
    # 3 and 1 were played before `d` asked, nothing else: 2 is the third, whatever the model says.
    chart = measured(tables, resolved, "chart", upside_down)
    assert chart.result.metrics["mrr@10"].value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("drama", {}, UnknownNameError, "unknown row 'drama'. Did you mean 'dramas'"),
        ("dramas", {"canvas": "search"}, ConfigError, "row 'dramas' is on canvas 'home', not on 'search'"),
        ("dramas:Drama", {}, ConfigError, "one row, not one for each of something; leave ':Drama' out"),
        ("dramas", {"label": "discovery"}, UnknownNameError, "unknown label 'discovery'. Did you mean"),
        ("again", {}, StateError, "no event on 'home' to row 'again' in the test fold .*; it names dramas, week"),
        ("gone", {}, ConfigError, "not shown on 'home' by this version of the model: head 'up' had no example"),
    ],
)
def test_a_row_that_cannot_be_measured_says_why(log, resolved, name, options, error, message) -> None:
    left_out = LeftOut(rows={"home": {"gone": "head 'up' had no example"}})
    resolved = resolved.model_copy(update={"left_out": left_out})
    with pytest.raises(error, match=message):
        measured(log(a="dramas", d="week"), resolved, name, **options)


def test_a_label_that_nothing_in_the_row_is_positive_of_names_what_the_row_has(log, resolved) -> None:
    tables = log(a="dramas")
    unfinished = tables.interactions.with_columns(progress=pl.lit(0.0, dtype=pl.Float32))
    with pytest.raises(StateError, match=r"no positive event of label 'discovery_play' .* among 1 play; .* --label"):
        measured(replace(tables, interactions=unfinished), resolved, "dramas")


def test_a_row_is_judged_by_what_its_blend_is_for(log, resolved) -> None:
    model = resolved.model
    heads = {**model.heads, "late": model.heads["play"].model_copy(update={"label": "late_play"})}
    late = resolved.labels["discovery_play"].model_copy(update={"name": "late_play"})
    rows = {"dramas": resolved.rows["dramas"].model_copy(update={"blend": {"play": 0.1, "late": 1.0}})}
    changed = resolved.model_copy(
        update={
            "model": model.model_copy(update={"heads": heads}),
            "labels": {**resolved.labels, "late_play": late},
            "rows": rows,
        }
    )
    assert RowFigure.of(changed, "dramas").label.name == "late_play"
    assert RowFigure.of(changed, "dramas", label="discovery_play").label.name == "discovery_play"
    assert RowFigure.of(resolved, "week").label.name == "discovery_play"
