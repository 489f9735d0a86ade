"""A head that nothing teaches is left out where it may be, and everything downstream sees a smaller model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures import shown_service as service
from playbill.datasets import TrainingSet, build_training_set, make_split
from playbill.definitions.specs import CanvasSpec, ResolvedModel, RowSpec, prune_heads
from playbill.errors import DataError, StateError
from playbill.training.build import network_config

NEVER = {"from": {"action": "my_list_add"}, "negatives": {"shown_not_played": True}}
HEADS = {"play": {"label": "play", "loss": "softmax"}, "list": {"label": "list", "loss": "bce", "optional": True}}


def definition(heads: dict[str, Any] | None = None, **blends: dict[str, float]) -> ResolvedModel:
    resolved = service.model(heads or HEADS, labels={"list": NEVER, "always": {"from": {"action": "play"}}})
    canvases = {
        name: CanvasSpec.model_validate({"name": name, "version": 1, "blend": blend, "metric": "play"})
        for name, blend in {"home": {"play": 1.0, "list": 0.5}, **blends}.items()
    }
    model = resolved.model.model_copy(update={"canvases": tuple(canvases)})
    return resolved.model_copy(update={"canvases": canvases, "model": model})


def row(name: str, canvas: str = "home", **changes: Any) -> RowSpec:
    own = {"name": name, "version": 1, "title": {"en": name}, "canvas": canvas, "blend": {"list": 1.0}}
    return RowSpec.model_validate(own | changes)


def test_an_optional_head_without_a_positive_row_is_left_out_with_a_note() -> None:
    resolved = definition()
    data = service.training_set(resolved, service.log())
    trained = data.trained(resolved)
    assert list(trained.model.heads) == ["play"]
    assert trained.canvases["home"].blend == {"play": 1.0}
    assert list(trained.labels) == ["play"], "a record names no label that was not learnt"
    assert trained.notes == ("head 'list' is left out: label list: the log has no 'my_list_add' event.",)
    assert [head.name for head in network_config(trained, data.encoder).heads] == ["play"]
    _, _, targets = next(data.epoch(0))
    assert set(targets.labels) == {"play"}


def test_a_head_whose_labels_are_all_alike_is_left_out_and_one_that_ranks_is_not() -> None:
    heads = {**HEADS, "played": {"label": "always", "loss": "bce", "optional": True}}
    heads["ranked"] = {"label": "always", "loss": "softmax", "optional": True}
    resolved = definition(heads, home={"play": 1.0, "played": 0.5})
    data = service.training_set(resolved, service.log())
    trained = data.trained(resolved)
    assert list(trained.model.heads) == ["play", "ranked"]
    assert trained.canvases["home"].blend == {"play": 1.0}
    (note,) = [note for note in trained.notes if "'played'" in note]
    plays = int((service.log()["action"] == "play").sum())
    assert note.startswith("head 'played' is left out: label 'always': it is 1 for all ")
    assert int(note.split("for all ")[1].split(" ")[0].replace(",", "")) <= plays


def test_what_was_left_out_is_kept_with_the_training_set(tmp_path: Path) -> None:
    resolved = definition()
    data = service.training_set(resolved, service.log())
    data.save(tmp_path)
    assert TrainingSet.load(tmp_path).trained(resolved) == data.trained(resolved)
    assert ResolvedModel.from_json(data.trained(resolved).to_json()).notes == data.trained(resolved).notes


def test_a_head_that_is_not_optional_still_fails() -> None:
    heads = {**HEADS, "list": {"label": "list", "loss": "bce"}}
    with pytest.raises(DataError, match="label list: the log has no 'my_list_add' event"):
        service.training_set(definition(heads), service.log())


def test_a_head_that_is_not_optional_is_refused_where_its_labels_are_all_alike() -> None:
    heads = {**HEADS, "list": {"label": "list", "loss": "bce"}, "played": {"label": "always", "loss": "bce"}}
    with pytest.raises(DataError) as refused:
        service.training_set(definition(heads, home={"play": 1.0, "played": 0.5}), service.log())
    text = str(refused.value)
    assert "head 'played': label 'always': it is 1 for all " in text
    assert "optional: true" in text
    assert "label list: the log has no 'my_list_add' event" in text, "every head at once"


@pytest.mark.parametrize("own", [{"loss": "softmax"}, {"loss": "bce", "negatives": {"policy": "uniform", "count": 2}}])
def test_positives_alone_teach_a_head_that_ranks_or_draws_negatives(own) -> None:
    resolved = definition({**HEADS, "played": {"label": "always", **own}}, home={"play": 1.0, "played": 0.5})
    assert "played" in service.training_set(resolved, service.log()).trained(resolved).model.heads


def test_an_optional_head_that_something_teaches_stays() -> None:
    heads = {**HEADS, "list": {"label": "thumbs_up", "loss": "bce", "optional": True}}
    resolved = definition(heads)
    assert service.training_set(resolved, service.log()).trained(resolved) == resolved


def test_rows_fall_back_and_canvases_go_when_their_whole_blend_is_gone() -> None:
    resolved = definition(coming_soon={"list": 1.0})
    rows = [row("mine"), row("later", "coming_soon"), row("mixed", blend={"list": 1.0, "play": 2.0})]
    rows.append(row("alike", scored_as="coming_soon", blend={"play": 1.0}))
    left = prune_heads(resolved.model_copy(update={"rows": {own.name: own for own in rows}}), {"list": "no row"})
    assert list(left.canvases) == list(left.model.canvases) == ["home"]
    assert list(left.rows) == list(left.model.rows or ()) == ["mine", "mixed"]
    assert (left.rows["mine"].blend, left.rows["mine"].policy) == (None, "popular_7d")
    assert left.rows["mixed"].blend == {"play": 2.0}
    assert left.notes == (
        "head 'list' is left out: no row",
        "canvas 'coming_soon' is dropped: it blends only 'list'",
        "row 'alike' is dropped: it is scored as on canvas 'coming_soon'",
        "row 'mine' is filled by popular_7d: it blends only 'list'",
    )
    assert left.left_out.canvases == {"coming_soon": "it blends only 'list'"}
    assert left.spec_hash != resolved.spec_hash


def test_a_row_without_its_heaviest_head_is_not_shown_under_its_name() -> None:
    resolved = definition(home={"play": 1.0, "list": 0.1})
    rows = [row("gems", blend={"list": 1.0, "play": 0.1}), row("picks", blend={"play": 1.0, "list": 0.1})]
    left = prune_heads(resolved.model_copy(update={"rows": {own.name: own for own in rows}}), {"list": "no event"})
    why = "it is ranked above all by head 'list', which is left out"
    assert list(left.rows) == ["picks"]
    assert left.left_out.rows == {"home": {"gems": why}}
    assert left.left_out.blends == {"home": ("list",)}
    assert f"row 'gems' is dropped: {why}" in left.notes
    assert type(left).from_json(left.to_json()) == left


def test_a_canvas_of_rows_goes_with_the_canvas_they_are_on() -> None:
    resolved = definition(later={"list": 1.0})
    ranking = {"name": "ranking", "version": 1, "target": "row", "rows_of": "later", "metric": "play"}
    canvas = CanvasSpec.model_validate({**ranking, "blend": {"play": 1.0}})
    model = resolved.model.model_copy(update={"canvases": (*resolved.model.canvases, "ranking")})
    update = {"canvases": {**resolved.canvases, "ranking": canvas}, "model": model}
    left = prune_heads(resolved.model_copy(update=update), {"list": "no row"})
    assert list(left.canvases) == list(left.model.canvases) == ["home"]
    assert "canvas 'ranking' is dropped: it ranks the rows of canvas 'later'" in left.notes


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(StateError, match=r"no head is left(.|\n)*play: too young"):
        prune_heads(definition(), {"play": "too young", "list": "none"})
    with pytest.raises(StateError, match="no canvas has a blend left"):
        prune_heads(definition(home={"list": 1.0}), {"list": "none"})


def test_an_optional_head_that_waits_for_held_out_events_is_left_out() -> None:
    late = {"from": {"action": "play", "where": "later_thumbs_up_of_title > 0"}, "window": "300d"}
    resolved = service.model(HEADS, labels={"list": {**late, "matures_after": "300d"}})
    log = service.log()
    split = make_split("leave_one_out", log)
    tables = service.Tables(log)
    data = build_training_set(tables, resolved, split, service.NoFeatures(), service.CLOCK)
    assert list(data.trained(resolved).model.heads) == ["play"]
    assert "would be learnt as absent" in data.left_out["list"]
    needed = service.model(
        {**HEADS, "list": {"label": "list", "loss": "bce"}},
        labels={"list": resolved.labels["list"].model_dump(by_alias=True, exclude={"name", "version"})},
    )
    with pytest.raises(DataError, match="reaches past the held-out events"):
        build_training_set(tables, needed, split, service.NoFeatures(), service.CLOCK)
