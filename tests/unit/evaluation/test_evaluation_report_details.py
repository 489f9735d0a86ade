"""What a report holds beyond plain accuracy: numbers by hand, heads, slices, rewards, seeds and arms, the page."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill import metrics
from playbill.datasets import make_split
from playbill.definitions.specs import LabelSpec, RewardSpec
from playbill.errors import ComparisonError, ConfigError, StateError
from playbill.evaluation import (
    CanvasScorer,
    Difference,
    EvaluationReport,
    Judging,
    arm_hash,
    arm_tables,
    compare,
    compare_arms,
    evaluate,
    evaluate_canvas,
    html_report,
    ladder,
    plots,
)
from playbill.evaluation.canvases.head_probabilities import MOST_STATES, head_rows
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.slices import popularity_bands
from playbill.evaluation.measure import case_facts, measure, past_mix
from playbill.metrics import Interval

TITLES = [str(i) for i in range(1, 13)]
QUICK = Judging(minimum_members=5, resamples=100)


@pytest.fixture
def data():
    found = world.tables_of(world.random_rows(), titles=TITLES)
    genres = [["Drama"] if int(title) % 2 else ["Drama", "Comedy"] for title in TITLES]
    found = replace(found, titles=found.titles.with_columns(genres=pl.Series(genres)))
    return found, make_split("leave_one_out", found.interactions)


def by_number(sign=1.0):
    return world.ByTable(TITLES, list(sign * np.linspace(1, 0, 12)))


def test_the_genre_mix_of_a_past_is_that_of_the_plays_in_it(data):
    case = build_case(*data, world.resolved_of(), "home")
    shares = case_facts(case).shares
    rows, titles = case.log.watched(case.positions)
    plain = metrics.genre_mix(rows, titles, shares, len(case))
    np.testing.assert_allclose(past_mix(case.log, case.positions, shares), plain, rtol=1e-12)


def test_requests_are_asked_by_their_moment_and_answers_stand_where_they_were(data, monkeypatch):
    """A model that likes titles by a number of the member: lists and ranks differ from request to request."""
    monkeypatch.setattr("playbill.evaluation.cases.case.CELLS_AT_ONCE", 3 * len(TITLES))
    case, requested = build_case(*data, world.resolved_of(), "home"), []

    class OfMember:
        title_ids = tuple(TITLES)

        def score(self, requests):
            requested.extend(request.at for request in requests)
            shift = np.array([int(request.member_id[1:]) for request in requests])
            return ((np.arange(len(TITLES)) + shift[:, None]) * 5 % 12).astype(float)

    order = np.random.default_rng(5).permutation(len(case))  # Not in order of time as it comes.
    rows = np.argsort(order)[case.rows]
    targets = np.argsort(rows, kind="stable")
    mixed = replace(
        case,
        frame=case.frame[order],
        positions=case.positions[order],
        rows=rows[targets],
        columns=case.columns[targets],
        targets_at=case.targets_at[targets],
    )
    found = measure(mixed, {"own": OfMember()}, (10,))["own"]
    assert requested == sorted(requested)
    scores = OfMember().score([request for chunk in mixed.chunks() for request in chunk.requests])
    masks = np.concatenate([chunk.candidates for chunk in mixed.chunks()])
    plain = metrics.target_ranks(scores, mixed.rows, mixed.columns, masks)
    np.testing.assert_array_equal(found.ranks, plain)
    lists = metrics.top_k(scores, 10, masks)
    np.testing.assert_allclose(found.values["novelty@10"], metrics.novelty(lists, case_facts(mixed).information, 10))


def test_a_member_without_a_past_has_no_mix(data):
    case = build_case(*data, world.resolved_of(), "home")
    first = case.log.starts[case.positions]
    assert np.isnan(past_mix(case.log, first, case_facts(case).shares)).all()


def test_debiased_novelty_and_calibration_are_those_of_the_metrics_room(data):
    frames, split = data
    report = evaluate(by_number(), split, frames, world.resolved_of(), "home", baselines=(), judging=QUICK)
    case = build_case(frames, split, world.resolved_of(), "home")
    plays = case.log.fitted_plays()
    counts = np.array([(plays["title_id"] == title).sum() for title in case.catalogue.title_ids])
    weights = metrics.inverse_popularity(counts)[case.columns]
    ndcg = report.requests["tiny/ndcg@10"].to_numpy()
    assert report.result.metrics["debiased_ndcg@10"].value == pytest.approx(np.average(ndcg, weights=weights))
    assert report.result.metrics["debiased_ndcg@10"].value != pytest.approx(ndcg.mean(), abs=1e-3)
    heard = {title: plays.filter(pl.col("title_id") == title)["member_id"].n_unique() for title in TITLES}
    bits = {title: -np.log2((count + 1) / (plays["member_id"].n_unique() + 2)) for title, count in heard.items()}
    chunk = next(case.chunks())
    listed = [[TITLES[i] for i in np.nonzero(row)[0]][:10] for row in chunk.candidates]
    by_hand = np.mean([np.mean([bits[title] for title in titles]) for titles in listed])
    assert report.result.metrics["novelty@10"].value == pytest.approx(by_hand)
    assert 0.0 < report.result.metrics["calibration@10"].value < -np.log(0.01)


def test_several_targets_get_map_and_recall_of_their_own(data):
    frames, _ = data
    split = make_split("global_time_period", frames.interactions)
    report = evaluate(by_number(), split, frames, world.resolved_of(), "home", baselines=(), judging=QUICK)
    found = {name: interval.value for name, interval in report.result.metrics.items()}
    assert found["map@10"] < found["mrr@10"]
    assert found["recall@10"] < found["hr@10"]


def test_a_weighted_metric_is_compared_with_its_weights(data):
    frames, split = data
    options = {"baselines": (), "judging": QUICK}
    first, second = (
        evaluate(by_number(sign), split, frames, world.resolved_of(), "home", **options) for sign in (1.0, -1.0)
    )
    change = compare(first, second).differences["debiased_ndcg@10"].value
    means = [report.result.metrics["debiased_ndcg@10"].value for report in (first, second)]
    assert change == pytest.approx(means[1] - means[0])


def test_popularity_bands_share_the_plays():
    bands = popularity_bands(np.array([50, 20, 20, 5, 5, 0]))
    assert bands.tolist() == ["head", "mid", "mid", "tail", "tail", "new"]


def test_slices_read_where_when_and_for_what_was_asked(data):
    frames, split = data
    devices = pl.when(pl.col("member_id").str.ends_with("1")).then(pl.lit("tv")).otherwise(pl.lit("phone"))
    frames = replace(frames, interactions=frames.interactions.with_columns(device=devices))
    judging = Judging(slices=("device", "popularity", "canvas", "language"), minimum_members=5, resamples=50)
    report = evaluate(by_number(), split, frames, world.resolved_of(), "home", baselines=("popular",), judging=judging)
    groups = {(row.slice, row.group) for row in report.slices}
    assert {("device", "tv"), ("device", "phone"), ("canvas", "home"), ("popularity", "head")} <= groups
    assert "home/ndcg@10/device=tv" in report.gate_metrics()
    assert "home/debiased_ndcg@10/popularity=head" in report.gate_metrics()
    assert report.notes == ("slice 'language': it is not known of any request",)
    assert all(row.metrics["ndcg@10"].low <= row.metrics["ndcg@10"].value for row in report.slices)


def test_a_slice_that_is_too_small_everywhere_names_the_minimum(data):
    frames, split = data
    model, seen = by_number(), []
    model.score = lambda requests: seen.append(requests)
    judging = Judging(slices=("tenure", "device"), minimum_members=500, strict=True)
    with pytest.raises(StateError, match=r"(?s)'tenure' has no group of at least 500 members; its largest.*'device'"):
        evaluate(model, split, frames, world.resolved_of(), "home", baselines=(), judging=judging)
    assert seen == []


def test_reward_weighs_targets_by_what_they_were_worth(data):
    """Half of the targets were watched to the end and are worth 1, the others are worth nothing."""
    frames, split = data
    ended = pl.when(pl.col("member_id").str.slice(1).cast(pl.Int64) % 2 == 0).then(1.0).otherwise(0.2)
    frames = replace(frames, interactions=frames.interactions.with_columns(progress=ended.cast(pl.Float32)))
    label = LabelSpec.model_validate(
        {"name": "ended", "version": 1, "from": {"action": "play", "where": "progress >= 0.9"}}
    )
    reward = RewardSpec.model_validate({"name": "worth", "version": 1, "terms": {"ended": 1.0}})
    resolved = world.resolved_of()
    model = resolved.model.model_copy(
        update={"evaluate": resolved.model.evaluate.model_copy(update={"reward": "worth"})}
    )
    resolved = resolved.model_copy(
        update={"model": model, "rewards": {"worth": reward}, "labels": {**resolved.labels, "ended": label}}
    )
    report = evaluate(by_number(), split, frames, resolved, "home", baselines=("popular",), judging=QUICK)
    even = report.requests["member_id"].str.slice(1).cast(pl.Int64) % 2 == 0
    expected = report.requests.filter(even)["tiny/ndcg@10"].mean()
    assert report.result.metrics["reward_ndcg@10"].value == pytest.approx(expected)
    assert report.reward.startswith("worth:1")
    assert "home/reward_ndcg@10/minus=popular" in report.gate_metrics()
    assert f"{int(report.gate_metrics()['home/reward_fingerprint']):012x}" == report.reward.rpartition(":")[2]
    assert "reward_ndcg@10" in compare(report, report).differences
    with pytest.raises(ComparisonError, match="rewards differ"):
        compare(report, replace(report, reward="worth:2:ffffffffffff"))
    without = evaluate(by_number(), split, frames, world.resolved_of(), "home", baselines=(), judging=QUICK)
    assert "reward_ndcg@10" not in compare(report, without).differences


class Heads:
    """Head `play` scores titles by their number, the same for every request."""

    def __init__(self, slope=1.0) -> None:
        self.title_ids, self.slope, self.requested = TITLES, slope, []

    def remember(self, moments): ...

    def score(self, requests, heads=None):
        self.requested += requests
        return {"play": np.tile(self.slope * np.linspace(3, -3, 12, dtype=np.float32), (len(requests), 1))}


@pytest.fixture
def shown(data):
    """Each held-out play is shown together with title 12, which is never played; the label counts it as a no."""
    frames, split = data
    held = split.events(frames.interactions, "test").with_columns(request_id=pl.col("event_id"))
    seen = held.with_columns(
        event_id="i-" + pl.col("event_id"), title_id=pl.lit("12"), action=pl.lit("impression"), seq=pl.col("seq") + 1
    )
    others = frames.interactions.join(held, on="event_id", how="anti")
    log = pl.concat([others, held, seen]).sort("member_id", "seq")
    resolved = world.resolved_of()
    label = resolved.labels["discovery_play"].model_copy(
        update={
            "negatives": type(resolved.labels["discovery_play"].negatives).model_validate({"shown_not_played": True})
        }
    )
    heads = {"play": resolved.model.heads["play"].model_copy(update={"loss": "bce"})}
    resolved = resolved.model_copy(
        update={
            "labels": {"discovery_play": label},
            "model": resolved.model.model_copy(update={"heads": heads}),
        }
    )
    frames = replace(frames, interactions=log)
    return frames, make_split("leave_one_out", log), resolved


def test_heads_are_measured_on_plays_and_on_what_was_shown_and_not_played(shown):
    frames, split, resolved = shown
    scorer = Heads()
    function = CanvasScorer(scorer, resolved, "home", None)
    rows, notes = head_rows(function, split, frames, resolved, "home", judging=QUICK)
    assert notes == ()
    (row,) = rows
    plays = split.events(frames.interactions, "test").filter(pl.col("action") == "play")
    titles = plays["title_id"].to_list()
    refused = sum(title != "12" for title in titles)  # shown and played is no refusal
    assert (row.head, row.rows, row.positives, row.members) == ("play", 60 + refused, 60, 60)
    logit = dict(zip(TITLES, np.linspace(3, -3, 12), strict=True))
    scores = np.array([logit[title] for title in titles] + [-3.0] * refused)
    labels = np.array([1.0] * 60 + [0.0] * refused)
    assert row.metrics["auc"].value == pytest.approx(metrics.auc(scores, labels))
    assert row.metrics["ece"].value == pytest.approx(metrics.ece(1 / (1 + np.exp(-scores)), labels), abs=1e-6)
    assert row.metrics["auc"].low <= row.metrics["auc"].value <= row.metrics["auc"].high
    # A play and the impression beside it are asked in one state, which neither is part of.
    assert len(scorer.requested) == 60
    assert all(one.history.height == 5 for one in scorer.requested)


def test_a_softmax_head_has_an_order_and_no_level(shown):
    frames, split, resolved = shown
    heads = {"play": resolved.model.heads["play"].model_copy(update={"loss": "softmax"})}
    resolved = resolved.model_copy(update={"model": resolved.model.model_copy(update={"heads": heads})})
    function = CanvasScorer(Heads(), resolved, "home", None)
    report = evaluate_canvas(function, split, frames, resolved, "home", baselines=(), judging=QUICK)
    assert set(report.heads[0].metrics) == {"auc"}
    assert "home/auc/head=play" in report.gate_metrics()
    assert EvaluationReport.from_json(report.to_json()).heads == report.heads


def test_a_head_with_one_kind_of_row_says_so(data):
    frames, split = data
    function = CanvasScorer(Heads(), world.resolved_of(), "home", None)
    rows, notes = head_rows(function, split, frames, world.resolved_of(), "home", judging=QUICK)
    assert rows == ()
    assert notes == ("head 'play': all 60 labelled held-out events on 'home' are positive",)


def test_many_states_are_whole_members_drawn(shown, monkeypatch):
    frames, split, resolved = shown
    assert MOST_STATES > 1_000
    monkeypatch.setattr("playbill.evaluation.canvases.head_probabilities.MOST_STATES", 20)
    function = CanvasScorer(Heads(), resolved, "home", None)
    (row,), _ = head_rows(function, split, frames, resolved, "home", judging=QUICK)
    assert row.members == row.positives == 20


def report_of(data, sign, name):
    frames, split = data
    return evaluate(
        world.ByTable(TITLES, list(np.round(sign * np.linspace(1, 0, 12), 3))),
        split,
        frames,
        world.resolved_of(),
        "home",
        baselines=("popular",),
        judging=QUICK,
        name=name,
    )


def test_several_seeds_of_two_arms_make_a_claim_and_one_seed_makes_none(data):
    good = [report_of(data, sign, f"tiny:{n}") for n, sign in enumerate((1.0, 1.1, 0.9))]
    bad = [report_of(data, -sign, f"worse:{n}") for n, sign in enumerate((1.0, 1.1, 0.9))]
    found = compare_arms({"tiny": good, "worse": bad})
    assert [(row.name, row.seeds) for row in found.rows] == [("tiny", 3), ("worse", 3), ("popular", 0)]
    assert "ndcg@10" in found.differences[0].claims
    single = compare_arms({"tiny": good[:1], "worse": bad})
    assert single.differences[0].claims == ()
    assert single.differences[0].why_not == "one seed of tiny"
    assert str(arm_tables(found)[0].title).startswith("home: leave_one_out")


def test_seeds_that_disagree_widen_the_interval_until_nothing_is_claimed(data):
    agreeing = [report_of(data, 1.0, f"a:{n}") for n in range(3)]
    disagreeing = [report_of(data, sign, f"b:{n}") for n, sign in enumerate((1.0, -1.0, 1.0))]
    other = [report_of(data, -1.0, f"c:{n}") for n in range(3)]
    sure = compare_arms({"a": agreeing, "c": other}).differences[0]
    unsure = compare_arms({"b": disagreeing, "c": other}).differences[0]
    assert "ndcg@10" in sure.claims
    assert unsure.claims == ()
    assert unsure.metrics["ndcg@10"].value > 0
    widths = [row.metrics["ndcg@10"].high - row.metrics["ndcg@10"].low for row in (sure, unsure)]
    assert widths[1] > widths[0]


def test_arms_of_other_protocols_are_refused(data):
    frames, _ = data
    by_time = (frames, make_split("global_time", frames.interactions))
    with pytest.raises(ComparisonError, match="protocols differ"):
        compare_arms({"a": [report_of(data, 1.0, "a")], "b": [report_of(by_time, 1.0, "b")]})
    with pytest.raises(ConfigError, match="at least one version"):
        compare_arms({"a": []})


def test_versions_that_differ_only_in_the_seed_are_one_arm():
    resolved = world.resolved_of()
    training = resolved.model.training
    same = resolved.model_copy(
        update={"model": resolved.model.model_copy(update={"training": training.model_copy(update={"seed": 99})})}
    )
    other = resolved.model_copy(
        update={"model": resolved.model.model_copy(update={"training": training.model_copy(update={"epochs": 99})})}
    )
    assert arm_hash(resolved) == arm_hash(same) != arm_hash(other)


def test_p_values_know_how_many_baselines_there_are(data):
    frames, split = data
    names = ("popular", "popular_7d", "ease")
    several = evaluate(by_number(), split, frames, world.resolved_of(), "home", baselines=names, judging=QUICK)
    alone = evaluate(by_number(), split, frames, world.resolved_of(), "home", baselines=names[:1], judging=QUICK)
    for metric in ("hr@10", "ndcg@10"):
        raw = [row.adjusted_p[metric] for row in alone.differences]
        assert several.differences[0].adjusted_p[metric] >= raw[0]


def test_groups_know_how_many_are_looked_at(data):
    frames, split = data
    report = evaluate(by_number(), split, frames, world.resolved_of(), "home", baselines=("popular",), judging=QUICK)
    large = [row for row in report.slices if not row.small]
    alone = {}
    for slice_ in {row.slice for row in large}:
        judging = QUICK._replace(slices=(slice_,))
        one = evaluate(by_number(), split, frames, world.resolved_of(), "home", baselines=("popular",), judging=judging)
        alone |= {(row.slice, row.group): row.adjusted_p["popular"] for row in one.slices if not row.small}
    together = {(row.slice, row.group): row.adjusted_p["popular"] for row in large}
    assert together.keys() == alone.keys()
    assert any(together[key] > alone[key] for key in alone)
    sure, unsure = (replace(large[0], adjusted_p={"popular": p}) for p in (0.01, 0.06))
    away = {"popular": Interval(0.2, 0.1, 0.3)}
    assert replace(sure, differences=away).is_claim("popular")
    assert not replace(unsure, differences=away).is_claim("popular")


def test_a_difference_inside_the_noise_is_no_claim():
    sure = Difference("popular", {"hr@10": Interval(0.1, 0.05, 0.2)}, {"hr@10": 0.01})
    corrected = Difference("popular", {"hr@10": Interval(0.1, 0.001, 0.2)}, {"hr@10": 0.12})
    assert sure.is_claim("hr@10")
    assert not corrected.is_claim("hr@10")
    assert not Difference("popular", {"hr@10": Interval(0.1, -0.01, 0.2)}, {"hr@10": 0.01}).is_claim("hr@10")


def test_the_ladder_names_the_gap_to_popularity_and_to_matrix_factorisation(data):
    frames, split = data
    names = ("popular", "popular_7d", "ease")
    report = evaluate(by_number(), split, frames, world.resolved_of(), "home", baselines=names, judging=QUICK)
    means = {row.name: row.metrics["ndcg@10"].value for row in report.rows}
    best = max(names[:2], key=lambda name: means[name])
    assert ladder(report) == {
        best: pytest.approx(means["tiny"] / means[best] - 1),
        "ease": pytest.approx(means["tiny"] / means["ease"] - 1),
    }


def test_the_page_stands_alone_and_says_everything(shown, tmp_path, monkeypatch):
    frames, split, resolved = shown
    function = CanvasScorer(Heads(), resolved, "home", None)
    report = evaluate_canvas(function, split, frames, resolved, "home", baselines=("popular",), judging=QUICK)
    page = html_report("tiny <3>", [report], skipped={"search": "nothing & nobody"})
    assert "tiny &lt;3&gt;" in page
    assert "nothing &amp; nobody" in page
    for text in ("leave_one_out", "popular", "ndcg@10", "worst first", "heads on labelled events", "debiased_ndcg@10"):
        assert text in page
    drawn = plots(report, tmp_path)
    assert page.count("data:image/png;base64,") == len(drawn)
    with monkeypatch.context() as patched:
        patched.setattr("playbill.evaluation.rendering.html.figures", None)
        again = html_report("tiny", [report], drawn={"home": drawn})
    assert all(base64.b64encode(file.read_bytes()).decode() in again for file in drawn)
    assert "home_head_play.png" in {file.name for file in tmp_path.iterdir()}
    assert not re.search(r"<script|https?://|<link|@import", page)
