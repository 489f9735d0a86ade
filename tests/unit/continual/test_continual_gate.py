"""The gate of an ensemble over a hand-made service, with networks that know nothing and members that know something."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from fixtures import evaluation_service as service
from playbill.continual.ensembles import gate as gates
from playbill.continual.ensembles import gate_window
from playbill.continual.ensembles.folding import (
    PastRequests,
    fit_map,
    fold_member,
    past_requests,
    popularity_by_country,
    solve_map,
)
from playbill.continual.ensembles.gate import gate_groups, learn_gate
from playbill.continual.ensembles.gate_window import GateWindow, Slots
from playbill.continual.ensembles.members import Member, main_head, require_window, title_canvases, trained_on_window
from playbill.datasets import Encoder, EncoderState, Request, Split, make_split
from playbill.definitions.specs import EnsembleSpec, MemberSpec, ResolvedModel
from playbill.errors import StateError
from playbill.evaluation.canvases.loaded_version import OpenModel
from playbill.models import HeadConfig, Network, NetworkConfig
from playbill.models.config import EnsembleConfig, FoldedConfig
from playbill.models.ensemble import EnsembleMembers, FoldedMember
from playbill.ranking.scoring.bundle import Bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.training.term_fit import fit_weights
from playbill.training.term_weights import log_of
from playbill.versions.tracking import ModelVersion

TITLES = [str(number) for number in range(1, 25)]
COUNTRIES = ("NL", "BR", "JP")
ENSEMBLE = EnsembleSpec.model_validate(
    {
        "name": "both",
        "version": 1,
        "members": {"global": "tiny", "local": {"term": "popularity"}},
        "gate": ["country"],
    }
)


def country_of(member: int) -> str:
    """Most members are in NL, some in BR, a few in JP."""
    return COUNTRIES[0] if member % 10 < 6 else COUNTRIES[1] if member % 40 != 39 else COUNTRIES[2]


def rows(members: int, *, local: bool) -> list[tuple[str, str, float]]:
    """Members of each country play mostly titles of their own, or all play any."""
    generator, found = np.random.default_rng(7), []
    for member in range(members):
        first = 8 * COUNTRIES.index(country_of(member))
        weight = np.ones(len(TITLES))
        if local:
            weight[first : first + 8] = 1.0 + 120.0 / np.arange(1, 9)
        chosen = generator.choice(len(TITLES), 6, replace=False, p=weight / weight.sum())
        found += [(f"m{member:04}", TITLES[title], float(step)) for step, title in enumerate(chosen)]
    return found


def encoder_of(resolved: ResolvedModel) -> Encoder:
    state = EncoderState(
        history_length=20,
        merge=True,
        titles=tuple(TITLES),
        actions=("play",),
        canvases=("home",),
        countries=COUNTRIES,
        devices=(),
        languages=(),
        genres=(),
        kinds=(),
        original_languages=(),
        year_edges=(),
        metadata=(),
        text_buckets=64,
        snapshot_hours=24,
        canvas_fields={name: canvas.context for name, canvas in resolved.canvases.items()},
        service=resolved.model.features,
        service_version="v",
    )
    return Encoder(state)


def window_of(
    members: int = 400,
    *,
    local: bool = True,
    ensemble: EnsembleSpec = ENSEMBLE,
    countries: dict[str, str] | None = None,
) -> GateWindow:
    """Return the window of a base that knows nothing, with the term `popularity` beside it."""
    named = {f"m{member:04}": country_of(member) for member in range(members)}
    frames = service.tables_of(rows(members, local=local), titles=TITLES, countries=named)
    resolved = service.resolved_of()
    split, encoder = make_split("leave_one_out", frames.interactions), encoder_of(resolved)
    own = EnsembleConfig(
        members=("local",),
        heads=("play",),
        countries=1 + len(COUNTRIES),
        terms={"local": "popularity"},
        title_age="title_age" in ensemble.gate,
        tenure="tenure" in ensemble.gate,
    )
    sizes = encoder.network_sizes() | {"trunk": {"dim": 8, "heads": 2}}
    config = NetworkConfig.model_validate(
        {**sizes, "heads": (HeadConfig(name="play", loss="softmax"),), "ensemble": own}
    )
    torch.manual_seed(1)
    network = Network(config).eval()
    plays = frames.titles.select("title_id").with_columns(plays=np.ones(len(TITLES), np.float32))
    bundle = Bundle(Path(), "", resolved, encoder, config, plays, {})
    scorer = Scorer(bundle, frames.titles, frames.availability, None, as_of=service.day(7), network=network)
    log = log_of(split, frames)
    assert network.ensemble is not None
    network.ensemble.popularity[:, 1:] = torch.from_numpy(popularity_by_country(log, scorer)).float()
    return GateWindow(ensemble, scorer, resolved, {}, log, split, frames, None, 17)  # type: ignore[arg-type]


def members_of(window: GateWindow) -> EnsembleMembers:
    found = window.scorer.network.ensemble
    assert found is not None
    return found


def test_a_member_that_is_ahead_is_weighed_and_small_countries_lean_on_the_base() -> None:
    window = window_of()
    learnt = learn_gate(window)
    gain = {(one.slice, one.group): one for one in learnt.gains}
    assert gain["canvas", "home"].kept
    assert gain["canvas", "home"].gain.low > 0.1
    weights = members_of(window).weights[0, 1, :, 0, 0, 0].tolist()
    assert weights[0] == 0, "an unknown country has the base"
    assert min(weights) >= 0
    assert weights[1] > 0.5
    share = learnt.weights.filter(pl.col("member") == "base").select("country", "requests", "share").rows()
    known = {country: (requests, base) for country, requests, base in share}
    assert known["NL"][0] > known["BR"][0] > known["JP"][0]
    assert known["JP"][1] > known["NL"][1], "the smallest country leans on the base"


def test_a_request_from_an_unknown_country_is_scored_by_the_base_to_the_last_bit() -> None:
    window = window_of()
    members, ask = members_of(window), Request("home", service.day(8), country="XX")
    known = replace(ask, country="NL")
    before = [window.scorer.score([one])["play"] for one in (ask, known)]
    learn_gate(window)
    after = [window.scorer.score([one])["play"] for one in (ask, known)]
    assert np.array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1])
    both = window.scorer.score([ask, known])["play"]
    assert np.allclose(both, np.concatenate(after), atol=1e-5)
    members.weights.zero_()
    assert np.array_equal(window.scorer.score([known])["play"], before[1])


def test_a_page_is_scored_as_its_requests_are() -> None:
    window = window_of()
    learn_gate(window)
    request = Request("home", service.day(8), country="NL")
    page = window.scorer.score_page([request], [{"play": 1.0}], np.ones((1, len(TITLES)), np.bool_))
    scored = window.scorer.score([request])["play"][0]
    own = page.logits(0)
    assert np.allclose(own, scored, atol=1e-5)
    parts = window.scorer.term_parts(request, "play")
    weight, values = parts["members.local"]
    assert weight == pytest.approx(float(members_of(window).weights[0, 1, 1, 0, 0, 0]))
    members_of(window).weights.zero_()
    assert np.allclose(scored - weight * values, window.scorer.score([request])["play"][0], atol=1e-4)


def test_a_member_that_does_not_help_leaves_every_country_to_the_base() -> None:
    window = window_of(local=False)
    learnt = learn_gate(window)
    assert not any(one.kept for one in learnt.gains if one.slice == "canvas")
    assert not members_of(window).weights.any()
    assert learnt.weights.is_empty()


def test_a_country_where_the_ensemble_is_behind_falls_back_to_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    window, real = window_of(), gates.out_of_sample

    def worse_in_brazil(samples: list, groups: object, limits: object, codes: list, of_group: object) -> list:
        found = real(samples, groups, limits, codes, of_group)  # type: ignore[arg-type]
        found[0].gain[codes[0] == 2] = -0.1
        return found

    monkeypatch.setattr(gates, "out_of_sample", worse_in_brazil)
    learnt = learn_gate(window)
    kept = {one.group: one.kept for one in learnt.gains if one.slice == "country"}
    assert (kept["NL"], kept["BR"]) == (True, False)
    weights = members_of(window).weights[0, 1, :, 0, 0, 0].tolist()
    assert weights[1] > 0
    assert weights[2] == 0


def test_a_member_of_one_country_weighs_nothing_in_others() -> None:
    changed = {**ENSEMBLE.members, "local": {"term": "popularity", "countries": ["NL"]}}
    own = EnsembleSpec.model_validate({**ENSEMBLE.model_dump(), "members": changed})
    window = window_of(ensemble=own)
    learn_gate(window)
    weights = members_of(window).weights[0, 1, :, 0, 0, 0].tolist()
    assert weights[1] > 0
    assert (weights[2], weights[3]) == (0, 0)


def test_tenure_and_age_of_titles_have_weights_of_their_own() -> None:
    own = EnsembleSpec.model_validate({**ENSEMBLE.model_dump(), "gate": ["country", "tenure", "title_age"]})
    window = window_of(ensemble=own)
    learn_gate(window)
    assert tuple(members_of(window).weights.shape) == (1, 2, 4, 3, 2, 1)
    assert members_of(window).weights[0, 1, 1, :, 0].min() > 0, "no tenure is without what all of them share"
    assert members_of(window).weights[..., 1, :].max() < members_of(window).weights[..., 0, :].max()


def test_weights_of_a_country_with_few_requests_are_near_what_countries_share() -> None:
    window = window_of()
    sample = window.samples()[0].sample
    groups = gate_groups(4, 1)
    together = fit_weights([sample], groups=groups).own[0, :, 0]
    few = fit_weights([sample.part(sample.length == 3)], groups=groups).own[0, :, 0]
    assert together[3] > few[3] >= 0
    assert abs(together[3] - together[1]) < abs(few[3] - together[1])


def test_an_empty_window_is_refused() -> None:
    window = window_of(40)
    nothing = window.split.frame.with_columns(
        fold=pl.when(pl.col("fold") == "validation").then(pl.lit("train")).otherwise(pl.col("fold").cast(pl.String))
    )
    with pytest.raises(StateError, match="is empty, so there is nothing to learn the gate from"):
        require_window(Split(nothing, "leave_one_out", None, None, "d"))
    require_window(window.split)
    with pytest.raises(StateError, match="no canvas has requests in the window"):
        learn_gate(replace(window, split=replace(window.split, frame=nothing), log=_relabelled(window, nothing)))


def _relabelled(window: GateWindow, frame: pl.DataFrame) -> object:
    return log_of(replace(window.split, frame=frame), window.tables)


def test_a_member_that_was_trained_on_the_window_is_told_by_its_split() -> None:
    window = window_of(40)
    assert trained_on_window(window.split, window.split) == 0
    late = window.split.frame.with_columns(fold=pl.lit("train"))
    assert trained_on_window(window.split, replace(window.split, frame=late)) == 80


def test_main_heads_are_those_in_which_titles_compete() -> None:
    resolved = service.resolved_of()
    assert title_canvases(resolved) == ["home"]
    assert main_head(resolved, "home") == "play"


def test_a_linear_map_is_found_and_says_how_much_it_explains() -> None:
    generator = np.random.default_rng(2)
    states, country = generator.normal(size=(600, 6)), generator.integers(1, 4, 600)
    query, shift = generator.normal(size=(6, 5)), generator.normal(size=(4, 5))
    queries = states @ query + shift[country]
    past = PastRequests(None, [], [], states.astype(np.float32), country, (np.arange(600) % 4 == 0) * 1.0)  # type: ignore[arg-type]
    found, own, share = fit_map(past, queries.astype(np.float32), np.eye(5), 4)
    assert share > 0.99
    assert np.allclose(states @ found + own[country], queries, atol=0.15)
    noise = generator.normal(size=queries.shape)
    assert fit_map(past, noise.astype(np.float32), np.eye(5), 4)[2] < 0.1
    unknown = solve_map(states, queries, country, 1e-4, 4)[1][0]
    assert np.allclose(unknown, shift[1:].mean(axis=0), atol=0.3), "a country without requests has the mean shift"


def test_requests_of_the_past_have_only_what_came_before_them() -> None:
    window = window_of(60)
    requests, members = past_requests(window.log, ["home"], "home", 3)
    assert len(requests) == len(members) == 60 * 4
    assert all(one.history is not None and (one.history["event_at"] < one.at).all() for one in requests)
    only, _ = past_requests(window.log, ["home"], "home", 3, ["BR"])
    assert {one.country for one in only} == {"BR"}


def test_a_member_on_the_same_trunk_is_folded_without_loss() -> None:
    window = window_of(200)
    base, other = window.scorer, copy.deepcopy(window.scorer.network)
    head = other.title_heads()["play"]
    torch.nn.init.normal_(head.query.weight, std=0.3)
    torch.nn.init.normal_(other.title_bias.weight, std=0.5)
    bundle = replace(base.bundle, resolved=window.resolved)
    tuned = Scorer(bundle, window.tables.titles, window.tables.availability, None, as_of=base.as_of, network=other)
    named = MemberSpec(model="tiny:2")
    version = ModelVersion("tiny", 2, "d", None, "")
    members = [
        Member(role, named, version, OpenModel(window.resolved, scorer, window.split, "d"))
        for role, scorer in (("global", base), ("tuned", tuned))
    ]
    past = PastRequests.of(members[0], window.log, _NoFeatures(), 5)
    config = FoldedConfig(width=8)
    target = FoldedMember(config, 1 + len(TITLES), 2, 8, 1 + len(COUNTRIES))
    folded = fold_member(members[1], target, past, _NoFeatures())
    assert folded.explained > 0.999
    assert folded.requests == len(past.requests)
    request = Request("home", service.day(8), country="NL", history=window.log.past(5))
    state = torch.from_numpy(base.request_vectors([request], None))
    canvas, country = torch.tensor([1]), torch.tensor([1])
    every = target.of(torch.arange(1 + len(TITLES)))
    assert every.vectors is target.titles, "no copy is made for titles that are all there in order"
    found = target(state, canvas, country, every, torch.zeros(1, 1 + len(TITLES)))[0, 1:]
    whole = tuned.score([request])["play"][0]
    assert np.corrcoef(found.numpy(), whole)[0, 1] > 0.999
    unknown = target(state, canvas, country, target.of(torch.tensor([0, 1, 0])), torch.full((1, 3), 7.0))[0]
    assert unknown.tolist()[2] == 7.0, "a title that the member does not know is as good as the base thinks"


class _NoFeatures:
    def member_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        return frame


def test_many_small_countries_have_the_weights_that_they_share() -> None:
    window = window_of()
    own = window.samples()[0]
    generator = np.random.default_rng(4)
    strewn = generator.integers(0, 60, len(own.sample))
    limits = np.ones((60, 1))
    _, weights = gates.likeliest_weights([replace(own.sample, length=strewn)], limits, 60, 1)
    assert np.ptp(weights[0, :, 0]) == 0, "sixty groups drawn at random differ in nothing"
    _, weights = gates.likeliest_weights([own.sample], np.ones((4, 1)), 4, 1)
    assert np.ptp(weights[0, :, 0]) > 0, "countries that play other titles have weights of their own"


def test_copies_for_different_countries_are_weighed_as_one_member() -> None:
    named = {
        "global": "tiny",
        "nl": {"model": "tiny:2", "countries": ["NL"]},
        "all": "tiny:3",
        "jp": {"model": "tiny:4", "countries": ["JP"]},
        "nl_too": {"model": "tiny:5", "countries": ["NL", "BR"]},
        "local": {"term": "popularity", "countries": ["BR"]},
    }
    spec = EnsembleSpec.model_validate({"name": "both", "version": 1, "members": named, "gate": ["country"]})
    roles = tuple(role for role in named if role != "global")
    slots = Slots.of(spec, roles, ["", *COUNTRIES])
    assert slots.members.tolist() == [
        [gate_window.NOBODY] * 4,
        [0, 1, 3, gate_window.NOBODY],
        [gate_window.NOBODY, 1, 3, 4],
        [2, 1, gate_window.NOBODY, gate_window.NOBODY],
    ], "nl and jp share the first, and nl_too has one of its own"
    values = np.arange(10, dtype=np.float32).reshape(1, 5, 2).repeat(2, axis=0)
    assert slots.values(values, np.array([3, 0]))[:, :2].tolist() == [[[4, 5], [2, 3]], [[0, 0], [0, 0]]]
    weights = slots.of_members(np.arange(1.0, 17.0).reshape(4, 1, 1, 4), 5)[:, 0, 0]
    assert weights[1].tolist() == [5, 6, 0, 7, 0]
    assert weights[3].tolist() == [0, 14, 13, 0, 0]
    assert not weights[0].any(), "an unknown country has the base"


def test_a_small_country_is_judged_by_what_countries_gain_together(monkeypatch: pytest.MonkeyPatch) -> None:
    window, real = window_of(), gates.out_of_sample

    def unlucky_in_japan(samples: list, groups: object, limits: object, codes: list, of_group: object) -> list:
        found = real(samples, groups, limits, codes, of_group)  # type: ignore[arg-type]
        found[0].gain[codes[0] == 3] = -0.001
        return found

    monkeypatch.setattr(gates, "out_of_sample", unlucky_in_japan)
    learnt = learn_gate(window)
    japan = next(one for one in learnt.gains if one.group == "JP")
    assert japan.gain.value < 0
    assert japan.kept
    assert members_of(window).weights[0, 1, 3] > 0
