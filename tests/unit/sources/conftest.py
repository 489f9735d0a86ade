from pathlib import Path

import pytest

from playbill.config import Project, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    folder = tmp_path / "project"
    folder.mkdir()
    return Project.find(folder).workspace("shop")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a source's files."""
    made = tmp_path / "files"
    made.mkdir()
    return made
