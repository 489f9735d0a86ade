"""Pre-training: one command trains the foundation and publishes its vectors, and repeats nothing."""

import shutil
import sys

import pytest

from fixtures.small_project import Shell
from playbill.foundation import pretrain
from playbill.versions.tracking import Tracking


@pytest.fixture
def shell(filled, tmp_path, migrated_mlflow):
    shell = Shell(filled.copy(tmp_path / "project").folder)
    shutil.copyfile(migrated_mlflow, shell.workspace.mlflow_uri.removeprefix("sqlite:///"))
    small = "trunk: {type: gated_transformer, dim: 16, layers: 1, heads: 1, dropout: 0.1}"
    model = "model_zoo/models/foundation/model.yaml"
    shell.edit(model, "trunk: {type: gated_transformer, dim: 128, layers: 2, heads: 2, dropout: 0.1}", small)
    for command in (("apply",), ("materialize",)):
        assert shell.type(*command).exit_code == 0
    return shell


def versions(shell):
    return [one.version for one in Tracking(shell.workspace).versions("foundation")]


def test_the_shipped_foundation_is_trained_and_its_vectors_are_published_once(shell):
    first = shell.json("pretrain", "--epochs", "1")
    assert (first["version"], first["vectors"]["how"]) == (1, "published")
    assert set(first["trained"]["canvases"]) == {"next_play"}
    assert first["trained"]["canvases"]["next_play"]["ndcg@10"] > 0
    assert first["vectors"]["views"] == ["foundation_member_vectors_v1", "foundation_title_vectors_v1"]

    again = shell.json("pretrain", "--epochs", "1")
    assert (again["version"], again["trained"], again["vectors"]["how"]) == (1, None, "there already")
    assert versions(shell) == [1]

    other = shell.json("pretrain", "--epochs", "1", "--seed", "5")
    assert (other["version"], other["vectors"]["before"]) == (2, "foundation:1")


def test_a_pretraining_that_was_killed_while_it_published_is_not_trained_again(shell, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules[pretrain.__module__], "publish_vectors", killed)
        assert shell.type("pretrain", "--epochs", "1").exit_code != 0
    assert versions(shell) == [1]

    found = shell.json("pretrain", "--epochs", "1")
    assert (found["version"], found["trained"], found["vectors"]["how"]) == (1, None, "published")
