"""Projects to break: copies of one that was filled, trained and promoted once."""

import shutil

import pytest

from fixtures.small_project import Shell
from playbill.features.registration import render

MADE = ("runs", "serving", "mlflow*", "playbill.db*", "*.pyc", "__pycache__")


def moved(folder):
    """Return a copied project, with its own paths in the file that Feast reads."""
    shell = Shell(folder)
    render(shell.workspace)
    return shell


@pytest.fixture
def project(tmp_path, filled, migrated_mlflow):
    """Data and features, an empty MLflow, no model."""
    shutil.copytree(filled.folder, tmp_path / "project", ignore=shutil.ignore_patterns(*MADE))
    shutil.copyfile(migrated_mlflow, tmp_path / "project" / ".playbill" / "mlflow.db")
    return moved(tmp_path / "project")


@pytest.fixture
def served(tmp_path, trained):
    """Data, features and an approved version that was fetched; its MLflow is the one that trained it."""
    left = shutil.ignore_patterns("runs", "mlflow_artifacts", "*.pyc", "__pycache__")
    shutil.copytree(trained.folder, tmp_path / "served", ignore=left)
    return moved(tmp_path / "served")
