"""A registered version's record is read from the small files of its bundle, checked, and without its weights."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from fixtures.page_problem import launches, make_scorer, title_rows
from playbill.cli.main import main
from playbill.errors import IntegrityError
from playbill.ranking.scoring.bundle import FILES as BUNDLE_FILES
from playbill.versions.tracking import Lineage, Tracking
from playbill.versions.tracking.download import FILES
from playbill.versions.tracking.packaging import CatalogueCopy

NAMES = ("t00000", "t00001")


@pytest.fixture
def tracking(mlflow_workspace):
    at = datetime(2024, 3, 1, tzinfo=UTC)
    return Tracking(mlflow_workspace, catalogue=lambda _: CatalogueCopy(title_rows(NAMES), launches(NAMES), at))


@pytest.fixture
def registered(tracking, tmp_path, monkeypatch):
    """Register a bundle of two titles without letting MLflow try it."""
    monkeypatch.setattr("playbill.versions.tracking.packaging.example_request", lambda _: None)
    folder = tmp_path / "bundle"
    make_scorer(folder, 2, dim=16)
    moment = datetime(2024, 3, 1, tzinfo=UTC)
    lineage = Lineage("h", "s", "f", "v", "leave_one_out", "d", moment, parent_version="2")
    older = {"playbill.feature_views": "activity:ba9876543210,popularity:0123456789ab"}
    with tracking.start_run("m", "fit") as run:
        version = tracking.register(run, folder, "m", lineage.tags() | older)
    return tracking.version("m", version)


def test_a_record_says_what_the_version_was_trained_from(tracking, registered, mlflow_workspace):
    found = tracking.record(registered)
    assert (found.model, found.version, found.service, found.service_version) == ("m", 1, "f", "v")
    assert found.views == {"activity": "ba9876543210", "popularity": "0123456789ab"}
    assert found.parent == "m:2"
    assert {"popularity__f0", "activity__f12"} <= set(found.columns)
    assert list(found.resolved.canvases) == ["home", "more_like_this"]
    assert not mlflow_workspace.serving.is_dir() or not any(mlflow_workspace.serving.iterdir())
    assert set(FILES) <= {*BUNDLE_FILES, "manifest.json"}


def test_a_copy_that_was_fetched_before_is_read_and_checked(tracking, registered):
    here = tracking.download("m", 1)
    assert tracking.record(registered).service == "f"
    spec = here / "spec.json"
    spec.write_text(spec.read_text().replace('"home"', '"hime"'))
    with pytest.raises(IntegrityError, match=r"spec\.json changed since it was registered"):
        tracking.record(registered)


def test_the_command_joins_versions_to_the_zoo(tracking, registered):
    root = str(tracking.workspace.project.root)

    def playbill(*words):
        result = CliRunner().invoke(main, ["--project", root, "-w", "ml", "impact", *words])
        assert result.exit_code == 0, result.output
        return result.output

    found = json.loads(playbill("version:m:1", "--json").splitlines()[-1])
    assert [one["thing"] for one in found["means"]] == ["version:m:1"]
    assert {"feature:popularity.f0"} <= {one["thing"] for one in found["dependencies"]["feature"]}
    now = {part["thing"]: (part["now"], part["detail"]) for part in found["versions"]["m:1"]}
    assert now["model:m:1"] == ("gone", "the zoo has no model 'm' any more")
    assert now["feature_view:popularity"] == ("gone", "feature_repo has it no more")
    shown = playbill("feature_view:popularity")
    assert "m:1: read columns of it (feature_view:popularity)" in shown
    assert "gone     feature_view:activity" in shown
