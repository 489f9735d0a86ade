"""Every command in the documentation exists: lines of `playbill`, targets of make, scripts, and requests by curl."""

import json
import re
import shlex
from contextlib import suppress
from pathlib import Path

import click
import pytest

from fixtures.docs_commands import PAGES, shell_lines
from playbill.cli.commands import COMMANDS, names
from playbill.cli.main import main
from playbill.config import read_settings

ROOT = Path(__file__).parents[2]


def examples():
    for page, line, whole in shell_lines():
        for part in line.split(" && "):
            if part.startswith("playbill ") and " | " not in part:
                yield page, part, whole
    for name in names():
        for line in re.findall(r"Example: (playbill .*)", COMMANDS[name].load().help or ""):
            yield Path(f"playbill {name} --help"), line, True


def parse(group, words):
    """Parse as the shell would, without running anything."""
    context = group.make_context("playbill", words, resilient_parsing=False)
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    if isinstance(command, click.Group):
        parse(command, rest)
    else:
        command.make_context(name, rest)


@pytest.mark.parametrize(
    ("page", "line", "whole"), [pytest.param(*found, id=f"{found[0]}: {found[1][:60]}") for found in examples()]
)
def test_command_lines_in_the_docs_parse(page, line, whole):
    """A line of text may leave arguments out, never name an option or a command that does not exist."""
    words = shlex.split(line, comments=True)[1:]
    if whole:
        with suppress(click.exceptions.Exit):  # --help
            parse(main, words)
        return
    try:
        parse(main, words)
    except (click.MissingParameter, click.exceptions.NoArgsIsHelpError, click.exceptions.Exit):
        pass
    except click.BadOptionUsage as error:
        if "requires an argument" not in error.message:
            raise


def test_targets_of_make_in_the_docs_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(page, found[1]) for page, line, _ in shell_lines() if (found := re.match(r"make ([\w-]+)", line))}
    assert {name for _, name in named} >= {"install", "check", "test", "quickstart"}
    assert [one for one in named if one[1] not in targets] == []


def test_scripts_in_the_docs_exist():
    named = [found[1] for _, line, _ in shell_lines() if (found := re.match(r"python (\S+\.py)", line))]
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_requests_of_curl_in_the_docs_are_accepted():
    """The path is one of the server's, and what is sent to /v1/recommend is a request."""
    from playbill.serving import RecommendRequest

    served = "\n".join(path.read_text() for path in (ROOT / "platform" / "playbill" / "serving").rglob("*.py"))
    texts = [text for page in PAGES for text in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL)]
    sent = [
        found
        for text in texts
        for found in re.findall(r"curl[^']*?localhost:8080(/[\w/]+)(?:.*?-d '(.*?)')?", text, re.DOTALL)
    ]
    assert sent
    for path, body in sent:
        assert f'"{path}"' in served, path
        content = json.loads(body) if body else {}
        if path == "/v1/recommend":
            RecommendRequest.model_validate(content)


def test_commands_have_examples():
    assert len(list(examples())) > 30


def test_configuration_in_the_docs_is_accepted(tmp_path):
    blocks = [block for page in PAGES for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)]
    assert blocks
    for block in blocks:
        (tmp_path / "playbill.toml").write_text(block)
        assert read_settings(tmp_path / "playbill.toml").workspace


LINK = re.compile(r"\]\(([^)#:]+)")


def test_every_page_of_the_docs_is_in_the_index_once_by_its_kind():
    index = (ROOT / "docs" / "index.md").read_text().partition("## Tutorials")[2]
    linked = [target for target in LINK.findall(index) if target.endswith((".md", ".ipynb"))]
    pages = {
        page.relative_to(ROOT / "docs").as_posix()
        for folder in ("guide", "tutorial", "reference")
        for page in (ROOT / "docs" / folder).iterdir()
        if page.suffix in {".md", ".ipynb"}
    }
    assert pages - set(linked) == set()
    assert sorted(linked) == sorted(set(linked))


def test_decisions_are_found_by_their_subject():
    """The index has a row for each, and a heading is a number, a subject, and what was decided about it."""
    folder = ROOT / "docs" / "adr"
    pages = {page.name: page.read_text().splitlines()[0] for page in folder.glob("0*.md")}
    for name, heading in pages.items():
        assert re.fullmatch(rf"# {int(name[:4])}\. [A-Z][\w ,-]+: .+", heading), heading
    assert LINK.findall((folder / "README.md").read_text()) == sorted(pages)


def test_the_readme_fits_on_one_screen():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 65
    assert all(f"**{kind}**" in "\n".join(lines) for kind in ("Tutorials", "How to", "Concepts", "Reference"))
