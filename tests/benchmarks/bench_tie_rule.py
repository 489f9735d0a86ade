"""How much of leave_one_out on MovieLens-100K is the tie rule: events of one second by title number, or at random.

    python tests/benchmarks/bench_tie_rule.py --json

44 % of the members share their last second with another rating, so a rule decides which one is held out.
"""

import json
import tempfile
from pathlib import Path

import click
import numpy as np
import polars as pl

from playbill.config import ProjectFolder, ProjectSettings
from playbill.features import FeatureDoor, build_features
from playbill.sources import ingest
from playbill.tables import Tables
from playbill.training.run import train

ROOT = Path(__file__).parents[2]


@click.command()
@click.option("--seed", default=0, show_default=True, help="Of the random order.")
@click.option("--json", "as_json", is_flag=True)
def main(seed, as_json):
    """Train and measure under both rules."""
    found = {}
    with tempfile.TemporaryDirectory() as home:
        project = ProjectFolder(ROOT, ProjectSettings(home=home))
        by_title, at_random = project.workspace("by_title"), project.workspace("at_random")
        ingest(by_title, "movielens_100k")
        shuffle_ties(Tables(by_title), Tables(at_random), np.random.default_rng(seed))
        for workspace in (by_title, at_random):
            FeatureDoor(workspace).apply()
            build_features(workspace)
            report = train(workspace, "everycanvas").evaluation.reports["home"]
            found[workspace.name] = {row.name: row.metrics["hr@10"].value for row in report.rows}
            found[f"{workspace.name}_ndcg@10"] = {row.name: row.metrics["ndcg@10"].value for row in report.rows}
            print(workspace.name, found[workspace.name], flush=True)
    if as_json:
        print(json.dumps(found))


def shuffle_ties(source, target, rng):
    """Copy tables, with plays of one member and second in random order and each thumb behind its play."""
    log = source.interactions()
    key = ["member_id", "title_id"]
    plays = log.filter(pl.col("action") == "play").select(*key, "event_at")
    plays = plays.with_columns(draw=pl.Series(rng.random(plays.height))).sort("member_id", "event_at", "draw")
    place = plays.with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64).over("member_id")).select(*key, "place")
    seq = 2 * pl.col("place") + (pl.col("action") != "play").cast(pl.Int64)
    shuffled = log.join(place, on=key, how="left").with_columns(seq=seq).drop("place").sort("member_id", "seq")
    with target.replace() as writer:
        for name, frame in (
            ("titles", source.titles()),
            ("availability", source.availability()),
            ("members", source.members()),
            ("interactions", shuffled),
        ):
            writer.write(name, frame)


if __name__ == "__main__":
    main()
