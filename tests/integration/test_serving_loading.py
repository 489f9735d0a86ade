"""From an approved pair to answers: a real bundle, the real scorer, tables that change under it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from fixtures import serving_world as world
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.datasets import Encoder, EncoderState
from playbill.errors import IntegrityError, ServiceError
from playbill.features.reports import TitleSnapshots
from playbill.models import HeadConfig, Network, NetworkConfig
from playbill.ranking.scoring.bundle import write_bundle
from playbill.serving import FactReader, ModelHandle, Recommender, RecommendRequest, Watcher
from playbill.serving.loading import Loader
from playbill.tables import Tables


def build_bundle(folder: Path, seed: int = 1) -> str:
    """Write an untrained network over all titles of the world but the last."""
    resolved = world.resolved()
    state = EncoderState(
        history_length=8,
        merge=True,
        titles=world.TITLES[:-1],
        actions=("play", "thumbs_up"),
        canvases=tuple(resolved.canvases),
        countries=("DE", "FR"),
        devices=(),
        languages=("de",),
        genres=("Comedy", "Drama"),
        kinds=("film",),
        original_languages=(),
        year_edges=(1990,),
        metadata=("genres", "kind"),
        text_buckets=64,
        snapshot_hours=24,
        canvas_fields={name: canvas.context for name, canvas in resolved.canvases.items()},
        service="tiny_v1",
        service_version="v7",
        title_categorical={"shelf__tone": ("dark", "light")},
    )
    encoder = Encoder(state)
    heads = tuple(HeadConfig(name=name, loss=head.loss) for name, head in resolved.model.heads.items())
    sizes = {**encoder.network_sizes(), "trunk": {"dim": 8, "heads": 2}, "heads": heads}
    config = NetworkConfig.model_validate(sizes)
    torch.manual_seed(seed)
    weights = Network(config).state_dict()
    plays = np.arange(len(state.titles) + 1)
    return write_bundle(folder, resolved=resolved, encoder=encoder, config=config, weights=weights, plays=plays)


class Store:
    """MLflow, approvals and title features in one: version -> folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.approved_pair: Any = None
        self.digests: dict[int, str] = {}
        self.downloads = 0
        self.down = False

    def add(self, version: int) -> None:
        self.digests[version] = build_bundle(self.root / str(version), version)

    def approve(self, version: int) -> None:
        self.approved_pair = SimpleNamespace(version=version, digest=self.digests[version])

    def approved(self, _model: str) -> Any:
        return self.approved_pair

    def download(self, _model: str, version: int, _digest: str | None = None) -> Path:
        self.downloads += 1
        return self.root / str(version)

    def title_snapshots(self, _service: str, moments: Sequence[datetime], titles: Sequence[str]) -> TitleSnapshots:
        if self.down:
            raise ServiceError("the registry is down")
        categorical = pl.DataFrame({"title_id": list(titles), "shelf__tone": ["dark"] * len(titles)})
        values = np.zeros((len(moments), len(titles), 0), np.float32)
        return TitleSnapshots(tuple(moments), tuple(titles), (), values, categorical)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.add(1)
    made.add(2)
    return made


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made: Workspace = world.make_workspace(tmp_path)
    return made


def loader_of(workspace: Workspace, store: Store, now: datetime) -> Loader:
    return Loader(workspace, "tiny", store, store, FixedClock(now), store)  # type: ignore[arg-type]


def start(workspace: Workspace, store: Store) -> tuple[ModelHandle, Watcher, Recommender]:
    loader = loader_of(workspace, store, world.NOW)
    handle = ModelHandle(world.serve_with(workspace, None, version=None))
    watcher = Watcher(handle, loader, FixedClock(world.NOW), 0.001)
    facts = FactReader(Tables(workspace), world.FakeFeatures())
    return handle, watcher, Recommender(handle, facts, FixedClock(world.NOW), None)


def test_an_approved_bundle_answers_every_canvas(workspace: Workspace, store: Store) -> None:
    store.approve(1)
    handle, watcher, recommender = start(workspace, store)
    assert watcher.look(), watcher.status
    assert (handle.current.version, handle.current.facts_version, handle.current.complete) == (1, "v7", True)
    for ask in (
        RecommendRequest(canvas="home", member_id="42"),
        RecommendRequest(canvas="search", member_id="nobody", query="al"),
        RecommendRequest(canvas="more_like_this", member_id="7", source_title_id="t3"),
        RecommendRequest(canvas="coming_soon"),
    ):
        response = recommender.recommend(ask)
        assert (response.policy, response.version) == ("model", 1), response.notes
        assert response.items


def test_a_title_that_came_after_training_is_ranked(workspace: Workspace, store: Store) -> None:
    store.approve(1)
    _, watcher, recommender = start(workspace, store)
    watcher.look()
    coming = recommender.recommend(RecommendRequest(canvas="coming_soon"))
    assert {item.title_id for item in coming.items} == {"t8", "t9"}


def test_new_data_is_served_with_the_network_already_loaded(workspace: Workspace, store: Store) -> None:
    store.approve(1)
    handle, watcher, _ = start(workspace, store)
    watcher.look()
    before = handle.current.snapshot.snapshot_id
    journal = Tables(workspace).journal
    event = {"event_id": "x", "member_id": "7", "action": "play", "title_id": "t4", "canvas": "home", "country": "DE"}
    journal.append([{**event, "event_at": world.NOW - timedelta(days=1)}])
    journal.compact(Tables(workspace))
    assert watcher.look()
    assert handle.current.snapshot.snapshot_id != before
    assert handle.current.snapshot.plays.before(world.NOW)[4] == 1
    assert store.downloads == 1


def test_a_corrupt_bundle_is_never_served(workspace: Workspace, store: Store) -> None:
    store.approve(1)
    handle, watcher, recommender = start(workspace, store)
    watcher.look()
    weights = store.root / "2" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    store.approve(2)
    assert not watcher.look()
    assert "weights.safetensors" in (watcher.status.problem or "")
    assert recommender.recommend(RecommendRequest(canvas="home")).version == 1
    assert handle.current.version == 1


def test_another_bundle_than_the_approved_one_is_refused(workspace: Workspace, store: Store) -> None:
    store.approve(1)
    shutil.rmtree(store.root / "1")
    shutil.copytree(store.root / "2", store.root / "1")
    loader = loader_of(workspace, store, world.NOW)
    with pytest.raises(IntegrityError, match="its record says"):
        loader.load(loader.wanted())


def test_without_title_features_a_model_serves_and_gets_them_back(workspace: Workspace, store: Store) -> None:
    store.approve(1)
    store.down = True
    handle, watcher, recommender = start(workspace, store)
    assert watcher.look()
    assert not handle.current.complete
    assert recommender.recommend(RecommendRequest(canvas="home")).policy == "model"
    assert watcher.status.problem == "served without title features: the registry is down"
    store.down = False
    assert watcher.look()
    assert handle.current.complete


def test_any_registered_version_can_be_asked_for(workspace: Workspace, store: Store) -> None:
    served = loader_of(workspace, store, world.NOW).version(2)
    assert (served.version, served.digest) == (2, store.digests[2])
