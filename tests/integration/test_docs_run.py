"""Commands of the README and the guides that only read, run as they are printed on a small trained workspace.

What they name of MovieLens is replaced by what the small workspace has. Commands that write, train or serve are run by
the tests of those commands; `tests/contract/test_docs.py` parses them all.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from click.testing import CliRunner

from playbill.cli.main import main

if TYPE_CHECKING:
    from small_project import Playbill

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
from test_docs import command_lines

READING = ("check", "schema", "labels explain", "labels show", "rewards explain", "impact", "recommend", "parity")
ABROAD = ("--lock", "--guide", "row_ranking")
"""Options that write to the project, and a canvas that the small log cannot teach."""


def lines() -> list[str]:
    found = {
        shlex.join(words): None for page, words in command_lines() if page.name != "CHANGELOG.md" and _reads(words)
    }
    return list(found)


def _reads(words: list[str]) -> bool:
    own = words[2:] if words[:1] == ["-w"] else words
    known = any(own[: len(name.split())] == name.split() for name in READING)
    return known and not set(own) & set(ABROAD) and not any(word.isupper() for word in own)


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


@pytest.mark.parametrize("line", lines())
def test_a_command_of_the_docs_runs(line: str, trained: Playbill, title: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)
    words = words[2:] if words[:1] == ["-w"] else words
    named = {"Star Wars (1977)": title, "Toy Story": title, "star w": title[:4]}
    words = [named.get(word, word) for word in words]
    root = ["--project", str(trained.folder), "-w", trained.workspace]
    result = CliRunner().invoke(main, [*root, *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.output.strip()


def test_there_are_some_of_each() -> None:
    for name in READING:
        assert any(f" {name} " in f" {line} " for line in lines()), name
