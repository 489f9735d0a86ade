"""Other people's models on our split, by our evaluator: lists of RecTools and implicit beside our own baselines.

    make bench-peers ML_1M=FOLDER
    python tests/benchmarks/peers.py --data FOLDER --python .venv-peers/bin/python --json

Three steps, each with its files in --folder, so that none has to be run twice: `requests.parquet` and `plays.parquet`
(row ids are those of the evaluation case; lists of another case are made anew); the peers' hundred best titles of each
request, made by peers_lists.py in an environment of their own; the same numbers of all, over the same requests and
candidates. EASE, item_knn and iALS are fitted here and there with settings that mean the same, so `ratio` says how far
our own agree with theirs.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import polars as pl

from playbill.config import ProjectFolder, ProjectSettings
from playbill.datasets import make_split
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.baselines.ease import Ease
from playbill.evaluation.baselines.ials import Ials, IalsOptions
from playbill.evaluation.baselines.item_knn import ItemKnn
from playbill.evaluation.baselines.popularity import popular
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.measure import measure
from playbill.sources import ingest
from playbill.tables import Tables

ROOT = Path(__file__).parents[2]
PENALTY, NEIGHBOURS, FACTORS, UNPLAYED_WEIGHT, REGULARISATION, ROUNDS = 500.0, 200, 64, 0.1, 1.0, 15
SETTINGS = {
    "ease": {"regularization": PENALTY},
    "ease_by_columns": {"regularization": PENALTY},
    # The title itself is among implicit's neighbours, and ours.
    "item_knn": {"K": NEIGHBOURS + 1},
    # implicit weighs what was played by alpha and all else by 1; we weigh all by alpha_0 and what was played by 1 more.
    # With alpha = 1 + 1 / alpha_0 the losses differ by a factor alone, and by targets of 1 + alpha_0 instead of 1, for
    # which lambda makes up.
    "ials": {
        "factors": FACTORS,
        "alpha": 1 + 1 / UNPLAYED_WEIGHT,
        "regularization": (1 + UNPLAYED_WEIGHT) * REGULARISATION / UNPLAYED_WEIGHT,
        "iterations": ROUNDS,
        "use_cg": False,
    },
}
NETWORKS = ("sasrec", "esasrec")
SHOWN = ("hr@10", "ndcg@10")


class Listed:
    """Lists as a score function: a hundred scores for the titles of a list, the best first, and zero for all others."""

    def __init__(self, case, lists):
        self.title_ids = case.catalogue.title_ids
        column = {title: place for place, title in enumerate(self.title_ids)}
        self._of = {
            member: ([column[title] for title in titles], np.arange(len(titles), 0, -1, dtype=np.float32))
            for member, titles in lists.group_by("member_id", maintain_order=True).agg("title_id").iter_rows()
        }

    def score(self, requests):
        """Return [N, T]."""
        scores = np.zeros((len(requests), len(self.title_ids)), np.float32)
        for row, request in enumerate(requests):
            columns, values = self._of[request.member_id]
            scores[row, columns] = values
        return scores


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of MovieLens-1M.")
@click.option("--mapping", type=click.Path(path_type=Path), default=ROOT / "docs/guide/mappings/ml_1m.yaml")
@click.option("--python", "peer_python", required=True, help="Python that has RecTools and implicit.")
@click.option("--models", default="ease,ease_by_columns,item_knn,ials,sasrec,esasrec", show_default=True)
@click.option("--epochs", default=20, show_default=True, help="Of RecTools' networks; they take minutes each.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where files are kept (default: thrown away).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(data, mapping, peer_python, models, epochs, folder, as_json):
    """Compare peers with our baselines.

    Example: python tests/benchmarks/peers.py --data ml-1m --python .venv-peers/bin/python --models ease --json
    """
    with tempfile.TemporaryDirectory() as scratch:
        case = case_of(data, mapping, Path(scratch))
        folder = folder or Path(scratch) / "peers"
        names = models.split(",")
        write_requests(case, folder)
        peers = {name: peer_lists(case, folder, peer_python, name, epochs) for name in names}
        ours, seconds = fit_ours(case, names)
        measured = measure(case, {**ours, **{f"{name} (peer)": lists for name, (lists, _) in peers.items()}}, (10,))
    values = {
        name: {metric: float(found.values[metric].mean()) for metric in SHOWN} for name, found in measured.items()
    }
    rows = [row(name, values, peers[name][1], seconds.get(name)) for name in names]
    print_table(rows)
    if as_json:
        agreement = [abs(one["ratio"] - 1) for one in rows if one["ratio"] is not None]
        print(
            json.dumps(
                {
                    "requests": len(case),
                    "titles": len(case.catalogue),
                    "case_digest": case.digest,
                    "epochs": epochs,
                    "largest_disagreement": max(agreement, default=None),
                    "models": rows,
                }
            )
        )


def case_of(data, mapping, home):
    """Return the requests of home under leave_one_out on the shipped model's definition."""
    workspace = ProjectFolder(ROOT, ProjectSettings(home=str(home))).workspace("bench")
    ingest(workspace, "parquet", {"path": data, "mapping": mapping})
    tables = EvaluationTables.read(Tables(workspace))
    resolved = load_zoo(ROOT / "model_zoo").model("everycanvas")
    return build_case(tables, make_split("leave_one_out", tables.interactions), resolved, "home")


def write_requests(case, folder):
    """Write who asks, and the plays before each request with whether a model may be fitted on them."""
    folder.mkdir(parents=True, exist_ok=True)
    members = case.frame["member_id"]
    assert members.n_unique() == len(case)
    case.frame.select("request_id", "member_id").write_parquet(folder / "requests.parquet")
    fitted = case.log.fitted_plays().select("member_id", "title_id").with_columns(fitted=True).unique()
    histories = pl.concat(
        request.history.filter(pl.col("action") == "play").select("member_id", "title_id").with_row_index("place")
        for chunk in case.chunks()
        for request in chunk.requests
    )
    plays = histories.join(fitted, on=["member_id", "title_id"], how="left", maintain_order="left")
    plays.with_columns(pl.col("fitted").fill_null(False)).write_parquet(folder / "plays.parquet")
    (folder / "case.json").write_text(json.dumps({"digest": case.digest}))


def peer_lists(case, folder, python, name, epochs):
    """Have a peer list its hundred best, unless its lists of this case and these settings are there."""
    wanted = {"digest": case.digest, "settings": SETTINGS.get(name, {"epochs": epochs})}
    report, lists = folder / f"{name}.json", folder / f"{name}.parquet"
    if not (report.is_file() and json.loads(report.read_text()).get("wanted") == wanted):
        script = Path(__file__).with_name("peers_lists.py")
        settings = json.dumps(wanted["settings"])
        # The peers' environment must not find ours.
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        subprocess.run([python, script, str(folder), name, settings], check=True, env=clean)
        report.write_text(json.dumps({"wanted": wanted, **json.loads(report.read_text())}))
    found = pl.read_parquet(lists).join(pl.read_parquet(folder / "requests.parquet"), on="request_id")
    assert found["member_id"].n_unique() == len(case), f"{name} did not list for every request"
    return Listed(case, found.sort("member_id", "rank")), json.loads(report.read_text())


def fit_ours(case, names):
    """Fit our own with the settings that mean the same, and the seconds of CPU that it took."""
    plays, backoff = case.log.fitted_plays(), popular(case).shares
    options = IalsOptions(FACTORS, UNPLAYED_WEIGHT, REGULARISATION, frequency_power=0.0, rounds=ROUNDS)
    makers = {
        "ease": lambda: Ease.fit(case.catalogue, plays, PENALTY, backoff=backoff),
        "item_knn": lambda: ItemKnn.fit(case.catalogue, plays, NEIGHBOURS, 0.0, backoff=backoff),
        "ials": lambda: Ials.fit(case.catalogue, plays, options, backoff=backoff),
    }
    fitted, seconds = {}, {}
    makers["ease_by_columns"] = makers["ease"]
    for name in names:
        if name in makers:
            begun = time.process_time()
            fitted[name] = makers[name]()
            seconds[name] = time.process_time() - begun
    return fitted, seconds


def row(name, values, report, seconds):
    """Return one model's numbers, theirs and ours, and ours / theirs."""
    theirs, ours = values[f"{name} (peer)"], values.get(name)
    return {
        "model": name,
        "peer": report["peer"],
        "peer_cpu_seconds": report["cpu_seconds"],
        "our_cpu_seconds": seconds,
        **{f"peer_{metric}": theirs[metric] for metric in SHOWN},
        **{f"our_{metric}": None if ours is None else ours[metric] for metric in SHOWN},
        "ratio": None if ours is None else ours["ndcg@10"] / theirs["ndcg@10"],
    }


def print_table(rows):
    """Print theirs and ours."""
    print(f"{'model':<17}{'peer':<42}{'hr@10':>8}{'ndcg@10':>9}{'ours':>8}{'ours':>9}{'ratio':>8}")
    for one in rows:
        ours = [one[f"our_{metric}"] for metric in SHOWN]
        texts = ["" if value is None else f"{value:.4f}" for value in (*ours, one["ratio"])]
        peer = f"{one['peer_hr@10']:>8.4f}{one['peer_ndcg@10']:>9.4f}"
        print(f"{one['model']:<17}{one['peer']:<42}{peer}{texts[0]:>8}{texts[1]:>9}{texts[2]:>8}")


if __name__ == "__main__":
    main()
