"""Text encoders: what they learn of synopses, where it is kept, and what is said when their package is not there."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from playbill.datasets import TrainingSet, title_arrays
from playbill.datasets.encoding.text import word_arrays
from playbill.definitions.specs import ResolvedModel, TitlesSpec
from playbill.definitions.specs.model import LsaOptions
from playbill.errors import ConfigError
from playbill.models import Network, TitleInputs
from playbill.models.text_encoders import lsa
from playbill.training.build import build_network, network_config, text_encoder

BUCKETS = 4096
SEA = ["a captain sails the stormy sea", "sailors of a ship on the sea", "the ship and its captain"]
LAW = ["a judge hears the lawyer in court", "the lawyer defends in court", "a trial before the judge"]


def vectors(texts: list[str], table: np.ndarray) -> np.ndarray:
    grams, offsets = word_arrays(texts, BUCKETS)
    found = np.stack([part.sum(axis=0) for part in np.split(table[grams], offsets[1:])])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_texts_about_the_same_are_alike_though_they_share_no_telling_word() -> None:
    grams, offsets = word_arrays([*SEA, *LAW], BUCKETS)
    table = lsa(grams, offsets, BUCKETS, LsaOptions(type="lsa", width=2), seed=3)
    asked = vectors(["sailors sails", "captain", "lawyer"], table)
    assert asked[0] @ asked[1] > 0.95
    assert abs(asked[1] @ asked[2]) < 0.3
    assert np.array_equal(table, lsa(grams, offsets, BUCKETS, LsaOptions(type="lsa", width=2), seed=3))


@pytest.mark.parametrize("texts", [[], [""], ["one text alone"], ["", "word", "word"]])
def test_too_few_texts_say_nothing(texts: list[str]) -> None:
    table = lsa(*word_arrays(texts, BUCKETS), BUCKETS, LsaOptions(type="lsa", width=8), seed=3)
    assert table.shape == (BUCKETS, 8)
    assert np.isfinite(table).all()


def with_text(resolved: ResolvedModel) -> ResolvedModel:
    own = TitlesSpec.model_validate({"text": {"type": "lsa", "width": 4}})
    return resolved.model_copy(update={"model": resolved.model.model_copy(update={"titles": own})})


def test_a_title_that_comes_later_is_encoded_by_what_the_weights_hold(
    training_set: TrainingSet, titles: pl.DataFrame, availability: pl.DataFrame, resolved: ResolvedModel
) -> None:
    definition = with_text(resolved)
    network = build_network(definition, training_set).eval()
    held = network.state_dict()["titles.texts"]
    assert held.abs().sum() > 0
    loaded = Network(network_config(definition, training_set.encoder)).eval()
    loaded.load_state_dict(network.state_dict())
    later = titles.head(1).with_columns(title_id=pl.lit("later"))
    grown = training_set.encoder.with_titles(["later"])
    arrays = title_arrays(
        grown,
        pl.concat([titles, later]),
        availability,
        plays=np.zeros(grown.title_rows.size),
        as_of=datetime(2024, 3, 1, tzinfo=UTC),
        snapshots=np.zeros((1, grown.title_rows.size, len(grown.state.title_snapshot)), np.float32),
    )
    texts = loaded.titles.prepare(TitleInputs.from_arrays(arrays), loaded.grams).texts
    twin = int(grown.title_rows.encode(titles["title_id"].head(1))[0])
    assert texts[-1].norm() == pytest.approx(1)
    assert torch.equal(texts[-1], texts[twin])
    assert texts[0].norm() == 0


def test_without_an_encoder_the_weights_hold_no_texts(training_set: TrainingSet, resolved: ResolvedModel) -> None:
    assert not any(name.startswith("titles.text") for name in build_network(resolved, training_set).state_dict())


def test_an_encoder_whose_package_is_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, resolved: ResolvedModel
) -> None:
    text_encoder(resolved)
    monkeypatch.delitem(sys.modules, "playbill.models.text_encoders", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError, match=r"titles.text: 'lsa' needs 'sklearn.*', .*: pip install 'playbill\[train\]'"):
        text_encoder(with_text(resolved))


@pytest.mark.parametrize(
    ("titles", "message"),
    [
        ({"text": "lsi"}, "unknown text encoder 'lsi'"),
        ({"text": "lsa", "metadata": ["genres"]}, "'text: lsa' reads the synopsis, which is not among 'metadata'"),
        ({"text": {"type": "lsa", "widht": 3}}, "Extra inputs are not permitted"),
        ({"fallback": "kind", "id_embedding": False}, "'fallback: kind' stands in for an id"),
    ],
)
def test_options_that_cannot_be_are_named(titles: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TitlesSpec.model_validate(titles)
