"""The tutorials, run as they are written: every line of the one in the shell, every cell of the notebook."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from playbill.cli.main import main
from playbill.project import Project

FOLDER = Path(__file__).parents[2] / "docs" / "tutorial"
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", (FOLDER / "own_csv.md").read_text(), re.DOTALL)


def type_line(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Do what one line of the shell says, and return what it prints."""
    if words[0] == "cd":
        monkeypatch.chdir(Path.cwd() / words[1])
        return ""
    assert words[0] == "playbill", words
    result = CliRunner().invoke(main, words[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_tutorial_leads_from_a_csv_to_a_served_page(
    tmp_path: Path, migrated_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed: dict[str, str] = {}
    served = {}
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "own_csv.md", "exec"), {})
            (Path.cwd() / ".playbill").mkdir()
            shutil.copyfile(migrated_mlflow, ".playbill/mlflow.db")
            continue
        for line in block.strip().splitlines():
            words = shlex.split(line)
            if words[0] == "curl":
                served = asked_in_process(words)
            elif words[:2] != ["playbill", "serve"]:
                printed[line] = type_line(words, monkeypatch)
    assert "nothing was written" in printed["playbill ingest parquet data --mapping mapping.yaml --dry-run"].lower()
    assert "mine:1 approved" in printed["playbill promote mine:1"]
    assert "For you" in printed["playbill recommend --member m7 -k 5"]
    assert [row["row_id"] for row in served["rows"]] == ["for_you", "popular"]
    assert (served["policy"], served["version"]) == ("model", 1)
    assert all(len(row["items"]) == 5 for row in served["rows"])


def asked_in_process(words: list[str]) -> dict:
    """Send what a line of curl says to the server's application."""
    from playbill.serving.app import create_app
    from playbill.serving.runtime import build_services

    path = next(re.search(r"(/v1/\w+)$", word)[1] for word in words if "localhost" in word)
    workspace = Project.open().workspace
    services = build_services(workspace, "mine", host="127.0.0.1", token=None, with_controller=False)
    transport, body = httpx.ASGITransport(create_app(services)), json.loads(words[words.index("-d") + 1])

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(path, json=body)

    response = asyncio.run(post())
    services.stop()
    assert response.status_code == 200, response.text
    return response.json()


def test_the_notebook_runs(tmp_path: Path, migrated_mlflow: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """What its cells leave is what a reader is told: a version that is served and explained."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((FOLDER / "project.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code"), "outputs would go stale"
    names: dict = {"__name__": "notebook"}
    exec(compile(sources[0], "project.ipynb", "exec"), names)
    (tmp_path / "shop" / ".playbill").mkdir()
    shutil.copyfile(migrated_mlflow, tmp_path / "shop" / ".playbill" / "mlflow.db")
    for source in sources[1:]:
        exec(compile(source, "project.ipynb", "exec"), names)
    measured = {(row["name"], row["metric"]) for row in names["evaluation"].to_polars().to_dicts()}
    assert {(name, "ndcg@10") for name in ("mine", "popular", "item_knn")} <= measured
    assert names["promotion"].verdict == "approved"
    assert (names["page"].policy, names["page"].version) == ("model", 1)
    printed = capsys.readouterr().out
    assert "for_you | at place 1" in printed
    assert "Did you mean 'home'?" in printed
    assert "nbformat" not in sys.modules
