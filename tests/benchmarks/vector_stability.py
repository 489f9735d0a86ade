"""Whether published vectors stay where they were when the model is trained again a week later.

    python tests/benchmarks/vector_stability.py --data ML_1M --json
    python tests/benchmarks/vector_stability.py --json               # MovieLens-100K

A small foundation (the trunk of everycanvas, one self-supervised head: any play, full softmax) is trained on the log up
to a day, and again up to seven days later: from scratch with another seed, and warm, from the first one's weights. Then
vectors of the same titles and of members active before the day are compared a week apart, raw and stabilised;
`balanced` is without the rotation, `rotated` without the standardisation. Members are compared in what would be
published in each week: their state at the week's end.

The frozen downstream model is a logistic regression of (member, title, member * title) on whether a title is played, or
one drawn as often as it is played. It learns on the four weeks before the day, with the first week's vectors, and is
judged on the seven days after the second training, with the second week's vectors: its log loss, `fresh` being that of
one trained on the second week's vectors. Only events before a play are read for it. `score_error` is the largest change
of any score (member times title) over the spread of scores.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import click
import numpy as np
import polars as pl
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import minimize

from playbill.config import ProjectFolder, ProjectSettings
from playbill.datasets import Request, Split, build_training_set
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.features import ServiceSchema, TitleSnapshots
from playbill.foundation.stabilise import PublishedTitles, StabilisingMap, stabilising_map
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.sources import ingest
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings
from playbill.training.loop import fit
from playbill.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
HEAD = "next_play"
WEEK, PAST = timedelta(days=7), timedelta(days=28)
EVENTS = 5  # a member of fewer events before the moment is left out: little is known of them


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Folder of MovieLens-1M (default: 100K).")
@click.option("--mapping", type=click.Path(path_type=Path), default=ROOT / "docs/guide/mappings/ml_1m.yaml")
@click.option("--quantile", default=0.8, show_default=True, help="Share of plays before the day.")
@click.option("--width", default=64, show_default=True)
@click.option("--epochs", default=3, show_default=True, help="Of a training from scratch.")
@click.option("--warm-epochs", default=1, show_default=True)
@click.option("--seed", default=17, show_default=True)
@click.option("--starts", default="warm,scratch", show_default=True, help="How the second training begins.")
@click.option("--members", default=3_000, show_default=True, help="Compared; twice as many plays are judged on.")
@click.option("--home", type=click.Path(path_type=Path), help="Where the workspace is kept (default: thrown away).")
@click.option("--plot", type=click.Path(path_type=Path), help="Where the picture goes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(data, mapping, quantile, width, epochs, warm_epochs, seed, starts, members, home, plot, as_json):
    """Train twice, a week apart, and compare what would be published.

    Example: python tests/benchmarks/vector_stability.py --data ml-1m --json
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        log = Log.of(home or Path(scratch), data, mapping)
        day = log.day(quantile)
        settings = {"width": width, "epochs": epochs, "seed": seed}
        first = Version.trained(log, day, Path(scratch) / "first", **settings)
        again = {
            "warm": lambda folder: Version.trained(
                log, day + WEEK, folder, width=width, epochs=warm_epochs, seed=seed + 1, like=first
            ),
            "scratch": lambda folder: Version.trained(
                log, day + WEEK, folder, width=width, epochs=epochs, seed=seed + 1
            ),
        }
        result = {"data": "ml-1m" if data else "ml-100k", "day": f"{day:%F}", **settings, "warm_epochs": warm_epochs}
        for name in starts.split(","):
            result[name] = compared(log, day, first, again[name](Path(scratch) / name), seed, members)
            print(json.dumps({name: result[name]}), flush=True)
    if plot:
        draw(result, plot)
    if as_json:
        print(json.dumps(result))


class NoFeatures:
    """A feature door without features."""

    def schema(self, service):
        """Return no columns."""
        return ServiceSchema(service, (), "none")

    def member_features(self, _service, frame):
        """Return the rows as they are."""
        return frame

    def title_snapshots(self, _service, moments, title_ids):
        """Return no columns of every title at every moment."""
        values = np.zeros((len(moments), len(title_ids), 0), np.float32)
        return TitleSnapshots(tuple(moments), tuple(title_ids), (), values, pl.DataFrame({"title_id": title_ids}))


@dataclass(frozen=True)
class Log:
    """A log in time."""

    workspace: object
    tables: Tables
    frames: EvaluationTables
    events: pl.DataFrame

    @classmethod
    def of(cls, home, data, mapping):
        """Read the log, unless `home` has it already."""
        workspace = ProjectFolder(ROOT, ProjectSettings(home=str(home), workspace="stability")).workspace()
        if not (workspace.folder / "tables").exists():
            source = ("movielens_100k",) if data is None else ("parquet", {"path": data, "mapping": mapping})
            ingest(workspace, *source)
        tables = Tables(workspace)
        frames = EvaluationTables.read(tables)
        return cls(workspace, tables, frames, frames.interactions.sort("member_id", "seq"))

    def day(self, quantile):
        """Return the midnight at which so many of the plays are past."""
        plays = self.events.filter(pl.col("action") == "play")["event_at"].sort()
        return plays[int(quantile * len(plays))].replace(hour=0, minute=0, second=0, microsecond=0)

    def split(self, moment):
        """Return the split that trains on what is before a moment."""
        fold = pl.when(pl.col("event_at") < moment).then(pl.lit("train")).otherwise(pl.lit("test"))
        frame = self.events.select("event_id", fold.cast(pl.Enum(("train", "validation", "test"))).alias("fold"))
        return Split(frame, "global_time", moment, moment, f"until {moment:%F}")

    def requests(self, rows):
        """Return a request for each (member_id, event_at): what was known strictly before that moment."""
        of = {key[0]: own for key, own in self.events.partition_by("member_id", as_dict=True).items()}
        found = []
        for member, at in rows.select("member_id", "event_at").iter_rows():
            own = of[member]
            found.append(Request("home", at, member_id=member, history=own.head(int((own["event_at"] < at).sum()))))
        return found


def foundation(width):
    """Return the definition: everycanvas' trunk, ids and metadata of titles, one head: the next play."""
    zoo = load_zoo(ROOT / "model_zoo")
    found = json.loads(zoo.model("everycanvas").to_json())
    model, home = found["model"], found["canvases"]["home"]
    home |= {"blend": {HEAD: 1.0}, "context": ["member"]}
    model["heads"] = {HEAD: {"label": "any_play", "loss": "softmax"}}
    model |= {"canvases": ["home"], "tasks": {}}
    model["contexts"] |= dict.fromkeys(("task", "imputation", "crossing", "title_crossing"), False)
    model["trunk"]["dim"] = width
    labels = {"any_play": json.loads(zoo.labels["any_play"].model_dump_json(by_alias=True))}
    return ResolvedModel.model_validate(found | {"canvases": {"home": home}, "rows": {}, "labels": labels})


@dataclass(frozen=True)
class Version:
    """A trained foundation and what it makes of members and titles."""

    scorer: Scorer
    titles: np.ndarray
    biases: np.ndarray
    seconds: float

    @classmethod
    def trained(cls, log, moment, folder, *, width, epochs, seed, like=None):
        """Train on what is before a moment, from the weights of another version where one is given."""
        begun, door = time.process_time(), NoFeatures()
        resolved = TrainOptions(seed=seed, epochs=epochs).applied(foundation(width))
        data = build_training_set(log.tables, resolved, log.split(moment), door, workspace_clock(log.workspace))
        network = build_network(resolved, data)
        settings = loop_settings(resolved)
        if like is not None:
            continue_from(network, like.scorer.network)
            settings = settings.model_copy(update={"learning_rate": settings.learning_rate / 4})
        network = fit(network, data, settings, report=tell).network
        weights = network.state_dict()
        about = {"resolved": resolved, "encoder": data.encoder, "config": network.config, "plays": data.plays}
        write_bundle(folder, weights=weights, **about)
        titles = log.frames.titles
        scorer = Scorer(read_bundle(folder), titles, log.frames.availability, None, as_of=moment, network=network)
        vectors, biases = scorer.head_titles(HEAD)
        return cls(scorer, vectors, biases, time.process_time() - begun)

    def members(self, requests):
        """Return the vectors of requests."""
        return self.scorer.request_vectors(requests, HEAD)


def continue_from(network, other):
    """Take another network's weights, but for tables that grew: countries, which this definition does not read."""
    own, theirs = network.state_dict(), other.state_dict()
    same = {name: values for name, values in theirs.items() if values.shape == own[name].shape}
    print(f"started from the first version, but for {sorted(own.keys() - same.keys())}", flush=True)
    network.load_state_dict(same, strict=False)


def compared(log, day, first, second, seed, count):
    """Return what two versions a week apart have in common, raw and stabilised."""
    plays = log.events.filter(pl.col("action") == "play")
    before = plays.filter(pl.col("event_at") < day)
    counts = before.group_by("title_id").len().filter(pl.col("len") >= 1)
    known = np.isin(first.scorer.title_ids, counts["title_id"].to_numpy())
    often = np.isin(first.scorer.title_ids, counts.filter(pl.col("len") >= 50)["title_id"].to_numpy())
    members = before.group_by("member_id").len().filter(pl.col("len") >= EVENTS).sort("member_id").select("member_id")
    members = members.sample(min(count, len(members)), seed=seed)
    old_members, new_members = (
        version.members(log.requests(members.with_columns(pl.lit(moment).alias("event_at"))))
        for version, moment in ((first, day), (second, day + WEEK))
    )
    own = stabilising_map(old_members, first.titles[known], ids(first, known))
    old = Space(own.of_members(old_members), own.of_titles(first.titles))
    published = PublishedTitles(ids(first, known), old.titles[known])
    spaces = {
        "raw": identity(second.titles.shape[1]),
        "balanced": stabilising_map(new_members, second.titles[known], ids(second, known)),
        "rotated": rotated(second.titles[known], first.titles[known]),
        "stabilised": stabilising_map(new_members, second.titles[known], ids(second, known), published),
    }
    before_raw, found = Space(old_members, first.titles), {}
    for name, space in spaces.items():
        now = Space(space.of_members(new_members), space.of_titles(second.titles))
        then = before_raw if name in ("raw", "rotated") else old
        found[f"cosine_{name}"] = {
            "members": spread(cosines(then.members, now.members)),
            "titles": spread(cosines(then.titles, now.titles)[known]),
            "titles_50_plays": spread(cosines(then.titles, now.titles)[often]),
        }
    found["score_error"] = score_error(new_members, second.titles, spaces["stabilised"])
    found |= frozen_losses(log, plays, day, (first, own), (second, spaces), seed, 2 * count)
    return found | {"members": len(members), "titles": int(known.sum()), "seconds": round(second.seconds)}


@dataclass(frozen=True)
class Space:
    """Vectors in one space."""

    members: np.ndarray
    titles: np.ndarray


def ids(version, known):
    """Return the names of some titles."""
    return tuple(np.array(version.scorer.title_ids)[known].tolist())


def identity(width):
    """Return the map that changes nothing."""
    return StabilisingMap(np.eye(width), np.eye(width))


def rotated(now, before):
    """Return the rotation alone, of vectors as they were learnt."""
    turn, _ = orthogonal_procrustes(now.astype(np.float64), before.astype(np.float64))
    return StabilisingMap(turn, turn)


def cosines(a, b):
    """Return the cosine of each pair of rows."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(norms, 1e-12)


def spread(values):
    """Return mean and lower tenth."""
    return {"mean": round(float(values.mean()), 4), "q10": round(float(np.quantile(values, 0.1)), 4)}


def score_error(members, titles, space):
    """Return the largest change of a score, over the standard deviation of scores."""
    plain = members.astype(np.float64) @ titles.T.astype(np.float64)
    moved = space.of_members(members).astype(np.float64) @ space.of_titles(titles).T.astype(np.float64)
    return float(np.abs(plain - moved).max() / plain.std())


def frozen_losses(log, plays, day, first, second, seed, count):
    """Return the log loss of a model trained on the first week's vectors, on the second week's."""
    (old, own), (new, spaces) = first, second
    learnt, judged = (
        sampled(plays, day - PAST, day, count, seed),
        sampled(plays, day + WEEK, day + 2 * WEEK, count * 2 // 3, seed),
    )
    draws = np.random.default_rng(seed)
    popular = plays.filter(pl.col("event_at") < day)["title_id"].to_numpy()
    place = {title: number for number, title in enumerate(old.scorer.title_ids)}
    pairs = {
        name: (
            np.array([place[title] for title in rows["title_id"]]),
            np.array([place[title] for title in draws.choice(popular, len(rows))]),
        )
        for name, rows in (("learnt", learnt), ("judged", judged))
    }
    then, now = old.members(log.requests(learnt)), new.members(log.requests(judged))
    stale = old.members(log.requests(judged))
    found = {}
    for name, space in spaces.items():
        base = identity(old.titles.shape[1]) if name in ("raw", "rotated") else own
        probe = Probe.fitted(base.of_members(then), base.of_titles(old.titles), pairs["learnt"])
        found[f"frozen_loss_{name}"] = probe.loss(space.of_members(now), space.of_titles(new.titles), pairs["judged"])
        if name == "stabilised":
            found["frozen_loss_first_week"] = probe.loss(
                own.of_members(stale), own.of_titles(old.titles), pairs["judged"]
            )
            relearnt = new.members(log.requests(learnt))
            fresh = Probe.fitted(space.of_members(relearnt), space.of_titles(new.titles), pairs["learnt"])
            found["frozen_loss_fresh"] = fresh.loss(space.of_members(now), space.of_titles(new.titles), pairs["judged"])
    return {name: {"loss": round(loss, 4), "error": round(error, 4)} for name, (loss, error) in found.items()}


def sampled(plays, since, until, count, seed):
    """Return some plays of a time, by members of whom something was known before."""
    earlier = (pl.col("seq").rank("ordinal").over("member_id") - 1).alias("earlier")
    rows = plays.with_columns(earlier).filter(
        (pl.col("event_at") >= since) & (pl.col("event_at") < until) & (pl.col("earlier") >= EVENTS)
    )
    return rows.sample(min(count, len(rows)), seed=seed)


@dataclass(frozen=True)
class Probe:
    """A logistic regression over a member's and a title's vector and their product."""

    centre: np.ndarray
    scale: np.ndarray
    weights: np.ndarray

    @classmethod
    def fitted(cls, members, titles, pairs, penalty=1e-3):
        """Fit played titles against drawn ones."""
        rows, labels = examples(members, titles, pairs)
        centre, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-9
        inputs = np.hstack([(rows - centre) / scale, np.ones((len(rows), 1))])

        def objective(weights):
            logits = inputs @ weights
            loss = np.logaddexp(0, logits) - labels * logits
            gradient = inputs.T @ (1 / (1 + np.exp(-logits)) - labels) / len(labels) + 2 * penalty * weights
            return loss.mean() + penalty * weights @ weights, gradient

        found = minimize(objective, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500})
        return cls(centre, scale, found.x)

    def loss(self, members, titles, pairs):
        """Return the mean log loss and its standard error over plays."""
        rows, labels = examples(members, titles, pairs)
        logits = np.hstack([(rows - self.centre) / self.scale, np.ones((len(rows), 1))]) @ self.weights
        losses = (np.logaddexp(0, logits) - labels * logits).reshape(2, -1).mean(axis=0)
        return float(losses.mean()), float(losses.std() / np.sqrt(len(losses)))


def examples(members, titles, pairs):
    """Return inputs and labels: played, then drawn."""
    rows = [np.hstack([members, titles[own], members * titles[own]]) for own in pairs]
    return np.vstack(rows).astype(np.float64), np.repeat([1.0, 0.0], len(members))


def tell(numbers, _checkpoint):
    """Print how a network comes on."""
    print(f"epoch {numbers['epoch']:.0f}: loss {numbers['loss']:.3f}, {numbers['seconds']:.0f} s", flush=True)


def draw(result, path):
    """Draw cosines and losses, beside one another."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    spaces = ("raw", "rotated", "balanced", "stabilised")
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    starts = [start for start in ("warm", "scratch") if start in result]
    bars = [(start, kind) for start in starts for kind in ("members", "titles")]
    for number, (start, kind) in enumerate(bars):
        values = [result[start][f"cosine_{space}"][kind]["mean"] for space in spaces]
        axes[0].bar(
            [place + (number - 1.5) * 0.2 for place in range(len(spaces))], values, 0.19, label=f"{kind}, {start}"
        )
    axes[0].axhline(0.85, color="grey", linestyle=":")
    axes[0].set_xticks(range(len(spaces)), spaces)
    axes[0].set_title("cosine of the same entity, a week apart")
    axes[0].legend(fontsize=8)
    shown = (*spaces, "first_week", "fresh")
    for number, start in enumerate(starts):
        rows = [result[start][f"frozen_loss_{name}"] for name in shown]
        axes[1].bar(
            [place + (number - 0.5) * 0.38 for place in range(len(shown))],
            [row["loss"] for row in rows],
            0.36,
            yerr=[2 * row["error"] for row in rows],
            label=start,
        )
    axes[1].set_xticks(range(len(shown)), [name.replace("_", "\n") for name in shown])
    axes[1].set_title("log loss of a model trained on the first week's vectors")
    axes[1].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
