"""`playbill vectors`: publish what a version makes of members and titles, as versioned Feast views, and list it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.features.vectors import PublishedVectors
    from playbill.foundation.vectors import VectorsReport

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")


@click.group("vectors")
def vectors() -> None:
    """Publish vectors of members and titles for other models, and list what is published.

    Example: playbill -w ml_100k vectors publish foundation@champion
    """


@vectors.command("publish")
@click.argument("model", metavar="MODEL[@ALIAS|:VERSION]")
@click.option("--members", default="all", metavar="all|N", show_default=True, help="The N that were active last.")
@click.option("--head", help="Whose vectors (default: the first softmax head).")
@click.option(
    "--every",
    "cadence_hours",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    metavar="HOURS",
    help="A member has a vector for each span of so many hours with events.",
)
@click.option("--new-lineage", is_flag=True, help="Leave the space of what was published before.")
@_JSON
@click.pass_obj
def publish(
    selection: Selection,
    model: str,
    members: str,
    head: str | None,
    cadence_hours: int,
    new_lineage: bool,
    as_json: bool,
) -> None:
    """Publish the vectors of a registered version as the views MODEL_member_vectors_vN and MODEL_title_vectors_vN.

    They are computed, written, declared in feature_repo/published_vectors.py, registered, and loaded into the online
    store. What is published of a version stays; the same command adds what came since. A later version's vectors are
    turned onto where titles were, with every score as it was.

    Example: playbill -w ml_100k vectors publish foundation@champion
    """
    from playbill.cli.progress import Stages
    from playbill.foundation.vectors import VectorOptions, publish_vectors

    options = VectorOptions(head, member_count(members), cadence_hours, new_lineage)
    with Stages() as stages:
        report = publish_vectors(selection.workspace, model, options, stages)
    show_report(report)
    if as_json:
        click.echo(json.dumps(described(report.record) | {"how": report.how, "rows": report.rows}))


@vectors.command("list")
@_JSON
@click.pass_obj
def list_published(selection: Selection, as_json: bool) -> None:
    """List the vectors that this workspace has published: version, lineage, views, digest.

    Example: playbill -w ml_100k vectors list
    """
    from playbill.features.vectors import published_vectors

    found = published_vectors(selection.workspace.features)
    if as_json:
        click.echo(json.dumps({"vectors": [described(record) for record in found]}))
        return
    _show_list(found)


def member_count(members: str) -> int | None:
    """Read `--members`: None for all.

    Raises:
        click.BadParameter: It is neither a number nor `all`.
    """
    if members == "all":
        return None
    if not members.isdigit() or int(members) == 0:
        raise click.BadParameter(f"'{members}' is neither a number nor all.", param_hint="--members")
    return int(members)


def described(record: PublishedVectors) -> dict[str, Any]:
    """Return what `--json` says of a publication."""
    return record.model_dump(mode="json") | {"views": list(record.views)}


def show_report(report: VectorsReport) -> None:
    """Print what a publication did."""
    from playbill.cli.console import Console

    console, record = Console(), report.record
    console.print(
        f"{record.reference}: {report.how}, {report.rows:,} vectors of members written. {record.members:,} members and "
        f"{record.titles:,} titles, {record.width} numbers each, up to {record.until}",
        highlight=False,
    )
    if record.before:
        console.print(f"turned onto {record.before} by {record.common:,} titles in common, lineage {record.lineage}")
    if record.note:
        console.print(f"note: {record.note}: lineage {record.lineage} begins", highlight=False)
    if report.declared is not None:
        console.print(f"declared in {report.declared}", highlight=False)
    console.print(f"views {' and '.join(record.views)}; digest {record.digest[:12]}", highlight=False)


def _show_list(found: tuple[PublishedVectors, ...]) -> None:
    from rich.table import Table

    from playbill.cli.console import Console

    table = Table("version", "views", "digest", title="Published vectors")
    for name in ("width", "lineage", "members", "titles"):
        table.add_column(name, justify="right")
    table.add_column("up to")
    for record in found:
        numbers = (str(record.width), str(record.lineage), f"{record.members:,}", f"{record.titles:,}")
        table.add_row(record.reference, "\n".join(record.views), record.digest[:12], *numbers, record.until[:19])
    if found:
        Console().print(table)
    else:
        Console().print("nothing is published yet: playbill vectors publish MODEL")
