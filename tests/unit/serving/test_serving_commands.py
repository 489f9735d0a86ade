from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from playbill.cli.main import main
from playbill.config import Workspace, WorkspaceSettings
from playbill.errors import StateError
from playbill.serving.loading import served_model
from playbill.serving.local import LocalRecommender


def run(workspace: Workspace, *arguments: str, code: int = 0) -> str:
    root = ["--project", str(workspace.project.root), "-w", workspace.name]
    result = CliRunner().invoke(main, [*root, *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def answer(workspace: Workspace, *arguments: str) -> dict:
    return json.loads(run(workspace, "recommend", *arguments, "--json").splitlines()[-1])


def test_before_a_promotion_the_shell_is_answered_by_the_stated_fallback(own: Workspace) -> None:
    found = answer(own, "--member", "42", "--canvas", "home", "-k", "3")
    assert {"request_id", "canvas", "model", "version", "policy", "items", "rows", "notes"} <= found.keys()
    assert (found["policy"], found["reason"], found["version"]) == ("popular_7d", "no approved model", None)
    assert [item["title_id"] for item in found["items"]] == ["t3", "t5", "t2"]


def test_one_answer_is_not_held_up_by_the_garbage_collector(own: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    during = []
    seen = LocalRecommender.current
    monkeypatch.setattr(
        LocalRecommender, "current", lambda self, *how: during.append(gc.isenabled()) or seen(self, *how)
    )
    answer(own, "--canvas", "home")
    run(own, "recommend", "--canvas", "serch", code=1)
    assert (during, gc.isenabled()) == ([False, False], True)


def test_lists_without_rows_have_no_rows_in_their_json(own: Workspace) -> None:
    assert "rows" not in answer(own, "--canvas", "home", "--no-rows")
    assert "rows" not in answer(own, "--canvas", "more_like_this", "--source-title", "Dune")


def test_a_page_is_printed_with_names(own: Workspace) -> None:
    output = run(own, "recommend", "--member", "42", "-k", "2")
    assert "Top picks for you" in output
    assert "Dune" in output
    assert "fallback popular_7d" in output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--canvas", "serch"], "Did you mean 'search'"),
        (["--canvas", "search"], "needs a query"),
        (["--canvas", "more_like_this", "--source-title", "Dun"], "Did you mean 'Dune'"),
        (["--at", "1998-04-22"], "no time zone"),
        (["--canvas", "search", "--query", "x" * 100_001], "query: String should have at most 100000"),
        (["--context", "wether=rain"], "context.wether: unknown context field 'wether'"),
        (["--context", "weather"], "context: 'weather' is no NAME=VALUE"),
        (["--model", "everycanvass"], "everycanvas"),
    ],
)
def test_mistakes_end_in_one_message(own: Workspace, arguments: list[str], text: str) -> None:
    output = run(own, "recommend", *arguments, code=1)
    assert output.startswith("error: ")
    assert text in output


def test_serving_to_other_machines_needs_a_token(own: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLAYBILL_TOKEN", raising=False)
    assert "PLAYBILL_TOKEN" in run(own, "serve", "--host", "0.0.0.0", code=1)


def test_without_data_the_remedy_is_named(own: Workspace) -> None:
    empty = own.project.workspace("empty")
    assert "ingest" in run(empty, "recommend", code=1)
    assert "ingest" in run(empty, "serve", code=1)


def test_the_room_imports_neither_torch_nor_the_web_stack() -> None:
    code = (
        "import sys, playbill.serving; print([n for n in ('torch', 'fastapi', 'feast', 'mlflow') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_model_that_is_meant_is_the_workspaces(own: Workspace) -> None:
    assert served_model(own) == "everycanvas"
    assert served_model(replace(own, settings=WorkspaceSettings(model="kuairand"))) == "kuairand"
    with pytest.raises(StateError, match="serves 'nothing', the zoo has everycanvas, foundation, kuairand"):
        served_model(replace(own, settings=WorkspaceSettings(model="nothing")))
