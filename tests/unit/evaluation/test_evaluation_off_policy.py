"""From canonical tables to off-policy estimates: what is read, weighed, refused, and how near it comes to the truth."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from html import escape

import numpy as np
import polars as pl
import pytest

from fixtures.logged_service import T0, LoggedService, plackett_luce
from playbill.definitions.specs import CandidatesSpec, CanvasSpec, LabelSpec, RewardSpec
from playbill.errors import ComparisonError, ConfigError, DataError, IntegrityError, StateError, UnknownNameError
from playbill.evaluation.cases.event_log import EventLog, TitleOrder
from playbill.evaluation.off_policy import evaluate as op
from playbill.evaluation.off_policy.direct_models import DirectLog, fit_direct
from playbill.evaluation.off_policy.estimate import Rules
from playbill.evaluation.off_policy.rendering import policy_figure, policy_frames, policy_grids, policy_page, refusals

CANVAS = CanvasSpec.model_validate({"name": "home", "version": 1, "blend": {"play": 1.0}, "metric": "discovery_play"})
QUICK = Rules(resamples=200, floor=20.0)


def scene_of(service: LoggedService) -> op.LogContext:
    catalogue = TitleOrder.of(service.tables.titles["title_id"].to_list())
    return op.LogContext(service.tables, EventLog.of(service.tables.interactions, service.split, catalogue), catalogue)


def weighed(service: LoggedService, scores: np.ndarray, policy: op.TargetPolicy, **options) -> op.ImportanceLog:
    logged = op.logged_slates(service.tables, "home", op.played_outcome())
    return op.weigh(logged, service.scorer(scores), policy, scene_of(service), CANVAS, name="tiny", **options)


@pytest.fixture(scope="module")
def service() -> LoggedService:
    return LoggedService.make()


def test_slates_hold_what_was_shown_with_places_from_zero_and_what_came_of_it(service):
    logged = op.logged_slates(service.tables, "home", op.played_outcome())
    assert len(logged) == 400
    by_member = {member: slate for slate, member in enumerate(logged.frame["member_id"])}
    shown = np.empty((400, 3), object)
    shown[logged.slates, logged.positions] = logged.title_ids.to_list()
    assert shown[by_member["m7"]].tolist() == [f"t{title}" for title in service.shown[7]]
    plays = service.tables.interactions.filter((pl.col("action") == "play") & pl.col("request_id").is_not_null())
    assert logged.reward.sum() == plays.height
    assert logged.matured.all()


def test_a_softmax_policy_gives_each_logged_title_its_exact_chance(service):
    scores = 0.7 * service.chance
    log = weighed(service, scores, op.SoftmaxPolicy(0.5), direct=None)
    # float32 scores; the rows come in the order of the slates
    order = [int(member[1:]) for member in log.member_ids.unique(maintain_order=True)]
    expected = plackett_luce(scores / 0.5, service.shown)[order].ravel()
    np.testing.assert_allclose(log.data.target, expected, rtol=1e-5)


def test_a_top_policy_explores_evenly_and_else_takes_the_best_left(service):
    scores = service.chance
    log = weighed(service, scores, op.TopPolicy(0.2), direct=None)
    order = [int(member[1:]) for member in log.member_ids.unique(maintain_order=True)]
    for slate, member in list(enumerate(order))[:50]:
        left = list(range(8))
        for place, title in enumerate(service.shown[member]):
            best = max(left, key=lambda t, m=member: np.float32(scores[m, t]))
            expected = 0.2 / len(left) + (0.8 if title == best else 0.0)
            assert log.data.target[3 * slate + place] == pytest.approx(expected)
            left.remove(title)


def test_the_model_sees_nothing_of_the_request_it_is_asked_about(service):
    scorer = service.scorer(service.chance)
    logged = op.logged_slates(service.tables, "home", op.played_outcome())
    op.weigh(logged, scorer, op.SoftmaxPolicy(), scene_of(service), CANVAS, name="tiny", direct=None)
    assert scorer.histories == [1] * 400  # the play of the day before, none of the impressions


def test_estimates_come_near_the_truth_and_the_direct_model_steadies_them():
    found: dict[str, list[float]] = {name: [] for name in ("slate", "slate_snips", "slate_dr")}
    truths, covered = [], 0
    for seed in range(12):
        service = LoggedService.make(members=600, seed=seed)
        log = weighed(service, 2.0 * service.chance, op.SoftmaxPolicy(1.0))
        report = op.off_policy_report(log, estimators=tuple(found), rules=QUICK, slices=())
        truths.append(_truth(service, 2.0 * service.chance))
        for name in found:
            found[name].append(report.of(name).estimate.value - truths[-1])
        estimate = report.of("slate_snips").estimate
        covered += estimate.low <= truths[-1] <= estimate.high
    for name, errors in found.items():
        assert abs(np.mean(errors)) < 3 * np.std(errors) / 12**0.5 + 0.01, name
    assert np.std(found["slate_snips"]) < np.std(found["slate"])
    assert np.std(found["slate_dr"]) < np.std(found["slate"])
    assert covered >= 9


def _truth(service: LoggedService, scores: np.ndarray, draws: int = 60) -> float:
    """Mean plays per slate under Plackett-Luce over `scores`, by drawing many slates per member."""
    generator = np.random.default_rng(99)
    total = 0.0
    for _ in range(draws):
        slates = np.argsort(-(scores + generator.gumbel(size=scores.shape)), axis=1)[:, :3]
        total += np.take_along_axis(service.chance, slates, axis=1).sum(axis=1).mean()
    return total / draws


def test_the_report_is_read_by_slices_and_survives_json(service, tmp_path):
    log = weighed(service, service.chance, op.SoftmaxPolicy(1.0))
    report = op.off_policy_report(log, rules=QUICK, slices=("country", "canvas", "device"))
    assert report.main == "slate_snips"
    assert report.unit == "slate"
    assert [(row.slice, row.group) for row in report.groups if row.slice != "country"] == []
    assert {row.group for row in report.groups} == {"DE", "JP"}
    differences = [row.estimated.difference.value for row in report.groups]
    assert differences == sorted(differences)
    assert op.OffPolicyReport.from_json(report.to_json()) == report
    with pytest.raises(IntegrityError):
        op.OffPolicyReport.from_json("{}")
    main = report.of("slate_snips")
    assert main.difference.value == pytest.approx(main.estimate.value - report.logged.value)
    assert report.summary()["value"] == main.estimate.value
    assert [len(grid.rows) for grid in policy_grids(report)] == [len(report.estimates), 2]
    policy_figure(report).savefig(tmp_path / "estimates.png")
    assert (tmp_path / "estimates.png").stat().st_size > 5000
    assert f"R squared {report.direct_fit:.3f}" in policy_grids(report)[0].caption
    page = policy_page(report)
    assert page.count("<table>") == 2
    assert "slate_snips" in page
    assert 'src="data:image/png;base64,' in page
    frames = policy_frames(report)
    assert frames["off_policy_estimators"].height == len(report.estimates)
    assert frames["off_policy_slices"]["minus_logged"].to_list() == differences
    numbers = report.gate_metrics()
    assert numbers["home/slate_snips/reward=played"] == main.estimate.value
    assert numbers["home/slate_snips/reward=played/minus=logged"] == main.difference.value
    assert numbers["home/slate_snips/reward=played/minus=logged/low"] == main.difference.low


def test_a_policy_too_far_away_is_refused_in_the_report_not_guessed(service):
    log = weighed(service, 30.0 * service.chance, op.TopPolicy(0.0))
    report = op.off_policy_report(log, rules=Rules(resamples=50), minimum_members=10)
    refused = report.of("slate_snips")
    assert refused.estimate is None
    assert "more slates of this kind are missing" in refused.refused
    assert report.summary()["refused"] == refused.refused
    assert all(row.estimated.refused for row in report.groups)
    assert {row[1] for row in policy_grids(report)[0].rows} >= {"refused"}
    texts = refusals(report)
    assert all(escape(line) in policy_page(report) for line in texts)
    assert [line for line in texts if line.startswith("'slate', 'slate_snips', 'slate_dr' are refused: 400 logged")]
    numbers = report.gate_metrics()
    assert not [name for name in numbers if "minus=logged" in name and "slate_snips" in name]
    assert numbers["home/slate_snips/reward=played/effective_sample_size"] == refused.effective_sample_size


def test_missing_propensities_are_refused_with_a_count_or_dropped_when_asked(service):
    holes = pl.when(pl.col("event_id").is_in(["i3-1", "i9-0", "i9-2"])).then(None).otherwise("propensity")
    tables = replace(service.tables, interactions=service.tables.interactions.with_columns(propensity=holes))
    with pytest.raises(DataError, match=r"propensity: 3 of 1200 impressions lack it, the first is event i3-1"):
        op.logged_slates(tables, "home", op.played_outcome())
    kept = op.logged_slates(tables, "home", op.played_outcome(), without_propensity="drop")
    assert (len(kept), kept.without_propensity) == (398, 2)
    nothing = replace(tables, interactions=tables.interactions.with_columns(propensity=pl.lit(None, pl.Float64)))
    with pytest.raises(StateError, match="nothing was randomised"):
        op.logged_slates(nothing, "home", op.played_outcome(), without_propensity="drop")


def test_a_ranking_without_chance_cannot_be_weighed_and_the_report_says_how_little_was_tried(service):
    frame = service.tables.interactions.with_columns(propensity=pl.lit(1.0, pl.Float64))
    fixed = replace(service, tables=replace(service.tables, interactions=frame))
    report = op.off_policy_report(weighed(fixed, service.chance, op.SoftmaxPolicy()), rules=QUICK)
    for one in (*report.estimates, *(row.estimated for row in report.groups)):
        assert one.estimate is None
        assert "of what the target policy shows" in one.refused
    assert report.logged.value > 0.0  # what was earned is known all the same


def test_everything_wrong_with_propensities_is_said_at_once_with_its_count_and_first_event(service):
    place = pl.col("event_id")
    broken = (
        pl.when(place.is_in(["i2-1", "i0-0"])).then(0.0)
        .when(place == "i1-0").then(1.7)
        .when(place == "i3-2").then(-0.5)
        .when(place == "i4-0").then(float("nan"))
        .when(place == "i5-0").then(None)
        .otherwise("propensity")
    )  # fmt: skip
    requested = pl.when(place == "i6-0").then(None).otherwise("request_id")
    frame = service.tables.interactions.with_columns(propensity=broken)
    tables = replace(service.tables, interactions=frame)
    with pytest.raises(DataError) as error:
        op.logged_slates(tables, "home", op.played_outcome())
    assert [(problem.where, problem.what) for problem in error.value.problems] == [
        ("propensity", "2 of 1200 impressions lack it, the first is event i4-0."),
        ("propensity", "2 of 1200 are 0, the first is event i0-0."),
        ("propensity", "1 of 1200 are negative, the first is event i3-2."),
        ("propensity", "1 of 1200 are above 1, the first is event i1-0."),
    ]
    with pytest.raises(DataError, match=r"request_id: 1 of 1200 (.|\n)*propensity: 2 of 1200 are 0"):
        op.logged_slates(
            replace(tables, interactions=frame.with_columns(request_id=requested)), "home", op.played_outcome()
        )
    # Left out is only what has no propensity; an impossible one is a fault of the log.
    with pytest.raises(DataError, match="2 of 1200 are 0"):
        op.logged_slates(tables, "home", op.played_outcome(), without_propensity="drop")
    # What is not weighed need not be right.
    assert op.logged_slates(_only(tables, broken_below=2), "home", op.played_outcome(), places=2).positions.max() == 1


def _only(tables, broken_below):
    wrong = pl.when(pl.col("position") > broken_below).then(0.0).otherwise(0.5)
    return replace(tables, interactions=tables.interactions.with_columns(propensity=wrong))


def test_immature_requests_are_dropped_and_counted(service):
    young = replace(service, tables=replace(service.tables, end=T0 + timedelta(days=1, minutes=300)))
    log = weighed(young, service.chance, op.SoftmaxPolicy())
    played_all = log.data.immature
    logged = op.logged_slates(young.tables, "home", op.played_outcome())
    slates = np.unique(logged.slates[~logged.matured])
    assert played_all == 3 * slates.size
    # By age alone: everybody who asked after minute 300 is out, with a play or without.
    assert set(log.member_ids) == {f"m{member}" for member in range(301)}
    assert np.isnan(logged.reward[~logged.matured]).all()
    report = op.off_policy_report(log, rules=QUICK)
    assert report.immature == played_all
    assert report.slates == 400 - slates.size


def test_a_reward_is_final_by_age_not_by_what_came_of_it(service):
    labels = {
        "completion": LabelSpec.model_validate(
            {
                "kind": "Label", "name": "completion", "version": 1, "matures_after": "5d",
                "from": {"action": "play", "where": "progress >= 0.9"},
            }
        )
    }  # fmt: skip
    reward = RewardSpec.model_validate({"kind": "Reward", "name": "done", "version": 1, "terms": {"completion": 2.0}})
    rule = op.reward_outcome(reward, labels)
    tables = replace(service.tables, end=T0 + timedelta(days=6, minutes=200))
    logged = op.logged_slates(tables, "home", rule)
    kept = logged.frame["member_id"].gather(np.unique(logged.slates[logged.matured]))
    assert set(kept) == {f"m{member}" for member in range(201)}  # five days, and one for the play to come
    assert logged.version.startswith("done:1:")
    plays = op.logged_slates(service.tables, "home", op.played_outcome()).reward
    assert np.nansum(op.logged_slates(service.tables, "home", rule).reward) == 2.0 * plays.sum()
    with pytest.raises(StateError, match=r"'done' is final 6 days after a request"):
        op.logged_slates(replace(tables, end=T0 + timedelta(days=3)), "home", rule)


def test_what_the_canvas_could_not_show_is_counted_and_has_no_chance(service):
    log = weighed(service, service.chance, op.SoftmaxPolicy(), candidates=CandidatesSpec(watched=False))
    watched = log.data.target == 0.0
    assert log.outside == watched.sum() == (service.shown == 0).sum()  # everybody had played t0


def test_titles_shown_above_in_the_same_request_are_no_candidates(service):
    moved = pl.when(pl.col("position") == 1).then(pl.lit("billboard_row")).otherwise("row_id").alias("row_id")
    tables = replace(service.tables, interactions=service.tables.interactions.with_columns(moved))
    logged = op.logged_slates(tables, "home", op.played_outcome(), rows=("top_picks",))
    assert (len(logged), logged.positions.max()) == (400, 1)
    scene = scene_of(replace(service, tables=tables))
    log = op.weigh(logged, service.scorer(service.chance), op.SoftmaxPolicy(), scene, CANVAS, name="t", direct=None)
    order = [int(member[1:]) for member in log.member_ids.unique(maintain_order=True)]
    expected = plackett_luce(service.chance, service.shown)[order][:, 1:].ravel()
    np.testing.assert_allclose(log.data.target, expected, rtol=1e-5)


def test_only_the_first_places_only_later_requests_only_some_members(service):
    rule = op.played_outcome()
    assert op.logged_slates(service.tables, "home", rule, places=2).positions.max() == 1
    late = op.logged_slates(service.tables, "home", rule, since=T0 + timedelta(minutes=350))
    assert len(late) == 50
    some = op.logged_slates(service.tables, "home", rule, most=40)
    assert len(some) == 40
    with pytest.raises(StateError, match="no impression of canvas 'hom'"):
        op.logged_slates(service.tables, "hom", rule)


def test_impressions_without_request_or_place_are_refused_together(service):
    frame = service.tables.interactions.with_columns(
        request_id=pl.when(pl.col("event_id") == "i5-0").then(None).otherwise("request_id"),
        position=pl.when(pl.col("event_id") == "i6-1").then(None).otherwise("position"),
    )
    with pytest.raises(DataError) as error:
        op.logged_slates(replace(service.tables, interactions=frame), "home", op.played_outcome())
    assert "request_id: 1 of 1200 impressions lack it, the first is event i5-0" in str(error.value)
    assert "position: 1 of 1200 impressions lack it in a list of several, the first is event i6-1" in str(error.value)


def test_randomised_exposures_of_a_feed_are_weighed_and_the_others_left_out():
    # As KuaiRand logs them: one title per request, propensity 1 / pool where the exposure was random, else none.
    feed = LoggedService.make(members=1500, titles=8, places=1, seed=3)
    uniform = replace(feed, logging=np.zeros_like(feed.logging))
    generator = np.random.default_rng(5)
    shown = generator.integers(0, 8, size=(1500, 1))
    impression = pl.col("action") == "impression"
    titles = pl.Series([f"t{title}" for title in shown[:, 0]])
    members = pl.col("member_id").str.slice(1).cast(pl.Int64)
    played = generator.random(1500) < feed.chance[np.arange(1500), shown[:, 0]]
    frame = feed.tables.interactions.filter(pl.col("action").is_in(["impression"])).with_columns(
        title_id=pl.when(impression).then(members.replace_strict(dict(enumerate(titles)))).otherwise("title_id"),
        propensity=pl.when(members % 3 == 0).then(None).otherwise(pl.lit(1 / 8)),
        position=pl.lit(None, dtype=pl.Int32),
        row_id=pl.lit(None, dtype=pl.String),
    )
    plays = frame.filter(members.replace_strict(dict(enumerate(played.tolist())))).with_columns(
        event_id=pl.format("{}-play", "event_id"), action=pl.lit("play"), seq=pl.col("seq") + 5
    )
    log_frame = pl.concat([frame, plays]).sort("member_id", "seq")
    random_feed = replace(uniform, tables=replace(feed.tables, interactions=log_frame))
    with pytest.raises(DataError, match="500 of 1500 impressions lack it"):
        op.logged_slates(random_feed.tables, "home", op.played_outcome())
    logged = op.logged_slates(random_feed.tables, "home", op.played_outcome(), without_propensity="drop")
    scores = 2.0 * feed.chance
    policy = op.SoftmaxPolicy(0.5)
    log = op.weigh(logged, feed.scorer(scores), policy, scene_of(random_feed), CANVAS, name="feed")
    report = op.off_policy_report(log, rules=QUICK)
    assert report.unit == "title shown"
    assert report.without_propensity == 500
    requested = np.arange(1500) % 3 != 0
    chances = np.exp(scores / 0.5) / np.exp(scores / 0.5).sum(axis=1, keepdims=True)
    truth = (chances * feed.chance)[requested].sum(axis=1).mean()
    for name in ("snips", "doubly_robust"):
        estimate = report.of(name).estimate
        assert estimate.low <= truth <= estimate.high
        assert estimate.coverage == pytest.approx(1.0, abs=0.1)


def test_several_canvases_are_put_together_with_members_as_one(service):
    other = LoggedService.make(members=400, seed=9, canvas="billboard")
    first = weighed(service, service.chance, op.SoftmaxPolicy())
    logged = op.logged_slates(other.tables, "billboard", op.played_outcome())
    second = op.weigh(logged, other.scorer(other.chance), op.SoftmaxPolicy(), scene_of(other), CANVAS, name="tiny")
    both = op.combine([first, second])
    assert np.unique(both.data.members).size == 400
    assert np.unique(both.data.slates).size == 800
    report = op.off_policy_report(both, rules=QUICK)
    assert report.canvases == ("home", "billboard")
    assert {row.group for row in report.groups if row.slice == "canvas"} == {"home", "billboard"}
    with pytest.raises(ComparisonError, match="different things"):
        op.combine([first, replace(second, version="other")])


def test_names_that_do_not_exist_or_do_not_go_together(service):
    log = weighed(service, service.chance, op.SoftmaxPolicy(), direct=None)
    with pytest.raises(UnknownNameError, match="Did you mean 'slate_snips'"):
        op.off_policy_report(log, estimators=("slate_snip",))
    with pytest.raises(UnknownNameError, match="unknown slice"):
        op.off_policy_report(log, slices=("county",))
    with pytest.raises(ConfigError, match="one kind at a time"):
        op.off_policy_report(log, estimators=("snips", "slate"))
    assert "slate_dr" not in op.suited_estimators(log)
    for broken in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="temperature"):
            op.SoftmaxPolicy(broken)
    with pytest.raises(ConfigError, match="epsilon"):
        op.TopPolicy(1.2)


@pytest.mark.parametrize("kind", ["ridge", "boosted"])
def test_direct_models_learn_from_other_members_only(kind):
    generator = np.random.default_rng(0)
    slates, titles = 900, 10
    scores = generator.standard_normal((slates, titles))
    shown = generator.integers(0, titles, slates)
    mean = 0.2 + 0.05 * np.arange(titles)
    reward = mean[shown] + 0.3 * scores[np.arange(slates), shown] + 0.1 * generator.standard_normal(slates)
    members = np.arange(slates) // 3
    rows = np.arange(slates)
    log = DirectLog(
        members, np.zeros(slates, int), scores, np.ones(scores.shape, bool), rows, np.zeros(slates, int), shown, reward
    )
    model = fit_direct(log, kind)
    assert model.fit > 0.7
    truth = mean[None, :] + 0.3 * scores
    assert np.corrcoef(model.quality.ravel(), truth.ravel())[0, 1] > 0.9
    # What a member earned must not move its own predictions.
    changed = fit_direct(replace(log, reward=np.where(members == 5, reward + 100.0, reward)), kind)
    np.testing.assert_array_equal(changed.quality[members == 5], model.quality[members == 5])
    noise = fit_direct(replace(log, reward=generator.standard_normal(slates)), kind)
    assert noise.fit < 0.05  # fitted on its own rows it would look better than chance


def test_direct_models_refuse_what_they_cannot_do():
    few = DirectLog(
        np.zeros(2, int), np.zeros(2, int), np.ones((2, 3)), np.ones((2, 3), bool), np.arange(2), np.zeros(2, int),
        np.zeros(2, int), np.ones(2),
    )  # fmt: skip
    with pytest.raises(StateError, match="as many members, got 1"):
        fit_direct(few)
    with pytest.raises(ConfigError, match="'ridge' or 'boosted'"):
        fit_direct(few, "forest")
