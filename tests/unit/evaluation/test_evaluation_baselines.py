"""Baselines against matrices and counts worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill.datasets import Request, make_split
from playbill.definitions.specs import LabelSpec
from playbill.definitions.specs.measures import BESIDE
from playbill.errors import ConfigError, UnknownNameError
from playbill.evaluation.baselines import ease as ease_module
from playbill.evaluation.baselines.ease import Ease, gram, pick_penalty, solve
from playbill.evaluation.baselines.popularity import Popular, Popular7d, build_baseline, popular_7d, tuned_ease
from playbill.evaluation.beside import Beside
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import TitleOrder

ABC = TitleOrder(("a", "b", "c"))
PLAYS = pl.DataFrame(
    {"member_id": ["u", "u", "v", "v", "w", "v"], "title_id": ["a", "b", "a", "c", "a", "a"]}
)  # v plays a twice


def history(*titles: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"title_id": list(titles), "action": ["play"] * len(titles)}, schema_overrides={"title_id": pl.String}
    )


def case_of(rows, titles, protocol="leave_one_out"):
    tables = world.tables_of(rows, titles=titles)
    return build_case(tables, make_split(protocol, tables.interactions), world.resolved_of(), "home")


def test_gram_counts_members_of_both_once():
    np.testing.assert_array_equal(gram(ABC, PLAYS), [[3, 1, 1], [1, 1, 0], [1, 0, 1]])


def test_ease_equals_the_constrained_least_squares_it_solves():
    """Each column of B minimises |X_j - X b|^2 + penalty |b|^2 with b_j = 0: solved directly, column by column."""
    X = np.array([[1, 1, 0], [1, 0, 1], [1, 0, 0]], dtype=float)
    penalty = 2.0
    weights = solve((X.T @ X).astype(np.float32), penalty)
    for j in range(3):
        others = [i for i in range(3) if i != j]
        Z = X[:, others]
        direct = np.linalg.solve(Z.T @ Z + penalty * np.eye(2), Z.T @ X[:, j])
        np.testing.assert_allclose(weights[others, j], direct, rtol=1e-5)
        assert weights[j, j] == 0.0


def test_ease_scores_the_history_and_backs_off_without_one():
    backoff = np.array([0.5, 0.25, 0.0])
    model = Ease.fit(ABC, PLAYS, 1.0, backoff=backoff)
    at = world.day(0)
    requests = [
        Request("home", at, history=history("b", "c", "unheard")),
        Request("home", at, history=history()),
        Request("home", at),
    ]
    scores = model.score(requests)
    np.testing.assert_allclose(scores[0], model.weights[1] + model.weights[2], rtol=1e-6)
    np.testing.assert_allclose(scores[1:], [backoff, backoff])
    assert scores.dtype == np.float32


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan")])
def test_ease_needs_a_penalty(penalty):
    with pytest.raises(ConfigError, match="penalty above zero"):
        solve(np.eye(2, dtype=np.float32), penalty)


def test_ease_refuses_catalogues_it_was_not_made_for(monkeypatch):
    monkeypatch.setattr(ease_module, "LARGEST_CATALOGUE", 2)
    with pytest.raises(ConfigError, match=r"3 x 3 system.*Leave 'ease' out"):
        gram(ABC, PLAYS)


def test_popular_counts_the_train_fold_only():
    rows = [(m, t, float(d)) for m in "uvw" for d, t in enumerate(["1", "2", "3", "4"])]
    case = case_of(rows, ["1", "2", "3", "4", "5"])  # 3 is validation and 4 test, for everybody
    (chunk,) = case.chunks()
    scores = build_baseline("popular", case).score(chunk.requests)
    np.testing.assert_allclose(scores, np.tile([0.75, 0.75, 0, 0, 0], (3, 1)))


def test_popular_7d_counts_strictly_before_and_within_the_week():
    rows = [
        ("u", "1", 0.0),  # exactly seven days before day 7: inside
        ("u", "2", 3.0),
        ("u", "3", 20.0),
        ("u", "4", 21.0),
        ("v", "2", 7.0),  # exactly at day 7: not before it
        ("v", "5", 7.0),
        ("v", "4", 22.0),
        ("v", "3", 23.0),
    ]
    case = case_of(rows, ["1", "2", "3", "4", "5"])
    model = popular_7d(case)
    shares = np.array([1, 2, 0, 0, 1]) / 3
    scores = model.score([Request("home", world.day(at)) for at in (7.0, 7.00001, 0.0, 60.0)])
    np.testing.assert_allclose(scores[0], np.array([1, 1, 0, 0, 0]) + shares)
    np.testing.assert_allclose(scores[1], np.array([0, 2, 0, 0, 1]) + shares)
    np.testing.assert_allclose(scores[2:], [shares, shares])  # nothing before, and an empty week: all-time popularity


def test_popular_7d_never_counts_held_out_rows_of_leave_one_out():
    rows = [(m, t, d) for m in ("u", "v") for t, d in (("1", 0.0), ("2", 1.0), ("3", 2.0))]
    case = case_of(rows, ["1", "2", "3"])
    scores = popular_7d(case).score([Request("home", world.day(3))])
    assert scores[0, 1] == scores[0, 2] == 0.0


def test_popular_7d_of_a_time_split_knows_what_others_played_since():
    rows = [("u", str(i), float(i)) for i in range(1, 21)] + [("v", "3", 30.0), ("v", "4", 31.0), ("v", "5", 32.0)]
    case = case_of(rows, [str(i) for i in range(1, 21)], "global_time")
    scores = popular_7d(case).score([Request("home", world.day(31.5))])[0]
    assert [case.catalogue.title_ids[i] for i in np.nonzero(scores >= 1)[0]] == ["3", "4"]
    assert build_baseline("popular", case).score([Request("home", world.day(31.5))]).max() == 0.5  # train fold only


def test_many_plays_do_not_round_the_tie_break_away():
    plays = pl.DataFrame({"title_id": ["a"] * 3 + ["b"] * 2, "event_at": [world.day(-1)] * 5})
    week = pl.DataFrame({"title_id": ["a", "b"] * 50_000, "event_at": [world.day(1)] * 100_000})
    scores = Popular7d(ABC, week.cast({"event_at": pl.Datetime("us", "UTC")}), Popular(ABC, plays)).score(
        [Request("home", world.day(2))]
    )
    assert scores[0, 0] > scores[0, 1] > 50_000


def test_penalty_is_picked_on_validation_alone():
    tables = world.tables_of(world.random_rows(members=80), titles=[str(i) for i in range(1, 13)])
    split = make_split("leave_one_out", tables.interactions)
    validation = build_case(tables, split, world.resolved_of(), "home", fold="validation")
    test = build_case(tables, split, world.resolved_of(), "home")
    picked = pick_penalty(validation, (1.0, 10.0, 100.0))
    counts = gram(validation.catalogue, validation.log.fitted_plays())
    nothing = np.zeros(12)
    quality = {
        penalty: ease_module.mean_ndcg(Ease(validation.catalogue, solve(counts, penalty), nothing), validation, 10)
        for penalty in (1.0, 10.0, 100.0)
    }
    assert quality[picked] == max(quality.values())
    assert tuned_ease(test, validation).weights.shape == (12, 12)


def test_an_unknown_baseline_suggests_the_near_one():
    case = case_of(world.random_rows(members=4), [str(i) for i in range(1, 13)])
    with pytest.raises(UnknownNameError, match="Did you mean 'popular'"):
        build_baseline("populer", case)


def test_what_is_still_to_come_is_ranked_by_reminders():
    titles = [str(number) for number in range(1, 13)]
    launches = [*((title, "*", -1000.0, None) for title in titles), ("90", "*", 2e3, None), ("91", "*", 2e3, None)]
    tables = world.tables_of(world.random_rows(), titles=[*titles, "90", "91"], launches=launches)
    some_like_90 = pl.col("member_id").str.slice(1).cast(pl.Int64) % 4 == 0
    first = tables.interactions.group_by("member_id", maintain_order=True).first()
    reminders = first.with_columns(
        event_id=pl.format("remind-{}", "member_id"),
        action=pl.lit("remind_me"),
        title_id=pl.when(some_like_90).then(pl.lit("90")).otherwise(pl.lit("91")),
        seq=pl.col("seq") + 1,
    )
    log = pl.concat([tables.interactions, reminders.select(tables.interactions.columns)]).sort("member_id", "seq")
    tables = replace(tables, interactions=log)
    reminder = {"kind": "Label", "name": "remind_me", "version": 1, "from": {"action": "remind_me"}}
    resolved = world.resolved_of(soon={"candidates": {"available": "upcoming"}, "metric": "remind_me"})
    labels = {**resolved.labels, "remind_me": LabelSpec.model_validate(reminder)}
    home = build_case(tables, make_split("leave_one_out", log), resolved, "home")
    soon = replace(home, canvas="soon")
    columns = home.catalogue.codes(["90", "91"])
    requested = Request("soon", first["event_at"].max(), history=history("1", "2", "3"))
    fitted = Beside().of(BESIDE, soon, resolved.model_copy(update={"labels": labels}))
    for name, function in fitted.items():
        likely, wanted = function.score([requested])[0][columns]
        assert max(likely, wanted) > 0, name
        assert (name not in ("popular", "popular_7d")) or wanted > likely > 0
    assert build_baseline("popular", home).score([requested])[0][columns].max() == 0.0
