"""Leakage checks on MovieLens-100K: what is planted must be caught, what ships must stay quiet.

    python tests/benchmarks/leakage_checks.py --json

Works in a scratch project, with real Feast. Planted: popularity over the whole log as a score, and a feature that
says how often the title that the member plays next has been played. A trained model is tried by
`playbill evaluate MODEL --leakage-checks`.
"""

import json
import tempfile
from pathlib import Path

import click
import polars as pl

from playbill.config import ProjectFolder, ProjectSettings
from playbill.datasets import make_split
from playbill.definitions.specs import BASELINES
from playbill.definitions.zoo import load_zoo
from playbill.evaluation import EvaluationTables, build_case, check_chance, check_features, check_future
from playbill.evaluation.baselines.popularity import Popular
from playbill.features import FeatureDoor, build_features
from playbill.sources import ingest
from playbill.tables import Tables

ROOT = Path(__file__).parents[2]
HONEST = ("popular", "popular_7d", "item_knn", "ease")
PLANTED = "planted__plays_of_next_title"


class Planted:
    """The feature door, with a feature that knows the future."""

    def __init__(self, door, tables):
        self.door = door
        plays = tables.interactions.filter(pl.col("action") == "play").sort("event_at", "seq")
        counts = plays.group_by("title_id").agg(pl.len().cast(pl.Float32).alias(PLANTED))
        self.plays = plays.select("member_id", "event_at", "title_id").join(
            counts, on="title_id", maintain_order="left"
        )

    def member_features(self, service, frame):
        """Return the features, and the plays of the title that each member plays next."""
        requested = frame.with_row_index("row").sort("event_at")
        following = self.plays.drop("title_id").sort("event_at")
        found = requested.join_asof(
            following, on="event_at", by="member_id", strategy="forward", check_sortedness=False
        ).sort("row")
        return self.door.member_features(service, frame).with_columns(found[PLANTED].fill_null(0.0))


class Scratch:
    """Workspaces in a scratch folder, each with the features of other tables."""

    def __init__(self, home):
        self.project, self.made = ProjectFolder(ROOT, ProjectSettings(home=home)), 0

    def workspace(self):
        """Return a new one."""
        self.made += 1
        return self.project.workspace(f"check_{self.made}")

    def door(self, tables):
        """Build the features of these tables, and return a door to them with the planted feature."""
        workspace = self.workspace()
        with Tables(workspace).replace() as writer:
            for name in ("titles", "members", "availability", "interactions"):
                writer.write(name, getattr(tables, name))
        door = FeatureDoor(workspace)
        door.apply()
        build_features(workspace)
        return Planted(door, tables)


@click.command()
@click.option("--protocol", default="leave_one_out", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(protocol, as_json):
    """Try every check on what ships and on what is planted.

    Example: python tests/benchmarks/leakage_checks.py --json
    """
    with tempfile.TemporaryDirectory() as home:
        scratch = Scratch(home)
        source = scratch.workspace()
        ingest(source, "movielens_100k")
        tables = EvaluationTables.read(Tables(source))
        resolved = load_zoo(ROOT / "model_zoo").model("everycanvas")
        case = build_case(tables, make_split(protocol, tables.interactions), resolved, "home")
        results = [run_check(name, BASELINES[name].load(), case) for name in HONEST for run_check in CHECKS]
        results += [check_future("popular over the whole log", popular_for_ever, case)]
        results += check_features(scratch.door, resolved.model.features, case)
    for one in results:
        click.echo(f"{one.check:<9}{one.subject:<40}{'passed' if one.passed else 'ALARM':<8}{one.message}")
    if as_json:
        click.echo(json.dumps(summary(protocol, case, results)))


CHECKS = (check_future, check_chance)


def popular_for_ever(case):
    """Count every play of the log, later ones too: what must be caught."""
    return Popular(case.catalogue, case.tables.interactions.filter(pl.col("action") == "play"))


def summary(protocol, case, results):
    """Return the line that scripts read."""
    planted = [one for one in results if one.subject in (PLANTED, "popular over the whole log")]
    honest = [one for one in results if one not in planted]
    return {
        "protocol": protocol,
        "requests": len(case),
        "planted_caught": all(not one.passed for one in planted),
        "honest_quiet": all(one.passed for one in honest),
        "features_tried": sum(one.check == "features" for one in honest),
        "messages": {f"{one.check} {one.subject}": one.message for one in results},
    }


if __name__ == "__main__":
    main()
