"""What the flows share: the project they work in, where their runs are kept, errors in one line, and what cards show.

A flow works in the project of PLAYBILL_PROJECT, else in that of the current folder, and Metaflow keeps runs and cards
in the project's home beside the workspaces. Every setting of Metaflow's own that is in the environment stands.
Flows take Metaflow's names from here, as it reads its settings when it is imported.
"""

from __future__ import annotations

import getpass
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbill.config import ProjectFolder
from playbill.errors import PlaybillError, ServiceError

PROJECT = "PLAYBILL_PROJECT"


def _project_folder() -> Path | None:
    return Path(os.environ[PROJECT]) if os.environ.get(PROJECT) else None


def _keep_runs_in_the_project() -> None:
    """Set what Metaflow reads when it is imported; by itself it writes into the folder that it is started in."""
    home = ProjectFolder.find(_project_folder()).home
    os.environ.setdefault("METAFLOW_DATASTORE_SYSROOT_LOCAL", str(home))
    os.environ.setdefault("METAFLOW_CARD_LOCALROOT", str(home / ".metaflow"))
    # Metaflow's own default is one folder under /tmp, which belongs to whichever user of the machine was there first.
    os.environ.setdefault("METAFLOW_CLIENT_CACHE_PATH", str(home / ".metaflow" / "client_cache"))
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = "root"
    os.environ.setdefault("METAFLOW_USER", "playbill" if user == "root" else user)  # Metaflow refuses root


try:
    _keep_runs_in_the_project()
except PlaybillError as wrong:
    sys.exit(f"error: {wrong}")

from metaflow import (  # noqa: E402
    FlowSpec,
    JSONType,
    Parameter,
    card,
    current,
    namespace,
    retry,
    step,
    user_step_decorator,
)
from metaflow.cards import Image, Markdown, Table  # noqa: E402
from metaflow.client import Run  # noqa: E402
from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY  # noqa: E402

__all__ = [
    "JSONType",
    "Parameter",
    "PrintedStages",
    "ProjectFlow",
    "card",
    "one_error",
    "retry",
    "run",
    "show_evaluation",
    "show_figure",
    "show_gates",
    "show_grid",
    "show_table",
    "show_text",
    "step",
]

if TYPE_CHECKING:
    from playbill.evaluation import ModelEvaluation
    from playbill.evaluation.rendering.grids import Grid
    from playbill.project import Project
    from playbill.versions.promotion import GateResult


class ProjectFlow(FlowSpec):
    """A flow over one workspace of a project. Its step `end` leaves the line that the run ends with in `outcome`."""

    workspace = Parameter("workspace", default="", help="Workspace to work in (default: the project's).")
    model = Parameter("model", default="", help="Model of the zoo (default: the one that the workspace serves).")

    @property
    def project(self) -> Project:
        """The project with the workspace chosen."""
        from playbill.project import Project

        return Project.open(_project_folder(), self.workspace or None)

    @property
    def model_name(self) -> str:
        """The model that the flow is about."""
        return self.model or self.project.workspace.settings.model


@user_step_decorator
def one_error(step_name: str, flow: FlowSpec, inputs: Any = None, attributes: Any = None) -> Iterator[None]:
    """Write an error that a user can act on in one line. Only a service that did not answer is worth a retry."""
    try:
        yield
    except ServiceError:
        raise
    except PlaybillError as error:
        print(f"error: {step_name}: {error}", file=sys.stderr)
        sys.exit(METAFLOW_EXIT_DISALLOW_RETRY)


class PrintedStages:
    """Prints each stage of a step into its log."""

    def stage(self, name: str) -> None:
        """Print the stage that has begun."""
        print(name)

    def advance(self, done: int, total: int | None, detail: str = "") -> None:
        """Do nothing: a log is no place for a bar."""


def show_text(text: str) -> None:
    """Put a paragraph into the step's card."""
    current.card.append(Markdown(text))


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Put a table into the step's card."""
    show_text(f"### {title}")
    current.card.append(Table([[str(cell) for cell in row] for row in rows], headers=list(columns)))


def show_grid(grid: Grid) -> None:
    """Put a table of an evaluation into the step's card."""
    show_table(grid.title, grid.columns, grid.rows)
    if grid.caption:
        show_text(grid.caption)


def show_evaluation(evaluation: ModelEvaluation) -> None:
    """Put every canvas into the step's card: tables, and pictures."""
    from playbill.evaluation.rendering.grids import grids, summary_grid
    from playbill.evaluation.rendering.plots import figures

    show_grid(summary_grid(list(evaluation.reports.values())))
    for report in evaluation.reports.values():
        for grid in grids(report):
            show_grid(grid)
        for name, figure in figures(report):
            show_figure(figure, f"{report.canvas}: {name}")


def show_figure(figure: Any, label: str = "") -> None:
    """Put a matplotlib figure into the step's card."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Metaflow's copy of imghdr, which Python gave up
        current.card.append(Image.from_matplotlib(figure, label=label))


def show_gates(gates: Sequence[GateResult]) -> None:
    """Put what was held against which limit into the step's card."""
    rows = [(gate.gate, gate.metric, gate.value, gate.limit, gate.passed, gate.reason) for gate in gates]
    show_table("Gates", ("gate", "metric", "value", "limit", "passed", "reason"), rows)


def run(flow: type[ProjectFlow]) -> None:
    """Run a flow's command line; a whole run ends with the line that its last step left."""
    try:
        flow()
    except SystemExit as ended:
        if {"run", "resume"} & set(sys.argv) and current.run_id:
            namespace(None)
            again = f"stopped; once the cause is mended, it goes on by: python {sys.argv[0]} resume"
            print(again if ended.code else Run(f"{flow.__name__}/{current.run_id}").data.outcome)
        raise
