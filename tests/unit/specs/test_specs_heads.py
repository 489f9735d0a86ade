"""What a head, its loss, a balance and a way to share may say, and what is said of mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from playbill.definitions.specs import HeadSpec, ModelSpec
from playbill.definitions.specs.head import HuberOptions, loss_options


def head(**changes: Any) -> HeadSpec:
    return HeadSpec.model_validate({"label": "play", "loss": "bce", **changes})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"loss": "huber", "options": {"scal": 60}}, r"options\.scal"),
        ({"loss": "huber", "options": {"delta": 0}}, r"options\.delta"),
        ({"options": {"scale": 60}}, "loss 'bce' takes no options"),
        ({"loss": "pairwise"}, "'pairwise' needs 'negatives'"),
        ({"loss": "gbce"}, "'gbce' needs 'negatives'"),
        ({"loss": "gbce", "negatives": "uniform", "options": {"calibration": 1.5}}, r"options\.calibration"),
        ({"loss": "softmax", "negatives": "uniform"}, "ranks against every title"),
        ({"loss": "huber", "negatives": "uniform"}, "learns from labelled events only"),
        ({"loss": "huber", "reward": "joy"}, "learns a number"),
        ({"loss": "softmax", "level": True}, "says nothing"),
        (
            {"loss": "pairwise", "negatives": "uniform", "horizon": {}},
            "'horizon' belongs to 'gbce', ",
        ),
        ({"loss": "softmax", "horizon": {"within": "0h"}}, r"horizon\.within"),
        ({"loss": "softmax", "horizon": {"hours": 3}}, r"horizon\.hours"),
        ({"loss": "softmax", "horizon": {"most": 1}}, r"horizon\.most"),
        ({"loss": "hubber"}, "unknown loss 'hubber'"),
    ],
)
def test_mistakes_in_heads_are_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        head(**changes)


def test_titles_that_compete_have_no_level_and_others_have_one_unless_told() -> None:
    assert head().leveled
    assert head(loss="huber").leveled
    assert not head(level=False).leveled
    assert not head(loss="softmax").leveled
    assert head(loss="gbce", negatives="uniform").leveled
    assert not head(loss="gbce", negatives="uniform", level=False).leveled


def test_options_come_back_as_their_spec() -> None:
    assert loss_options("huber", {"scale": 60, "cap": 180}) == HuberOptions(scale=60, cap=180)
    assert loss_options("bce", {}) is None


def model(**changes: Any) -> ModelSpec:
    heads = {"play": {"label": "play", "loss": "softmax"}}
    own = {"name": "m", "version": 1, "features": "none", "canvases": ["home"], "heads": heads}
    return ModelSpec.model_validate(own | changes)


def test_a_bare_name_takes_its_defaults_and_options_are_those_of_the_name() -> None:
    assert model(balance="gradnorm").balance.model_dump() == {"type": "gradnorm", "alpha": 1.0, "learning_rate": 0.025}
    shared = model(trunk={"sharing": {"type": "ple", "own": 2}}).trunk.sharing
    assert shared.model_dump() == {"type": "ple", "experts": 4, "width": 64, "own": 2, "levels": 2}
    with pytest.raises(ValueError, match="unknown balance 'gradnrom'"):
        model(balance={"type": "gradnrom"})
    with pytest.raises(ValueError, match="alpha"):
        model(balance={"type": "scale", "alpha": 1.0})
    with pytest.raises(ValueError, match="unknown sharing 'mmoee'"):
        model(trunk={"sharing": "mmoee"})


def test_a_definition_reads_back_what_it_says() -> None:
    written = model(balance={"type": "scale", "power": 0.5}, trunk={"sharing": {"type": "mmoe", "experts": 3}})
    assert ModelSpec.model_validate_json(written.model_dump_json(by_alias=True)) == written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terms": ["ease"]}, "titles do not compete in 'bce'"),
        ({"loss": "softmax", "terms": ["ease", "ease"]}, "names one of them twice"),
        ({"loss": "softmax", "terms": ["eas"]}, "Input should be 'transitions', 'ease'"),
        ({"label": None, "loss": None, "auxiliary": "next_genres", "terms": ["ease"]}, "'terms' belong to a 'loss'"),
    ],
)
def test_terms_are_of_heads_in_which_titles_compete(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head(**changes)
    assert head(loss="softmax", terms=["ease", "popular_7d"]).terms == ("ease", "popular_7d")
    assert head().terms == ()
