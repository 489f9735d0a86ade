"""What commands print is what is there: names are never read as rich's markup or emoji codes."""

import io
import re
from pathlib import Path

import pytest
import rich.console
from click.testing import CliRunner

from playbill.cli.console import Console
from playbill.cli.main import main
from playbill.evaluation.rendering.grids import Grid, grid_table

ROOT = Path(__file__).parents[2]
COMMANDS = [
    path for package in ("playbill", "playbill_lab") for path in (ROOT / "platform" / package / "cli").glob("*.py")
]
OWN_CONSOLE = {"console.py", "progress.py"}
"""The console itself, and the bars, which print stages of ours."""
NAME = "[bold]Alien[/] :gem: [features]"


@pytest.fixture
def printed():
    """Return what a console prints of something."""

    def print_it(thing):
        console = Console(file=io.StringIO(), width=200)
        console.print(thing)
        return console.file.getvalue()

    return print_it


def test_text_is_printed_as_it_is(printed):
    assert printed(NAME).strip() == NAME


def test_tables_of_text_are_printed_as_they_are_whatever_the_console():
    console = rich.console.Console(file=io.StringIO(), width=200)
    console.print(grid_table(Grid(NAME, ("", NAME), ((NAME, NAME),))))
    assert console.file.getvalue().count(NAME) == 4


def test_a_node_that_reads_like_an_emoji_is_printed_as_text():
    result = CliRunner().invoke(main, ["--project", str(ROOT), "impact", "label:gem", "--no-versions"])
    assert result.exit_code == 0, result.output
    assert re.match(r"label:gem:\d", result.stdout)
    assert "(label:gem:" in result.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_commands_print_by_the_console_that_reads_no_markup(path):
    module, text = path.name, path.read_text(encoding="utf-8")
    if module not in OWN_CONSOLE:
        assert "rich.console" not in text, "use playbill.cli.console.Console"
        assert "rich.markup" not in text, "nothing is to be escaped: playbill.cli.console reads no markup"
    assert not re.search(r'TextColumn\("[^"]*"\)', text) or module in OWN_CONSOLE, "TextColumn(..., markup=False)"
