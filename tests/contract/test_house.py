"""The layout and the import contracts of the house."""

import ast
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OTHERS_NAMES = {
    *("_replace", "_asdict"),  # of every NamedTuple
    *(
        "_check_versioned_read_support",
        "_can_resolve",
        "_fit",
    ),  # what Feast, MLflow and RecTools have plug-ins implement
    *("_is_avx512_bf16_supported", "_is_amx_tile_supported"),  # torch has no other way to ask a processor
    "_validate_serving_input",  # MLflow tries every model, also those that stand in for one
    "_protected_args",  # where click keeps a command's name after it has parsed a group's options
}
"""Names with an underscore that tests may use."""


def test_platform_is_a_folder_and_never_a_package():
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert platform.system()


def test_import_contracts_hold():
    command = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([str(command)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_no_rooms_for_odds_and_ends():
    for name in ("utils", "common", "helpers"):
        assert not list((ROOT / "platform").rglob(f"{name}*")), f"no {name} in the house"


def test_the_layout_holds():
    command = [sys.executable, "tests/house.py", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["packages"] == 3
    assert found["circles"] == 0
    assert found["longest"] <= 450, found["longest_module"]
    assert found["files_of_a_request"] <= 27
    assert found["words_that_may_not_come_back"] == 0
    assert found["class_names_that_stand_twice"] == 0
    own = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "feature_repo").glob("*.py")}
    assert max(own.values()) <= 450


def test_the_readme_names_the_two_commands_that_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("quickstart", "test"):
        assert f"make {target}" in readme
        assert f"\n{target}:" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_links_in_the_docs_lead_somewhere():
    missing = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "model_zoo").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)} -> {target}")
    assert not missing


def private_names(path: Path):
    """Yield line and name of every private name that a test reads, imports or patches."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Attribute) and not (
            isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        ):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("playbill"):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            texts = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
            names = [name for text in texts for name in text.split(".")]
        yield from ((node.lineno, name) for name in names if re.match("_[a-zA-Z]", name) and name not in OTHERS_NAMES)


def test_tests_use_public_names_alone():
    found = [(str(path), *use) for path in (ROOT / "tests").rglob("*.py") for use in private_names(path)]
    assert found == []


def test_what_tests_share_is_imported_as_a_package():
    hacks = ("sys.path.insert", "sys.path.append", "spec_from_file_location")
    found = {
        path.name for path in (ROOT / "tests").rglob("*.py") if any(f"{hack}(" in path.read_text() for hack in hacks)
    }
    assert found <= {"fixtures_path.py", "feast_universal.py", "test_tracking_dataset_source.py"}
