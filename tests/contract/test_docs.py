"""Every `playbill` line in the documentation is a command line that exists."""

import re
import shlex
from pathlib import Path

import click
import pytest

from playbill.cli.main import COMMANDS, main
from playbill.config import read_settings
from playbill.registry import load_object

ROOT = Path(__file__).parents[2]
PAGES = [
    page for folder in ("docs/guide", "model_zoo", "infra", "pipelines") for page in (ROOT / folder).rglob("*.md")
] + [*ROOT.glob("*.md")]


def examples():
    for page in PAGES:
        for block in re.findall(r"```(?:bash|console|sh)?\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip().removeprefix("$ ").startswith("playbill "):
                    yield page.relative_to(ROOT), line.strip().removeprefix("$ ")
    for name, command in COMMANDS.items():
        for line in re.findall(r"Example: (playbill .*)", load_object(command.path).help or ""):
            yield Path(f"playbill {name} --help"), line


def parse(group, words):
    """Parse as the shell would, without running anything."""
    context = group.make_context("playbill", words, resilient_parsing=False)
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    if isinstance(command, click.Group):
        parse(command, rest)
    else:
        command.make_context(name, rest)


@pytest.mark.parametrize(
    ("page", "line"), [pytest.param(*found, id=f"{found[0]}: {found[1][:60]}") for found in examples()]
)
def test_command_lines_in_the_docs_parse(page, line):
    words = shlex.split(line.split(" && ")[0], comments=True)[1:]
    parse(main, words)


def test_there_are_examples():
    assert len(list(examples())) > 30


def test_configuration_in_the_docs_is_accepted(tmp_path):
    blocks = [block for page in PAGES for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)]
    assert blocks
    for block in blocks:
        (tmp_path / "playbill.toml").write_text(block)
        assert read_settings(tmp_path / "playbill.toml").workspace
