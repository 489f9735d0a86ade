"""A model that starts from a registered version: what it takes, what the registry says of it, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil

import pytest
import torch
import yaml

from fixtures.small_project import Shell
from playbill.features.registration import render
from playbill.ranking.scoring.bundle import read_bundle
from playbill.tables import Tables
from playbill.training import run as training
from playbill.training.run_folder import RunFolder
from playbill.versions.tracking import Tracking

MODEL = {
    "kind": "Model",
    "version": 1,
    "features": "everycanvas_v3",
    "canvases": ["home"],
    "rows": ["popular"],
    "history": {"length": 50},
    "trunk": {"dim": 16, "layers": 1, "heads": 2},
    "heads": {
        "discovery_play": {"label": "discovery_play", "loss": "softmax"},
        "thumbs_up": {"label": "thumbs_up", "loss": "bce", "optional": True},
        "thumbs_down": {"label": "thumbs_down", "loss": "bce", "optional": True},
    },
    "training": {"epochs": 1},
    "evaluate": {"baselines": ["popular"], "slices": []},
}
CHILD = {"heads": {**MODEL["heads"], "gem": {"label": "gem", "loss": "softmax", "optional": True}}}


def define(shell, name, **changes):
    folder = shell.folder / "model_zoo" / "models" / name
    folder.mkdir(exist_ok=True)
    (folder / "model.yaml").write_text(yaml.safe_dump({**MODEL, "name": name, **changes}))


@pytest.fixture(scope="module")
def foundation(tmp_path_factory, filled, migrated_mlflow):
    """A project with a registered version of a model to start from, which has the alias champion."""
    folder = tmp_path_factory.mktemp("start") / "project"
    left = shutil.ignore_patterns("runs", "serving", "mlflow*", "playbill.db*", "*.pyc", "__pycache__")
    shutil.copytree(filled.folder, folder, ignore=left)
    shutil.copyfile(migrated_mlflow, folder / ".playbill" / "mlflow.db")
    shell = Shell(folder)
    render(shell.workspace)
    define(shell, "foundation")
    shell.json("train", "foundation")
    Tracking(shell.workspace).set_alias("foundation", "champion", 1)
    return shell


def assert_same(before, network):
    """What gives states is bit by bit that of a version, but for vectors of titles that nobody played."""
    titles, own, there = before.titles, network.state_dict(), before.network().state_dict()
    played = [0, *(1 + place for place, plays in enumerate(titles["plays"]) if plays > 0)]
    for name, tensor in there.items():
        if name.startswith(("titles.", "events.", "trunk.")):
            rows = played if name == "titles.id.weight" else slice(None)
            assert torch.equal(
                own[name][rows] if tensor.ndim else own[name], tensor[rows] if tensor.ndim else tensor
            ), name


def bundle_of(shell, model, version):
    return read_bundle(Tracking(shell.workspace).download(model, version))


def test_a_model_starts_from_what_an_alias_means_and_says_so(foundation, monkeypatch):
    shell, tracking = foundation, Tracking(foundation.workspace)
    define(shell, "tuned", init_from="foundation@champion", **CHILD)
    taken = []
    keep = RunFolder.keep_training_set

    def kept(folder, data, start, files):
        taken.append(copy.deepcopy(start))
        keep(folder, data, start, files)

    monkeypatch.setattr(RunFolder, "keep_training_set", kept)
    outcome = shell.json("train", "tuned")
    (note,) = (note for note in outcome["notes"] if note.startswith("started from"))
    assert re.match(r"started from foundation:1, trunk tuned: took (\d+) of \1 titles, ", note)
    before = bundle_of(shell, "foundation", 1)
    assert_same(before, *taken)
    version = tracking.version("tuned", 1)
    assert version.tags["playbill.parent_version"] == "foundation:1"
    assert version.tags["playbill.parent_digest"] == before.digest
    assert "Started from foundation:1, all of it trained on." in version.description
    assert tracking.record(version).parent == "foundation:1"
    after = bundle_of(shell, "tuned", 1)
    assert after.extra["parent"] == {"version": "foundation:1", "digest": before.digest}
    assert not torch.equal(after.network().trunk.norm.weight, before.network().trunk.norm.weight)

    first = {folder.name for folder in (shell.home / "runs").glob("tuned-*")}
    shell.json("train", "foundation", "--seed", "18")
    tracking.set_alias("foundation", "champion", 2)
    assert shell.json("train", "tuned")["version"] == 2
    assert tracking.version("tuned", 2).tags["playbill.parent_version"] == "foundation:2"
    again = {folder.name for folder in (shell.home / "runs").glob("tuned-*")}
    assert len(again - first) == 1, "what the alias means is part of the run's name"
    tracking.set_alias("foundation", "champion", 1)


def test_a_killed_run_goes_on_without_its_parents_weights(foundation, monkeypatch):
    shell = foundation
    define(shell, "killed", init_from={"model": "foundation:1", "trunk": "frozen"})

    class Killed(BaseException):
        pass

    def die(*_arguments, **_more):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(training, "write_bundle", die)
        with pytest.raises(Killed):
            shell.type("train", "killed")
    monkeypatch.setattr(training, "build_network", die)
    outcome = shell.json("train", "killed")
    assert outcome["resumed_from"] == 1
    assert any(note.startswith("started from foundation:1, trunk frozen") for note in outcome["notes"])
    version = Tracking(shell.workspace).version("killed", 1)
    assert "Started from foundation:1, title vectors, event tokens and trunk as they were." in version.description
    before, after = bundle_of(shell, "foundation", 1), bundle_of(shell, "killed", 1).network()
    assert_same(before, after)
    assert not torch.equal(after.title_bias.weight, before.network().title_bias.weight)


def refused(shell, match, **changes):
    define(shell, "refused", **changes)
    runs = sorted(path.name for path in (shell.home / "runs").iterdir())
    shell.refused("train", "refused", match=match)
    assert sorted(path.name for path in (shell.home / "runs").iterdir()) == runs, "nothing is begun"


@pytest.mark.parametrize(
    ("reference", "match"),
    [
        ("foundation@champoin", r"unknown alias of model 'foundation' 'champoin'. Did you mean 'champion'\?"),
        ("foundation:9", r"unknown version of model 'foundation' '9'"),
        ("everycanvas", r"unknown registered model 'everycanvas'\. .*Known: foundation"),
        ("fondation", r"init_from: unknown model 'fondation'. Did you mean 'foundation'\?"),
        ("refused", r"init_from: model 'refused' starts from itself.* Say which version: refused@champion"),
    ],
)
def test_a_reference_to_nothing_is_refused_by_the_nearest_name(foundation, reference, match):
    refused(foundation, match, init_from=reference)


def test_every_difference_to_another_network_is_named_with_both_values(foundation):
    match = (
        r"model 'refused' cannot start from foundation:1 \(foundation@champion\): 5 problems\n"
        r"  history.length: 40, but foundation:1 has 50. Write 50, or train 'foundation' with 40.\n"
        r"  trunk.dim: 32, but foundation:1 has 16. [^\n]*\n"
        r"  trunk.layers: 2, but [^\n]*\n"
        r"  titles.metadata: \['genres', 'kind'\], but foundation:1 has \['genres', 'kind', 'name'[^\n]*\n"
        r"  titles.age_gate: False, but foundation:1 has True"
    )
    changes = {"history": {"length": 40}, "trunk": {"dim": 32, "layers": 2, "heads": 2, "dropout": 0.4}}
    titles = {"metadata": ["kind", "genres"], "age_gate": False, "id_mask": 0.3}
    start = {"model": "foundation@champion", "trunk": "frozen"}
    refused(foundation, match, init_from=start, titles=titles, **changes)


def test_a_parent_that_has_learnt_what_would_be_held_out_is_refused(foundation):
    match = (
        r"foundation was trained under protocol 'leave_one_out', whose train fold holds \d+ of the \d+ test events of "
        r"protocol 'global_time': .* playbill train foundation --protocol global_time"
    )
    evaluate = {**MODEL["evaluate"], "protocol": "global_time"}
    refused(foundation, match, init_from="foundation:1", evaluate=evaluate)


def test_left_to_the_log_a_model_is_held_out_as_the_version_that_it_starts_from(foundation):
    by_time = foundation.json("train", "foundation", "--protocol", "global_time")
    define(foundation, "follows", init_from=f"foundation:{by_time['version']}")
    outcome = foundation.json("train", "follows")
    assert outcome["protocol"] == "global_time"
    assert outcome["protocol_reason"] == f"the model starts from foundation:{by_time['version']}, which is"


def test_another_catalogue_is_refused_with_the_share_that_is_known(foundation, monkeypatch):
    log = Tables.interactions

    def renamed(tables, **given):
        frame = log(tables, **given)
        return frame.with_columns(title_id="x" + frame["title_id"])

    monkeypatch.setattr(Tables, "interactions", renamed)
    match = r"titles: 0.0% of the log's events are on titles that foundation:1 has learnt, at least 50% are needed"
    refused(foundation, match, init_from="foundation:1")


def test_a_damaged_parent_is_refused(foundation):
    shell, digest = foundation, Tracking(foundation.workspace).version("foundation", 1).digest
    shutil.rmtree(shell.home / "serving", ignore_errors=True)
    (weights,) = (
        path
        for path in (shell.folder / ".playbill").rglob("weights.safetensors")
        if "mlflow" in str(path)
        and json.loads((path.parent / "manifest.json").read_text())
        and digest_of(path) == digest
    )
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8] + b"\0" * 8)
    try:
        refused(
            shell, r"the bundle of foundation:1: .*weights.safetensors missing or changed", init_from="foundation:1"
        )
    finally:
        weights.write_bytes(whole)


def digest_of(weights):
    return hashlib.sha256((weights.parent / "manifest.json").read_bytes()).hexdigest()
