"""A second model beside the first: which one answers, what `model:1` means, who has a canvas."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from playbill.cli.main import main
from playbill.clock import FixedClock
from playbill.config import Workspace, WorkspaceSettings
from playbill.errors import StateError
from playbill.serving.loading import served_model
from playbill.tables.leases import Lease
from playbill.versions.promotion import PromotionLog
from playbill.versions.promotion.records import Decision

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def run(workspace: Workspace, *arguments: str, code: int = 1) -> str:
    root = ["--project", str(workspace.project.root), "-w", workspace.name]
    result = CliRunner().invoke(main, [*root, *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def approve(workspace: Workspace, model: str) -> None:
    lease = Lease(workspace.database_url, "promotion", "test", FixedClock(NOON), 30, purpose="promotions")
    assert lease.acquire()
    PromotionLog(workspace).record(Decision(model, 1, "d", "approved", "promotion", "why", (), NOON, "a"), lease, "run")


def test_the_promoted_model_answers_whichever_it_is(own: Workspace) -> None:
    assert served_model(own) == "everycanvas"
    approve(own, "mine")
    assert served_model(own) == "mine"
    approve(own, "everycanvas")
    assert served_model(own) == "everycanvas"
    other = replace(own, settings=WorkspaceSettings(model="nothing"))
    with pytest.raises(StateError, match=r"name a model with --model: .* promoted are everycanvas, mine"):
        served_model(other)


def test_looking_for_promotions_makes_no_workspace(own: Workspace) -> None:
    absent = own.project.workspace("absent")
    assert served_model(absent) == "everycanvas"
    assert not absent.folder.exists()


@pytest.mark.parametrize("command", ["train", "dataset build", "ledger"])
def test_a_version_of_a_model_is_the_registered_one(own: Workspace, command: str) -> None:
    output = run(own, *command.split(), "everycanvas:2")
    assert "'everycanvas:2' names a registered version" in output
    assert f"`playbill {command} everycanvas` for the newest definition" in output
    assert f"`playbill {command} everycanvas --definition 2` for version 2 of it" in output
    assert "unknown model 'everycanvas:9'. Did you mean 'everycanvas:5'" in run(
        own, *command.split(), "everycanvas", "--definition", "9"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--model", "everycanvas:1", "--version", "2"], "names a version already"),
        (["--model", "everycanvas:one"], "'everycanvas:one' is no model or registered version, write name or name:3"),
        (["--model", "everycanvas:7"], "unknown version of model 'everycanvas' '7'"),
        (["--canvas", "kuairand.tab_1"], "canvas 'kuairand.tab_1' belongs to model kuairand: name it, or train it"),
    ],
)
def test_recommend_takes_a_registered_version_and_names_who_has_a_canvas(
    own: Workspace, arguments: list[str], text: str
) -> None:
    assert text in run(own, "recommend", *arguments)


def test_up_serves_a_model_by_name(own: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("playbill.cli.serve.port_is_free", lambda host, port: True)
    monkeypatch.setattr(
        "playbill.cli.serve.run_services", lambda services, uri: started.extend(one.command for one in services)
    )
    run(own, "up", "--model", "kuairand", code=0)
    assert started[-1][-2:] == ["--model", "kuairand"]
    run(own, "up", code=0)
    assert "--model" not in started[-1]
