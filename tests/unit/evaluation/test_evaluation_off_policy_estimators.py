"""Off-policy estimators against bandits whose truth is known exactly, and against plain loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from fixtures.bandit_problem import Bandit, SlateBandit, conditional
from playbill.definitions.specs.measures import ESTIMATORS
from playbill.errors import DataError, EffectiveSampleError, OverlapError, UnknownNameError
from playbill.evaluation.off_policy.estimate import Rules, estimate
from playbill.evaluation.off_policy.terms import OffPolicyData

STUDY = Rules(interval="normal", floor=0.0)
REPEATS = 150


@pytest.fixture(scope="module")
def bandit() -> Bandit:
    return Bandit.make()


@pytest.fixture(scope="module")
def repeated(bandit: Bandit) -> dict[str, np.ndarray]:
    """[R, 3] value, low, high of each estimator over repeated logs of several rows per member."""
    names = ("ips", "clipped_ips", "snips", "doubly_robust", "self_normalised_dr", "switch_dr", "direct")
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for seed in range(REPEATS):
        log = bandit.log(1500, seed, rows_per_member=3)
        for name in names:
            one = estimate(name, log, rules=STUDY)
            found[name].append((one.value, one.low, one.high))
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("name", ["ips", "snips", "doubly_robust", "self_normalised_dr"])
def test_estimators_hit_the_truth_on_average_and_their_intervals_cover_it(bandit, repeated, name):
    values, low, high = repeated[name].T
    assert abs(values.mean() - bandit.truth) < 3.5 * values.std() / REPEATS**0.5
    covered = np.mean((low <= bandit.truth) & (bandit.truth <= high))
    assert 0.90 <= covered <= 0.995  # 0.95 within three standard errors of 150 repetitions


@pytest.mark.parametrize("name", ["clipped_ips", "switch_dr"])
def test_thresholds_trade_a_small_bias_and_never_more_than_a_noise_width(bandit, repeated, name):
    values = repeated[name][:, 0]
    assert abs(values.mean() - bandit.truth) < 0.5 * repeated["ips"][:, 0].std()


def test_self_normalising_and_the_model_lower_the_variance(repeated):
    spread = {name: values[:, 0].std() for name, values in repeated.items()}
    assert spread["snips"] < 0.9 * spread["ips"]
    assert spread["doubly_robust"] < 0.9 * spread["ips"]


def test_the_direct_method_is_as_wrong_as_its_model_and_doubly_robust_is_not(bandit, repeated):
    assert repeated["direct"][:, 0].mean() > 1.08 * bandit.truth
    assert repeated["doubly_robust"][:, 0].mean() == pytest.approx(bandit.truth, rel=0.015)


def test_bootstrap_intervals_cover_too(bandit):
    covered = 0
    for seed in range(80):
        one = estimate("snips", bandit.log(800, 1000 + seed), rules=Rules(resamples=300, floor=0.0))
        covered += one.low <= bandit.truth <= one.high
    assert 0.875 <= covered / 80 <= 1.0


def test_slate_estimators_on_slates_whose_places_interact():
    problem = SlateBandit.make()
    truth, names = problem.truth, ("slate", "slate_snips", "slate_whole", "slate_dr", "slate_independent")
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in names}
    for seed in range(REPEATS):
        log = problem.log(800, seed)
        for name in names:
            one = estimate(name, log, rules=STUDY)
            found[name].append((one.value, one.low, one.high, one.effective_sample_size))
    table = {name: np.array(values).T for name, values in found.items()}
    for name in ("slate", "slate_snips", "slate_whole", "slate_dr"):
        values, low, high, _ = table[name]
        assert abs(values.mean() - truth) < 3.5 * values.std() / REPEATS**0.5
        assert 0.89 <= np.mean((low <= truth) & (truth <= high)) <= 1.0
    spread = {name: values[0].std() for name, values in table.items()}
    assert spread["slate_snips"] < 0.9 * spread["slate"] < 0.9 * spread["slate_whole"]
    assert spread["slate_dr"] < 0.9 * spread["slate"]
    assert table["slate"][3].mean() > table["slate_whole"][3].mean()
    assert table["slate_independent"][0].mean() > 1.05 * truth  # it believes places do not interact


def plain(name: str, log: OffPolicyData) -> float:
    w = [t / p for t, p in zip(log.target, log.logged, strict=True)]
    rows = list(zip(w, log.reward, log.predicted, log.expected, strict=True))
    n = len(rows)
    if name == "ips":
        return sum(w * r for w, r, _, _ in rows) / n
    if name == "snips":
        return sum(w * r for w, r, _, _ in rows) / sum(w for w, *_ in rows)
    if name == "doubly_robust":
        return sum(e + w * (r - q) for w, r, q, e in rows) / n
    if name == "self_normalised_dr":
        return sum(e for *_, e in rows) / n + sum(w * (r - q) for w, r, q, _ in rows) / sum(w for w, *_ in rows)
    if name == "clipped_ips":
        return sum(min(w, 2.0) * r for w, r, _, _ in rows) / n
    return sum(e + (w * (r - q) if w <= 2.0 else 0.0) for w, r, q, e in rows) / n


@pytest.mark.parametrize("name", ["ips", "snips", "doubly_robust", "self_normalised_dr", "clipped_ips", "switch_dr"])
def test_row_estimators_equal_plain_loops(bandit, name):
    log = bandit.log(400, 3)
    options = {"threshold": 2.0} if name in ("clipped_ips", "switch_dr") else None
    found = estimate(name, log, options=options, rules=STUDY)
    assert found.value == pytest.approx(plain(name, log))
    if options:
        assert found.threshold == 2.0
        assert 0.0 < found.left_out < 1.0
        assert found.weight_max <= 2.0


def test_slate_estimators_equal_plain_loops_on_ragged_shuffled_slates():
    log = SlateBandit.make().log(60, 5)
    kept = ~((log.slates % 4 == 0) & (log.positions == 2))  # every fourth slate has two places only
    order = np.random.default_rng(0).permutation(kept.sum())
    arrays = {name: value[kept][order] for name, value in vars(log).items() if isinstance(value, np.ndarray)}
    shuffled = OffPolicyData(**arrays)
    slates: dict[int, dict[int, tuple[float, float, float, float]]] = {}
    for s, k, t, p, r, q, e in zip(
        shuffled.slates, shuffled.positions, shuffled.target, shuffled.logged, shuffled.reward, shuffled.predicted,
        shuffled.expected, strict=True,
    ):  # fmt: skip
        slates.setdefault(int(s), {})[int(k)] = (t / p, r, q, e)
    sums = dict.fromkeys(("slate", "slate_independent", "slate_whole", "slate_dr"), 0.0)
    by_place = {k: [0.0, 0.0, 0.0, 0.0] for k in range(4)}
    for places in slates.values():
        above, total = 1.0, 0.0
        for k in range(len(places)):
            ratio, reward, q, e = places[k]
            sums["slate_dr"] += above * e
            above *= ratio
            sums["slate_dr"] += above * (reward - q)
            sums["slate"] += above * reward
            sums["slate_independent"] += ratio * reward
            total += reward
            by_place[k][0] += above * reward
            by_place[k][1] += above
            by_place[k][2] += above / ratio  # got here
            by_place[k + 1][3] += above  # could go on
        sums["slate_whole"] += above * total
    for name, value in sums.items():
        assert estimate(name, shuffled, rules=STUDY).value == pytest.approx(value / 60)
    normalised, reach = 0.0, 1.0
    for k in range(3):
        earned, weight, here, start = by_place[k]
        reach *= here / start if k else 1.0
        normalised += reach * earned / weight
    assert estimate("slate_snips", shuffled, rules=STUDY).value == pytest.approx(normalised)


def test_where_members_stop_looking_after_a_play_slates_end_early_and_estimates_stay_right():
    problem = SlateBandit.make(seed=1)
    truth, names = _truth_until_play(problem), ("slate", "slate_snips", "slate_dr", "slate_whole")
    found: dict[str, list[tuple[float, bool]]] = {name: [] for name in names}
    for seed in range(REPEATS):
        log = problem.log(800, seed)
        slate_reward = log.reward.reshape(-1, 3)
        seen = np.concatenate([np.ones((800, 1), bool), np.cumsum(slate_reward, axis=1)[:, :-1] == 0], axis=1)
        log = log.keep(seen.ravel())
        for name in names:
            one = estimate(name, log, rules=STUDY)
            found[name].append((one.value, one.low <= truth <= one.high))
    for name, rows in found.items():
        values, covered = np.array(rows).T
        assert abs(values.mean() - truth) < 3.5 * values.std() / REPEATS**0.5 + 0.001, name
        assert 0.89 <= covered.mean() <= 1.0, name
    assert np.std([value for value, _ in found["slate_snips"]]) < np.std([value for value, _ in found["slate"]])


def _truth_until_play(problem: SlateBandit) -> float:
    total = 0.0
    for x in range(problem.chance.shape[0]):
        for slate in permutations(range(problem.chance.shape[1]), 3):
            chances = conditional(problem.target[x : x + 1], np.array([slate]))[0]
            total += chances.prod() * (1 - np.prod(1 - problem.chance[x, list(slate)]))
    return total / problem.chance.shape[0]


@pytest.mark.parametrize("name", ["ips", "snips", "self_normalised_dr", "slate", "slate_snips", "slate_dr"])
def test_the_influence_of_a_unit_is_the_derivative_of_the_value(name):
    log = SlateBandit.make().log(60, 5)
    kept = (log.positions == 0) if not name.startswith("slate") else ~((log.slates % 4 == 0) & (log.positions == 2))
    terms = ESTIMATORS[name].load()(log.keep(kept), None)
    sums, influence = terms.sums(), terms.influence()
    assert influence.mean() == pytest.approx(0.0, abs=1e-12)
    for unit in (0, 7, 31):
        step = 1e-6
        more = sums.sum(axis=0) + step * sums[unit]
        change = (terms.of_sums(more[None]) - terms.of_sums(sums.sum(axis=0)[None]))[0] / step
        assert influence[unit] / len(influence) == pytest.approx(change, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("name", ["ips", "snips", "doubly_robust", "slate", "slate_snips", "slate_dr"])
def test_the_difference_to_the_log_is_paired(name):
    log = SlateBandit.make().log(900, 5)
    log = log.keep(log.positions == 0) if not name.startswith("slate") else log
    log = replace(log, slates=np.arange(len(log))) if not name.startswith("slate") else log
    alone, against = estimate(name, log), estimate(name, log, against_logged=True)
    logged = log.reward.sum() / np.unique(log.slates).size
    assert against.value == pytest.approx(alone.value - logged)
    same = replace(log, target=log.logged)
    if name in ("ips", "snips", "slate", "slate_snips"):
        nothing = estimate(name, same, against_logged=True)
        assert [nothing.low, nothing.value, nothing.high] == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


def test_an_estimate_says_how_far_it_can_be_trusted(bandit):
    log = bandit.log(3000, 1)
    one = estimate("snips", log)
    weights = log.target / log.logged
    assert one.effective_sample_size == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert one.weight_max == pytest.approx(weights.max())
    assert one.n == one.members == 3000
    assert one.coverage == pytest.approx(min(1.0, weights.mean()))
    known = replace(log, supported=np.full(3000, 0.8))
    assert estimate("snips", known).coverage == pytest.approx(0.8)
    assert one.to_dict()["estimator"] == "snips"


def test_the_logging_policy_itself_is_the_plain_mean_and_loses_nothing(bandit):
    log = bandit.log(500, 2)
    same = replace(log, target=log.logged)
    for name in ("ips", "snips", "slate", "slate_whole"):
        one = estimate(name, same)
        assert one.value == pytest.approx(log.reward.mean())
        assert one.effective_sample_size == pytest.approx(500)


def test_several_rows_of_a_member_are_one_piece_of_evidence(bandit):
    one = bandit.log(300, 4)
    copies = np.repeat(np.arange(300), 10)
    arrays = {name: value[copies] for name, value in vars(one).items() if isinstance(value, np.ndarray)}
    repeated = OffPolicyData(**{**arrays, "slates": np.arange(3000)})
    for rules in (STUDY, Rules(resamples=400)):
        first, again = estimate("snips", one, rules=rules), estimate("snips", repeated, rules=rules)
        assert again.value == pytest.approx(first.value)
        assert again.high - again.low == pytest.approx(first.high - first.low, rel=0.01)


def test_below_the_floor_nothing_is_given_and_the_message_says_how_much_is_missing():
    far = Bandit.make(sharpness=12.0).log(300, 0)
    with pytest.raises(EffectiveSampleError) as error:
        estimate("ips", far)
    needed = error.value.rows_needed
    assert needed == pytest.approx(300 * 100 / error.value.effective, abs=1)
    assert f"about {needed - 300:,} more rows of this kind are missing" in str(error.value)
    assert "floor is 100" in str(error.value)
    nothing = replace(far, target=np.zeros(300))
    with pytest.raises(EffectiveSampleError, match="no logged row is what the target policy would show"):
        estimate("snips", nothing)
    assert estimate("ips", far, rules=Rules(floor=5.0)).effective_sample_size < 100


def test_a_log_that_hardly_tried_what_the_policy_shows_is_refused_with_the_share_it_tried(bandit):
    log = bandit.log(3000, 1)
    # A ranking without chance: whatever it showed had propensity 1, and nothing else was tried.
    fixed = replace(log, logged=np.ones(len(log)))
    for name in ("snips", "ips", "doubly_robust", "slate_snips"):
        with pytest.raises(OverlapError) as error:
            estimate(name, fixed)
        assert error.value.coverage == pytest.approx(log.target.mean())
        assert error.value.coverage < error.value.highest < 0.2
        assert error.value.effective > 100  # enough rows; it is not their number that lacks
        assert f"tried {log.target.mean():.1%} of what the target policy shows" in str(error.value)
    assert estimate("snips", fixed, rules=Rules(coverage=0.0)).coverage == pytest.approx(log.target.mean())
    with pytest.raises(OverlapError, match=r"tried 70.0% of what .* \(at most 70.0%\), and the least is 80%"):
        estimate("snips", replace(log, supported=np.full(len(log), 0.7)))


def test_lists_that_were_never_drawn_are_no_matter_of_more_rows():
    log = SlateBandit.make().log(800, 0)
    peaked = np.where(np.arange(len(log)) % 7 == 0, 0.9, log.target)  # products of places vary, so few lists weigh
    fixed = replace(log, logged=np.ones(len(log)), target=peaked)
    with pytest.raises(OverlapError, match="propensity 1 everywhere, and tries nothing else"):
        estimate("slate_whole", fixed, rules=Rules(floor=600.0))
    with pytest.raises(EffectiveSampleError):  # too few rows to be sure of it
        estimate("slate_whole", fixed.keep(fixed.slates < 20))


def test_propensities_that_cannot_be_those_of_the_log_are_found_by_the_mean_weight(bandit):
    log = bandit.log(3000, 1)
    with pytest.raises(DataError, match=r"weights average 1\.\d+, and cannot average more than 1"):
        estimate("snips", replace(log, logged=log.logged / 1.5))
    for seed in range(20):  # right ones are never doubted
        estimate("snips", bandit.log(800, seed))


def test_every_unusable_propensity_is_counted_with_its_first_row(bandit):
    log = bandit.log(50, 0)
    logged = log.logged.copy()
    logged[[3, 9]] = 0.0
    logged[7] = 1.4
    logged[[20, 21, 22]] = np.nan
    reward = log.reward.copy()
    reward[5] = np.nan
    target = log.target.copy()
    target[40] = -0.1
    with pytest.raises(DataError) as error:
        estimate("snips", replace(log, logged=logged, reward=reward, target=target))
    text = str(error.value)
    assert "propensity: 3 of 50 are missing, the first in row 20." in text
    assert "propensity: 2 of 50 are 0, the first in row 3." in text
    assert "propensity: 1 of 50 are above 1, the first in row 7." in text
    assert "reward: 1 of 50 are missing, the first in row 5." in text
    assert "target probability: 1 of 50" in text
    assert "first in row 40" in text


def test_doubly_robust_estimators_say_when_the_model_is_missing(bandit):
    bare = replace(bandit.log(500, 0), predicted=None, expected=None)
    for name in ("doubly_robust", "switch_dr", "slate_dr", "direct"):
        with pytest.raises(DataError, match="direct model's values are not given"):
            estimate(name, bare)


def test_immature_slates_are_dropped_and_counted_never_zero():
    log = SlateBandit.make().log(400, 1)
    matured = np.ones(len(log), bool)
    matured[[4, 30]] = False  # in slates 1 and 10
    reward = np.where(matured, log.reward, np.nan)
    grown = replace(log, reward=reward).without_immature(matured)
    assert grown.immature == 6
    assert set(np.unique(grown.slates)) == set(range(400)) - {1, 10}
    found = estimate("slate", grown)
    assert (found.n, found.members, found.immature) == (398, 398, 6)
    everything = replace(log, reward=reward).without_immature(np.zeros(len(log), bool))
    with pytest.raises(DataError, match=r"none are left \(1200 were not mature\)"):
        estimate("slate", everything)


def test_slates_with_gaps_or_doubled_places_are_refused():
    log = SlateBandit.make().log(100, 1)
    with pytest.raises(DataError, match="1 of 100 slates lack a place above"):
        estimate("slate", log.keep(np.arange(len(log)) != 1))
    doubled = log.positions.copy()
    doubled[1] = 0
    with pytest.raises(DataError, match="held by two rows of one slate"):
        estimate("slate", replace(log, positions=doubled))
    with pytest.raises(DataError, match="count from 0"):
        estimate("slate", replace(log, positions=log.positions - 1))


def test_names_are_registered_and_options_belong_to_those_that_take_them(bandit):
    log = bandit.log(500, 0)
    with pytest.raises(UnknownNameError, match="Did you mean 'snips'"):
        estimate("snip", log)
    with pytest.raises(TypeError, match="takes no options"):
        estimate("snips", log, options={"threshold": 3.0})
    for name in ESTIMATORS.names():
        assert np.isfinite(estimate(name, log, rules=STUDY).value)


def test_without_a_given_threshold_a_hopeless_tail_is_cut():
    log = Bandit.make(sharpness=2.0).log(4000, 0)
    target, logged = log.target.copy(), log.logged.copy()
    target[:2], logged[:2] = 0.9, 1e-4  # two rows with a weight of 9,000
    wild = replace(log, target=target, logged=logged, reward=np.where(np.arange(4000) < 2, 1.0, log.reward))
    clipped, raw = (estimate(name, wild, rules=STUDY) for name in ("clipped_ips", "ips"))
    assert raw.weight_max > 8000
    assert clipped.threshold < 1000
    assert clipped.high - clipped.low < 0.1 * (raw.high - raw.low)
