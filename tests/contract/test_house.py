"""The layout and the import contracts of the house."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
    import re

    missing = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "model_zoo").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)} -> {target}")
    assert not missing
