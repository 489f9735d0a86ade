"""The wheel, installed in a clean environment with its small base install, runs the zoo."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command, cwd):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean_python(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    return python


def test_the_wheel_holds_the_package_and_its_templates_only(wheel):
    members = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in members}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"playbill", "playbill_feast", "playbill_lab"}
    assert any(name.startswith("playbill/templates/model_zoo/models/") for name in members)
    assert any(name.startswith("playbill/templates/feature_repo/") and name.endswith(".py") for name in members)
    assert "playbill/templates/minimal/mapping.yaml" in members
    assert "playbill_lab/simulator/world/worlds/rich.yaml" in members
    assert {"playbill_feast/README.md", "playbill_feast/py.typed"} <= set(members)
    assert not [name for name in members if "__pycache__" in name]


def test_the_base_install_is_small(clean_python, tmp_path):
    listing = run(clean_python, "-m", "pip", "list", "--format", "freeze", cwd=tmp_path).lower()
    for heavy in ("torch", "feast", "mlflow", "ray"):
        assert f"\n{heavy}==" not in listing


def test_a_project_starts_from_the_wheel(clean_python, tmp_path):
    playbill = clean_python.with_name("playbill")
    run(playbill, "init", tmp_path / "mine", cwd=tmp_path)
    assert (tmp_path / "mine" / "playbill.toml").is_file()
    assert (tmp_path / "mine" / "feature_repo" / "services.py").is_file()
    assert "everycanvas" in run(playbill, "check", cwd=tmp_path / "mine")


def test_the_standard_library_is_not_shadowed(clean_python, tmp_path):
    run(clean_python, "-c", "import platform, playbill; assert platform.system()", cwd=tmp_path)
    run(clean_python, "-c", "import platform; assert platform.system()", cwd=ROOT)
