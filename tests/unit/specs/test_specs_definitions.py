"""What definitions accept, and what they refuse by themselves."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from playbill.definitions.specs import (
    EXTRACTORS,
    TRUNKS,
    CanvasSpec,
    Duration,
    LabelSpec,
    ModelSpec,
    Percent,
    ResolvedModel,
    RewardSpec,
    RowSpec,
    Spec,
    TrunkOptions,
)
from playbill.definitions.specs.base import added_later
from playbill.registry import Plugin

DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)
PERCENT: TypeAdapter[float] = TypeAdapter(Percent)


def model(**changes: Any) -> dict[str, Any]:
    return {
        "name": "everycanvas",
        "version": 1,
        "features": "everycanvas_v1",
        "canvases": ["home"],
        "heads": {"play": {"label": "play", "loss": "softmax"}},
    } | changes


def label(**changes: Any) -> dict[str, Any]:
    return {"name": "play", "version": 1, "from": {"action": "play"}} | changes


def row(**changes: Any) -> dict[str, Any]:
    return {"name": "top", "version": 1, "title": {"en": "Top"}, "canvas": "home", "blend": {"play": 1}} | changes


def canvas(**changes: Any) -> dict[str, Any]:
    return {"name": "home", "version": 1, "blend": {"play": 1}, "metric": "play"} | changes


def test_kinds_of_ones_own_have_a_namespace() -> None:
    found = CanvasSpec.model_validate(canvas(candidates={"kind": ["film", "shop.podcast"]}))
    assert found.candidates.kind == ("film", "shop.podcast")
    with pytest.raises(ValidationError) as caught:
        CanvasSpec.model_validate(canvas(candidates={"kind": ["flim"]}))
    assert caught.value.errors()[0]["ctx"]["hint"] == "Did you mean 'film'?"


def test_canvases_of_a_source_have_a_namespace() -> None:
    own = "kuairand.tab_1"
    assert CanvasSpec.model_validate(canvas(name=own)).reference == "kuairand.tab_1:1"
    assert RowSpec.model_validate(row(canvas=f"{own}:2", scored_as=own)).canvas == "kuairand.tab_1:2"
    tasks = {own: {"from": "title_names", "share": 0.1}}
    assert ModelSpec.model_validate(model(canvases=["home", own], tasks=tasks)).canvases == ("home", own)
    for wrong in ("kuairand.", ".tab", "a.b.c", "Kuai.tab"):
        with pytest.raises(ValidationError):
            CanvasSpec.model_validate(canvas(name=wrong))
    with pytest.raises(ValidationError):
        RowSpec.model_validate(row(name="kuairand.top"))


@pytest.mark.parametrize(
    ("text", "hours"),
    [("90s", 0.025), ("30m", 0.5), ("24h", 24), ("7d", 168), ("2w", 336), ("0h", 0), ("1.5h", 1.5)],
)
def test_durations_are_read(text: str, hours: float) -> None:
    read = DURATION.validate_python(text)
    assert read == timedelta(hours=hours)
    assert DURATION.validate_python(DURATION.dump_python(read, mode="json")) == read


@pytest.mark.parametrize("text", ["24", "h", "24 h", "-1h", "1y", "", 24, None, "9999999999999w"])
def test_wrong_durations_are_refused(text: Any) -> None:
    with pytest.raises(ValidationError):
        DURATION.validate_python(text)


@pytest.mark.parametrize(("text", "fraction"), [("-0.5%", -0.005), ("+2%", 0.02), ("+1%", 0.01), ("0%", 0.0)])
def test_percentages_are_read(text: str, fraction: float) -> None:
    read = PERCENT.validate_python(text)
    assert read == pytest.approx(fraction)
    assert PERCENT.validate_json(PERCENT.dump_json(read)) == read, "records of versions write no +"


@pytest.mark.parametrize("text", ["-0.5", -0.005, "half", "%"])
def test_a_percentage_needs_its_sign(text: Any) -> None:
    with pytest.raises(ValidationError, match="no percentage"):
        PERCENT.validate_python(text)


def test_a_single_action_is_a_list_of_one() -> None:
    spec = LabelSpec.model_validate(label())
    assert spec.events is not None
    assert spec.events.action == ("play",)
    assert spec.matures_after == timedelta(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"from": None}, "either 'from' or 'extractor'"),
        ({"options": {"a": 1}}, "belong to an 'extractor'"),
        ({"from": {"action": "plai"}}, "unknown action 'plai'"),
        ({"from": {"action": []}}, "at least 1"),
        ({"negatives": {"actions": ["play"]}}, "without a 'where'"),
        ({"from": {"action": "play", "where": "progres > 1"}}, "unknown column 'progres'"),
        ({"extractor": "nothing", "from": None}, "unknown label extractor"),
        ({"name": "Play"}, "pattern"),
        ({"version": 0}, "greater than 0"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_wrong_labels_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LabelSpec.model_validate(label(**changes))


def test_a_source_may_have_actions_of_its_own() -> None:
    assert LabelSpec.model_validate(label(**{"from": {"action": "kuairand.follow"}})).events is not None


class FollowOptions(Spec):
    window_hours: int


@pytest.mark.usefixtures("own_plugins")
def test_an_extractors_options_are_checked_by_its_own_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin("json:loads", f"{__name__}:FollowOptions")
    EXTRACTORS.claim("follow", plugin)
    monkeypatch.setattr(Plugin, "load_options", lambda self: FollowOptions)
    right = label(extractor="follow", options={"window_hours": 3}) | {"from": None}
    assert LabelSpec.model_validate(right).extractor_options() == FollowOptions(window_hours=3)
    with pytest.raises(ValidationError) as caught:
        LabelSpec.model_validate(right | {"options": {"window_hour": 3}})
    places = {item["loc"] for item in caught.value.errors()}
    assert places == {("options", "window_hour"), ("options", "window_hours")}


def test_delayed_rewards_must_be_terms() -> None:
    terms = {"completion": 0.6, "returned": -0.5}
    right = {"name": "long_term", "version": 2, "terms": terms, "delayed": ["completion"]}
    assert RewardSpec.model_validate(right).delayed == ("completion",)
    with pytest.raises(ValidationError, match="Did you mean 'completion'"):
        RewardSpec.model_validate(right | {"delayed": ["completions"]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "rows"}, "'title' or 'row'"),
        ({"target": "row"}, "needs 'rows_of'"),
        ({"rows_of": "kids"}, "needs 'target: row'"),
        ({"target": "row", "rows_of": "kids", "blend": {"text": 1.0}}, "'text' scores titles"),
        ({"blend": {}}, "at least 1"),
        ({"blend": {"play": float("nan")}}, "finite"),
        ({"context": ["country"], "impute": {"country": "none"}}, "nothing to impute"),
        ({"candidates": {"exclude_source": True}}, "needs 'source_title'"),
        ({"blend": {"similarity": 1.0}}, "'similarity' needs 'source_title'"),
        ({"candidates": {"available": "soon"}}, "'now' or 'upcoming'"),
        ({"fallback": "popluar"}, "unknown fallback 'popluar'"),
        ({"metric": "play:0"}, "pattern"),
    ],
)
def test_wrong_canvases_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CanvasSpec.model_validate(canvas(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "popular"}, "either 'blend' or 'policy'"),
        ({"blend": None}, "either 'blend' or 'policy'"),
        ({"generator": {"each": "genre"}}, r"needs \{genre\} in its title"),
        ({"candidates": {"popularity_percentile": {}}}, "needs 'below', 'above' or both"),
        ({"candidates": {"popularity_percentile": {"below": 20, "above": 40}}}, "nothing is above 40"),
        ({"title": {}}, "at least 1"),
    ],
)
def test_wrong_rows_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RowSpec.model_validate(row(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trunk": {"type": "gated_transformr"}}, "unknown trunk 'gated_transformr'"),
        ({"trunk": {"dims": 3}}, "Extra inputs"),
        ({"trunk": {"dim": 10, "heads": 4}}, "no multiple"),
        ({"heads": {"play": {"label": "play"}}}, "needs a 'loss'"),
        ({"heads": {"play": {"loss": "bce"}}}, "either 'label' or 'auxiliary'"),
        ({"heads": {"play": {"label": "play", "loss": "hinge"}}}, "unknown loss 'hinge'"),
        ({"titles": {"id_embedding": False, "metadata": []}}, "id_embedding"),
        ({"gates": [{"metric": "ndcg@10"}]}, "needs 'tolerance'"),
        ({"gates": [{"metric": "ndcg@10", "slice": "country", "tolerance": "+1%"}]}, "needs 'worst'"),
        ({"gates": [{"metric": "ndgc@10", "tolerance": "+1%"}]}, "unknown metric"),
        ({"gates": [{"metric": "ndcg@0", "tolerance": "+1%"}]}, "unknown metric"),
        ({"evaluate": {"baselines": ["eas"]}}, "unknown baseline 'eas'"),
        ({"evaluate": {"protocol": "random"}}, "leave_one_out"),
    ],
)
def test_wrong_models_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSpec.model_validate(model(**changes))


@pytest.mark.usefixtures("own_plugins")
def test_an_outside_trunk_brings_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(TrunkOptions):
        windows: int = 1

    TRUNKS.claim("wide", Plugin("json:loads", "somewhere:Wide"))
    monkeypatch.setattr(Plugin, "load_options", lambda self: Wide)
    spec = ModelSpec.model_validate(model(trunk={"type": "wide", "windows": 3}))
    assert isinstance(spec.trunk, Wide)
    assert '"windows":3' in spec.model_dump_json()


def test_how_a_champion_is_updated_is_in_a_hash_only_where_it_is_said() -> None:
    assert "update" not in json.loads(ModelSpec.model_validate(model()).model_dump_json())
    said = ModelSpec.model_validate(model(promote="auto", update={"replay": 0.3}))
    assert json.loads(said.model_dump_json())["update"]["replay"] == 0.3
    with pytest.raises(ValidationError, match="new_titles"):
        ModelSpec.model_validate(model(update={"new_titles": "guess"}))


def test_how_a_network_bends_to_countries_is_in_a_hash_only_where_it_does() -> None:
    plain = json.loads(ModelSpec.model_validate(model()).model_dump_json())
    assert plain["adaptation"] == {"country": "none"}
    assert "without" not in plain["contexts"]
    wide = ModelSpec.model_validate(model(adaptation={"country": "low_rank", "rank": 8}))
    assert json.loads(wide.model_dump_json())["adaptation"] == {"country": "low_rank", "rank": 8}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"adaptation": {"country": "gates"}}, "gate"),
        ({"adaptation": {"country": "gate", "rank": 8}}, "'rank' is of 'country: low_rank'"),
        ({"adaptation": {"country": "low_rank", "width": 8}}, "'width' is of 'country: gate'"),
        ({"adaptation": {"country": "id"}, "contexts": {"without": ["country"]}}, "'contexts.without' withholds"),
        ({"contexts": {"without": ["member"]}}, "country"),
    ],
)
def test_mistakes_in_adaptation_are_named(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        ModelSpec.model_validate(model(**wrong))


def test_a_start_has_one_spelling_so_that_one_thing_has_one_hash() -> None:
    short = ModelSpec.model_validate(model(init_from="foundation@champion"))
    long = ModelSpec.model_validate(model(init_from={"model": "foundation@champion", "trunk": "tuned"}))
    frozen = ModelSpec.model_validate(model(init_from={"model": "foundation:3", "trunk": "frozen"}))
    assert short == long
    assert short.model_dump(mode="json")["init_from"] == "foundation@champion"
    assert frozen.model_dump(mode="json")["init_from"] == {"model": "foundation:3", "trunk": "frozen"}
    for spec in (short, frozen):
        assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec
    assert frozen.init_from is not None
    assert (frozen.init_from.name, frozen.init_from.pinned) == ("foundation", True)
    for wrong in ("Foundation", "foundation@", "foundation:0", {"model": "foundation", "trunk": "cold"}, 3):
        with pytest.raises(ValidationError):
            ModelSpec.model_validate(model(init_from=wrong))


def resolved(order: int = 1) -> ResolvedModel:
    heads = {"play": {"label": "play", "loss": "softmax"}, "up": {"label": "play", "loss": "softmax"}}
    blend = {"play": 1.0, "up": 0.5}
    return ResolvedModel.model_validate(
        {
            "model": model(heads=dict(list(heads.items())[::order]), gates=[{"metric": "hr@10", "tolerance": "-0.7%"}]),
            "labels": {"play": label(matures_after="24h")},
            "rewards": {},
            "canvases": {"home": canvas(blend=dict(list(blend.items())[::order]))},
            "rows": {"top": row()},
        }
    )


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert resolved().spec_hash == resolved(-1).spec_hash


def test_a_resolved_model_survives_json() -> None:
    again = ResolvedModel.from_json(resolved().to_json())
    assert again == resolved()
    assert again.spec_hash == resolved().spec_hash
    assert list(ResolvedModel.from_json(resolved(-1).to_json()).model.heads) == ["up", "play"]


def test_the_hash_changes_with_what_is_said() -> None:
    other = resolved().model_copy(update={"labels": {"play": LabelSpec.model_validate(label(matures_after="7d"))}})
    assert other.spec_hash != resolved().spec_hash


WHOLE = """
kind: Model
name: everycanvas
version: 1
features: everycanvas_v1
canvases: [billboard, home, row_ranking, search, more_like_this, post_play, screensaver, coming_soon, pre_launch, kids]
history: {length: 200, merge: same_title}
titles: {id_embedding: true, metadata: [genres, kind, original_language, release_year, synopsis], age_gate: true, id_mask: 0.1}
trunk: {type: gated_transformer, dim: 64, layers: 2, heads: 2, dropout: 0.2}
heads:
  discovery_play: {label: discovery_play, loss: softmax, reward: long_term}
  continue_play: {label: continue_play, loss: softmax, weight: 0.3}
  completion: {label: completion, loss: bce, weight: 0.2}
  genre: {auxiliary: next_genres, weight: 0.1}
adaptation: {country: gate}
init_from: foundation@champion
sampling: {strata: [country, tenure], floor: 0.02}
evaluate: {protocol: global_time, baselines: [popular, popular_7d, ease], slices: [country, tenure, canvas, title_age]}
gates:
  - {metric: ndcg@10, canvas: all, against: champion, tolerance: -0.5%}
  - {metric: ndcg@10, slice: country, worst: -2%}
promote: manual
"""  # noqa: E501


def test_every_key_a_model_can_have_is_read() -> None:
    spec = ModelSpec.model_validate(yaml.safe_load(WHOLE))
    assert len(spec.canvases) == 10
    assert spec.gates[1].worst == pytest.approx(-0.02)
    assert spec.sampling is not None


def test_rows_may_be_picked_by_popularity() -> None:
    spec = RowSpec.model_validate(row(candidates={"popularity_percentile": {"below": 60}, "launched_within": "90d"}))
    assert spec.candidates.launched_within == timedelta(days=90)


def test_a_field_that_came_later_is_left_out_of_the_hash_of_what_does_not_use_it() -> None:
    class Grown(Spec):
        old: int = 1
        new: str = added_later("as before")

    assert Grown().model_dump(mode="json") == {"old": 1}
    assert Grown(new="otherwise").model_dump(mode="json") == {"old": 1, "new": "otherwise"}
    assert Grown.model_validate_json(Grown().model_dump_json()) == Grown()


def test_a_definition_says_no_more_than_it_did_when_fields_were_fewer() -> None:
    written = ModelSpec.model_validate(model()).model_dump(mode="json", by_alias=True)
    assert set(written["titles"]) == {"id_embedding", "metadata", "age_gate", "id_mask", "svd_start", "snapshot_hours"}
    assert set(written["trunk"]) == {"type", "dim", "layers", "heads", "dropout", "sharing"}
    assert set(written["history"]) == {"length", "merge"}
    assert not {"windows", "earlier_share", "sharded"} & set(written["training"])
    for head in written["heads"].values():
        assert "horizon" not in head
