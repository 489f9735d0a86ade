"""`playbill recommend`: answer one request in the shell, by the code of the server."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection, earlier_option

if TYPE_CHECKING:
    from playbill.serving import RecommendResponse
    from playbill.serving.explain import Explanation
    from playbill.serving.messages import RankedRow


@click.command("recommend")
@click.option("--member", "member_id", help="Who asks; absent or unknown: someone without a history.")
@click.option("--canvas", help="Where titles are shown (default: home, or the model's first canvas).")
@click.option("-k", "k", type=click.IntRange(min=1, max=1000), default=10, show_default=True, help="Titles in a list.")
@click.option("--query", help="What was typed so far, for canvases such as search.")
@click.option("--source-title", help="Id or exact name of the title the list is about, for more_like_this.")
@click.option("--at", metavar="MOMENT", help="Answer for this moment, such as 1998-04-22T00:00:00Z.")
@click.option("--country", help="Country or region (default: the member's).")
@click.option("--device", help="Device the member uses.")
@click.option("--language", help="Language of names and rows (default: the member's).")
@click.option("--context", multiple=True, metavar="NAME=VALUE", help="A context field of an outside package.")
@click.option("--rows/--no-rows", default=None, help="Fill the canvas's rows (default: if it has any).")
@click.option(
    "--explain",
    "explained_title",
    metavar="TITLE",
    help="Explain this title, by id or exact name: rules, and heads and terms that rank it.",
)
@earlier_option("--why", "--explain")
@click.option("--model", help="Model that answers, or name:3 (default: the promoted one).")
@click.option("--version", type=click.IntRange(min=1), help="A registered version (default: the approved one).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def recommend(selection: Selection, /, model: str | None, version: int | None, as_json: bool, **requested: Any) -> None:
    """Print the titles, or the rows of titles, that a member would be shown. Logged as the server logs it.

    Example: playbill -w ml_100k recommend --member 42 --canvas search --query "star w" -k 5
    """
    with _no_warnings(), _uncollected():
        project, title = selection.project, requested.pop("explained_title")
        requested["context"] = dict(_context_field(text) for text in requested["context"])
        if title is not None:
            show_why(project.explain(title, model=model, version=version, **requested), as_json)
            return
        response = project.recommend(model=model, version=version, **requested)
    if as_json:
        click.echo(response.model_dump_json(exclude={"rows"} if response.rows is None else None))
    else:
        show(response)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Keep off the terminal what a server would warn of in its log: the notes of the answer say it."""
    logger = logging.getLogger("playbill.serving")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leave garbage where it is: looking for it takes an eighth of one answer, most of it while torch is imported."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _context_field(text: str) -> tuple[str, str | float]:
    """Read `name=value`; what looks like a number is one."""
    from playbill.errors import RequestError

    name, equals, value = text.partition("=")
    if not equals:
        raise RequestError(f"context: '{text}' is no NAME=VALUE")
    for number in (int, float):
        try:
            return name, number(value)
        except ValueError:
            continue
    return name, value


def show_why(found: Explanation, as_json: bool) -> None:
    """Print, for a canvas and its rows, what rules say of one title and which heads and terms move it up or down."""
    if as_json:
        click.echo(found.model_dump_json())
        return
    from rich.table import Table

    from playbill.cli.console import Console

    console = Console()
    headings = ("where", "verdict", "score against the titles shown", "rules")
    table = Table(*headings, title=f"{found.name} ({found.title_id})", title_justify="left")
    for place in found.places:
        rules = "  ".join(f"{'✓' if allows else '✗'} {rule}" for rule, allows in place.rules.items())
        table.add_row(place.name, place.verdict, place.influence, rules)
    console.print(table)
    for note in found.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)


def _named(row: RankedRow) -> str:
    return row.title if row.score is None else f"{row.title} ({row.score:.3f})"


def show(response: RecommendResponse, titles_per_row: int | None = None) -> None:
    """Print a list, or a page of rows, by the titles' names."""
    from rich.table import Table
    from rich.text import Text

    from playbill.cli.console import Console

    console = Console()
    by = response.model if response.version is None else f"{response.model}:{response.version}"
    policy = "" if response.policy == "model" else f", fallback {response.policy}"
    console.print(Text.assemble((response.canvas, "bold"), f" by {by}{policy}"))
    lists = [("", response.items)] if response.rows is None else [(_named(row), row.items) for row in response.rows]
    for title, items in lists:
        table = Table("", "title", "id", "score", title=title or None, title_justify="left")
        for item in items[:titles_per_row]:
            table.add_row(str(item.position + 1), item.name, item.title_id, f"{item.score:.3f}")
        console.print(table)
    for note in response.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
