"""How much a model loses while it waits for an update, on simulated logs and on MovieLens-1M by time.

    python tests/benchmarks/freshness.py --json
    python tests/benchmarks/freshness.py --log ml_1m:../shared/data/ml-1m --until 2000-08-29 --days 14 --json
    python tests/benchmarks/freshness.py --log world:4000:56:41:20 --features uncounted --days 28 --keep FILE

A log is `world:MEMBERS:DAYS:SEED` (simulated, 600 titles, of which six launch a week, or as many as a fifth number
says), `kuairand:FOLDER`, or `ml_1m:FOLDER`, of which `--until` keeps what happened before a day: its members came
within a few months of 2000. With `--features uncounted` the model has no feature that counts what was played of a title
lately: then its weights alone know. Works in a scratch project. The rows of a log are written to `--keep` as soon as
they are there, and pictures beside it. The last line says of every log of that file whether the cadences are in order,
the curve is monotone, and titles in their launch week gain most, and pools worlds.
"""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
import polars as pl

from playbill import Project
from playbill.definitions.specs import UpdateSpec
from playbill.definitions.zoo import open_zoo
from playbill.features import FeatureDoor, build_features
from playbill.sources import ingest
from playbill.tables import Tables
from playbill_lab.simulator.workspace import simulate_workspace
from playbill_lab.simulator.world.spec import read_spec
from playbill_lab.studies.freshness.replay import GROUPS
from playbill_lab.studies.freshness.report import freshness_json, plot_freshness
from playbill_lab.studies.freshness.study import FreshnessOptions, FreshnessStudy
from playbill_lab.studies.ledger.models import with_recipe, with_trunk

ROOT = Path(__file__).parents[2]
CLEAR = "launch_week"
KUAIRAND = ("kuairand", "kuairand.tab_1")  # model and canvas of its log
UNCOUNTED = '''
"""What everycanvas_v3 has, but for what counts plays of titles."""

from contexts import request_time
from feast import FeatureService
from members import member_activity, member_profile, member_recency
from titles import title_age, title_profile

uncounted = FeatureService(
    name="uncounted",
    features=[
        member_profile[["country", "kids_profile", "age", "gender", "occupation"]],
        member_activity[["log_plays_1d", "log_plays_7d", "log_plays_30d", "log_plays_total", "distinct_genres"]],
        member_recency,
        request_time,
        title_profile[["kind", "maturity", "release_year", "runtime_min", "genre_count", "kids"]],
        title_age,
    ],
)
'''


@click.command()
@click.option("--log", "logs", multiple=True, default=("world:4000:56:41:20",), show_default=True)
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="Keep what happened before this day.")
@click.option("--parts", default="cadences,retrain", show_default=True)
@click.option("--days", default=14, show_default=True)
@click.option("--cadences", default="never,7d,1d", show_default=True)
@click.option("--replays", default="0.2", show_default=True, help="Shares of older examples, for forgetting.")
@click.option("--updates", default=30, show_default=True, help="Daily ones, for forgetting.")
@click.option("--requests", default=3000, show_default=True)
@click.option("--dim", default=32, show_default=True)
@click.option("--epochs", default=3, show_default=True)
@click.option("--seed", default=17, show_default=True)
@click.option("--features", help="Feature service in place of the definition's, such as uncounted.")
@click.option("--update", "keys", multiple=True, help="KEY=NUMBER of the definition's `update`, such as rate=0.1.")
@click.option("--home", type=click.Path(path_type=Path), help="Keeps the workspace and its versions, to go on later.")
@click.option("--keep", type=click.Path(path_type=Path), help="JSON file whose rows of these logs are replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(logs, until, home, keep, features, keys, as_json, **given):
    """Replay each log.

    Example: python tests/benchmarks/freshness.py --log world:600:28:41 --days 8 --json
    """
    listed = {name: tuple(given.pop(name).split(",")) for name in ("parts", "cadences", "replays")}
    listed["replays"] = tuple(map(float, listed["replays"]))
    update = {name: float(value) for name, value in (key.split("=") for key in keys)}
    rows = json.loads(keep.read_text())["logs"] if keep and keep.exists() else {}
    for log in logs:
        options = FreshnessOptions(**given, **listed, **({"canvas": KUAIRAND[1]} if log.startswith("kuairand") else {}))
        options.check()
        name = " ".join(
            [":".join(part for part in log.split(":") if not Path(part).is_dir()), *filter(None, [features])]
        )
        with tempfile.TemporaryDirectory() as scratch:
            study = study_of(log.split(":"), until, options, home or Path(scratch), features, update)
            found = study.run()
        rows[name] = rows.get(name, {}) | stated(found)
        if keep:
            lines = ",\n".join(f"{json.dumps(log)}: {json.dumps(row)}" for log, row in rows.items())
            keep.write_text(f'{{"logs": {{\n{lines}\n}}}}\n')
            source, *numbers = log.split(":")
            about = "_".join([source, *numbers[2:3], *filter(None, [features])])  # of a world its seed
            for path in plot_freshness(found, keep.parent, ".svg"):
                path.replace(path.with_name(f"{path.stem}_{about}.svg"))
    if as_json:
        print(json.dumps({name: verdicts(row) for name, row in rows.items()} | {"pooled": pooled(rows)}))


def study_of(kind, until, options, home, features, update):
    """Return the study of a log, which is brought in where it is not there yet."""
    if not (home / "playbill.toml").exists():
        Project.create(home)
        (home / "feature_repo" / "own_uncounted.py").write_text(UNCOUNTED)
    workspace = Project.open(home, workspace="bench").workspace
    if not Tables(workspace).exists():
        bring_in(workspace, kind, until)
        FeatureDoor(workspace).apply()
        build_features(workspace)
    model = KUAIRAND[0] if kind[0] == "kuairand" else "everycanvas"
    resolved = open_zoo(workspace.project.model_zoo, workspace.project.feature_repo).model(model)
    resolved = with_trunk(with_recipe(resolved, options.seed, epochs=options.epochs), options.dim)
    spec = UpdateSpec.model_validate(resolved.model.update.model_dump() | update)
    own = {"update": spec, "features": features or resolved.model.features}
    resolved = resolved.model_copy(update={"model": resolved.model.model_copy(update=own)})
    tell = lambda name: print(name, flush=True)  # noqa: E731
    return FreshnessStudy.of_workspace(workspace, resolved, options, workspace.runs / "freshness", tell)


def stated(found):
    """Return what a study found, but for what it did not look at."""
    empty = (None, [], ())
    return {name: value for name, value in freshness_json(found).items() if value not in empty}


def bring_in(workspace, kind, until):
    """Fill the workspace's tables."""
    source, *rest = kind
    if source == "world":
        named = dict(zip(("members", "days", "seed", "launches_per_week"), map(int, rest), strict=False))
        simulate_workspace(workspace, read_spec(named))
        return
    if source == "kuairand":
        ingest(workspace, "kuairand", {"path": Path(rest[0])})
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


def pooled(rows):
    """Pool what worlds of one kind say of cadences: means by requests, and half-widths as of independent samples.

    Returns, by features and group, each cadence minus never and minus the next slower one: mean, low, high.
    """
    kinds = {}
    for name, row in rows.items():
        if name.startswith("world") and "cadences" in row:
            kinds.setdefault(name.partition(" ")[2] or "as served", []).append(row["cadences"])
    found = {}
    for kind, worlds in kinds.items():
        groups = {name: [one for world in worlds for one in world if one["group"] == name] for name in GROUPS}
        found[kind] = {"worlds": len(worlds)} | {
            name: {
                "minus never": over_worlds(own, "difference", 1.0),
                "minus slower": over_worlds(own, "step", -1.0),
            }
            for name, own in groups.items()
            if own
        }
    return found


def over_worlds(groups, what, sign):
    """Return cadence -> mean, low and high of its differences over worlds."""
    requests = np.array([one["requests"] for one in groups], float)
    found = {}
    for cadence in groups[0][what]:
        value = sign * np.array([one[what][cadence]["value"] for one in groups])
        half = np.array([np.ptp(one[what][cadence]["interval"]) / 2 for one in groups])
        mean, wide = (requests @ value) / requests.sum(), np.sqrt(((requests * half) ** 2).sum()) / requests.sum()
        found[cadence] = [round(float(number), 4) for number in (mean, mean - wide, mean + wide)]
    return found


if __name__ == "__main__":
    main()
