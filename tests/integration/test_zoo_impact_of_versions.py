"""`playbill impact` over a registered version: what it was trained from, and what has moved on since."""

from __future__ import annotations

import shutil

import pytest

from fixtures.small_project import Shell


@pytest.fixture(scope="module")
def shell(trained, tmp_path_factory):
    """A copy of a project with a registered version, whose definitions a test may change."""
    folder = tmp_path_factory.mktemp("impact") / "project"
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("*.pyc", "runs"))
    return Shell(folder)


def moved(answer):
    return {part["thing"]: part["now"] for part in answer["versions"]["everycanvas:1"] if part["now"] != "same"}


def test_a_version_is_among_what_depends_on_a_view_and_nothing_has_moved_on(shell):
    found = shell.json("impact", "feature_view:title_profile", "--deep")
    assert [one["name"] for one in found["dependents"]["version"]] == ["everycanvas:1"]
    assert found["dependencies"] is None
    assert found["notes"] == []
    assert moved(found) == {}
    assert {"head", "canvas", "row", "page", "model", "feature", "feature_service"} <= found["dependents"].keys()


def test_the_reverse_names_everything_with_versions_and_hashes(shell):
    found = shell.json("impact", "version:everycanvas:1")
    below = {kind: {one["name"] for one in ones} for kind, ones in found["dependencies"].items()}
    assert "title_profile.kind" in below["feature"]
    assert "request" in below["source"]
    assert {"everycanvas_v3"} <= below["feature_service"]
    parts = {part["thing"]: part for part in found["versions"]["everycanvas:1"]}
    assert all(part["content"] for part in parts.values())
    assert parts["feature_service:everycanvas_v3"]["now"] == "unknown", "Feast is asked with --deep alone"
    assert any(thing.startswith("label:discovery_play:") for thing in parts)
    assert "everycanvas:1" in [
        one["name"] for one in shell.json("impact", "model:everycanvas")["dependents"]["version"]
    ]


def test_what_changes_in_the_zoo_and_in_feature_repo_shows(shell):
    label = next((shell.folder / "model_zoo" / "labels").glob("discovery_play.yaml"))
    version = int(label.read_text().partition("version: ")[2].split()[0])
    shell.edit(label.relative_to(shell.folder), f"version: {version}", f"version: {version + 1}")
    shell.edit("feature_repo/titles.py", "total_seconds() / 86_400", "total_seconds() / 3_600")
    found = moved(shell.json("impact", f"label:discovery_play:{version}"))
    assert found[f"label:discovery_play:{version}"] == "newer"
    assert found["feature_view:title_age"] == "changed"
    assert "feature_view:title_profile" not in found
    shell.type("apply")
    assert (
        moved(shell.json("impact", "feature_view:title_age", "--deep"))["feature_service:everycanvas_v3"] == "changed"
    )
    shown = shell.type("impact", "feature_view:title_age")
    assert "changed  feature_view:title_age" in shown.output


def test_unknown_versions_and_things_are_refused_with_the_nearest(shell):
    shell.refused(
        "impact", "version:everycanvas:2", match="unknown version 'everycanvas:2'. Did you mean 'everycanvas:1'"
    )
    shell.refused("impact", "canvas:hom", "--no-versions", match="Did you mean 'home'")


def test_without_versions_neither_feast_nor_mlflow_is_imported(shell):
    import subprocess
    import sys

    code = (
        "import sys; from click.testing import CliRunner; from playbill.cli.main import main\n"
        f"words = ['--project', {str(shell.folder)!r}, 'impact', 'row:popular', '--no-versions']\n"
        "result = CliRunner().invoke(main, words)\n"
        "assert result.exit_code == 0, result.output\n"
        "heavy = {'feast', 'mlflow', 'torch', 'ray', 'polars', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
