from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from playbill.datasets import Encoder, EncoderState
from playbill.definitions.specs import CanvasSpec, LabelSpec, ModelSpec, ResolvedModel
from playbill.errors import IntegrityError
from playbill.models import HeadConfig, Network, NetworkConfig
from playbill.ranking.scoring.bundle import FILES, MANIFEST, read_bundle, verify_bundle, write_bundle


@pytest.fixture
def parts() -> dict:
    canvas = {"name": "home", "version": 1, "blend": {"play": 1.0}, "metric": "play"}
    model = {"name": "m", "version": 1, "features": "f", "canvases": ["home"]}
    resolved = ResolvedModel(
        model=ModelSpec.model_validate({**model, "heads": {"play": {"label": "play", "loss": "softmax"}}}),
        labels={"play": LabelSpec.model_validate({"name": "play", "version": 1, "from": {"action": "play"}})},
        rewards={},
        canvases={"home": CanvasSpec.model_validate(canvas)},
        rows={},
    )
    state = EncoderState(
        history_length=8,
        merge=True,
        titles=("1", "2", "3"),
        actions=("play",),
        canvases=("home",),
        countries=("US-MN",),
        devices=(),
        languages=(),
        genres=("Drama",),
        kinds=("film",),
        original_languages=(),
        year_edges=(1990,),
        metadata=("genres", "kind"),
        text_buckets=64,
        snapshot_hours=24,
        canvas_fields={"home": ("country",)},
        service="f",
        service_version="v",
    )
    encoder = Encoder(state)
    config = NetworkConfig.model_validate(
        {
            **encoder.network_sizes(),
            "trunk": {"dim": 8, "heads": 2},
            "heads": (HeadConfig(name="play", loss="softmax"),),
        }
    )
    torch.manual_seed(1)
    weights = Network(config).state_dict()
    return {
        "resolved": resolved,
        "encoder": encoder,
        "config": config,
        "weights": weights,
        "plays": np.array([0, 5, 2, 0]),
        "extra": {"watermark": "2024-01-01T00:00:00+00:00"},
    }


def test_a_bundle_is_read_as_it_was_written(tmp_path, parts) -> None:
    digest = write_bundle(tmp_path / "deep" / "bundle", **parts)
    bundle = read_bundle(tmp_path / "deep" / "bundle", digest)
    assert bundle.digest == digest == verify_bundle(bundle.folder)
    assert bundle.resolved.spec_hash == parts["resolved"].spec_hash
    assert bundle.encoder.version == parts["encoder"].version
    assert bundle.config == parts["config"]
    assert bundle.extra == parts["extra"]
    assert bundle.titles["plays"].to_list() == [5.0, 2.0, 0.0]
    loaded = bundle.network().state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in parts["weights"].items())


def test_only_its_files_are_there(tmp_path, parts) -> None:
    write_bundle(tmp_path / "bundle", **parts)
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {*FILES, MANIFEST}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_same_content_has_the_same_digest(tmp_path, parts) -> None:
    first, again = (write_bundle(tmp_path / name, **parts) for name in ("a", "b"))
    parts["weights"] = {name: tensor + 1 for name, tensor in parts["weights"].items()}
    assert first == again != write_bundle(tmp_path / "b", **parts), "and one that is there is replaced"


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(tmp_path, parts, name: str) -> None:
    write_bundle(tmp_path, **parts)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=name):
        read_bundle(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, parts, name: str) -> None:
    write_bundle(tmp_path, **parts)
    (tmp_path / name).unlink()
    with pytest.raises(IntegrityError, match=name):
        verify_bundle(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2, "files": {}, "extra": {}}', "\x00\xff"])
def test_a_damaged_manifest_is_refused(tmp_path, parts, text: str) -> None:
    write_bundle(tmp_path, **parts)
    (tmp_path / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(IntegrityError):
        read_bundle(tmp_path)


def test_no_bundle_and_another_bundle(tmp_path, parts) -> None:
    with pytest.raises(IntegrityError, match="no bundle"):
        read_bundle(tmp_path / "none")
    write_bundle(tmp_path / "one", **parts)
    with pytest.raises(IntegrityError, match="its record says"):
        read_bundle(tmp_path / "one", "0" * 64)


def test_weights_of_another_network(tmp_path, parts) -> None:
    parts["weights"] = {"titles.id.weight": torch.zeros(2, 2)}
    write_bundle(tmp_path, **parts)
    with pytest.raises(IntegrityError, match="does not fit"):
        read_bundle(tmp_path).network()


def test_a_bundle_of_another_version_of_playbill_is_one_line(tmp_path, parts) -> None:
    write_bundle(tmp_path, **parts)
    spec = json.loads((tmp_path / "spec.json").read_text())
    for canvas in spec["canvases"].values():
        canvas |= {"later": 1, "much_later": 2, "last": 3}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"]["spec.json"] = hashlib.sha256((tmp_path / "spec.json").read_bytes()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        IntegrityError, match=r"another version of Playbill, train again: .*later.*; and \d+ more$"
    ) as error:
        read_bundle(tmp_path)
    assert "\n" not in str(error.value)


def test_a_manifest_that_leaves_a_file_out(tmp_path, parts) -> None:
    write_bundle(tmp_path, **parts)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    del manifest["files"]["weights.safetensors"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match="does not name"):
        read_bundle(tmp_path)


def test_nothing_is_left_behind_when_writing_fails(tmp_path, parts) -> None:
    parts["extra"] = {"loss": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        write_bundle(tmp_path / "bundle", **parts)
    assert list(tmp_path.iterdir()) == []
