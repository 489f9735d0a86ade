"""Queries of people who forgot a film's name, on the catalogue of MovieLens-1M: our text match against BM25.

Both read the same fields of the same titles: name, genres, year and abstract. What is learnt from queries (how much a
word of a query says, and the weights of the fields) is learnt without the films that judge: films are dealt into five
parts, and each part is judged by what the others and the queries for films outside the catalogue have taught.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import bm25s
import numpy as np
import polars as pl
import torch

from playbill.datasets.encoding.text import gram_arrays
from playbill.metrics.bootstrap import member_bootstrap
from playbill.models.embeddings import GramSpace
from playbill.ranking.scoring.text_match import FIELDS, SearchTexts, TextIndex, query_importance
from playbill.sources.registry import ParquetOptions
from playbill.sources.tabular.source import OwnFiles

BUCKETS = 2**18
PARTS = 5
METRICS = ("hit@1", "hit@10", "hit@100", "mrr", "ndcg@10")
POWER = 1.5
"""Of the rarity of a word among queries: the default of `query_importance`."""


@dataclass(frozen=True)
class KnownItems:
    """Queries with one right title each.

    Args:
        titles: The catalogue.
        queries: [N] texts.
        target: [N] row of the title that was meant.
        part: [N] which fifth of the films it is in.
        others: Queries for films outside the catalogue: words of queries, and no answers.
    """

    titles: pl.DataFrame
    queries: list[str]
    target: np.ndarray
    part: np.ndarray
    others: list[str]


def read(known_item: Path, movielens: Path, mapping: Path, seed: int) -> KnownItems:
    """Read the queries, and the catalogue as `playbill ingest parquet FOLDER --mapping ml_1m.yaml` reads it."""
    titles = catalogue(movielens, mapping)
    rows = {title: row for row, title in enumerate(titles["title_id"].to_list())}
    frame = pl.read_parquet(known_item / "queries.parquet")
    text = frame["query_title"].str.replace_all(r"\[\s*(?i:tomt)\s*\]", " ") + " " + frame["query_text"]
    target = np.array([rows.get(str(film), -1) for film in frame["movielens_id"]])
    films = np.unique(target[target >= 0])
    dealt = np.random.default_rng(seed).permutation(len(films)) % PARTS
    part_of = dict(zip(films.tolist(), dealt.tolist(), strict=True))
    inside = np.flatnonzero(target >= 0)
    part = np.array([part_of[title] for title in target[inside].tolist()])
    return KnownItems(
        titles, text.gather(inside).to_list(), target[inside], part, text.gather(np.flatnonzero(target < 0)).to_list()
    )


def catalogue(movielens: Path, mapping: Path) -> pl.DataFrame:
    """Return canonical titles, names without the year in brackets and with the article in front."""
    source = OwnFiles(ParquetOptions(path=movielens, mapping=mapping))
    with TemporaryDirectory() as scratch:
        offer, _ = source.open(Path(scratch), lambda *_: None)
        titles = offer.titles
    name = pl.col("name").str.replace(r"\s*\(\d{4}\)\s*$", "")
    return titles.with_columns(name=name.str.replace(r"^(.*), (The|A|An|La|Le|Les|Il|Der|Die|Das|El)$", "$2 $1"))


def run(known_item: Path, movielens: Path, mapping: Path, seed: int, resamples: int) -> dict:
    """Return arm -> metric -> mean, interval; and the counts."""
    data = read(known_item, movielens, mapping, seed)
    index = TextIndex.of(SearchTexts.of(data.titles, BUCKETS), data.titles.height, BUCKETS)
    scores = {
        "bm25, no stop words": bm25(data, "en"),
        "bm25, what queries say little with counts less": bm25_weighed(data, POWER),
        "bm25, every word": bm25(data, []),
        "names in the gram space (before)": gram_space(data),
        "text match": match(data, index, 0.0) @ index.weights[1],
    }
    fields = parts(data, index, POWER)
    scores["text match, what queries say little with counts less"] = fields @ index.weights[1]
    scores["the same, weights of fields learnt"] = learnt(data, fields)
    arms = {name: measured(values, data, resamples) for name, values in scores.items()}
    first, last = (ranks(scores[name], data.target) for name in ("bm25, no stop words", list(scores)[-1]))
    difference = metrics(last)["ndcg@10"] - metrics(first)["ndcg@10"]
    return {
        "queries": len(data.queries),
        "films": int(np.unique(data.target).size),
        "titles": data.titles.height,
        "queries_without_answer": len(data.others),
        "arms": arms,
        "ndcg_gain_over_bm25": interval(difference, data.target, resamples),
    }


def documents(titles: pl.DataFrame) -> list[str]:
    """Return name, genres, year and abstract of each title as one text: what BM25 reads."""
    year = pl.col("release_date").dt.year().cast(pl.String)
    fields = ("name", pl.col("genres").list.join(" "), year, "synopsis")
    return titles.select(pl.concat_str(fields, separator=" ", ignore_nulls=True)).to_series().to_list()


def bm25(data: KnownItems, stopwords: str | list) -> np.ndarray:
    """Return [N, T] scores of bm25s (Lu, 2024), with its defaults."""
    model = bm25s.BM25()
    model.index(bm25s.tokenize(documents(data.titles), stopwords=stopwords, show_progress=False), show_progress=False)
    requested = bm25s.tokenize(data.queries, stopwords=stopwords, show_progress=False, return_ids=False)
    known = [[word for word in words if word in model.vocab_dict] for words in requested]
    nothing = np.zeros(data.titles.height)
    return np.stack([model.get_scores(words) if words else nothing for words in known])


def bm25_weighed(data: KnownItems, power: float) -> np.ndarray:
    """Return [N, T] scores of bm25s with each word of a query weighed as in `parts`: what the weights alone give."""
    model = bm25s.BM25()
    model.index(bm25s.tokenize(documents(data.titles), stopwords=[], show_progress=False), show_progress=False)
    split = {"stopwords": [], "show_progress": False, "return_ids": False}
    requested, others = bm25s.tokenize(data.queries, **split), bm25s.tokenize(data.others, **split)
    of_word: dict[str, np.ndarray] = {}
    found = np.zeros((len(requested), data.titles.height))
    for part in range(PARTS):
        teachers = others + [words for words, held in zip(requested, data.part == part, strict=True) if not held]
        seen = Counter(word for words in teachers for word in set(words))
        total = np.log(len(teachers) + 1001)
        for row in np.flatnonzero(data.part == part).tolist():
            for word in set(requested[row]) & model.vocab_dict.keys():
                if word not in of_word:
                    of_word[word] = model.get_scores([word]).astype(np.float32)
                found[row] += (1 - np.log(seen[word] + 1) / total) ** power * of_word[word]
    return found


def gram_space(data: KnownItems) -> np.ndarray:
    """Return [N, T] cosines in the network's matching space, which reads names alone, before any training."""
    buckets = 2**15
    space = GramSpace(buckets, 256)
    names = [torch.from_numpy(part) for part in gram_arrays(data.titles["name"].to_list(), buckets)]
    space.calibrate(*names)
    requested = [torch.from_numpy(part) for part in gram_arrays(data.queries, buckets, query=True)]
    with torch.no_grad():
        return (space.queries(*requested) @ space.names(*names).T).numpy()


def match(data: KnownItems, index: TextIndex, power: float, teachers: list[str] | None = None) -> np.ndarray:
    """Return [N, T, F] matches by field; a word that many of the teachers' queries have counts less."""
    grams, offsets = gram_arrays(data.queries, BUCKETS, query=True)
    if not power:
        return index.by_field(grams, offsets)
    taught, starts = gram_arrays(teachers or [], BUCKETS, query=True)
    return index.by_field(grams, offsets, query_importance(np.split(taught, starts[1:]), BUCKETS, power))


def parts(data: KnownItems, index: TextIndex, power: float) -> np.ndarray:
    """Return [N, T, F]: of each fifth with the importance of words that the other queries have taught."""
    found = np.empty((len(data.queries), data.titles.height, len(FIELDS)), np.float32)
    for part in range(PARTS):
        own = data.part == part
        teachers = data.others + [query for query, held in zip(data.queries, own, strict=True) if not held]
        found[own] = match(data, index, power, teachers)[own]
    return found


def learnt(data: KnownItems, fields: np.ndarray) -> np.ndarray:
    """Return [N, T]: each fifth with the weights of fields that the other four say are best."""
    found = np.empty((len(data.queries), data.titles.height), np.float32)
    for part in range(PARTS):
        own = data.part == part
        found[own] = fields[own] @ weights(fields[~own], data.target[~own])
    return found


def weights(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return [F] weights of fields under which the right titles are likeliest."""
    features, wanted = torch.from_numpy(values), torch.from_numpy(target)
    own = torch.tensor([1.0, 1.0, 1.0, 10.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([own], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(features @ own, wanted)
        loss.backward()
        return loss

    optimizer.step(closure)
    return own.detach().numpy()


def ranks(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return [N] ranks from 0, the mean over ties, over the whole catalogue."""
    own = scores[np.arange(len(target)), target][:, None]
    return (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2


def metrics(rank: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of each query."""
    found = {f"hit@{k}": (rank < k).astype(np.float64) for k in (1, 10, 100)}
    return found | {"mrr": 1 / (rank + 1), "ndcg@10": np.where(rank < 10, 1 / np.log2(rank + 2), 0.0)}


def measured(scores: np.ndarray, data: KnownItems, resamples: int) -> dict:
    """Return metric -> mean and 95 % interval, resampled by film."""
    values = metrics(ranks(scores, data.target))
    return {name: interval(values[name], data.target, resamples) for name in METRICS}


def interval(values: np.ndarray, films: np.ndarray, resamples: int) -> dict:
    """Return a mean and its 95 % interval by film."""
    _, own = np.unique(films, return_inverse=True)
    found = member_bootstrap(own, values, resamples=resamples)
    return {"value": found.value, "interval": [found.low, found.high]}
