"""A registered version as the plain MLflow model it also is."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.config import Workspace
from playbill.definitions.specs import CanvasSpec, LabelSpec, ModelSpec, ResolvedModel
from playbill.versions.tracking import Tracking
from playbill.versions.tracking.packaging import CatalogueCopy
from playbill.versions.tracking.wheel import write_wheel

AT = datetime(2024, 3, 4, 10, 30, tzinfo=UTC)
TRAINED = tuple(str(number) for number in range(1, 21))
LATER = "99"
"""Not available yet, and unknown to the training."""
CANVASES: dict[str, dict[str, Any]] = {
    "home": {"candidates": {"available": "now", "watched": False}},
    "search": {"context": ["member", "query", "country"]},
    "more_like_this": {"context": ["member", "source_title"], "candidates": {"exclude_source": True}},
    "coming_soon": {"candidates": {"available": "upcoming"}},
}


def catalogue() -> CatalogueCopy:
    ids = [*TRAINED, LATER]
    titles = pl.DataFrame(
        {
            "title_id": ids,
            "name": [f"Name {title}" for title in ids],
            "names": [None] * len(ids),
            "kind": ["film"] * len(ids),
            "genres": [["Drama"]] * len(ids),
            "kids": [None] * len(ids),
            "release_date": [AT - timedelta(days=900)] * len(ids),
        },
        schema_overrides={
            "names": pl.List(pl.Struct({"language": pl.String, "name": pl.String})),
            "release_date": pl.Datetime("us", "UTC"),
            "kids": pl.Boolean,
        },
    )
    launch = [AT - timedelta(days=30)] * len(TRAINED) + [AT + timedelta(days=30)]
    availability = pl.DataFrame(
        {"title_id": ids, "country": "*", "available_from": launch, "available_until": [None] * len(ids)},
        schema_overrides={
            "available_from": pl.Datetime("us", "UTC"),
            "available_until": pl.Datetime("us", "UTC"),
        },
    )
    return CatalogueCopy(titles, availability, AT)


def definition() -> ResolvedModel:
    shared = {"version": 1, "blend": {"play": 1.0}, "metric": "play"}
    canvases = {name: CanvasSpec.model_validate({"name": name, **shared, **own}) for name, own in CANVASES.items()}
    heads = {"play": {"label": "play", "loss": "softmax"}}
    model = {"name": "everycanvas", "version": 1, "features": "f", "canvases": list(canvases), "heads": heads}
    label = LabelSpec.model_validate({"name": "play", "version": 1, "from": {"action": "play"}})
    return ResolvedModel(
        model=ModelSpec.model_validate(model), labels={"play": label}, rewards={}, canvases=canvases, rows={}
    )


def write_random_bundle(folder: Path) -> None:
    import torch

    from playbill.datasets import Encoder, EncoderState
    from playbill.models import HeadConfig, Network, NetworkConfig
    from playbill.ranking.scoring.bundle import write_bundle

    resolved = definition()
    encoder = Encoder(
        EncoderState(
            history_length=20,
            merge=True,
            titles=TRAINED,
            actions=("play",),
            canvases=tuple(CANVASES),
            countries=("US-MN",),
            devices=(),
            languages=(),
            genres=("Drama",),
            kinds=("film",),
            original_languages=(),
            year_edges=(1990,),
            metadata=("genres", "kind", "name", "release_year"),
            text_buckets=4096,
            snapshot_hours=24,
            canvas_fields={name: canvas.context for name, canvas in resolved.canvases.items()},
            service="f",
            service_version="v",
            title_snapshot=("popularity__plays",),
        )
    )
    sizes = {"trunk": {"dim": 16, "heads": 2}, "heads": (HeadConfig(name="play", loss="softmax"),)}
    config = NetworkConfig.model_validate({**encoder.network_sizes(), **sizes})
    torch.manual_seed(1)
    network = Network(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    plays = np.arange(len(TRAINED) + 1)
    write_bundle(folder, resolved=resolved, encoder=encoder, config=config, weights=network.state_dict(), plays=plays)


@pytest.fixture
def tracking(mlflow_workspace: Workspace, tmp_path: Path) -> Tracking:
    tracking = Tracking(mlflow_workspace, catalogue=lambda _: catalogue())
    write_random_bundle(tmp_path / "made")
    with tracking.start_run("everycanvas", "fit") as run:
        tracking.register(run, tmp_path / "made", "everycanvas", {})
    tracking.set_alias("everycanvas", "champion", 1)
    return tracking


@pytest.fixture
def predict(tracking: Tracking) -> Callable[..., dict[str, Any]]:
    import mlflow
    import pandas as pd

    with tracking.connection.everywhere():
        model = mlflow.pyfunc.load_model("models:/ml.everycanvas@champion")

    def ask(**columns: Any) -> dict[str, Any]:
        answer: dict[str, Any] = model.predict(pd.DataFrame([columns])).iloc[0].to_dict()
        return answer

    return ask


@pytest.mark.parametrize("served", [tuple(CANVASES), ("coming_soon", "search")])
def test_mlflow_finds_nothing_wrong_with_the_example(
    mlflow_workspace: Workspace,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    served: tuple[str, ...],
) -> None:
    for canvas in set(CANVASES) - set(served):
        monkeypatch.delitem(CANVASES, canvas)
    tracking = Tracking(mlflow_workspace, catalogue=lambda _: catalogue())
    write_random_bundle(tmp_path / "made")
    with tracking.start_run("everycanvas", "fit") as run:
        tracking.register(run, tmp_path / "made", "everycanvas", {})
    assert capfd.readouterr() == ("", "")


def test_the_served_model_ranks_titles_by_name_with_scores(predict: Callable[..., dict[str, Any]]) -> None:
    answer = predict(canvas="home", k=5, history=["1", "2"])
    assert len(answer["title_ids"]) == 5
    assert not {"1", "2", LATER} & set(answer["title_ids"])
    assert answer["names"] == [f"Name {title}" for title in answer["title_ids"]]
    assert answer["scores"] == sorted(answer["scores"], reverse=True)


def test_only_the_canvas_is_needed(predict: Callable[..., dict[str, Any]]) -> None:
    assert len(predict(canvas="home")["title_ids"]) == 10


def test_history_and_query_matter(predict: Callable[..., dict[str, Any]]) -> None:
    assert predict(canvas="home", history=["1"])["scores"] != predict(canvas="home", history=["5", "7"])["scores"]
    assert predict(canvas="search", query="na")["scores"] != predict(canvas="search", query="zz")["scores"]


def test_the_source_title_is_not_in_its_own_list(predict: Callable[..., dict[str, Any]]) -> None:
    answer = predict(canvas="more_like_this", source_title_id="7", k=50)
    assert len(answer["title_ids"]) == len(TRAINED) - 1
    assert "7" not in answer["title_ids"]


def test_a_title_to_come_is_on_coming_soon_until_it_launches(predict: Callable[..., dict[str, Any]]) -> None:
    assert predict(canvas="coming_soon")["title_ids"] == [LATER]
    assert predict(canvas="coming_soon", at="2025-01-01T00:00:00Z")["title_ids"] == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"canvas": "hom"}, "Did you mean 'home'"),
        ({"canvas": "home", "k": 0}, "expected 1 or more"),
        ({"canvas": "home", "at": "yesterday"}, "no ISO 8601 moment"),
    ],
)
def test_mistakes_in_requests_are_named(
    predict: Callable[..., dict[str, Any]], columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        predict(**columns)


def test_the_default_check_is_that_of_bundles(tracking: Tracking) -> None:
    from playbill.errors import IntegrityError
    from playbill.ranking.scoring.bundle import read_bundle

    folder = tracking.download("everycanvas", 1)
    assert read_bundle(folder).digest == tracking.version("everycanvas", 1).digest
    (stored,) = Path(tracking.workspace.artifacts).rglob("artifacts/bundle/weights.safetensors")
    stored.write_bytes(b"tampered")
    (folder / "weights.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"everycanvas:1.*weights\.safetensors"):
        tracking.download("everycanvas", 1)


def test_the_model_brings_the_package_that_reads_it(tracking: Tracking, tmp_path: Path) -> None:
    (stored,) = {path.parent for path in Path(tracking.workspace.artifacts).rglob("requirements.txt")}
    lines = (stored / "requirements.txt").read_text().splitlines()
    (own,) = [line for line in lines if "playbill" in line]
    place = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), own]
    # As MLflow does it: from the model's folder, with nothing of this project at hand.
    subprocess.run(
        [*command, "--disable-pip-version-check"], cwd=stored, check=True, env={**os.environ, "PYTHONPATH": ""}
    )
    code = (
        "import sys, playbill, importlib.metadata as metadata\n"
        "from pathlib import Path\n"
        "from playbill.versions.tracking.bundle_ranker import BundleRanker\n"
        "ranker = BundleRanker.load(Path(sys.argv[1]) / 'bundle', Path(sys.argv[1]) / 'catalogue')\n"
        "assert Path(playbill.__file__).is_relative_to(sys.argv[2])\n"
        "assert playbill.config.shipped_folder('model_zoo').is_relative_to(sys.argv[2])\n"
        "assert {'models', 'tracking'} <= set(metadata.metadata('playbill').get_all('Provides-Extra'))\n"
        "print(len(ranker.rank([{'canvas': 'home', 'k': 3}])[0]['title_ids']))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(stored / "artifacts"), str(place)],
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "3"), ran.stderr


def test_one_package_gives_one_wheel(tmp_path: Path) -> None:
    first, second = (write_wheel(tmp_path / name) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_a_models_wheel_holds_every_package_of_the_distribution(tmp_path: Path) -> None:
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    packages = {Path(path).name for path in settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    tops = {name.split("/")[0] for name in zipfile.ZipFile(write_wheel(tmp_path)).namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == packages
