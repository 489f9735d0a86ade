"""New titles: NDCG@10 of held-out plays by how many plays their title has in training, against genres and ids alone.

    python tests/benchmarks/cold_titles.py --data ml-1m --json
    python tests/benchmarks/cold_titles.py --data ml-1m --models shipped,genres --seeds 17

MovieLens has few titles that nobody played in training, and those are the ones nobody wants. So new titles are made
of old ones: a seeded 15 % of the titles with 10 training plays or more lose all of them but k, drawn from 0, 0, 5 and
50. Training reads the log of drawn members of 60 plays or more, without their last twenty plays. Tested are all of
those of a title that has no play left, and two of each other bucket of each member; each asks with the member's
history before it, and the whole catalogue is ranked but what the member has played. Networks have no features of
titles and members, so what is known of a title's plays is in its id alone. `among` ranks titles of the same bucket
alone, as a row of new titles does. Scores that tie share their places. Differences are paired by member, their
intervals of 2,000 draws of members.

`genres` is the popularity of a title's genres: plays per title of each, halved every 90 days before the last one,
averaged over its genres; `member_genres` weighs them by what the member has played.
"""

import json
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import matplotlib as mpl
import numpy as np
import polars as pl
import torch
from matplotlib import pyplot as plt
from sequence_quality import Log, plain, scorer_of

from playbill.datasets import Request, build_training_set
from playbill.datasets.splits import Split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.metrics.bootstrap import MemberBootstrap
from playbill.tables import workspace_clock
from playbill.training.build import build_network, loop_settings
from playbill.training.loop import fit
from playbill_lab.bridge.live_features import NoFeatures

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs/results/cold_titles.json"
MAPPING = ROOT / "docs/guide/mappings/ml_1m.yaml"
METADATA = ["genres", "kind", "original_language", "release_year", "name", "synopsis"]
BOTH = {"metadata": METADATA, "age_gate": True, "id_mask": 0.1}
NETWORKS = {
    "shipped": BOTH,
    "seen": BOTH | {"negatives": "seen"},
    "fallback": BOTH | {"fallback": "kind"},
    "fallback_seen": BOTH | {"fallback": "kind", "negatives": "seen"},
    "unmasked_seen": BOTH | {"negatives": "seen", "id_mask": 0},
    "masked_30_seen": BOTH | {"negatives": "seen", "id_mask": 0.3},
    "text_seen": BOTH | {"negatives": "seen", "text": "lsa"},
    "text_masked_30_seen": BOTH | {"negatives": "seen", "text": "lsa", "id_mask": 0.3},
    "ungated_seen": BOTH | {"negatives": "seen", "age_gate": False},
    "metadata_only": {"metadata": METADATA, "id_embedding": False, "negatives": "seen", "svd_start": False},
    "id_only": {},
}
BASELINES = ("popular", "genres", "member_genres")
SHOWN = (
    "popular",
    "genres",
    "member_genres",
    "id_only",
    "metadata_only",
    "shipped",
    "seen",
    "fallback_seen",
    "text_seen",
)
BUCKETS = {"0": (0, 0), "1-10": (1, 10), "11-100": (11, 100), "101+": (101, 10**9)}
KEPT, LEAST_PLAYS, SHARE = (0, 0, 5, 50), 10, 0.15
LEAST_HISTORY, HELD_OUT, OF_BUCKET = 60, 20, 2
HALF_LIFE_DAYS, CUT = 90, 10


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of MovieLens-1M.")
@click.option("--members", default=200, show_default=True, help="Members drawn from the log.")
@click.option("--models", default=",".join((*BASELINES, *NETWORKS)), show_default=True)
@click.option("--seeds", default="17,18", show_default=True, help="Of titles, members and networks.")
@click.option("--epochs", type=int, help="Of networks (default: the definition's).")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=False)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the rows into this SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(data, members, models, seeds, epochs, out, plot, as_json):
    """Measure models, and write a row for each.

    Example: python tests/benchmarks/cold_titles.py --data ml-1m --models shipped,genres --json
    """
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        log = Log.of(Path(scratch) / "home", drawn_members(data, members, Path(scratch)), MAPPING, "leave_one_out")
        for seed in [int(text) for text in seeds.split(",")]:
            problem = Problem.of(log, seed)
            print(json.dumps(problem.about), flush=True)
            found = {}
            for model in models.split(","):
                begun = time.process_time()
                scores, about = problem.scores(model, epochs, Path(scratch))
                found[model] = problem.gains(scores)
                rows.append({"seed": seed, "model": model} | problem.row(found[model], found.get("genres")) | about)
                rows[-1]["seconds"] = round(time.process_time() - begun)
                print(json.dumps(rows[-1]), flush=True)
                keep(rows[-1], out)
    if plot is not None:
        draw(summary(json.loads(out.read_text())["rows"]), plot)
    if as_json:
        print(json.dumps(summary(json.loads(out.read_text())["rows"])))


def drawn_members(data, members, scratch):
    """Return a folder like `data` with the events of some members."""
    folder = scratch / "data"
    folder.mkdir()
    for path in data.iterdir():
        if path.suffix != ".parquet":
            shutil.copyfile(path, folder / path.name)
    events = pl.read_parquet(data / "interactions.parquet")
    long = events.group_by("user_id").len().filter(pl.col("len") >= LEAST_HISTORY)
    drawn = long["user_id"].sort().sample(members, seed=1)
    events.filter(pl.col("user_id").is_in(drawn.implode())).write_parquet(folder / "interactions.parquet")
    return folder


@dataclass(frozen=True)
class Problem:
    """One seed: what training reads, and the plays that are tested. N requests, T titles."""

    log: Log
    seed: int
    split: Split
    train: pl.DataFrame  # events of training
    tested: pl.DataFrame  # [N] the plays
    about: dict

    @classmethod
    def of(cls, log, seed):
        """Take plays away from drawn titles, and hold out the last ones of each member."""
        events = log.frames.interactions.sort("member_id", "seq")
        plays = events.filter(pl.col("action") == "play")
        last = plays.group_by("member_id", maintain_order=True).tail(HELD_OUT)
        begins = last.group_by("member_id").agg(begin=pl.col("seq").min())
        events = events.join(begins, on="member_id", maintain_order="left").with_columns(
            held_out=pl.col("seq") >= pl.col("begin")
        )
        train = events.filter(~pl.col("held_out"))
        gone = removed(train.filter(pl.col("action") == "play"), seed)
        left = train.join(gone, on=["member_id", "title_id"], how="anti", maintain_order="left")
        fold = pl.concat(
            [
                left.select("event_id", fold=pl.lit("train")),
                events.filter("held_out").select("event_id", fold=pl.lit("test")),
            ]
        )
        counts = left.filter(pl.col("action") == "play").group_by("title_id").agg(plays=pl.len())
        asked = last.join(counts, on="title_id", how="left", maintain_order="left").with_columns(
            pl.col("plays").fill_null(0)
        )
        bucket = np.searchsorted([high for _, high in BUCKETS.values()], asked["plays"].to_numpy())
        shuffled = asked.with_columns(bucket=pl.Series(bucket)).sample(fraction=1.0, shuffle=True, seed=seed)
        place = pl.int_range(pl.len()).over("member_id", "bucket")
        tested = shuffled.filter((pl.col("bucket") == 0) | (place < OF_BUCKET)).sort("member_id", "seq")
        about = {
            "seed": seed,
            "members": begins.height,
            "train_events": left.height,
            "titles_thinned": gone["title_id"].n_unique(),
            "plays_taken": gone.height,
            "tested": {name: int(tested["plays"].is_between(*ends).sum()) for name, ends in BUCKETS.items()},
        }
        split = Split(fold, "leave_one_out", None, None, f"cold titles {seed}")
        return cls(log, seed, split, left, tested, about)

    @cached_property
    def title_ids(self):
        """The catalogue."""
        return self.log.frames.titles["title_id"].to_list()

    @cached_property
    def plays(self):
        """[T] plays of each title in training."""
        counts = dict(self.train.filter(pl.col("action") == "play").group_by("title_id").len().iter_rows())
        return np.array([counts.get(title, 0) for title in self.title_ids])

    @cached_property
    def histories(self):
        """[N] what each request's member had done: what is left of training, and held-out events before it."""
        events = self.log.frames.interactions
        known = self.split.events(events, "train", "test").sort("member_id", "seq")
        own = known.partition_by("member_id", as_dict=True)
        return [
            own[(row["member_id"],)].filter(pl.col("seq") < row["seq"]) for row in self.tested.iter_rows(named=True)
        ]

    @cached_property
    def candidates(self):
        """[N, T] titles that the member has not played."""
        place = {title: at for at, title in enumerate(self.title_ids)}
        found = np.ones((len(self.histories), len(place)), np.bool_)
        for row, history in enumerate(self.histories):
            found[row, [place[title] for title in history["title_id"].unique()]] = False
        return found

    def scores(self, model, epochs, scratch):
        """Return [N, T] scores of a model, and what to tell of it."""
        if model in BASELINES:
            return self.baseline(model), {}
        resolved = self.resolved(NETWORKS[model], epochs)
        door = NoFeatures()
        data = build_training_set(self.log.tables, resolved, self.split, door, workspace_clock(self.log.workspace))
        network = fit(build_network(resolved, data), data, loop_settings(resolved)).network.eval()
        scorer = scorer_of(self.log, resolved, data, network, door, scratch)
        order = {title: at for at, title in enumerate(scorer.title_ids)}
        requests = [
            Request("home", row["event_at"], row["member_id"], history=history)
            for row, history in zip(self.tested.iter_rows(named=True), self.histories, strict=True)
        ]
        scores = CanvasScorer(scorer, resolved, "home", None).score(requests)
        return scores[:, [order[title] for title in self.title_ids]], self.shares(network, scorer)

    def shares(self, network, scorer):
        """Return the mean share of the id in the vectors of each bucket's titles, and its correlation with plays."""
        prepared = network.titles.prepare(scorer.inputs, network.grams)
        with torch.no_grad():
            share = network.titles(scorer.inputs, prepared)[1].squeeze(-1).numpy()
        plays = scorer.inputs.plays.numpy()
        own = {name: share[1:][(plays[1:] >= low) & (plays[1:] <= high)] for name, (low, high) in BUCKETS.items()}
        means = {name: round(float(values.mean()), 3) for name, values in own.items() if len(values)}
        spread = share[1:].std() > 0
        correlation = float(np.corrcoef(np.log1p(plays[1:]), share[1:])[0, 1]) if spread else None
        return {"id_share": means, "id_share_with_log_plays": correlation and round(correlation, 3)}

    def resolved(self, titles, epochs):
        """Return everycanvas for a log of plays alone, with what a model says of titles."""
        found = json.loads(plain(load_zoo(ROOT / "model_zoo").model("everycanvas"), 64).to_json())
        found["model"]["titles"] |= titles
        found["model"]["training"]["seed"] = self.seed
        if epochs:
            found["model"]["training"]["epochs"] = epochs
        return ResolvedModel.model_validate(found)

    def baseline(self, model):
        """Return [N, T] scores of a baseline; alike for all members but those of `member_genres`."""
        if model == "popular":
            return np.tile(self.plays.astype(np.float64), (len(self.tested), 1))
        listed = [own or [] for own in self.log.frames.titles["genres"].to_list()]
        genres = sorted({genre for own in listed for genre in own})
        has_TG = np.array([[genre in own for genre in genres] for own in listed], np.float64)
        place = {title: at for at, title in enumerate(self.title_ids)}
        plays = self.train.filter(pl.col("action") == "play")
        age = (plays["event_at"].max() - plays["event_at"]).dt.total_seconds().to_numpy() / 86_400
        recent_T = np.bincount([place[title] for title in plays["title_id"]], 0.5 ** (age / HALF_LIFE_DAYS), len(place))
        known_T = self.plays > 0
        popular_G = (recent_T @ has_TG) / np.maximum(has_TG[known_T].sum(axis=0), 1)
        if model == "genres":
            return np.tile(mean_of(has_TG, popular_G), (len(self.tested), 1))
        rows = []
        for history in self.histories:
            own = [place[title] for title in history.filter(pl.col("action") == "play")["title_id"]]
            taste_G = has_TG[own].sum(axis=0) / max(len(own), 1) + 1e-3
            rows.append(mean_of(has_TG, popular_G * taste_G / (has_TG.mean(axis=0) + 1e-3)))
        return np.stack(rows)

    def gains(self, scores):
        """Return [N] gain of each request over the whole catalogue, and among titles of the target's bucket."""
        place = {title: at for at, title in enumerate(self.title_ids)}
        target = np.array([place[title] for title in self.tested["title_id"]])
        bucket = np.searchsorted([high for _, high in BUCKETS.values()], self.plays)
        among = self.candidates & (bucket[None, :] == bucket[target][:, None])
        return np.stack([gains(scores, target, mask) for mask in (self.candidates, among)])

    def row(self, own, genres):
        """Return mean gains by bucket, with the difference from the popularity of genres."""
        found = {}
        for name, ends in BUCKETS.items():
            chosen = self.tested["plays"].is_between(*ends).to_numpy()
            if not chosen.any():
                continue
            member = self.tested["member_id"].to_numpy()[chosen]
            for kind, place in (("ndcg@10", 0), ("among", 1)):
                values = own[place][chosen]
                found.setdefault(kind, {})[name] = round(float(values.mean()), 4)
                if genres is not None and own is not genres:
                    over = difference(values - genres[place][chosen], member)
                    found.setdefault(f"{kind}_over_genres", {})[name] = over
        return found


def removed(plays, seed):
    """Return the member and title of each play that is taken away."""
    draw = np.random.default_rng(seed)
    counts = plays.group_by("title_id").len().filter(pl.col("len") >= LEAST_PLAYS).sort("title_id")
    chosen = counts.sample(fraction=SHARE, seed=seed, shuffle=True)
    kept = pl.DataFrame({"title_id": chosen["title_id"], "kept": draw.choice(KEPT, chosen.height)})
    drawn = plays.select("member_id", "title_id").sample(fraction=1.0, shuffle=True, seed=seed)
    drawn = drawn.join(kept, on="title_id").with_columns(place=pl.int_range(pl.len()).over("title_id"))
    return drawn.filter(pl.col("place") >= pl.col("kept")).select("member_id", "title_id")


def mean_of(has_TG, worth_G):
    """Return [T] the mean worth of each title's genres, 0 for one without."""
    return (has_TG @ worth_G) / np.maximum(has_TG.sum(axis=1), 1)


def gains(scores, target, candidates):
    """Return [N] 1 / log2(1 + place) of targets within the first places, over the places that ties share."""
    worth = np.concatenate([[0.0], np.cumsum(1 / np.log2(1 + np.arange(1, CUT + 1)))])
    own = scores[np.arange(len(target)), target][:, None]
    above = (candidates & (scores > own)).sum(axis=1)
    tied = np.maximum((candidates & (scores == own)).sum(axis=1), 1)
    return (worth[np.minimum(above + tied, CUT)] - worth[np.minimum(above, CUT)]) / tied


def difference(values, member):
    """Return the mean between the ends of its 95 % interval over members."""
    draws = MemberBootstrap(np.unique(member, return_inverse=True)[1])
    found = draws.intervals(values[:, None])[0]
    return [round(float(value), 4) for value in (found.low, found.value, found.high)]


def keep(row, out):
    """Put a row into the file, in place of an earlier one."""
    rows = json.loads(out.read_text())["rows"] if out.exists() else []
    rows = [other for other in rows if (other["model"], other["seed"]) != (row["model"], row["seed"])]
    lines = ",\n".join(
        f"  {json.dumps(one)}" for one in sorted([*rows, row], key=lambda one: (one["model"], one["seed"]))
    )
    out.write_text(f'{{"rows": [\n{lines}\n]}}\n')


def summary(rows):
    """Return each model's mean gains over seeds."""
    found = {}
    for row in rows:
        found.setdefault(row["model"], []).append(row)
    return {
        model: {
            kind: {name: round(statistics.mean(row[kind][name] for row in own), 4) for name in own[0][kind]}
            for kind in ("ndcg@10", "among")
        }
        for model, own in found.items()
    }


def draw(means, path):
    """Draw mean gains by bucket, over the catalogue and among titles of the bucket."""
    mpl.use("Agg")
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    buckets = list(BUCKETS)[:-1]
    shown = {name: own for name, own in means.items() if name in SHOWN}
    for axis, kind in zip(axes, ("ndcg@10", "among"), strict=True):
        for place, name in enumerate(name for name in SHOWN if name in shown):
            left = [bucket + (place - len(shown) / 2) * 0.8 / len(shown) for bucket in range(len(buckets))]
            heights = [shown[name][kind].get(bucket, 0.0) for bucket in buckets]
            axis.bar(left, heights, width=0.8 / len(shown), align="edge", label=name)
        axis.set_xticks(range(len(buckets)), [f"{bucket} plays" for bucket in buckets])
    axes[0].set(title="over the whole catalogue", ylabel="NDCG@10 of held-out plays")
    axes[1].set_title("among titles of the same bucket")
    axes[1].legend(fontsize=8, ncols=2)
    mpl.rcParams["svg.hashsalt"] = "cold titles"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
