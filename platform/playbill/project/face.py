"""`Project`: a project and one of its workspaces, with a method for each thing that the command line does.

Nothing is decided here: each method hands its arguments on to the room that does the work. Methods stand beside this
module by subject: `data`, `models` and `requests`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from playbill.config import ProjectFolder, Workspace
from playbill.project.data import DataMethods
from playbill.project.models import ModelMethods
from playbill.project.requests import RequestMethods
from playbill.project.starting import start_project

if TYPE_CHECKING:
    from playbill.serving.local import LocalRecommender


@dataclass(frozen=True)
class Project(DataMethods, ModelMethods, RequestMethods):
    """A project and the workspace that its methods work in.

    Example:
        >>> project = Project.open("my_service", workspace="shop")
        >>> project.ingest("parquet", "export", mapping="mapping.yaml").rows
        >>> project.train("everycanvas", epochs=2).to_polars()
        >>> project.promote("everycanvas:1").verdict
        'approved'
        >>> project.recommend("42", "home", k=5).to_polars()

    Args:
        workspace: Folder, database and clock of one service's data; `workspace.project` has the project's settings.
    """

    workspace: Workspace
    _recommenders: dict[tuple[str, int | None], LocalRecommender] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def open(cls, folder: Path | str | None = None, workspace: str | None = None) -> Project:
        """Open the project whose playbill.toml is in a folder or the nearest one above it. Nothing else is read yet.

        Args:
            folder: Where to begin (default: the current folder). Without any playbill.toml the defaults hold for it.
            workspace: Its name (default: the one that playbill.toml names). It need not have data yet.

        Raises:
            ConfigError: The folder does not exist, playbill.toml has mistakes, or this is no workspace name.
        """
        start = None if folder is None else Path(folder)
        return cls(ProjectFolder.find(start).workspace(workspace))

    @classmethod
    def create(cls, folder: Path | str, *, minimal: bool = False) -> Project:
        """Start a project: playbill.toml, model_zoo/ and feature_repo/. Nothing that is there is overwritten.

        Args:
            folder: Where to; made where it is not there.
            minimal: The smallest definitions, and mapping.yaml for a CSV of your own.

        Raises:
            ConfigError: One of its files is there already.
            StorageError: The folder cannot be written.
        """
        start_project(Path(folder), minimal=minimal)
        return cls.open(folder)

    def workspaces(self) -> tuple[str, ...]:
        """Return the names of all workspaces that are configured or have data."""
        return self.workspace.project.workspace_names()

    def select(self, workspace: str) -> Project:
        """Return this project with another workspace chosen, as `playbill -w NAME` does."""
        return Project(self.workspace.project.workspace(workspace))
