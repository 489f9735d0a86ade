import json
import re
import subprocess
import sys
from importlib.metadata import EntryPoint

import click
import pytest
from click.testing import CliRunner

import playbill.registry
from playbill.cli.commands import COMMANDS, Command, names
from playbill.cli.main import earlier_option, main
from playbill.definitions.specs.measures import PROTOCOLS


def test_help_lists_every_command():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name in names():
        assert name in result.output


def test_every_command_exists_and_shows_an_example():
    for name in names():
        loaded = COMMANDS[name].load()
        assert loaded.name == name
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert "Example" in result.output, f"playbill {name} --help has no example"


def leaves(command, path=()):
    if not hasattr(command, "list_commands"):
        yield path, command
        return
    for name in command.list_commands(None):
        yield from leaves(command.get_command(None, name), (*path, name))


def test_the_workspace_and_the_project_may_be_named_behind_every_command():
    found = dict(leaves(main))
    assert ("status",) in found
    assert ("features", "build") in found
    for path, command in found.items():
        options = [option for parameter in command.params for option in parameter.opts]
        assert {"-w", "--workspace", "--project"} <= set(options), path
        assert len(options) == len(set(options)), path


def test_every_command_with_a_protocol_lists_all_of_them_with_a_line_each():
    having = {path for path, command in leaves(main) if any(one.name == "protocol" for one in command.params)}
    assert having >= {("train",), ("pretrain",), ("evaluate",), ("diagnose",), ("dataset", "build"), ("ledger",)}
    for path in having:
        shown = CliRunner().invoke(main, [*path, "--help"]).output.splitlines()
        for name, line in PROTOCOLS.items():
            assert any(re.fullmatch(rf"\s+{name}\s+{re.escape(line)}", one) for one in shown), (path, name)
        assert any(re.match(r"\s+auto\s", one) for one in shown) == (path not in {("evaluate",), ("diagnose",)}), path


def test_what_is_named_behind_a_command_is_what_it_works_in(tmp_path):
    for arguments in (
        ("--project", str(tmp_path), "-w", "other", "status", "--json"),
        ("status", "-w", "other", "--project", str(tmp_path), "--json"),
        ("--project", "absent", "-w", "small", "status", "--project", str(tmp_path), "--json", "-w", "other"),
    ):
        result = CliRunner().invoke(main, arguments)
        assert json.loads(result.stdout)["workspace"] == "other", result.output
    refused = CliRunner().invoke(main, ["ingest", "movielens_100k", "absent.zip", "-w", "No Name", "--dry-run"])
    assert "'No Name' is no workspace name" in refused.output


def test_doctor_shows_the_extras_by_their_names(tmp_path):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main, ["--project", str(tmp_path), "doctor"])
    assert "playbill[features]" in result.output
    assert "playbill[ray]" in result.output


def test_the_shell_completes_commands():
    requested = {"_PLAYBILL_COMPLETE": "bash_complete", "COMP_WORDS": "playbill st", "COMP_CWORD": "1"}
    result = CliRunner(env=requested).invoke(main, [], prog_name="playbill")
    assert "plain,status" in result.output


def test_an_unknown_command_suggests_the_nearest():
    result = CliRunner().invoke(main, ["trian"])
    assert result.exit_code == 2
    assert "Did you mean 'train'" in result.output


def test_a_users_mistake_is_one_message_without_a_trace(tmp_path):
    result = CliRunner().invoke(main, ["--project", str(tmp_path / "absent"), "status"])
    assert result.exit_code == 1
    assert "does not exist" in result.output
    assert "Traceback" not in result.output


def test_help_starts_in_under_a_second_and_imports_nothing_heavy():
    code = (
        "import sys, time; from playbill.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'feast', 'mlflow', 'ray', 'pandas', 'polars'} & set(sys.modules)\n"
        "print(time.process_time())\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.splitlines()[-1]) < 1.0  # of the processor, so that other work beside it does not count


@pytest.fixture
def outside(monkeypatch):
    """Let installed packages add commands, by name and what their entry points load, or the error that they raise."""

    def install(**found):
        def load(point):
            if isinstance(found[point.name], Exception):
                raise found[point.name]
            return found[point.name]

        points = [EntryPoint(name, f"elsewhere:{name}", "playbill.commands") for name in found]
        monkeypatch.setattr(playbill.registry, "entry_points", lambda group: points)
        monkeypatch.setattr(EntryPoint, "load", load)
        monkeypatch.delitem(vars(COMMANDS), "_outside", raising=False)

    yield install
    vars(COMMANDS).pop("_outside", None)


def test_installed_packages_add_commands(outside):
    outside(brew=Command("playbill.cli.check:check", summary="Make tea."))
    assert "brew" in names()
    assert re.search(r"brew +Make tea\.", CliRunner().invoke(main, ["--help"]).output)
    assert CliRunner().invoke(main, ["brew", "--help"]).exit_code == 0


def test_a_package_that_cannot_be_loaded_breaks_no_other_command(outside):
    outside(brew=ImportError("no kettle"))
    shown = CliRunner().invoke(main, ["--help"])
    assert shown.exit_code == 0
    assert "no kettle" in " ".join(shown.output.split())
    assert CliRunner().invoke(main, ["check", "--help"]).exit_code == 0
    refused = CliRunner().invoke(main, ["brew"])
    assert refused.exit_code == 1
    assert "no kettle" in refused.output


def test_a_command_that_is_claimed_twice_is_named(outside):
    outside(train=Command("playbill.cli.check:check", summary="Another."))
    shown = CliRunner().invoke(main, ["--help"])
    assert shown.exit_code == 1
    assert "command 'train' is claimed by both" in shown.output


def test_an_option_is_read_by_its_earlier_name_with_a_note():
    seen = {}

    @click.command()
    @click.option("--explain", "title")
    @earlier_option("--why", "--explain")
    @click.option("--leakage-checks", is_flag=True)
    @earlier_option("--canaries", "--leakage-checks", is_flag=True)
    def command(**given):
        seen.update(given)

    runner = CliRunner()
    result = runner.invoke(command, ["--why", "t1", "--canaries"])
    assert result.exit_code == 0, result.output
    assert seen == {"title": "t1", "leakage_checks": True}
    assert "--why is called --explain now" in result.stderr
    assert "--why" not in runner.invoke(command, ["--help"]).output
    assert runner.invoke(command, ["--explain", "t2"]).stderr == ""
    assert seen == {"title": "t2", "leakage_checks": False}


def test_every_earlier_option_stands_for_one_that_is_there():
    earlier = {"--why": "recommend", "--canaries": "evaluate", "--own-windows": "simulate", "--beside": "experiment ab"}
    found = {name: " ".join(path) for path, one in leaves(main) for option in one.params for name in option.opts}
    assert {name: found.get(name) for name in earlier} == earlier
