"""The lines of the guide to lineage that need no data are run, and its table names every kind."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from playbill.cli.main import main
from playbill.definitions.zoo.impact import KINDS

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guide/lineage.md").read_text()
LINES = [line for line in GUIDE.splitlines() if line.startswith("playbill ") and "--no-versions" in line]


@pytest.mark.parametrize("line", LINES)
def test_each_line_of_the_guide_runs(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, shlex.split(line, comments=True)[1:])
    assert result.exit_code == 0, result.output
    assert "depends on it" in result.output


def test_every_kind_is_in_the_table():
    assert LINES
    assert set(re.findall(r"^\| `(\w+):", GUIDE, re.MULTILINE)) == set(KINDS)
