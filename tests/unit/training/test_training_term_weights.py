"""Weights of terms, learnt over the hand-made service of the evaluation tests with a network that knows nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from fixtures import evaluation_service as service
from playbill.datasets import Encoder, EncoderState, make_split
from playbill.definitions.specs import HeadSpec, ResolvedModel
from playbill.errors import IntegrityError
from playbill.evaluation import CanvasScorer, evaluate_model
from playbill.metrics.bootstrap import Interval
from playbill.models import HeadConfig, Network, NetworkConfig
from playbill.ranking.scoring.bundle import Bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.training.term_weights import (
    LearntTerms,
    ValidationFold,
    add_terms,
    learn_weights,
    log_of,
    terms_config,
    weights_hold,
)

TITLES = [str(number) for number in range(1, 25)]
TERMS = ("transitions", "item_knn")


def rows(members: int, *, in_order: bool) -> list[tuple[str, str, float]]:
    """Members who play the titles round a ring from anywhere, or in any order."""
    generator, found = np.random.default_rng(5), []
    for member in range(members):
        start = int(generator.integers(len(TITLES)))
        titles = [(start + step) % len(TITLES) for step in range(6)]
        if not in_order:
            titles = generator.permutation(len(TITLES))[:6].tolist()
        found += [(f"m{member:04}", TITLES[title], float(step)) for step, title in enumerate(titles)]
    return found


def with_head(resolved: ResolvedModel, terms: tuple[str, ...]) -> ResolvedModel:
    head = HeadSpec.model_validate({**resolved.model.heads["play"].model_dump(), "terms": terms})
    model = resolved.model.model_copy(update={"heads": {"play": head}})
    return resolved.model_copy(update={"model": model})


def encoder_of(resolved: ResolvedModel) -> Encoder:
    state = EncoderState(
        history_length=20,
        merge=True,
        titles=tuple(TITLES),
        actions=("play",),
        canvases=("home",),
        countries=(),
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


def learnt(*, in_order: bool, members: int = 240, home: dict | None = None) -> tuple[Scorer, list[LearntTerms], tuple]:
    """Learn the weights of a model with canvas `home`, whose requests come from the title played before."""
    frames = service.tables_of(rows(members, in_order=in_order), titles=TITLES)
    before = pl.col("title_id").shift(1).over("member_id")
    frames = replace(frames, interactions=frames.interactions.with_columns(source_title_id=before))
    resolved = with_head(service.resolved_of() if home is None else service.resolved_of(home=home), TERMS)
    split, encoder = make_split("leave_one_out", frames.interactions), encoder_of(resolved)
    config = NetworkConfig.model_validate(
        {
            **encoder.network_sizes(),
            "trunk": {"dim": 8, "heads": 2},
            "heads": (HeadConfig(name="play", loss="softmax"),),
        }
    )
    torch.manual_seed(1)
    wanted = terms_config(resolved, encoder)
    assert wanted is not None
    log = log_of(split, frames)
    network = add_terms(Network(config), wanted, log, encoder)
    plays = np.ones(len(TITLES), np.float32)
    titles = frames.titles.select("title_id").with_columns(plays=plays)
    bundle = Bundle(Path(), "", resolved, encoder, network.config, titles, {})
    scorer = Scorer(bundle, frames.titles, frames.availability, None, as_of=service.day(7), network=network)
    found, better = learn_weights(ValidationFold(scorer, log, split, frames, None, 17), resolved)
    assert better == resolved.with_blends(found[0].blends)
    return scorer, found, (split, frames, resolved)


def test_terms_that_help_on_other_members_are_used() -> None:
    scorer, (found,), (split, frames, resolved) = learnt(in_order=True)
    home, together = found.gains
    assert (home.canvas, together.canvas, home.requests) == ("home", "all", 240)
    assert home.kept
    assert home.gain.low > 0.2
    assert set(found.weights["term"]) == set(TERMS)
    assert found.weights.filter(found.weights["term"] == "transitions")["weight"].min() > 0.3
    report = evaluate_model(scorer, split, frames, resolved, None, canvases=["home"], baselines=()).reports["home"]
    assert report.result.metrics["ndcg@10"].value > home.written + 0.2


def test_terms_that_do_not_help_weigh_nothing() -> None:
    scorer, (found,), (_, frames, resolved) = learnt(in_order=False)
    assert not any(gain.kept for gain in found.gains)
    assert found.weights.is_empty()
    terms = scorer.network.history_terms
    assert terms is not None
    assert not terms.weights.any()
    assert CanvasScorer(scorer, resolved, "home", None).score([]).shape == (0, len(frames.titles))


def test_a_canvas_without_requests_of_its_own_has_what_others_share() -> None:
    scorer, _, _ = learnt(in_order=True)
    terms = scorer.network.history_terms
    assert terms is not None
    assert terms.weights[0, 0].min(dim=0).values.max() > 0
    assert torch.equal(terms.weights[0, 0, 0], terms.weights[0, 0, 4])


def test_popularity_is_left_out_where_the_features_have_none() -> None:
    resolved = with_head(service.resolved_of(), ("popular_7d", "ease"))
    found = terms_config(resolved, encoder_of(resolved))
    assert found is not None
    assert (found.terms, found.popularity) == (("ease",), None)
    assert terms_config(with_head(resolved, ()), encoder_of(resolved)) is None
    assert terms_config(with_head(resolved, ("popular_7d",)), encoder_of(resolved)) is None


BESIDE = {
    "candidates": {"available": "now", "watched": False},
    "context": ["member", "source_title"],
    "blend": {"play": 1.0, "similarity": 8.0},
}
"""Vectors of a network that knows nothing mislead: `similarity` weighs too much."""


def test_a_term_that_a_canvas_weighs_too_much_is_weighed_anew() -> None:
    scorer, (found,), (split, frames, resolved) = learnt(in_order=True, home=BESIDE)
    assert found.blends["home"]["play"] == 1.0
    assert 0 <= found.blends["home"]["similarity"] < 2.0
    better = resolved.with_blends(found.blends)
    assert better.canvas("home").blend == found.blends["home"]
    assert better.written_blends == {"home": BESIDE["blend"]}
    assert better.spec_hash == resolved.spec_hash
    assert ResolvedModel.from_json(better.to_json()) == better
    assert better.with_blends(found.blends) == better
    measured = {
        name: evaluate_model(scorer, split, frames, one, None, canvases=["home"], baselines=()).reports["home"]
        for name, one in (("written", resolved), ("learnt", better))
    }
    values = {name: report.result.metrics["ndcg@10"].value for name, report in measured.items()}
    assert values["learnt"] > values["written"]


def test_few_requests_leave_a_blend_as_it_is_written() -> None:
    _, (found,), _ = learnt(in_order=False, members=12, home=BESIDE)
    assert found.blends == {}


@pytest.mark.parametrize(
    ("requests", "gain", "likelihood", "together", "holds"),
    [
        (10, (0.02, 0.01, 0.03), (0, -1, 1), (0, -1, 1), True),
        (50, (0.0, -0.1, 0.1), (0.5, 0.1, 0.9), (0, -1, 1), True),
        (10, (0.0, -0.1, 0.1), (0.5, 0.1, 0.9), (0, -1, 1), False),
        (50, (-0.01, -0.1, 0.1), (0.5, 0.1, 0.9), (0, -1, 1), False),
        (50, (-0.01, -0.1, 0.1), (0, -1, 1), (0.02, 0.01, 0.03), True),
        (50, (-0.05, -0.1, -0.01), (0, -1, 1), (0.02, 0.01, 0.03), False),
        (200, (-0.01, -0.1, 0.1), (0, -1, 1), (0.02, 0.01, 0.03), False),
        (200, (0.01, -0.1, 0.1), (0, -1, 1), (0.02, 0.01, 0.03), True),
    ],
)
def test_learnt_weights_are_used_where_they_hold(requests, gain, likelihood, together, holds) -> None:
    assert weights_hold(requests, Interval(*gain), Interval(*likelihood), Interval(*together)) is holds


def test_tables_fitted_past_a_request_are_refused() -> None:
    scorer, _, (split, frames, resolved) = learnt(in_order=True)
    late = log_of(split, frames).until(service.day(100))
    with pytest.raises(IntegrityError):
        learn_weights(ValidationFold(scorer, late, split, frames, None, 17), resolved)
