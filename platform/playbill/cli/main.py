"""The command line's root: global options, and a lazy table of subcommands.

`--help` reads the one-line summaries from the table, so it imports no subcommand.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from playbill import __version__
from playbill.cli.commands import COMMANDS, names, summaries
from playbill.config import ProjectFolder, Workspace
from playbill.errors import DuplicateNameError, PlaybillError, UnknownNameError
from playbill.files import storage_error

if TYPE_CHECKING:
    from playbill.project import Project

# Threads that spin while they wait make torch many times slower beside any other load. Read when OpenMP is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COLLECTIONS = (50_000, 20, 20)
"""When Python looks for objects that only each other refer to. Imports make millions of objects that stay, and looking
through them again and again, as often as Python does by itself, takes a second of each command that trains."""

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Selection:
    """What the global options chose. Subcommands take it with `@click.pass_obj`."""

    project_folder: Path | None
    workspace_name: str | None

    @property
    def folder(self) -> ProjectFolder:
        """The project's folder, read when a subcommand asks for it."""
        return ProjectFolder.find(self.project_folder)

    @property
    def workspace(self) -> Workspace:
        """The chosen workspace."""
        return self.folder.workspace(self.workspace_name)

    @property
    def project(self) -> Project:
        """The project with that workspace chosen: what subcommands work with."""
        from playbill.project import Project

        return Project(self.workspace)


_WORKSPACE_HELP = "Workspace to work in (default: the project's)."
_PROJECT_HELP = "Project folder (default: the nearest one with a playbill.toml)."
_FOLDER = click.Path(path_type=Path, file_okay=False)
_SELECT = "select_"
"""Prefix of the parameters that repeat the root's options behind a subcommand."""


def _selectable(command: click.Command) -> click.Command:
    """Let a subcommand and those below it take `-w` and `--project` too: nobody remembers which side they go on."""
    if not any((option.name or "").startswith(_SELECT) for option in command.params):
        command.params += [
            click.Option(
                ["-w", "--workspace", f"{_SELECT}workspace_name"],
                metavar="NAME",
                help=_WORKSPACE_HELP,
                expose_value=False,
                callback=_select,
            ),
            click.Option(
                ["--project", f"{_SELECT}project_folder"],
                type=_FOLDER,
                help=_PROJECT_HELP,
                expose_value=False,
                callback=_select,
            ),
        ]
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _selectable(below)
    return command


def _select(ctx: click.Context, option: click.Parameter, value: object) -> None:
    if value is not None and option.name is not None:
        ctx.obj = replace(ctx.obj, **{option.name.removeprefix(_SELECT): value})


def earlier_option(earlier: str, now: str, **attributes: Any) -> Callable[[_Decorated], _Decorated]:
    """Accept an option by the name it had before, hidden from `--help`, and say on stderr what it is called now.

    Args:
        earlier: As it was written, such as `--explain`.
        now: The option's first name now, such as `--explain`.
        attributes: What click needs to read its value, such as `is_flag`.
    """

    def callback(context: click.Context, _option: click.Parameter, value: Any) -> None:
        if value in (None, False):
            return
        click.echo(f"{earlier} is called {now} now; the earlier name is read for one more release.", err=True)
        option = next(one for one in context.command.params if now in one.opts)
        # click asks the map for the value of an option that was not given, and reads this one first.
        context.default_map = {**(context.default_map or {}), str(option.name): value}

    return click.option(earlier, hidden=True, expose_value=False, is_eager=True, callback=callback, **attributes)


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands in the order of a user's day."""
        return list(names())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand."""
        if cmd_name not in COMMANDS:
            error = UnknownNameError("command", cmd_name, names())
            raise click.UsageError(str(error), ctx=ctx)
        command: click.Command = COMMANDS[cmd_name].load()
        return _selectable(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        try:
            lines = list(summaries())
        except DuplicateNameError as error:
            raise click.ClickException(str(error)) from None
        with formatter.section("Commands"):
            formatter.write_dl(lines)

    def invoke(self, ctx: click.Context) -> object:
        """Run, and turn an error a user can act on into one message and exit status 1."""
        gc.set_threshold(*COLLECTIONS)
        try:
            return super().invoke(ctx)
        except PlaybillError as error:
            message = f"{error}{_elsewhere(ctx, error)}"
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            # Some writes are other people's: Feast's registry, MLflow's database, torch.
            refused = storage_error(error)
            if refused is None:
                raise
            message = str(refused)
        click.echo(f"error: {message}", err=True)
        sys.exit(1)


def _elsewhere(ctx: click.Context, error: PlaybillError) -> str:
    """Say which models have a canvas that the one asked for lacks."""
    if not isinstance(error, UnknownNameError) or error.kind != "canvas":
        return ""
    from playbill.definitions.zoo import open_zoo

    try:
        models = open_zoo(ctx.obj.folder.model_zoo).models.values()
    except PlaybillError:
        return ""
    names = [model.name for model in models if error.name in [one.partition(":")[0] for one in model.canvases]]
    if not names:
        return ""
    return f" In model_zoo, canvas '{error.name}' belongs to model {' and '.join(names)}: name it, or train it again."


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-w", "--workspace", metavar="NAME", help=_WORKSPACE_HELP)
@click.option("--project", type=_FOLDER, help=_PROJECT_HELP)
@click.version_option(__version__)
@click.pass_context
def main(ctx: click.Context, workspace: str | None, project: Path | None) -> None:
    """One recommender for every canvas.

    Example: playbill -w ml_100k recommend --member 42 --canvas home -k 5
    """
    ctx.obj = Selection(project, workspace)
