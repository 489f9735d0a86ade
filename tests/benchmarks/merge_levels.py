"""Three levels of merging events into tokens, on a log that has repeats: how short histories become, and what it costs.

    python tests/benchmarks/merge_levels.py --json

The simulated service has series, watched for days. One small model of next plays is trained at each level on all but
the last week, and asked at every play of that week with the member's history before it, over the whole catalogue.
`again` are plays of titles that the member had played, `new` the others. `covered` is the share of members whose whole
history fits into its length. Intervals are paired by member, against `same_title`.
"""

import json
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import polars as pl
import torch
from asked_service import service
from cold_titles import gains

from playbill.datasets import Request, make_split
from playbill.definitions.specs import ResolvedModel
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.metrics.bootstrap import MemberBootstrap
from playbill_lab.bridge.live_features import NO_FEATURES, NoFeatures
from playbill_lab.bridge.simulated_log import SimulatedLog, trained_on, training_set

OUT = Path(__file__).parents[2] / "docs/results/merge_levels.json"
LEVELS = ("none", "session", "same_title")
LABEL = {"name": "any_play", "version": 1, "description": "A play.", "from": {"action": "play"}, "matures_after": "0h"}


@click.command()
@click.option("--members", default=1_500, show_default=True)
@click.option("--titles", default=600, show_default=True)
@click.option("--days", default=42, show_default=True)
@click.option("--lengths", default="16,100", show_default=True, help="Tokens of a history.")
@click.option("--seeds", default="17,18", show_default=True, help="Of worlds and networks.")
@click.option("--epochs", default=12, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(members, titles, days, lengths, seeds, epochs, out, as_json):
    """Train a model at every level, length and seed, and write a row for each.

    Example: python tests/benchmarks/merge_levels.py --seeds 17 --json
    """
    torch.set_num_threads(1)
    rows = []
    for seed in [int(text) for text in seeds.split(",")]:
        own = service(seed, members, titles, days)
        for length in [int(text) for text in lengths.split(",")]:
            found = {level: measured(own, level, length, seed, epochs) for level in reversed(LEVELS)}
            for level, (row, frame) in found.items():
                if level != "same_title":
                    row |= compared(frame, found["same_title"][1])
                rows.append(row)
                print(json.dumps(row), flush=True)
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    out.write_text(f'{{"rows": [\n{lines}\n]}}\n')
    if as_json:
        print(json.dumps({"rows": rows}))


def measured(own, level, length, seed, epochs):
    """Train at one level; return its row, and member, gain and whether the title was played before, by request."""
    begun = time.process_time()
    early = own.log.events.filter(pl.col("event_at") < own.test)
    log = SimulatedLog(own.world, early, own.test)
    resolved = definition(level, length, seed, epochs)
    data = training_set(log, resolved, make_split("leave_one_out", early), NoFeatures())
    with tempfile.TemporaryDirectory() as folder:
        fitted = trained_on(data, resolved, Path(folder) / "bundle")
        scorer = fitted.scorer(own.world, NoFeatures())
    seconds = time.process_time() - begun
    frame = asked(own, CanvasScorer(scorer, data.trained(resolved), "home", None))
    counts = np.bincount(data.token_member)
    row = {
        "seed": seed,
        "merge": level,
        "length": length,
        "events": data.events,
        "tokens": len(data.tokens),
        "events_per_token": round(data.events / len(data.tokens), 2),
        "covered": round(float((counts <= length).mean()), 3),
        "examples": int(data.rows.next.sum()),
        "seconds": round(seconds),
    }
    for name, part in parts(frame):
        row[f"{name}_ndcg@10"] = round(float(part["gain"].mean()), 4)
    return row, frame


def asked(own, scorer):
    """Return member, gain and `again` of every play since the test week began."""
    order = {title: place for place, title in enumerate(scorer.title_ids)}
    requests, targets, again = [], [], []
    for (member,), events in own.log.events.sort("member_id", "seq").group_by("member_id", maintain_order=True):
        late = events.filter(pl.col("action") == "play", pl.col("event_at") >= own.test)
        for row in late.iter_rows(named=True):
            past = events.filter(pl.col("seq") < row["seq"], pl.col("event_at") < row["event_at"])
            requests.append(Request("home", row["event_at"], member, row["country"], history=past))
            targets.append(order[row["title_id"]])
            again.append(((past["title_id"] == row["title_id"]) & (past["action"] == "play")).any())
    scores = scorer.score(requests)
    gain = gains(scores, np.array(targets), np.ones(scores.shape, np.bool_))
    return pl.DataFrame({"member": [request.member_id for request in requests], "gain": gain, "again": again})


def parts(frame):
    """Yield all requests, those of plays that go on, and those of new titles."""
    yield "all", frame
    yield "again", frame.filter("again")
    yield "new", frame.filter(~pl.col("again"))


def compared(frame, other):
    """Return differences of gain from another model of the same requests, with 95 % intervals over members."""
    over = frame.with_columns(gain=frame["gain"] - other["gain"])
    found = {}
    for name, part in parts(over):
        draws = MemberBootstrap(part["member"].rank("dense").to_numpy().astype(np.int64) - 1)
        interval = draws.intervals(part["gain"].to_numpy()[:, None])[0]
        ends = (interval.low, interval.value, interval.high)
        found[f"{name}_over_same_title"] = [round(float(end), 4) for end in ends]
    return found


def definition(level, length, seed, epochs):
    """Return a model of next plays on home."""
    model = {
        "name": "merging",
        "version": 1,
        "features": NO_FEATURES,
        "canvases": ["home"],
        "rows": [],
        "history": {"length": length, "merge": level},
        "trunk": {"dim": 48, "layers": 2, "heads": 2},
        "heads": {"any_play": {"label": "any_play", "loss": "softmax"}},
        "training": {"epochs": epochs, "seed": seed, "stride": length},
        "evaluate": {"protocol": "leave_one_out", "baselines": ["popular"], "slices": []},
    }
    home = {"name": "home", "version": 1, "metric": "any_play", "context": ["member", "country", "hour_of_week"]}
    home |= {"blend": {"any_play": 1.0}}
    return ResolvedModel.model_validate(
        {"model": model, "labels": {"any_play": LABEL}, "rewards": {}, "canvases": {"home": home}, "rows": {}}
    )


if __name__ == "__main__":
    main()
