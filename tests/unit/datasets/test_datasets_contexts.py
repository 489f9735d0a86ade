"""Every canvas's requests are rows of one schema: what a canvas carries is read, what it lacks is the sentinel."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import context_service as service
from fixtures import shown_service
from playbill.datasets import ContextArrays, Encoder, Request
from playbill.datasets.encoding.requests import as_carried, encode_requests
from playbill.definitions.specs import CONTEXTS, ContextColumn
from playbill.definitions.specs.context import own_fields
from playbill.errors import ConfigError, DataError
from playbill.registry import Plugin

AT = shown_service.START
TITLE = shown_service.TITLES[0]


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return service.log()


@pytest.fixture(scope="module")
def learnt(log: pl.DataFrame) -> Any:
    return service.training_set(service.model(), log)


def everything(canvas: str, **changes: Any) -> Request:
    """A request on a canvas that says all there is to say."""
    past = service.log(1)
    texts = {
        "member_id": "m00",
        "country": "US",
        "device": "tv",
        "language": "en",
        "query": "name",
        "source_title_id": TITLE,
        "row": "popular",
        "row_position": 3,
        "history": past,
        "features": {"activity__requests": 4.0, "place__size": 2.0},
    }
    return Request(canvas, past["event_at"].max(), **{**texts, **changes})


def values(context: ContextArrays) -> dict[str, Any]:
    """What one request is encoded as, by context field."""
    return {
        "member": (bool(context.state[0] > 0), not np.isnan(context.numeric[0, 0])),
        "query": len(context.query_grams) > 0,
        "source_title": int(context.source_title[0]),
        **{name: int(getattr(context, name)[0]) for name in ("country", "device", "language", "hour_of_week", "row")},
        "row_position": int(context.row_position[0]),
    }


SENTINELS: dict[str, Any] = {
    "member": (False, False),
    "query": False,
    **dict.fromkeys(("source_title", "country", "device", "language", "hour_of_week", "row", "row_position"), 0),
}


@pytest.mark.parametrize("canvas", service.CANVASES)
def test_each_canvas_reads_its_fields_and_imputes_the_others(learnt: Any, canvas: str) -> None:
    context = encode_requests(learnt.encoder, [everything(canvas)]).context
    found, carried = values(context), service.CANVASES[canvas]["context"]
    for field, sentinel in SENTINELS.items():
        assert (found[field] != sentinel) is (field in carried), field
    assert context.numeric[0, 1] == 2.0, "a feature of the request is no field of the member"
    assert context.by_name.tolist() == [int(canvas == "similar")]


def test_rows_of_every_canvas_are_of_one_schema(learnt: Any) -> None:
    sizes = learnt.encoder.network_sizes()
    limits = {
        "canvas": sizes["events"]["canvases"],
        "country": sizes["events"]["countries"],
        "device": sizes["events"]["devices"],
        "language": sizes["events"]["languages"],
        "hour_of_week": 169,
        "row": sizes["context"]["rows"],
        "row_position": sizes["context"]["row_positions"],
        "source_title": sizes["titles"]["titles"],
        "by_name": 2,
    }
    seen = {name: set() for name in limits}
    canvases = set()
    for batch in learnt.epoch(0):
        count = len(batch.context.state)
        canvases |= set(batch.context.canvas.tolist())
        for own in fields(batch.context):
            array = getattr(batch.context, own.name)
            assert array.dtype == (np.float32 if own.name == "numeric" else np.int64), own.name
            assert own.name == "query_grams" or len(array) == count, own.name
        for name, limit in limits.items():
            array = getattr(batch.context, name)
            assert array.min() >= 0
            assert array.max() < limit
            seen[name] |= set(array.tolist())
    named = learnt.encoder.vocabulary("canvas").encode(list(service.CANVASES)).tolist()
    assert set(named) <= canvases
    assert all(len(found) > 1 for found in seen.values()), "each field says something somewhere"


def test_training_rows_are_those_that_serving_makes(learnt: Any, log: pl.DataFrame) -> None:
    """Each play's request, made again from outside, is encoded as its training row was."""
    known, compared = {}, set()
    last = None
    for event in log.iter_rows(named=True):
        key = event["member_id"], event["request_id"]
        if event["canvas"] == "row_ranking":
            known[(*key, event["row_id"])] = event["position"]
        last = event["query"] if event["action"] == "search" else last
        if event["action"] != "play":
            continue
        row = event["row_id"] and event["row_id"].split(":")[0]
        request = Request(
            event["canvas"],
            event["event_at"],
            country=event["country"],
            device=event["device"],
            language=event["language"],
            query=last if event["canvas"] == "search" else None,
            source_title_id=event["source_title_id"],
            row=row,
            row_position=known.get((*key, event["row_id"])),
        )
        online = encode_requests(learnt.encoder, [request]).context
        columns = learnt.context
        same = np.ones(len(columns.canvas), np.bool_)
        for name in ("canvas", "country", "hour_of_week", "source_title", "row", "row_position", "by_name"):
            same &= getattr(columns, name) == getattr(online, name)[0]
        sizes = np.diff(columns.query_offsets, append=len(columns.query_grams))
        same &= sizes == len(online.query_grams)
        if same.any():
            compared.add((event["canvas"], event["request_id"]))
    assert {canvas for canvas, _ in compared} == set(service.CANVASES)
    assert len(compared) > 60


def test_an_impression_is_asked_in_its_own_row_and_with_what_was_typed(log: pl.DataFrame) -> None:
    data = service.training_set(service.model(heads={"play": {"label": "play", "loss": "bce"}}), log)
    encoder, columns = data.encoder, data.context
    unplayed = data.rows.request[data.rows.title == encoder.title_rows.encode(["t20"])[0]]
    below = int(encoder.vocabulary("row").encode(["below"])[0])
    home, search = encoder.vocabulary("canvas").encode(["home", "search"]).tolist()
    sizes = np.diff(columns.query_offsets, append=len(columns.query_grams))
    found = set()
    for request in unplayed.tolist():
        canvas, row = int(columns.canvas[request]), int(columns.row[request])
        found.add(canvas)
        assert row == (below if canvas == home else 0)
        assert (columns.row_position[request] > 0) is np.bool_(canvas == home)
        assert (sizes[request] > 0) is np.bool_(canvas == search)
    assert found == {home, search}


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)


@given(st.sets(TEXT, min_size=1, max_size=8), TEXT)
@settings(max_examples=100, deadline=None)
def test_no_real_value_has_the_sentinel_and_no_other_value_has_an_index(real: set[str], other: str) -> None:
    state = LEARNT.encoder.state
    names = tuple(sorted(real))
    encoder = Encoder(
        state.model_copy(
            update={name: names for name in ("countries", "devices", "languages", "rows", "canvases", "titles")}
            | {"canvas_fields": {}, "anonymous": ()}
        )
    )
    for value in (*names, other, None):
        request = Request("home", AT, None, value, value, value, source_title_id=value, row=value)
        context = encode_requests(encoder, [request]).context
        found = [int(getattr(context, name)[0]) for name in ("country", "device", "language", "source_title", "row")]
        assert len(set(found)) == 1
        assert (found[0] > 0) is (value in real)
        assert context.hour_of_week[0] > 0


LEARNT = service.training_set(service.model(), service.log(4))


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_made_source_title_is_never_the_title_that_is_clicked(seed: int) -> None:
    """Its name would stand for the query, and give the answer away."""
    canvases = {**service.CANVASES, "made": service.CANVASES["similar"]}
    tasks = {"made": {"from": "co_play", "share": 1.0}}
    resolved = service.model(canvases, tasks=tasks, training={"stride": 8, "batch_slots": 90, "seed": seed % 1000})
    data = service.training_set(resolved, service.log(4, seed=seed))
    made = 0
    for batch in data.epoch(seed % 7):
        context, target = batch.context, batch.targets.title
        named = context.by_name > 0
        assert (context.source_title[named] > 0).all()
        made += int(named.sum())
        own = context.canvas == data.settings.tasks[0].canvas
        assert (context.source_title[own] != target[own]).all()
    assert made > 0


def test_what_is_clicked_changes_nothing_in_the_context(log: pl.DataFrame, learnt: Any) -> None:
    plays = pl.col("action") == "play"
    other = log.with_columns(
        title_id=pl.when(plays).then(pl.lit(shown_service.TITLES[5])).otherwise(pl.col("title_id"))
    )
    changed = service.training_set(service.model(history={"length": 8, "merge": "none"}), other).context
    plain = service.training_set(service.model(history={"length": 8, "merge": "none"}), log).context
    for own in fields(plain):
        assert np.array_equal(getattr(plain, own.name), getattr(changed, own.name), equal_nan=own.name == "numeric")


def test_a_canvas_without_member_starts_from_nothing_in_training_too(learnt: Any) -> None:
    lobby = int(learnt.encoder.vocabulary("canvas").encode(["lobby"])[0])
    checked = 0
    for batch in learnt.epoch(0):
        width = batch.history.title.shape[1]
        own = batch.context.canvas == lobby
        assert (batch.context.state[own] % (width + 1) == 0).all()
        assert np.isnan(batch.context.numeric[own, 0]).all()
        assert (batch.context.numeric[own, 1] == 2.0).all()
        checked += int(own.sum())
    assert checked > 10
    requested = as_carried(learnt.encoder, [everything("lobby"), everything("home")])
    assert [request.history is None for request in requested] == [True, False]


def test_hidden_tasks_and_absent_names(log: pl.DataFrame) -> None:
    blind = service.training_set(service.model(contexts={"task": False}), log)
    assert not blind.context.canvas.any()
    assert encode_requests(blind.encoder, [everything("home")]).context.canvas.tolist() == [0]
    plain = service.training_set(service.model(contexts={"imputation": False}), log)
    assert not plain.context.by_name.any()


def test_a_canvas_that_nobody_fills_is_named_with_what_to_do(log: pl.DataFrame) -> None:
    silent = log.with_columns(query=pl.lit(None, pl.String), source_title_id=pl.lit(None, pl.String))
    with pytest.raises(DataError) as failed:
        service.training_set(service.model(), silent)
    assert "canvas 'search': lists 'query' in its context, but none of its" in str(failed.value)
    assert "`tasks: {search: {from: title_names}}`" in str(failed.value)
    assert "canvas 'similar': lists 'source_title'" in str(failed.value)
    tasks = {"search": {"from": "title_names"}, "similar": {"from": "co_play"}}
    service.training_set(service.model(tasks=tasks), silent)


def test_rows_may_be_lacking_where_the_log_has_none_at_all(log: pl.DataFrame) -> None:
    plain = log.with_columns(row_id=pl.lit(None, pl.String)).filter(pl.col("canvas") != "row_ranking")
    data = service.training_set(service.model(), plain)
    assert (
        data.encoder.network_sizes()["context"]["rows"] == data.encoder.network_sizes()["context"]["row_positions"] == 1
    )
    elsewhere = log.with_columns(row_id=pl.when(pl.col("canvas") != "home").then("row_id"))
    with pytest.raises(DataError, match="canvas 'home': lists 'row'"):
        service.training_set(service.model(), elsewhere)


@pytest.fixture
def outside(own_plugins: None) -> None:
    CONTEXTS.claim("weather", Plugin("fixtures.context_service:WEATHER"))
    CONTEXTS.claim("celsius", Plugin("fixtures.context_service:CELSIUS"))


def test_a_field_of_an_outside_package_is_learnt_and_served(outside: None, log: pl.DataFrame) -> None:
    canvases = {**service.CANVASES, "home": {"context": [*service.CANVASES["home"]["context"], "weather", "celsius"]}}
    data = service.training_set(service.model(canvases), log)
    state = data.encoder.state
    assert set(state.categorical["weather"]) == {"rain", "sun"}
    assert state.numeric[-1] == "celsius"
    texts = {"weather": "rain", "celsius": 12}
    home, lobby = (
        encode_requests(data.encoder, [everything(canvas, features=texts)]).context for canvas in ("home", "lobby")
    )
    rain = int(data.encoder.vocabulary("weather").encode(["rain"])[0])
    assert (home.categorical[0, -1], home.numeric[0, -1]) == (rain, 12.0)
    assert lobby.categorical[0, -1] == 0
    assert np.isnan(lobby.numeric[0, -1])
    at_home = data.context.canvas == data.encoder.vocabulary("canvas").encode(["home"])[0]
    assert set(data.context.categorical[at_home, -1].tolist()) == {0, 1, 2}
    assert not data.context.categorical[~at_home, -1].any()
    assert np.isnan(data.context.numeric[~at_home, -1]).all()


def test_a_column_that_the_log_lacks_is_named(outside: None, log: pl.DataFrame) -> None:
    canvases = {**service.CANVASES, "lobby": {"context": ["weather"]}}
    with pytest.raises(DataError, match=r"'weather': the log has no column 'outside.weather'. Did you mean"):
        service.training_set(service.model(canvases), log.rename({"outside.weather": "outside.wether"}))


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (ContextColumn("progress"), "'weather' reads 'progress', which is known only after a request"),
        (ContextColumn("query", "text"), "'weather' has kind 'text'"),
        ("progress", "'weather' is a str"),
    ],
)
def test_a_field_that_could_look_ahead_is_refused(
    outside: None, monkeypatch: pytest.MonkeyPatch, column: Any, text: str
) -> None:
    monkeypatch.setattr(service, "WEATHER", column)
    with pytest.raises(ConfigError, match=text):
        own_fields(["member", "weather"])
