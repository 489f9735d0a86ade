import subprocess
import sys
import time

from click.testing import CliRunner

from playbill.cli.main import COMMANDS, main
from playbill.registry import load_object


def test_help_lists_every_command():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name in COMMANDS:
        assert name in result.output


def test_every_command_exists_and_shows_an_example():
    for name, command in COMMANDS.items():
        loaded = load_object(command.path)
        assert loaded.name == name
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert "Example" in result.output, f"playbill {name} --help has no example"


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
        "import sys; from playbill.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'feast', 'mlflow', 'ray', 'pandas', 'polars'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    started = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert time.perf_counter() - started < 1.0
