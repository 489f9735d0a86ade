"""One trained artefact answers every task, and remembers which switches of its contexts were on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fixtures import context_service as service
from fixtures import shown_service
from playbill.datasets import Request
from playbill.models import Network
from playbill.ranking.scoring.bundle import read_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.training.build import build_network
from playbill_lab.bridge.simulated_log import trained_on

SWITCHES = ("task", "imputation", "crossing", "title_crossing")
CANVASES = {name: service.CANVASES[name] for name in ("home", "lobby")}
TWINS = {
    "home": service.CANVASES["home"],
    "search": service.CANVASES["search"],
    "similar": service.CANVASES["similar"],
    "unnamed": {"context": ["member", "source_title"]},
    "lobby": {"context": ["country"]},
    "porch": {"context": ["country"]},
}
TRAINING = {"epochs": 2, "stride": 8, "batch_slots": 90, "seed": 3, "min_steps": 30}
ROUNDING = 1e-5  # two rows of one batch may be summed in another order


def log() -> pl.DataFrame:
    """The log, half of what happens in the lobby moved to the porch, and half of `similar` to a twin without a rule."""
    events = service.log()
    odd = pl.col("member_id").str.slice(1).cast(pl.Int32) % 2 == 1
    moved = pl.col("canvas").replace({"lobby": "porch", "similar": "unnamed"})
    return events.with_columns(canvas=pl.when(odd).then(moved).otherwise("canvas"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles by the switch that is off, and one with all on."""
    found = {}
    for off in ("", *SWITCHES):
        contexts = {off: False} if off else {}
        resolved = service.model(TWINS, contexts=contexts, training=TRAINING)
        found[off] = tmp_path_factory.mktemp("bundles") / (off or "all")
        trained_on(service.training_set(resolved, log()), resolved, found[off])
    return found


def scorer(folder: Path) -> Scorer:
    tables = shown_service.Tables(log())
    as_of = shown_service.CLOCK.now()
    return Scorer(read_bundle(folder), tables.titles(), tables.availability(), None, as_of=as_of)


def past() -> pl.DataFrame:
    own = log().filter(pl.col("member_id") == "m00", pl.col("action") == "play")
    return own.sort("seq")


def request(canvas: str, **labelled: Any) -> Request:
    history = past()
    return Request(canvas, history["event_at"].max(), "m00", "US", "tv", "en", history=history, **labelled)


def test_one_bundle_answers_every_task(folders: dict[str, Path]) -> None:
    title = shown_service.TITLES[1]
    requested = {
        "home": request("home"),
        "home, in a row": request("home", row="popular", row_position=0),
        "search": request("search", query="name t03"),
        "before the first key": request("search"),
        "more like this": request("similar", source_title_id=title),
        "nobody": request("lobby"),
    }
    scores = scorer(folders[""]).score(list(requested.values()))["play"]
    assert np.isfinite(scores).all()
    assert len({row.tobytes() for row in scores}) == len(requested), "each is answered by its own context"
    titles = shown_service.TITLES
    assert titles[int(scores[list(requested).index("search")].argmax())] == "t03"


def test_what_a_canvas_does_not_carry_changes_nothing(folders: dict[str, Path]) -> None:
    labelled = {"query": "name t03", "source_title_id": shown_service.TITLES[1], "row": "popular", "row_position": 2}
    plain, full = scorer(folders[""]).score([request("lobby"), request("lobby", **labelled)])["play"]
    stranger = scorer(folders[""]).score([Request("lobby", past()["event_at"].max(), country="US")])["play"][0]
    assert np.array_equal(plain, full)
    assert np.allclose(plain, stranger, atol=1e-6), "a canvas without member ranks alike for all"


def apart(folder: Path, *requests: Request) -> float:
    one, other = scorer(folder).score(list(requests))["play"]
    return float(np.abs(one - other).max())


def test_switches_act_in_scoring_and_are_remembered(folders: dict[str, Path]) -> None:
    twins = request("lobby"), request("porch")
    assert apart(folders[""], *twins) > 1e-4
    assert apart(folders["task"], *twins) < ROUNDING
    config = {name: read_bundle(folder).config.context for name, folder in folders.items()}
    assert [config[name].imputation for name in ("", "imputation")] == [True, False]
    assert [config[name].crossing for name in ("", "crossing")] == [True, False]
    assert [config[name].title_crossing for name in ("", "title_crossing", "task")] == [True, False, False]
    assert [config[name].named_queries for name in ("", "imputation")] == [True, False]
    gates = [name for name, _ in read_bundle(folders["crossing"]).network().named_parameters() if "gate" in name]
    assert not any(name.startswith("crossing") for name in gates)
    weights = scorer(folders[""]).network.context.query.weight
    assert weights.abs().max() > 0, "queries are learnt from"


ADAPTATIONS = ("id", "gate", "low_rank")


@pytest.fixture(scope="module")
def bent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles by how they bend to countries, and one from which the country is withheld."""
    found = {}
    for name in (*ADAPTATIONS, "withheld"):
        given = {"contexts": {"without": ["country"]}} if name == "withheld" else {"adaptation": {"country": name}}
        resolved = service.model(CANVASES, training=TRAINING, **given)
        found[name] = tmp_path_factory.mktemp("bent") / name
        trained_on(service.training_set(resolved, log()), resolved, found[name])
    return found


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_an_adapted_network_is_trained_stored_and_scores_by_country(bent: dict[str, Path], name: str) -> None:
    opened = scorer(bent[name])
    assert opened.bundle.config.adaptation is not None
    assert opened.bundle.config.adaptation.type == name
    weights = opened.network.adaptation.state_dict()
    requested = [replace(request("home"), country=country) for country in ("US", "FR", "NO", None)]
    french, unknown, nowhere = (opened.score(requested)["play"][place] for place in (1, 2, 3))
    for value in weights.values():
        value.zero_()
    if name == "gate":  # neutral gates say 1, and a network whose gates say 0.5 everywhere is no plain one
        plain = Network(opened.network.config.model_copy(update={"adaptation": None}))
        kept = {key: value for key, value in opened.network.state_dict().items() if not key.startswith("adaptation.")}
        plain.load_state_dict(kept)
        opened.network.adaptation = plain.adaptation
    there, global_unknown, global_nowhere = (opened.score(requested)["play"][place] for place in (1, 2, 3))
    assert np.abs(french - there).max() > 1e-5, "it has learnt something"
    assert np.array_equal(unknown, global_unknown)
    assert np.array_equal(nowhere, global_nowhere)


def test_a_country_that_is_withheld_is_not_read(bent: dict[str, Path], folders: dict[str, Path]) -> None:
    twins = [replace(request("home"), country=country) for country in ("US", "FR")]
    assert apart(bent["withheld"], *twins) < ROUNDING
    assert apart(folders[""], *twins) > 1e-5


def test_titles_begin_on_each_canvas_as_they_were_wanted_there() -> None:
    """Observed over expected among what could be seen, counted row by row."""
    resolved = service.model(TWINS, training=TRAINING)
    data = service.training_set(resolved, log())
    network = build_network(resolved, data)
    heads = [head.name for head in network.config.heads if head.ranks]
    assert heads == ["play"]
    counts = np.zeros(network.canvas_titles.weight.shape)
    expected, at_large = np.zeros_like(counts), np.ones(len(counts))
    rows = [
        (int(title), int(data.context.canvas[request]), int(data.state[request]))
        for title, request, label in zip(data.rows.title, data.rows.request, data.rows.labels["play"], strict=True)
        if label > 0
    ]
    for title, canvas, _ in rows:
        counts[title, canvas] += 1
        at_large[title] += 1
    assert len(rows) > 50
    for _, canvas, state in rows:
        could = data.states.mask(np.array([state]))[0] if len(data.states) else np.arange(len(counts)) > 0
        expected[:, canvas] += could * at_large / at_large[could].sum()
    start = network.canvas_titles.weight.detach().numpy()
    np.testing.assert_allclose(start[1:], np.log((counts + 1) / (expected + 1))[1:], rtol=1e-4, atol=1e-5)
    assert not start[0].any()
    assert np.abs(start).max() > 0.3


def test_a_model_that_ranks_nothing_crosses_nothing() -> None:
    heads = {"play": {"label": "play", "loss": "bce"}}
    resolved = service.model(TWINS, heads=heads, training=TRAINING)
    network = build_network(resolved, service.training_set(resolved, log()))
    assert network.canvas_titles is None
