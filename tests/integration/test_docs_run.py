"""Commands of the README and the guides, run as they are printed on a small trained workspace.

What they name of MovieLens is replaced by what the small workspace has. Those that write run on a copy, in the order in
which a reader would type them. Commands that train, simulate or serve are run by tests of their own;
`tests/contract/test_docs.py` parses them all.
"""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

import polars as pl
import pytest
from click.testing import CliRunner

from fixtures.docs_commands import command_lines
from playbill.cli.main import main

if TYPE_CHECKING:
    from fixtures.small_project import Playbill


READING = (
    *("check", "schema", "labels explain", "labels show", "rewards explain", "impact", "recommend", "parity"),
    "diagnose",
    "update",
)
WRITING = (
    *("apply", "features build", "materialize", "features backfill", "features push", "labels publish"),
    *("dataset build", "dataset show", "promote", "vectors publish", "vectors list"),
)
"""In the order in which they are run."""
ABROAD = ("--lock", "--guide", "row_ranking")
"""Options that write to the project, and a canvas that the small log cannot teach."""


def lines(*commands: str) -> list[str]:
    """Return the lines of the docs with one of some commands, without the workspace they name."""
    found = {}
    for page, words in command_lines():
        own = words[2:] if words[:1] == ["-w"] else words
        known = any(own[: len(name.split())] == name.split() for name in commands)
        if (
            known
            and page.name != "CHANGELOG.md"
            and "tutorial" not in page.parts  # run whole, in a project of its own
            and not set(own) & set(ABROAD)
            and not any(word.isalpha() and word.isupper() for word in own)
        ):
            found[shlex.join(own)] = None
    return list(found)


@pytest.fixture(scope="module")
def title(trained: Playbill) -> str:
    """The name of a title of the small workspace."""
    (path,) = (trained.home / "tables").rglob("titles*.parquet")
    return str(pl.read_parquet(path)["name"][0])


@pytest.fixture(scope="module", autouse=True)
def request_log(trained: Playbill) -> None:
    """One logged request that the model answered, for `parity` to compare."""
    root = ["--project", str(trained.folder), "-w", trained.workspace]
    result = CliRunner().invoke(main, [*root, "recommend", "--member", "m1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("line", lines(*READING))
def test_a_command_of_the_docs_that_reads_runs(line: str, trained: Playbill, title: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)
    named = {"Star Wars (1977)": title, "Toy Story": title, "star w": title[:4]}
    words = [named.get(word, word) for word in words]
    root = ["--project", str(trained.folder), "-w", trained.workspace]
    result = CliRunner().invoke(main, [*root, *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.output.strip()


def test_commands_of_the_docs_that_write_run_one_after_the_other(trained: Playbill, tmp_path, monkeypatch) -> None:
    """On a copy of the project, with its own member, days and version."""
    project = tmp_path / "project"
    shutil.copytree(trained.folder, project)
    monkeypatch.chdir(tmp_path)
    log = pl.read_parquet(next((project / ".playbill" / trained.workspace / "tables").rglob("by_member/*.parquet")))
    middle = log["event_at"].sort()[log.height // 2].isoformat()
    named = {"42": str(log["member_id"][0]), "1998-03-01T00:00:00Z": middle, "foundation": "everycanvas"}
    root = ["--project", str(project), "-w", trained.workspace]
    progress = []
    for line in (line for name in WRITING for line in lines(name)):
        words = [named.get(word, word) for word in shlex.split(line)]
        words = [word.replace("everycanvas:2", "everycanvas:1") for word in words]
        words = [word.replace("foundation@champion", "everycanvas:1") for word in words]
        words = [word.replace("everywhere:1", "everycanvas:1") for word in words]
        result = CliRunner().invoke(main, [*root, *words])
        if result.exit_code:
            progress.append((line, result.output, repr(result.exception)))
    assert not progress


def test_the_docs_have_commands_of_each_kind() -> None:
    for name in (*READING, *WRITING):
        assert any(f" {name} " in f" {line} " for line in lines(name)), name
