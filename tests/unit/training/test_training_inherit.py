"""A network that starts from another gives what that one gave, however differently the two number things."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from fixtures import shown_service as service
from playbill.config import shipped_folder
from playbill.datasets import Encoder
from playbill.datasets.arrays import HistoryArrays
from playbill.datasets.encoding.encoder import EncoderState
from playbill.datasets.encoding.titles import title_arrays
from playbill.datasets.encoding.tokens import pad
from playbill.definitions.specs.network import GatedTransformerOptions
from playbill.definitions.zoo import load_zoo
from playbill.errors import StateError
from playbill.models import (
    ContextBatch,
    HeadConfig,
    HistoryBatch,
    Network,
    NetworkConfig,
    RowConfig,
    TitleInputs,
    TrunkConfig,
)
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.tables.frames import empty_frame
from playbill.training import LoopSettings, fit, loop
from playbill.training.build import build_network, network_config
from playbill.training.inherit import NamedTensors, Parent, axes_of, inherit, inherited
from playbill.training.start import network_differences

NOW = datetime(2024, 5, 1, tzinfo=UTC)
TITLES = [f"t{number:02d}" for number in range(20)]
GENRES, YEARS = ("crime", "drama", "horror", "war"), (1980, 1999, 2010)
VOCABULARIES: dict[str, Any] = {
    "titles": tuple(TITLES),
    "actions": ("play", "thumbs_up", "abandon"),
    "canvases": ("home", "search", "kids", "lobby"),
    "countries": ("BR", "FR", "US"),
    "devices": ("phone", "tv"),
    "languages": ("en", "fr", "pt"),
    "genres": GENRES,
    "kinds": ("film", "game", "series"),
    "original_languages": ("de", "en"),
    "rows": ("gems", "popular"),
    "numeric": ("activity__plays", "activity__hours"),
    "title_snapshot": ("fame__plays", "fame__age"),
    "title_vectors": ("taste__0", "taste__1", "taste__2"),
}
CATEGORIES = {"activity__plan": ("basic", "full"), "activity__band": ("a", "b", "c")}
TITLE_CATEGORIES = {"facts__studio": ("blue", "red"), "facts__mood": ("calm", "dark", "wild")}


def state(**changes: Any) -> EncoderState:
    given = {
        **VOCABULARIES,
        "history_length": 8,
        "merge": True,
        "year_edges": YEARS,
        "metadata": ("genres", "kind", "original_language", "release_year", "name"),
        "text_buckets": 64,
        "snapshot_hours": 24,
        "canvas_fields": {},
        "service": "s",
        "service_version": "v1",
        "row_positions": True,
        "categorical": CATEGORIES,
        "title_categorical": TITLE_CATEGORIES,
        "row_texts": {"gems": "Gems", "popular": "Popular"},
    }
    return EncoderState.model_validate({**given, **changes})


def turned(values: tuple[str, ...], by: int = 1) -> tuple[str, ...]:
    return (*values[by:], *values[:by])


def renumbered() -> EncoderState:
    """Return the same vocabularies, every one in another order."""
    changes: dict[str, Any] = {name: turned(values) for name, values in VOCABULARIES.items()}
    changes["categorical"] = {name: turned(values) for name, values in reversed(CATEGORIES.items())}
    changes["title_categorical"] = {name: turned(values) for name, values in reversed(TITLE_CATEGORIES.items())}
    return state(**changes)


HEADS = (
    HeadConfig(name="play", loss="softmax"),
    HeadConfig(name="up", loss="bce", level=True),
    HeadConfig(name="wish", loss="softmax"),
    HeadConfig(name="row", loss="bce", target="row"),
    HeadConfig(name="stay", loss="bce", target="page"),
    HeadConfig(name="genres", loss="bce", target="genres"),
    HeadConfig(name="kind", loss="bce", target="kind"),
)


def config(own: EncoderState, heads: tuple[HeadConfig, ...] = HEADS, **changes: Any) -> NetworkConfig:
    sizes = Encoder(own).network_sizes()
    names = {name: {"gems": (3, 4), "popular": (5,)}.get(name, (6,)) for name in own.row_texts}
    genres = {name: (10 + GENRES.index(name),) if name in GENRES else (9,) for name in own.genres}
    return NetworkConfig.model_validate(
        {
            "trunk": TrunkConfig(dim=16, layers=2, heads=2, sharing={"type": "adapters", "width": 4}).model_dump(),
            **sizes,
            "context": sizes["context"] | {"title_crossing": True},
            "titles": sizes["titles"] | {"fallback": True},
            "text": {"buckets": 64, "dim": 32},
            "rows": RowConfig(names=tuple(names.values()), genres=tuple(genres.values())).model_dump(),
            "heads": [head.model_dump() for head in heads],
            **changes,
        }
    )


def shaken(network: Network, seed: int = 5) -> Network:
    """Move every parameter and statistic, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.add_(noise.abs() * 0.2 if name.endswith((".scale", "rarity")) else noise * 0.2)
        network.titles.id.weight[0] = 0
    return network.eval()


def parent_of(folder: Path, own: EncoderState, network: Network, plays: np.ndarray | None = None) -> Parent:
    """Return a version in a folder, as training would have left it."""
    resolved = service.model({"play": {"label": "play", "loss": "softmax"}})
    plays = np.ones(len(own.titles) + 1) if plays is None else plays
    given = {"resolved": resolved, "encoder": Encoder(own), "config": network.config, "plays": plays}
    write_bundle(folder, weights=network.state_dict(), **given)
    return Parent("foundation:3", read_bundle(folder))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Parent:
    return parent_of(tmp_path_factory.mktemp("p") / "bundle", state(), shaken(Network(config(state()))))


def events(device: str = "tv") -> pl.DataFrame:
    draw, rows = np.random.default_rng(4), []
    for place in range(8):
        at = NOW + timedelta(hours=float(draw.integers(1, 99)) + 100 * place)
        title = str(draw.choice(TITLES[:12]))
        for action in ("play", "thumbs_up")[: 1 + place % 2]:
            rows.append(
                {"member_id": "m", "seq": len(rows), "event_at": at, "action": action, "title_id": title}
                | {"canvas": ("home", "lobby", "kids")[place % 3], "device": device if place % 2 else "phone"}
                | {"language": ("fr", "en", None)[place % 3], "duration_s": float(200 * place)}
            )
    return service.frame(rows)


def histories(encoder: Encoder, frame: pl.DataFrame) -> HistoryBatch:
    tokens = encoder.tokens(frame)
    width = np.array([len(tokens)])
    arrays: HistoryArrays = pad(tokens.values, np.zeros(1, np.int64), width, len(tokens))
    return HistoryBatch.from_arrays(arrays)


def catalogue(encoder: Encoder, genres: tuple[str, ...] = GENRES) -> TitleInputs:
    ids = [*TITLES, "late"]
    frame = pl.DataFrame(
        {
            "title_id": ids,
            "name": [f"Name {title}" for title in ids],
            "genres": [[genres[place % 4], genres[(place + 1) % 4]] for place in range(len(ids))],
            "kind": [("film", "series", "game")[place % 3] for place in range(len(ids))],
            "original_language": [("en", "de", None)[place % 3] for place in range(len(ids))],
            "release_date": [date(1970 + 3 * place, 1, 1) for place in range(len(ids))],
        }
    )
    studios = pl.DataFrame(
        {
            "title_id": ids,
            "facts__studio": [("red", "blue")[place % 2] for place in range(len(ids))],
            "facts__mood": [("wild", "calm", "dark", None)[place % 4] for place in range(len(ids))],
        }
    )
    of_title = {title: place for place, title in enumerate(ids)}
    order = [of_title[title] for title in encoder.title_rows.entries]
    scale = [ord(name[-1]) for name in encoder.state.title_vectors]
    snapshots = np.zeros((1, 1 + len(order), len(encoder.state.title_snapshot)), np.float32)
    for place, name in enumerate(encoder.state.title_snapshot):
        snapshots[0, 1:, place] = [3 * own + len(name) for own in order]
    arrays = title_arrays(
        encoder,
        frame,
        empty_frame("availability"),
        plays=np.array([0, *(own % 5 for own in order)]),  # of some nothing but metadata and kind are known
        as_of=NOW,
        snapshots=snapshots,
        categorical=studios,
        vectors=np.array([[np.nan] * len(scale), *([own * size for size in scale] for own in order)], np.float32),
    )
    return TitleInputs.from_arrays(arrays)


def requests(encoder: Encoder, frame: pl.DataFrame) -> ContextBatch:
    rows = frame.with_columns(
        pl.Series("activity__plays", np.arange(frame.height), dtype=pl.Float32),
        pl.Series("activity__hours", [None, *range(1, frame.height)], dtype=pl.Float32),
        pl.Series("activity__plan", [("full", "basic")[place % 2] for place in range(frame.height)]),
        pl.Series("activity__band", [("c", "a", None)[place % 3] for place in range(frame.height)]),
        row=pl.lit("gems"),
        row_position=pl.lit(3.0),
        query=pl.lit(None, pl.String),
        source_title_id=pl.lit("t03"),
    )
    found = encoder.contexts(rows)
    count = frame.height
    arrays: Any = {
        name: getattr(found, name) for name in found.__dataclass_fields__ if name not in ("moment", "member")
    }
    return ContextBatch.from_arrays(
        type("Arrays", (), {**arrays, "state": np.arange(count) % 3, "snapshot": np.zeros(count, np.int64)})
    )


def by_title(encoder: Encoder, network: Network, frame: pl.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """Return head -> title -> its scores in every request."""
    inputs = catalogue(encoder)
    found = network.scores(histories(encoder, frame), requests(encoder, frame), inputs)
    return {
        head: dict(zip(encoder.title_rows.entries, scores[:, 1:].T.numpy(), strict=True))
        for head, scores in found.items()
    }


def started(own: EncoderState, parent: Parent, seed: int = 9, **changes: Any) -> Network:
    torch.manual_seed(seed)
    network = shaken(Network(config(own, **changes)), seed)
    inherit(network, Encoder(own), np.ones(len(own.titles) + 1, np.float32), parent)
    return network.eval()


def states(encoder: Encoder, network: Network, frame: pl.DataFrame) -> torch.Tensor:
    with torch.no_grad():
        return network.states(histories(encoder, frame), network.title_vectors(catalogue(encoder)))


def test_a_copy_scores_every_title_as_its_parent_though_nothing_has_the_same_number(parent: Parent) -> None:
    frame, own = events(), renumbered()
    there = by_title(parent.bundle.encoder, parent.bundle.network(), frame)
    here = by_title(Encoder(own), started(own, parent), frame)
    assert here.keys() == there.keys() == {"play", "up", "wish"}
    for head, titles in there.items():
        for title, scores in titles.items():
            np.testing.assert_allclose(here[head][title], scores, rtol=1e-4, atol=1e-4, err_msg=f"{head} {title}")


def test_heads_about_rows_pages_genres_and_kinds_are_taken_too(parent: Parent) -> None:
    own = renumbered()
    before, network = parent.bundle.network(), started(own, parent)
    for place in (3, 4):
        for name, tensor in network.heads[place].named_parameters():
            torch.testing.assert_close(tensor, before.heads[place].get_parameter(name))
    kinds = [0, *(1 + own.kinds.index(kind) for kind in state().kinds)]
    torch.testing.assert_close(network.heads[6].out.weight[kinds], before.heads[6].out.weight)
    genres = [0, *(1 + own.genres.index(genre) for genre in state().genres)]
    torch.testing.assert_close(network.heads[5].out.bias[genres], before.heads[5].out.bias)
    torch.testing.assert_close(network.rows.genre.weight[genres], before.rows.genre.weight)


def test_heads_in_another_order_keep_their_own_weights_and_begin_afresh_where_they_are_mixed(parent: Parent) -> None:
    network, before = started(state(), parent, heads=HEADS[::-1]), parent.bundle.network()
    torch.testing.assert_close(network.heads[-1].query.weight, before.heads[0].query.weight)
    torch.testing.assert_close(network.title_bias.weight.flip(1), before.title_bias.weight)
    assert not torch.equal(network.sharing.own.up, before.sharing.own.up)


@pytest.mark.parametrize("kind", ["id", "gate", "low_rank"])
def test_what_bends_to_countries_is_taken_by_name_and_a_new_country_begins_neutral(tmp_path: Path, kind: str) -> None:
    wanted = {"adaptation": {"type": kind, "rank": 2, "width": 4}}
    parent = parent_of(tmp_path / "bundle", state(), shaken(Network(config(state(), **wanted))))
    own = state(countries=("NO", "US", "FR"))
    network, frame = Network(config(own, **wanted)), events()
    inherit(network, Encoder(own), np.ones(len(own.titles) + 1, np.float32), parent)
    for country in ("US", "FR"):
        asked = frame.with_columns(country=pl.lit(country))
        there = by_title(parent.bundle.encoder, parent.bundle.network(), asked)
        for head, titles in by_title(Encoder(own), network.eval(), asked).items():
            np.testing.assert_allclose(titles["t03"], there[head]["t03"], rtol=1e-4, atol=1e-4)
    if kind != "gate":  # the vector of a new country drives the gates that are there
        plain = Network(config(own)).eval()
        plain.load_state_dict({name: own for name, own in network.state_dict().items() if "adaptation" not in name})
        asked = frame.with_columns(country=pl.lit("NO"))
        expected, found = (by_title(Encoder(own), one, asked)["play"] for one in (plain, network))
        np.testing.assert_allclose(found["t03"], expected["t03"], rtol=1e-5, atol=1e-5)


def test_a_head_that_learns_otherwise_is_another_head(parent: Parent) -> None:
    other = (HeadConfig(name="play", loss="bce"),)
    network = started(state(), parent, heads=other)
    fresh = shaken(Network(config(state(), heads=other)), 9)
    torch.testing.assert_close(network.heads[0].query.weight, fresh.heads[0].query.weight)
    torch.testing.assert_close(network.title_bias.weight, fresh.title_bias.weight)


def test_states_are_the_parents_where_the_child_has_other_heads_and_more_of_everything(parent: Parent) -> None:
    more = {name: ("new", *turned(values)) for name, values in VOCABULARIES.items() if name != "titles"}
    own = state(**more, titles=(*turned(TITLES), "late"), categorical={"place__size": ("big",)})
    network = started(own, parent, heads=(HeadConfig(name="other", loss="softmax"),), frozen=True)
    found = states(Encoder(own), network, events())
    torch.testing.assert_close(found, states(parent.bundle.encoder, parent.bundle.network(), events()))


def test_a_value_that_the_parent_never_saw_begins_as_its_unknown_value(parent: Parent) -> None:
    own, frame = state(devices=("tv", "vr", "phone"), canvases=("home", "lobby", "cinema")), events("vr")
    there = frame.with_columns(pl.col("canvas").replace("kids", "elsewhere"))
    expected = states(parent.bundle.encoder, parent.bundle.network(), there)
    here = frame.with_columns(pl.col("canvas").replace("kids", "cinema"))
    torch.testing.assert_close(states(Encoder(own), started(own, parent), here), expected)


def test_other_edges_of_years_take_the_bucket_that_a_year_was_in(parent: Parent) -> None:
    own = state(year_edges=(1980, 1990, 1999, 2010))
    torch.testing.assert_close(
        states(Encoder(own), started(own, parent), events()),
        states(parent.bundle.encoder, parent.bundle.network(), events()),
    )


def test_a_title_that_the_parent_does_not_know_is_turned_into_its_space(tmp_path: Path) -> None:
    """Where the parent's vectors are the fresh ones, turned and stretched, a new title's are too."""
    own = state(titles=(*turned(TITLES), "late", "later"))
    torch.manual_seed(1)
    network = Network(config(own))
    rotation, _ = torch.linalg.qr(torch.randn(16, 16))
    before = Network(config(state()))
    fresh = network.titles.id.weight.detach().clone()
    with torch.no_grad():
        for place, title in enumerate(TITLES):
            before.titles.id.weight[1 + place] = 3.0 * fresh[1 + own.titles.index(title)] @ rotation
        before.titles.id.weight[5] = 100.0  # never played where the parent was trained: it says nothing
    plays = np.ones(len(TITLES) + 1)
    plays[5] = 0
    parent = parent_of(tmp_path / "bundle", state(), before, plays)
    inherit(network, Encoder(own), np.ones(len(own.titles) + 1, np.float32), parent)
    torch.testing.assert_close(network.titles.id.weight[1:], (3.0 * fresh @ rotation)[1:], rtol=1e-3, atol=1e-4)
    found = {one.kind: one for one in inherited(own, np.ones(len(own.titles) + 1), ["play", "new"], parent)}
    assert (str(found["titles"]), found["titles"].new) == ("19 of 22 titles", ("t04", "late", "later"))
    assert (str(found["heads"]), found["heads"].new) == ("1 of 2 heads", ("new",))
    assert str(found["genres"]) == "4 of 4 genres"


def test_every_tensor_that_counts_a_vocabulary_has_labels() -> None:
    """Sizes that nothing else has: a tensor with one of them on an axis without labels would be copied by place."""
    sizes = dict(zip(VOCABULARIES, (101, 37, 41, 43, 97, 53, 59, 61, 67, 71, 73, 79, 113), strict=True))
    many = {name: tuple(f"{name} {place}" for place in range(size)) for name, size in sizes.items()}
    texts = {f"row {place}": f"Row {place}" for place in range(83)}
    own = state(**many, row_texts=texts, year_edges=tuple(range(89)))
    network = Network(config(own))
    named = NamedTensors(network, axes_of(network.config, own, own.titles, list(map(str, range(1, 91)))))
    counted = {size + extra for size in (*sizes.values(), 83, 89) for extra in (0, 1, 2)} | {2 * 73, 2 * 79, 2 * 113}
    for name, tensor in named.tensors.items():
        labels = named.axes.get(name, (None,) * tensor.ndim)
        for axis, size in enumerate(tensor.shape):
            if labels[axis] is None:
                assert size not in counted, f"axis {axis} of {name} has no labels"
            else:
                assert len(labels[axis]) == size, name
    assert named.axes.keys() >= {"titles.id.weight", "canvas_titles.weight"}
    assert {name for name in named.axes if name in named.tensors} > {"rows.name.weight", "context.numeric.weight"}


FOUNDATION = ("titles.", "events.", "trunk.")


@pytest.mark.parametrize("by_rows", [False, True])
def test_frozen_parts_are_bit_identical_after_training_and_all_else_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_rows: bool
) -> None:
    if by_rows:
        monkeypatch.setattr(loop, "ROWS_FROM", 1)
    drawn = {"loss": "sampled_softmax", "negatives": {"policy": "uniform", "count": 4}}
    heads = {"play": {"label": "play", **drawn}}
    small = {"trunk": {"dim": 16, "layers": 1, "heads": 2, "dropout": 0.5}, "titles": {"id_mask": 0.5}}
    resolved = service.model(heads, init_from={"model": "foundation:3", "trunk": "frozen"}, **small)
    data = service.training_set(resolved, service.log())
    fresh = Network(network_config(resolved.afresh(), data.encoder))
    parent = parent_of(tmp_path / "bundle", data.encoder.state, shaken(fresh))
    network = build_network(resolved, data, parent)
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    settings = LoopSettings(epochs=2, learning_rate=0.05, weight_decay=0.5, ema=0.9, low_precision=False)
    trained = fit(network, data, settings, folder=tmp_path / "checkpoints").network
    known = parent.bundle.network().state_dict()
    for name, tensor in trained.state_dict().items():
        if name.startswith(FOUNDATION):
            assert torch.equal(tensor, known[name]), name
    for part in ("heads.0.query.weight", "title_bias.weight", "crossing.shift.weight", "context.fields.table.weight"):
        assert not torch.equal(trained.state_dict()[part], start[part]), part
    history, _, _ = next(data.epoch(0))
    batch, inputs = HistoryBatch.from_arrays(history), TitleInputs.from_arrays(data.titles)
    with torch.no_grad():
        trained.train()  # also in training nothing of what is frozen is dropped or hidden
        found = trained.states(batch, trained.title_vectors(inputs))
        before = parent.bundle.network()
        torch.testing.assert_close(found, before.states(batch, before.title_vectors(inputs)))


def test_a_tuned_copy_moves_all_of_it(tmp_path: Path) -> None:
    resolved = service.model({"play": {"label": "play", "loss": "softmax"}}, init_from="foundation:3")
    data = service.training_set(resolved, service.log())
    fresh = shaken(Network(network_config(resolved, data.encoder)))
    network = build_network(resolved, data, parent_of(tmp_path / "bundle", data.encoder.state, fresh))
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.testing.assert_close(start["trunk.norm.weight"], fresh.state_dict()["trunk.norm.weight"])
    trained = fit(network, data, LoopSettings(epochs=1, low_precision=False)).network.state_dict()
    for name in ("titles.id.weight", "events.position.weight", "trunk.norm.weight"):
        assert not torch.equal(trained[name], start[name])


def test_a_definition_that_starts_from_a_version_is_not_trained_without_it() -> None:
    resolved = service.model({"play": {"label": "play", "loss": "softmax"}}, init_from="foundation:3")
    data = service.training_set(resolved, service.log())
    with pytest.raises(StateError, match="model 'shown' starts from foundation:3"):
        build_network(resolved, data)
    assert not build_network(resolved.afresh(), data).config.frozen


def test_the_shipped_model_can_start_from_the_shipped_foundation() -> None:
    zoo = load_zoo(shipped_folder("model_zoo"))
    foundation, model = zoo.model("foundation"), zoo.model("everycanvas")
    encoder = Encoder(state())
    bundle = SimpleNamespace(resolved=foundation, encoder=encoder, config=network_config(foundation, encoder))
    assert list(network_differences(model, Parent("foundation:1", bundle))) == []
    wider = model.model_copy(
        update={"model": model.model.model_copy(update={"trunk": GatedTransformerOptions(dim=64)})}
    )
    (problem,) = network_differences(wider, Parent("foundation:1", bundle))
    assert (problem.where, problem.what) == ("trunk.dim", "64, but foundation:1 has 128.")
