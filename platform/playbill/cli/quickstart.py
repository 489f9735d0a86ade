"""`playbill quickstart`: from nothing to a served, consolidated model, with every step shown."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.cli.progress import Stages
    from playbill.config import Workspace
    from playbill.definitions.specs.resolved import LeftOut
    from playbill.serving import Recommender
    from playbill.serving.active_model import ActiveModel
    from playbill.training.run import TrainOutcome

MODEL = "everycanvas"
MEMBER = "42"
QUERY = "star w"
SOURCE_TITLE = "Toy Story"


@click.command("quickstart")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def quickstart(selection: Selection, as_json: bool) -> None:
    """Fetch MovieLens-100K, compute features, train, evaluate, register, promote, and answer for several canvases.

    Data that is there already is kept, and every run trains and registers a version of its own.

    Example: playbill quickstart
    """
    from playbill.cli.progress import Stages

    begun = time.perf_counter()
    workspace = selection.workspace
    with Stages() as stages:
        _data(selection, stages)
        _features(workspace, stages)
        outcome = _train(workspace, stages)
        champion = _promote(workspace, outcome, stages)
        stages.stage("load the champion")
        from playbill.serving.local import LocalRecommender

        recommender, served = LocalRecommender(workspace, MODEL).current()
    _show_quality(outcome, served)
    _show_answers(recommender, served)
    _show_next(workspace)
    if as_json:
        click.echo(json.dumps(summary(outcome, champion, time.perf_counter() - begun)))


def _data(selection: Selection, stages: Stages) -> None:
    from playbill.tables import Tables

    if Tables(selection.workspace).exists():
        stages.stage(f"keep the data of workspace {selection.workspace.name}")
        return
    stages.stage("fetch MovieLens-100K")
    report = selection.project.ingest("movielens_100k", progress=stages)
    for line in (report.route, report.terms, *report.notes):
        stages.console.print(line, style="dim", highlight=False, markup=False)


def _features(workspace: Workspace, stages: Stages) -> None:
    from playbill.features import FeatureDoor, build_features

    stages.stage("register features with Feast")
    door = FeatureDoor(workspace)
    door.apply()
    stages.stage("compute features as of every moment")
    build_features(workspace)
    stages.stage("load the online store")
    door.materialize()


def _train(workspace: Workspace, stages: Stages) -> TrainOutcome:
    from playbill.training.run import train

    return train(workspace, MODEL, watcher=stages)


def _promote(workspace: Workspace, outcome: TrainOutcome, stages: Stages) -> str:
    from playbill.versions.promotion import approved, promote

    stages.stage("promote")
    _, decision = promote(workspace, f"{outcome.model}:{outcome.version}")
    if decision is not None:
        stages.console.print(f"{decision.verdict}: {decision.reason}", style="dim", highlight=False, markup=False)
    served = approved(workspace, MODEL)
    return f"{MODEL}:{served.version}" if served else ""


def _show_quality(outcome: TrainOutcome, served: ActiveModel) -> None:
    from playbill.cli.console import Console
    from playbill.cli.train import each_note_once
    from playbill.evaluation.rendering.grids import tables

    console = Console()
    if missing := _named(served.resolved.left_out):
        console.print(f"Left out, as this log cannot teach them: {missing}. `playbill labels show` says why.")
    if outcome.protocol_reason:
        console.print(
            f"Held out by {outcome.protocol}, since {outcome.protocol_reason}.", highlight=False, markup=False
        )
    home = next(report for report in each_note_once(outcome) if report.canvas == "home")
    for table in tables(home)[:2]:
        console.print(table)


def _named(left_out: LeftOut) -> str:
    """Name what training left out, heads first."""
    rows = [row for canvas in left_out.rows.values() for row in canvas]
    kinds = {"heads": [*left_out.heads], "canvases": [*left_out.canvases], "rows": rows}
    return "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names)


def _with_zero(outcome: TrainOutcome) -> list[str]:
    report = outcome.evaluation.reports["home"]
    return [row.baseline for row in report.differences if row.metrics[report.main_metric].includes_zero]


def _show_answers(recommender: Recommender, served: ActiveModel) -> None:
    from playbill.cli.recommend import show
    from playbill.serving import RecommendRequest
    from playbill.serving.request_context import find_title

    source = find_title(served, SOURCE_TITLE)
    requests = {
        f"What member {MEMBER} would see:": RecommendRequest(canvas="home", member_id=MEMBER, k=5),
        f'A search for "{QUERY}":': RecommendRequest(canvas="search", member_id=MEMBER, query=QUERY, k=5),
        f"More like {SOURCE_TITLE}:": RecommendRequest(
            canvas="more_like_this", member_id=MEMBER, source_title_id=source, k=5
        ),
    }
    click.echo("\nScores order the titles of one list; those of different lists do not compare.")
    shown: set[str] = set()
    for heading, request in requests.items():
        response = recommender.recommend(request)
        click.echo(f"\n{heading}\n")
        show(response.model_copy(update={"notes": tuple(note for note in response.notes if note not in shown)}))
        shown.update(response.notes)


def _show_next(workspace: Workspace) -> None:
    click.echo("\nNext:")
    click.echo(f"  playbill -w {workspace.name} up                          # MLflow UI and server")
    click.echo(f'  playbill -w {workspace.name} recommend --member 7 --canvas search --query "the god" -k 5')
    click.echo(f"  playbill -w {workspace.name} train {MODEL}            # another version, to promote in the UI")


def summary(outcome: TrainOutcome, champion: str, total_seconds: float) -> dict[str, Any]:
    """Return the quickstart's result: the champion, its quality on home, and its lead over each baseline."""
    report = outcome.evaluation.reports["home"]
    scores = {row.name: row.metrics["ndcg@10"].value for row in report.baselines}
    return {
        "champion": champion,
        "protocol": outcome.protocol,
        "protocol_reason": outcome.protocol_reason,
        "ndcg@10": report.result.metrics["ndcg@10"].value,
        "hr@10": report.result.metrics["hr@10"].value,
        "baselines": {
            row.baseline: {
                "ndcg@10": scores[row.baseline],
                "difference": row.metrics["ndcg@10"].value,
                "interval": [row.metrics["ndcg@10"].low, row.metrics["ndcg@10"].high],
                "includes_zero": row.metrics["ndcg@10"].includes_zero,
            }
            for row in report.differences
        },
        "intervals_with_zero": _with_zero(outcome),
        "train_seconds": round(outcome.train_seconds, 1),
        "total_seconds": round(total_seconds, 1),
    }
