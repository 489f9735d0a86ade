"""How much a model loses while it waits for an update, on simulated logs and on MovieLens-1M by time.

    python tests/benchmarks/freshness.py --json
    python tests/benchmarks/freshness.py --log ml_1m:../shared/data/ml-1m --until 2000-08-29 --days 14 --json
    python tests/benchmarks/freshness.py --log world:3000:42:41 --keep docs/results/freshness.json

A log is `world:MEMBERS:DAYS:SEED` (simulated, 600 titles) or `ml_1m:FOLDER`, of which `--until` keeps what happened
before a day: its members came within a few months of 2000. Works in a scratch project. The rows of a log are written to
`--keep` as soon as they are there, and pictures beside it. The last line says of every log of that file whether the
cadences are in order, the curve is monotone, and titles in their launch week gain most.
"""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click
import polars as pl

from playbill.config import ProjectFolder, ProjectSettings
from playbill.definitions.zoo import open_zoo
from playbill.features import FeatureDoor, build_features
from playbill.sources import ingest
from playbill.tables import Tables
from playbill_lab.simulator.workspace import simulate_workspace
from playbill_lab.simulator.world.spec import read_spec
from playbill_lab.studies.freshness.report import freshness_json, plot_freshness
from playbill_lab.studies.freshness.study import FreshnessOptions, FreshnessStudy
from playbill_lab.studies.ledger.models import with_recipe, with_trunk

ROOT = Path(__file__).parents[2]
MODEL, CLEAR = "everycanvas", "launch_week"


@click.command()
@click.option("--log", "logs", multiple=True, default=("world:3000:42:41",), show_default=True)
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="Keep what happened before this day.")
@click.option("--parts", default="cadences,retrain", show_default=True)
@click.option("--days", default=14, show_default=True)
@click.option("--cadences", default="never,7d,1d", show_default=True)
@click.option("--updates", default=30, show_default=True)
@click.option("--requests", default=3000, show_default=True)
@click.option("--dim", default=32, show_default=True)
@click.option("--epochs", default=3, show_default=True)
@click.option("--seed", default=17, show_default=True)
@click.option("--rate", type=float, help="Learning rate of updates over that of training (default: the definition's).")
@click.option("--home", type=click.Path(path_type=Path), help="Keeps the workspace and its versions, to go on later.")
@click.option("--keep", type=click.Path(path_type=Path), help="JSON file whose rows of these logs are replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(logs, until, home, keep, dim, epochs, rate, as_json, **given):
    """Replay each log.

    Example: python tests/benchmarks/freshness.py --log world:600:28:41 --days 8 --json
    """
    listed = {name: tuple(given.pop(name).split(",")) for name in ("parts", "cadences")}
    options = FreshnessOptions(**given, **listed)
    options.check()
    rows = json.loads(keep.read_text())["logs"] if keep and keep.exists() else {}
    for log in logs:
        name = ":".join(part for part in log.split(":") if not Path(part).is_dir())
        with tempfile.TemporaryDirectory() as scratch:
            rows[name] = rows.get(name, {}) | of_log(
                log, until, options, home or Path(scratch), (dim, epochs, rate), keep
            )
        if keep:
            keep.write_text(json.dumps({"logs": rows}, indent=1) + "\n")
    if as_json:
        print(json.dumps({name: verdicts(row) for name, row in rows.items()}))


def of_log(log, until, options, home, recipe, keep):
    """Replay one log and return what was found, by part. `recipe` is the width, passes, and rate of updates."""
    dim, epochs, rate = recipe
    workspace = ProjectFolder(ROOT, ProjectSettings(home=str(home), workspace="bench")).workspace()
    if not Tables(workspace).exists():
        bring_in(workspace, log.split(":"), until)
        FeatureDoor(workspace).apply()
        build_features(workspace)
    resolved = open_zoo(workspace.project.model_zoo, workspace.project.feature_repo).model(MODEL)
    resolved = with_trunk(with_recipe(resolved, options.seed, epochs=epochs), dim)
    if rate is not None:
        updates = resolved.model.update.model_copy(update={"rate": rate})
        resolved = resolved.model_copy(update={"model": resolved.model.model_copy(update={"update": updates})})
    tell = lambda name: print(name, flush=True)  # noqa: E731
    found = FreshnessStudy.of_workspace(workspace, resolved, options, workspace.runs / "freshness", tell).run()
    if keep:
        for path in plot_freshness(found, keep.parent, ".svg"):
            path.replace(path.with_name(f"{path.stem}_{log.partition(':')[0]}.svg"))
    whole = freshness_json(found)
    empty = (None, [], ())
    return {name: value for name, value in whole.items() if value not in empty}


def bring_in(workspace, kind, until):
    """Fill the workspace's tables."""
    source, *rest = kind
    if source == "world":
        members, days, seed = map(int, rest)
        simulate_workspace(workspace, read_spec({"members": members, "days": days, "seed": seed}))
        return
    ingest(workspace, "parquet", {"path": Path(rest[0]), "mapping": ROOT / "docs/guide/mappings/ml_1m.yaml"})
    if until is not None:
        keep_until(Tables(workspace), until.replace(tzinfo=UTC))


def keep_until(tables: Tables, moment: datetime) -> None:
    """Keep the events before a moment, and the members who have some."""
    events = tables.interactions().filter(pl.col("event_at") < moment)
    members = tables.member_versions().join(events.select("member_id").unique(), on="member_id", how="semi")
    titles, availability = tables.titles(), tables.availability()
    with tables.replace() as writer:
        for name, frame in {"titles": titles, "availability": availability, "members": members}.items():
            writer.write(name, frame)
        writer.write("interactions", events)


def verdicts(row):
    """Say of one log what the study was to show."""
    found = {"in_order": row.get("in_order"), "monotone": row.get("monotone")}
    groups = {group["group"]: group["difference"] for group in row.get("cadences", [])}
    if groups:
        fastest = list(groups["all"])[-1]
        gains = {group: arms[fastest]["value"] for group, arms in groups.items()}
        found |= {"gain": gains, "launch_week_gains_most": gains.get(CLEAR, 0.0) == max(gains.values())}
    if row.get("retrained"):
        found |= {name: round(row["retrained"][name], 4) for name in ("quality_ratio", "cost_ratio")}
    return found


if __name__ == "__main__":
    main()
