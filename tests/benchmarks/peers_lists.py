"""The hundred best titles of every request by one model of RecTools or implicit; run by peers.py with their Python.

    python tests/benchmarks/peers_lists.py FOLDER NAME SETTINGS_AS_JSON

Reads plays.parquet and requests.parquet of FOLDER and writes NAME.parquet (request_id, rank, title_id) and NAME.json.
A model is fitted on the plays marked `fitted` and asked with all plays before the request, which it never lists.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

LISTED = 100


class Plays:
    """Plays by number: member and title codes of all plays before the requests."""

    def __init__(self, folder):
        self.requests = pl.read_parquet(folder / "requests.parquet").sort("member_id")
        self.frame = pl.read_parquet(folder / "plays.parquet").sort("member_id", "place", maintain_order=True)
        self.titles = self.frame["title_id"].unique().sort()
        members = self.requests["member_id"]
        assert (members.n_unique(), set(members)) == (len(members), set(self.frame["member_id"]))
        self.member = members.search_sorted(self.frame["member_id"]).to_numpy()
        self.title = self.titles.search_sorted(self.frame["title_id"]).to_numpy()
        self.fitted = self.frame["fitted"].to_numpy()

    def matrix(self, chosen):
        """Return [members, titles] of zeros and ones."""
        shape = (len(self.requests), len(self.titles))
        ones = np.ones(int(chosen.sum()), np.float32)
        return sparse.csr_matrix((ones, (self.member[chosen], self.title[chosen])), shape=shape)

    def interactions(self, chosen):
        """Return what RecTools makes a dataset of; the place in the history is the day."""
        from pandas import DataFrame, Timestamp, to_timedelta

        days = to_timedelta(self.frame["place"].to_numpy()[chosen].astype(np.int64), unit="D")
        columns = {"user_id": self.member[chosen], "item_id": self.title[chosen], "weight": 1.0}
        return DataFrame({**columns, "datetime": Timestamp("2000-01-01") + days})


def best(scores, seen):
    """Return [N, LISTED] titles by score, without those that were seen."""
    scores = np.where(seen, -np.inf, scores)
    top = np.argpartition(-scores, LISTED, axis=1)[:, :LISTED]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)


def item_knn(plays, settings):
    """implicit's cosine neighbours, kept per title that is scored, as ours are."""
    from implicit.nearest_neighbours import CosineRecommender

    model = CosineRecommender(**settings, num_threads=1)
    model.fit(plays.matrix(plays.fitted), show_progress=False)
    history = plays.matrix(np.ones(len(plays.title), bool))
    scores = (history @ model.similarity.tocsr().T.tocsr()).toarray()
    return best(scores, history.toarray() > 0), "implicit CosineRecommender"


def ials(plays, settings):
    """implicit's alternating least squares; vectors of members are solved anew from their histories."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(**settings, use_gpu=False, num_threads=1, random_state=0)
    model.fit(plays.matrix(plays.fitted), show_progress=False)
    history = plays.matrix(np.ones(len(plays.title), bool))
    members = np.arange(history.shape[0])
    found, _ = model.recommend(members, history, N=LISTED, filter_already_liked_items=True, recalculate_user=True)
    return found, "implicit AlternatingLeastSquares"


def rectools(plays, model):
    """Fit a model of RecTools, and list with the histories."""
    from rectools.dataset import Dataset, Interactions

    dataset = Dataset.construct(plays.interactions(plays.fitted))
    model.fit(dataset)
    known = plays.fitted | np.isin(plays.title, plays.title[plays.fitted])
    every = Interactions.from_raw(plays.interactions(known), dataset.user_id_map, dataset.item_id_map)
    requested = Dataset(dataset.user_id_map, dataset.item_id_map, every)
    members = np.arange(len(plays.requests))
    found = model.recommend(users=members, dataset=requested, k=LISTED, filter_viewed=True)
    ordered = found.sort_values(["user_id", "rank"])
    return ordered.groupby("user_id", sort=True)["item_id"].apply(list).to_list()


def ease(plays, settings):
    """RecTools' EASE as it comes: it scores by the rows of B, which are divided by the played title's diagonal."""
    from rectools.models import EASEModel

    return rectools(plays, EASEModel(**settings, recommend_use_gpu_ranking=False)), "RecTools EASEModel"


def ease_by_columns(plays, settings):
    """RecTools' EASE asked as its paper's equation 8 reads: x B, by the columns of the B that it has fitted."""
    from rectools.models import EASEModel

    class ByColumns(EASEModel):
        def _fit(self, dataset):
            super()._fit(dataset)
            self.weight = np.ascontiguousarray(self.weight.T)

    return rectools(plays, ByColumns(**settings, recommend_use_gpu_ranking=False)), "RecTools EASEModel, columns"


def sasrec(plays, settings):
    """RecTools' SASRec with the full softmax, in the sizes of the papers' MovieLens-1M."""
    from rectools.models import SASRecModel

    model = SASRecModel(**SIZES, loss="softmax", epochs=settings["epochs"], deterministic=True)
    return rectools(plays, model), f"RecTools SASRec, softmax, {settings['epochs']} epochs"


def esasrec(plays, settings):
    """RecTools' eSASRec: SASRec with LiGR layers and a sampled softmax."""
    from rectools.models import SASRecModel
    from rectools.models.nn.transformers.ligr import LiGRLayers

    model = SASRecModel(
        **SIZES,
        loss="sampled_softmax",
        n_negatives=256,
        transformer_layers_type=LiGRLayers,
        epochs=settings["epochs"],
        deterministic=True,
    )
    return rectools(plays, model), f"RecTools eSASRec, {settings['epochs']} epochs"


SIZES = {"n_blocks": 2, "n_heads": 2, "n_factors": 64, "session_max_len": 200, "dropout_rate": 0.2}
MODELS = {
    "ease": ease,
    "ease_by_columns": ease_by_columns,
    "item_knn": item_knn,
    "ials": ials,
    "sasrec": sasrec,
    "esasrec": esasrec,
}


def main():
    """Fit, list and write."""
    folder, name, settings = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    plays = Plays(folder)
    begun, cpu = time.perf_counter(), time.process_time()
    titles, peer = MODELS[name](plays, settings)
    lists = pl.DataFrame(
        {"request_id": plays.requests["request_id"], "title": [list(map(int, row)) for row in titles]},
        schema_overrides={"title": pl.List(pl.UInt32)},
    ).explode("title")
    ranked = lists.with_columns(rank=pl.int_range(pl.len(), dtype=pl.UInt32).over("request_id"))
    named = ranked.with_columns(title_id=plays.titles.gather(ranked["title"]))
    named.select("request_id", "rank", "title_id").write_parquet(folder / f"{name}.parquet")
    library = "implicit" if peer.startswith("implicit") else "rectools"
    report = {
        "peer": f"{peer} ({version(library)})",
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
    }
    (folder / f"{name}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
