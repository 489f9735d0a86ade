"""Leakage canaries on MovieLens-100K: what is planted must be caught, what ships must stay quiet.

    python tests/benchmarks/canaries.py --json

Works in a scratch project, with real Feast. Planted: popularity over the whole log as a score, and a feature that
counts the plays a member is yet to make. `playbill evaluate MODEL --canaries` tries a trained model.
"""

import json
import tempfile
from pathlib import Path

import click
import polars as pl

from playbill.config import Project, ProjectSettings
from playbill.datasets import make_split
from playbill.evaluation import EvaluationTables, build_case, chance_canary, feature_canary, future_canary
from playbill.evaluation.baselines import Popular
from playbill.features import FeatureDoor, build_features
from playbill.sources import ingest
from playbill.specs import BASELINES
from playbill.tables import Tables
from playbill.zoo import load_zoo

ROOT = Path(__file__).parents[2]
HONEST = ("popular", "popular_7d", "item_knn", "ease")
PLANTED = "planted__plays_to_come"


class Planted:
    """The feature door, with a feature that knows the future."""

    def __init__(self, door, tables):
        self.door = door
        plays = tables.interactions.filter(pl.col("action") == "play")
        self.plays = plays.select("member_id", "title_id", pl.col("event_at").alias("played_at"))

    def member_features(self, service, frame):
        """Return the features, and how many different titles each member plays after the moment."""
        asked = frame.with_row_index("row")
        later = asked.join(self.plays, on="member_id").filter(pl.col("played_at") > pl.col("event_at"))
        counts = later.group_by("row").agg(pl.col("title_id").n_unique().cast(pl.Float32).alias(PLANTED))
        column = asked.join(counts, on="row", how="left", maintain_order="left")[PLANTED].fill_null(0.0)
        return self.door.member_features(service, frame).with_columns(column)


class Scratch:
    """Workspaces in a scratch folder, each with the features of other tables."""

    def __init__(self, home):
        self.project, self.made = Project(ROOT, ProjectSettings(home=home)), 0

    def workspace(self):
        """Return a new one."""
        self.made += 1
        return self.project.workspace(f"canary_{self.made}")

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
    """Try every canary on what ships and on what is planted.

    Example: python tests/benchmarks/canaries.py --json
    """
    with tempfile.TemporaryDirectory() as home:
        scratch = Scratch(home)
        source = scratch.workspace()
        ingest(source, "movielens_100k")
        tables = EvaluationTables.read(Tables(source))
        resolved = load_zoo(ROOT / "model_zoo").model("everycanvas")
        case = build_case(tables, make_split(protocol, tables.interactions), resolved, "home")
        results = [canary(name, BASELINES[name].load(), case) for name in HONEST for canary in CANARIES]
        results += [future_canary("popular over the whole log", popular_for_ever, case)]
        results += feature_canary(scratch.door, resolved.model.features, case)
    for one in results:
        click.echo(f"{one.canary:<9}{one.subject:<40}{'passed' if one.passed else 'ALARM':<8}{one.message}")
    if as_json:
        click.echo(json.dumps(summary(protocol, case, results)))


CANARIES = (future_canary, chance_canary)


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
        "features_tried": sum(one.canary == "features" for one in honest),
        "messages": {f"{one.canary} {one.subject}": one.message for one in results},
    }


if __name__ == "__main__":
    main()
