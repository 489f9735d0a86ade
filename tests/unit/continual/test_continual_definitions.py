"""What an update may change of a definition, and that every label is taught once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fixtures import shown_service as service
from fixtures.vocabulary_problem import config, parent_of, state
from playbill.continual.incremental.definitions import require_same_features, updated_definition
from playbill.continual.incremental.examples import keep_untaught
from playbill.definitions.specs import ResolvedModel
from playbill.errors import DefinitionError
from playbill.features import ServiceSchema
from playbill.features.reports import FeatureColumn
from playbill.models import Network
from playbill.training.inherit import Parent

HEADS: dict[str, Any] = {"play": {"label": "play", "loss": "softmax"}}


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Parent:
    return parent_of(tmp_path_factory.mktemp("p") / "bundle", state(), Network(config(state())))


def definition(**changes: Any) -> ResolvedModel:
    return service.model(HEADS | changes.pop("heads", {}), **({"training": {}} | changes))


def test_what_no_weight_depends_on_may_change(champion: Parent) -> None:
    gates = [{"metric": "ndcg@10", "canvas": "home", "against": "champion", "tolerance": "-1%"}]
    wanted = {"promote": "auto", "update": {"replay": 0.5}, "gates": gates, "training": {"epochs": 2}, "version": 4}
    found = updated_definition(definition(**wanted), champion)
    assert (found.model.promote, found.model.update.replay, found.model.training.epochs) == ("auto", 0.5, 2)


def test_every_other_difference_is_named_with_what_the_champion_has(champion: Parent) -> None:
    other = definition(history={"length": 9}, heads={"up": {"label": "up", "loss": "bce"}})
    with pytest.raises(DefinitionError) as refused:
        updated_definition(other, champion)
    text = str(refused.value)
    assert "train it: playbill train shown" in text
    assert "model.history.length: 9, but the champion has 8." in text
    assert "model.heads.up" in text


def test_another_feature_service_is_refused_by_its_columns(champion: Parent) -> None:
    names = [*champion.state.numeric, *champion.state.categorical, *champion.state.title_snapshot]
    names += [*champion.state.title_categorical, *champion.state.title_vectors]

    def schema(columns: list[str], version: str) -> ServiceSchema:
        parts = [name.partition("__") for name in columns]
        return ServiceSchema(
            "s",
            tuple(
                FeatureColumn(name, view, own, "member", "numeric")
                for name, (view, _, own) in zip(columns, parts, strict=True)
            ),
            version,
        )

    require_same_features(schema(names, "v1"), champion)
    with pytest.raises(
        DefinitionError, match=r"(?s)train it: playbill train shown.*activity__new: the champion was trained without"
    ) as refused:
        require_same_features(schema([*names[1:], "activity__new"], "v2"), champion)
    assert f"{names[0]}: is gone." in str(refused.value)
    with pytest.raises(DefinitionError, match="a column has another type"):
        require_same_features(schema(names, "v2"), champion)


def test_a_label_is_taught_when_its_event_is_taken_or_when_it_becomes_known() -> None:
    nan = np.float32(np.nan)
    #                   old, known  old, young  old, still young  taken  taken, young  learnt again
    play = np.array([1, 0, 0, 1, 1, 1], np.float32)
    finished = np.array([1, 1, nan, 0, nan, 0], np.float32)
    earlier_play, earlier_finished = np.array([1, 0, 0, 1], np.float32), np.array([1, nan, nan, 0], np.float32)
    old = np.array([True, True, True, False, False, True])
    taught = np.array([False, False, False, True, True, True])
    values = {"play": play, "finished": finished}
    assert keep_untaught(values, {"play": earlier_play, "finished": earlier_finished}, taught, old) == 1
    np.testing.assert_array_equal(values["play"], np.array([nan, nan, nan, 1, 1, 1], np.float32))
    np.testing.assert_array_equal(values["finished"], np.array([nan, 1, nan, 0, nan, 0], np.float32))
