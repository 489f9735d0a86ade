"""Negatives and availability: what is drawn could have been seen, and is drawn as often as is said."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fixtures import shown_service as service
from playbill.arrays import Ints64
from playbill.datasets import Batch, TrainingSet
from playbill.datasets.availability import KeptMasks, States, availability_states
from playbill.datasets.candidate_masks import Audience, Described, Profiles
from playbill.datasets.examples.negatives import Pool, make_policy, shown_titles, usable_titles
from playbill.definitions.specs import HeadSpec, ResolvedModel
from playbill.definitions.specs.head import NEGATIVES, DrawnOptions, read_negatives
from playbill.registry import Plugin
from playbill.tables import Vocabulary

POLICIES: dict[str, dict[str, Any]] = {
    "uniform": {"count": 40},
    "popularity": {"count": 40, "exponent": 1.0},
    "in_batch": {"count": 50},
    "mixed": {"count": 40, "shares": {"in_batch": 0.4, "uniform": 0.3, "popularity": 0.2, "shown_not_played": 0.1}},
    "shown_not_played": {"count": 3},
}


KIDS = ("m02", "m03")


def trained(
    policy: str, log: pl.DataFrame, loss: str = "sampled_softmax", kids: tuple[str, ...] = (), **options: Any
) -> TrainingSet:
    negatives = {"policy": policy, **POLICIES[policy], **options}
    resolved = service.model({"play": {"label": "play", "loss": loss, "negatives": negatives}})
    return service.training_set(resolved, log, kids_titles=service.KIDS_TITLES, kids_members=kids)


def used(batch: Batch) -> list[tuple[int, int]]:
    """(row, title) of everything a row is told apart from, beside what is said of its own title."""
    if "play" not in batch.targets.negatives:
        return []
    own = batch.targets.negatives["play"]
    drawn = [(int(row), int(own.title[place])) for row, place in zip(*np.nonzero(own.usable), strict=True)]
    shown = [(int(row), int(own.shown[row, place])) for row, place in zip(*np.nonzero(own.shown), strict=True)]
    return drawn + shown


def moments(log: pl.DataFrame) -> dict[tuple[str, str], datetime]:
    return {(row["member_id"], row["request_id"]): row["event_at"] for row in log.iter_rows(named=True)}


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    policy=st.sampled_from(sorted(POLICIES)),
    loss=st.sampled_from(["sampled_softmax", "bce"]),
)
def test_every_negative_could_have_been_seen_there_and_then(seed: int, policy: str, loss: str) -> None:
    log, spans = service.log(members=6, requests=6, seed=seed, kids=KIDS), service.availability()
    training_set = trained(policy, log, loss, KIDS)
    requests = training_set_requests(training_set)
    names = [None, *training_set.encoder.title_rows.entries]
    who = log["member_id"].unique().sort().to_list()
    found = 0
    for member, title, number in negatives_of(training_set):
        at, country = requests[number]
        assert title != 0
        assert service.can_see(spans, names[title], country, at), (names[title], country, at)
        assert who[member] not in KIDS or names[title] in service.KIDS_TITLES, (who[member], names[title])
        found += 1
    assert found


def training_set_requests(training_set: TrainingSet) -> list[tuple[datetime, str]]:
    """Moment and country of each encoded request, as the features were asked."""
    hours = training_set.context.numeric[:, 0].astype(int)
    country = ["", *training_set.encoder.state.countries]
    return [
        (service.START + timedelta(hours=int(hour)), country[int(code)])
        for hour, code in zip(hours, training_set.context.country, strict=True)
    ]


def negatives_of(training_set: TrainingSet) -> list[tuple[int, int, int]]:
    """(member, negative, request) of an epoch; a row's target is among them only as an impression not played."""
    found = []
    for batch, (rows, member) in zip(training_set.epoch(0), training_set.rows_read(0), strict=True):
        own = [(int(row), int(batch.targets.title[row])) for row in np.nonzero(batch.targets.labels["play"] == 0)[0]]
        drawn = used(batch)
        assert not set(drawn) & {(row, int(title)) for row, title in enumerate(batch.targets.title)}
        request = training_set.rows.request[rows]
        found += [(int(member[row]), title, int(request[row])) for row, title in own + drawn]
    return found


ROWS_OF_TITLES = Vocabulary("title", service.TITLES)
CANVASES = {"home": None, "kids": True, "late": False}
"""Canvas -> what its candidates say of titles for kids."""


def states_of(requests: pl.DataFrame, resolved: ResolvedModel, kids: Sequence[bool] = ()) -> tuple[States, Ints64]:
    profile = np.array(kids, np.bool_) if len(kids) else np.zeros(requests.height, np.bool_)
    kids_titles = [title in service.KIDS_TITLES for title in service.TITLES]
    titles = pl.DataFrame({"title_id": service.TITLES, "kids": kids_titles})
    audience = Audience(Described.of(("", *service.TITLES), titles), profile)
    return availability_states(ROWS_OF_TITLES, service.availability(), requests, resolved, audience)


def with_canvases(**candidates: dict[str, Any]) -> ResolvedModel:
    """A model with a canvas like home for each of these rules."""
    resolved = service.model({"play": BCE})
    home = resolved.canvases["home"]
    made = {
        name: home.model_copy(update={"candidates": home.candidates.model_copy(update=rules)})
        for name, rules in candidates.items()
    }
    return resolved.model_copy(update={"canvases": {**resolved.canvases, **made}})


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_masks_are_what_plain_words_say(seed: int) -> None:
    draw, spans = np.random.default_rng(seed), service.availability()
    count = 12
    requests = pl.DataFrame(
        {
            "event_at": [service.START + timedelta(hours=int(hour)) for hour in draw.integers(-400, 2_000, count)],
            "country": draw.choice(["US", "FR", "BR", "ZZ", "XX"], count),
            "canvas": draw.choice(list(CANVASES), count),
        },
        schema_overrides={"event_at": pl.Datetime("us", "UTC")},
    )
    profile = (draw.random(count) < 0.4).tolist()
    states, state = states_of(
        requests, with_canvases(**{name: {"kids": rule} for name, rule in CANVASES.items()}), profile
    )
    mask = states.mask(state)
    for masks in (KeptMasks(states), KeptMasks(states, most=0)):
        for part in (state[:7], state[3:], state[::-1]):
            np.testing.assert_array_equal(masks.of(part), states.mask(part))
    assert not mask[:, 0].any()
    for row, (at, country, canvas) in enumerate(requests.iter_rows()):
        plain = [
            service.can_see(spans, title, country, at)
            and (title in service.KIDS_TITLES or not profile[row])
            and (CANVASES[canvas] is None or (title in service.KIDS_TITLES) == CANVASES[canvas])
            for title in service.TITLES
        ]
        assert mask[row, 1:].tolist() == plain


BCE = {"label": "play", "loss": "bce"}


def test_requests_between_two_changes_of_a_catalogue_share_a_state() -> None:
    at = [service.START + timedelta(days=200, hours=hour) for hour in range(20)]
    requests = pl.DataFrame({"event_at": at, "country": "FR", "canvas": "home"})
    requests = requests.cast({"event_at": pl.Datetime("us", "UTC")})
    states, state = states_of(requests, service.model({"play": BCE}))
    assert len(states) == 1
    assert (state == 0).all()
    apart, state = states_of(requests, service.model({"play": BCE}), [True] * 5 + [False] * 15)
    assert len(apart) == 2
    assert np.unique(state[:5]).size == np.unique(state[5:]).size == 1
    assert state[0] != state[5]


def test_profiles_are_those_of_the_moment() -> None:
    day = [service.START + timedelta(days=number) for number in range(6)]
    members = pl.DataFrame(
        {
            "member_id": ["a", "a", "b", "c"],
            "valid_from": [day[0], day[3], day[4], day[0]],
            "recorded_at": [day[0], day[4], day[4], day[0]],
            "kids_profile": [True, False, True, None],
        },
        schema_overrides={"valid_from": pl.Datetime("us", "UTC"), "recorded_at": pl.Datetime("us", "UTC")},
    )
    requested = [("a", 5), ("a", 3), ("b", 1), ("c", 2), ("d", 2), ("a", 4)]
    requests = pl.DataFrame(
        {"member_id": [who for who, _ in requested], "event_at": [day[number] for _, number in requested]},
        schema_overrides={"event_at": pl.Datetime("us", "UTC")},
    )
    assert Profiles.of(members).kids(requests, "event_at").tolist() == [False, True, True, False, False, False]
    assert not Profiles.of(members.drop("kids_profile")).kids(requests, "event_at").any()


def test_where_everything_could_always_be_seen_nothing_is_masked() -> None:
    log = service.log()
    spans = pl.DataFrame(
        {"title_id": service.TITLES, "country": "*", "available_from": service.START - timedelta(days=1)}
    )
    spans = spans.cast({"available_from": pl.Datetime("us", "UTC")})
    training_set = service.training_set(service.model({"play": {"label": "play", "loss": "softmax"}}), log, spans=spans)
    assert len(training_set.states) == 0
    batch = next(training_set.epoch(0))
    assert batch.targets.available.shape == (0, 0)
    assert batch.targets.group.shape == (0,)


def test_a_canvas_of_upcoming_titles_shows_those() -> None:
    at, spans = service.START + timedelta(days=2), service.availability()
    requests = pl.DataFrame({"event_at": [at], "country": "US", "canvas": "soon"})
    requests = requests.cast({"event_at": pl.Datetime("us", "UTC")})
    states, state = states_of(requests, with_canvases(soon={"available": "upcoming"}))
    launches = (
        spans.filter(pl.col("country").is_in(["*", "US"])).group_by("title_id").agg(pl.col("available_from").min())
    )
    later = set(launches.filter(pl.col("available_from") > at)["title_id"])
    assert {title for title, seen in zip(service.TITLES, states.mask(state)[0, 1:], strict=True) if seen} == later


def pool() -> Pool:
    tenths = np.array([0, 3, 2, 1, 0, 1, 1, 1, 1])
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(9), 40 * tenths))
    return Pool(targets, tenths > 0, np.arange(9, dtype=np.float32) * 5, (tenths / 10).astype(np.float32))


@pytest.mark.parametrize(("most", "drawn"), [(len(service.TITLES), False), (len(service.TITLES) - 1, True)])
def test_a_softmax_over_more_titles_than_the_definition_wants_ranks_against_drawn_ones(most: int, drawn: bool) -> None:
    training = {"stride": 8, "batch_slots": 60, "seed": 3, "full_softmax_titles": most}
    resolved = service.model({"play": {"label": "play", "loss": "softmax"}}, training=training)
    for batch in service.training_set(resolved, service.log()).epoch(0):
        assert ("play" in batch.targets.negatives) is drawn


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_titles_are_drawn_as_often_as_is_said(policy: str) -> None:
    made, counts, texts, own = (
        make_policy(read_negatives({"policy": policy, **POLICIES[policy]})),
        np.zeros(9),
        0.0,
        pool(),
    )
    for seed in range(400):
        drawn, expected = made.draw(own, np.random.default_rng(seed))
        counts += np.bincount(drawn, minlength=9)
        texts = expected
    assert counts[[0, 4]].sum() == 0
    np.testing.assert_allclose(counts / 400, texts, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"shown_not_played"}))
@pytest.mark.parametrize("rows", [3, 30])
def test_what_is_drawn_stands_for_every_title_on_average(policy: str, rows: int) -> None:
    """Sums over a row's negatives, each over how often it was expected, have the mean of sums over all it could see."""
    made = make_policy(read_negatives({"policy": policy, **POLICIES[policy]}))
    draw, titles = np.random.default_rng(4), 9
    worth = np.exp(draw.normal(size=titles))
    frequency = np.array([0, 4, 3, 2, 0, 1, 2, 1, 1], np.float32) / 14
    possible = frequency > 0
    seen = possible & (draw.random((2, titles)) < 0.7)
    errors = []
    for seed in range(3_000):
        target = draw.choice(titles, rows, p=frequency / frequency.sum()).astype(np.int64)
        group = draw.integers(0, 2, rows)
        plays = np.arange(titles, dtype=np.float32)
        drawn, expected = made.draw(Pool(target, possible, plays, frequency), np.random.default_rng(seed))
        usable = usable_titles(drawn, target[:, None], seen, group, np.zeros((rows, 0), np.int64))
        found = np.where(usable, worth[drawn] / np.maximum(expected[drawn], 1e-9), 0).sum(1)
        other = seen[group] & (np.arange(titles) != target[:, None])
        errors.append((found - (other * worth).sum(1)).mean())
    z = np.mean(errors) / (np.std(errors) / np.sqrt(len(errors)))
    assert abs(z) < 4


def test_popularity_follows_its_exponent() -> None:
    _, flat = make_policy(read_negatives({"policy": "popularity", "exponent": 0})).draw(
        pool(), np.random.default_rng(0)
    )
    _, steep = make_policy(read_negatives({"policy": "popularity", "exponent": 1})).draw(
        pool(), np.random.default_rng(0)
    )
    assert np.unique(flat[flat > 0]).size == 1
    assert steep[8] / steep[1] == pytest.approx(41 / 6, rel=1e-4)


def test_drawn_titles_are_the_same_for_every_rank_and_new_for_every_batch() -> None:
    training_set = trained("mixed", service.log())
    whole = [batch.targets.negatives["play"].title for batch in training_set.epoch(0)]
    part = [batch.targets.negatives["play"].title for batch in training_set.epoch(0, 1, 2)]
    assert all(np.array_equal(one, other) for one, other in zip(whole, part, strict=True))
    assert not np.array_equal(whole[0], whole[1])


def test_a_title_is_not_used_both_as_drawn_and_as_shown() -> None:
    usable = usable_titles(
        np.array([1, 2, 3, 2, 0]),
        np.array([[1], [3]]),
        np.zeros((0, 0), np.bool_),
        np.zeros(0, np.int64),
        np.array([[2], [0]]),
    )
    assert usable.tolist() == [[False, False, True, False, False], [True, True, False, True, False]]


def test_slates_hold_what_the_request_showed_and_nobody_played() -> None:
    log = service.log()
    training_set = trained("shown_not_played", log, count=None)
    rows = np.nonzero(training_set.rows.next)[0]
    slate = shown_titles(training_set.rows.slate, training_set.rows.slate_offsets, rows, None)
    shown = log.filter(pl.col("action") == "impression").group_by("request_id").agg("title_id")
    played = log.filter(pl.col("action") == "play").select("request_id", "title_id")
    unplayed = {
        tuple(sorted(set(row["title_id"]) - {row["title_id_right"]}))
        for row in shown.join(played, on="request_id")
        .rename({"title_id_right": "title_id_right"})
        .iter_rows(named=True)
    }
    for row in slate:
        assert tuple(sorted(training_set.encoder.title_rows.decode(row[row > 0]))) in unplayed
    assert (slate > 0).sum() > 300


@pytest.mark.usefixtures("own_plugins")
def test_outside_policies_are_found_by_name() -> None:
    NEGATIVES.claim("hardest", Plugin("json:loads", "playbill.definitions.specs.head:DrawnOptions"))
    head = HeadSpec.model_validate({**BCE, "negatives": {"policy": "hardest", "count": 3}})
    assert head.negatives == DrawnOptions(policy="hardest", count=3)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"loss": "sampled_softmax", "negatives": {"policy": "unifrom"}}, "unknown negatives policy 'unifrom'"),
        ({"loss": "sampled_softmax"}, "needs 'negatives'"),
        ({"loss": "softmax", "negatives": "uniform"}, "ranks against every title"),
        ({"loss": "bce", "negatives": {"policy": "uniform", "count": 0}}, "count"),
        ({"loss": "bce", "negatives": {"policy": "uniform", "exponent": 1}}, "exponent"),
        ({"loss": "bce", "negatives": {"policy": "mixed", "shares": {"uniform": 0.6}}}, "add up to 0.6"),
        ({"loss": "bce", "negatives": {"policy": "mixed", "shares": {"mixed": 1}}}, "share of itself"),
        ({"loss": "bce", "negatives": {"policy": "mixed", "shares": {"uniforms": 1}}}, "unknown negatives policy"),
        (
            {"loss": "bce", "negatives": {"policy": "mixed", "count": 3, "shares": {"uniform": 0.9, "in_batch": 0.1}}},
            "nothing",
        ),
    ],
)
def test_wrong_options_of_negatives_are_refused(head: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HeadSpec.model_validate({"label": "play", **head})
