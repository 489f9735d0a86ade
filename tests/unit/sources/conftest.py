from pathlib import Path

import pytest

from playbill.config import ProjectFolder, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    folder = tmp_path / "project"
    folder.mkdir()
    return ProjectFolder.find(folder).workspace("shop")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a source's files."""
    made = tmp_path / "files"
    made.mkdir()
    return made
