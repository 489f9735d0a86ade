"""Ranking from a bundle and a copy of the catalogue alone: what our MLflow models answer with.

There is no workspace and so no feature store: features count as missing, and a history is title ids only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from playbill.clock import parse_moment
from playbill.datasets import Request
from playbill.errors import RequestError
from playbill.ranking.blend import blend, head_losses, rank
from playbill.ranking.candidates import Catalogue, Counts, Viewer, past_of, select
from playbill.ranking.scoring.bundle import read_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.schema import UNKNOWN_COUNTRY
from playbill.tables import polars_schema
from playbill.versions.tracking.packaging import CatalogueCopy

DEFAULT_LENGTH = 10
STEP = timedelta(minutes=1)  # time between the events of a history that comes without times

Answer = dict[str, list[Any]]
Row = Mapping[str, Any]


class BundleRanker:
    """One model version over the titles known at its registration. Safe to share between threads."""

    def __init__(self, scorer: Scorer, catalogue: Catalogue, as_of: datetime) -> None:
        self.scorer, self.catalogue, self.as_of = scorer, catalogue, as_of
        self.resolved = scorer.bundle.resolved
        self._losses = head_losses(self.resolved)

    @classmethod
    def load(cls, bundle: Path, copy: Path) -> BundleRanker:
        """Read a bundle, digest-checked, and the copy of the catalogue beside it.

        Raises:
            IntegrityError: A file of the bundle is not what its manifest says.
        """
        known = CatalogueCopy.read(copy)
        scorer = Scorer(read_bundle(bundle), known.titles, known.availability, None, as_of=known.as_of)
        catalogue = Catalogue(scorer.title_ids, known.titles, known.availability)
        return cls(scorer, catalogue, known.as_of)

    def rank(self, rows: Sequence[Row]) -> list[Answer]:
        """Rank titles for each request: `title_ids`, `names` and `scores`, best first.

        A row has `canvas`, and where known `k`, `history`, `query`, `source_title_id`, `country`, `at`.

        Raises:
            UnknownNameError: A canvas that the model does not serve.
            RequestError: `k` is not positive.
            ConfigError: `at` is no moment with a zone.
        """
        if not rows:
            return []
        requests = [self._request(row) for row in rows]
        logits = self.scorer.score(requests)
        answers = []
        for number, (row, request) in enumerate(zip(rows, requests, strict=True)):
            own = {head: values[number] for head, values in logits.items()}
            answers.append(self._answer(request, own, _length(row)))
        return answers

    def _request(self, row: Row) -> Request:
        canvas = self.resolved.canvas(str(row["canvas"]))
        at = parse_moment(row["at"]) if _given(row, "at") else self.as_of
        return Request(
            canvas=canvas.name,
            at=at,
            country=_given(row, "country"),
            query=_given(row, "query"),
            source_title_id=_given(row, "source_title_id"),
            history=_history(_titles(row), canvas.name, at),
        )

    def _answer(self, request: Request, logits: Mapping[str, Any], k: int) -> Answer:
        canvas, history = self.resolved.canvas(request.canvas), request.history
        viewer = Viewer(
            at=request.at,
            country=request.country or UNKNOWN_COUNTRY,
            watched=self.catalogue.columns([] if history is None else history["title_id"]),
            source=self.catalogue.column(request.source_title_id),
            kids_profile=canvas.candidates.kids is True,
            plays=self._plays,
            country_plays=self._plays,
            past=None if history is None else lambda: past_of(history, self.catalogue),
        )
        candidates = select(self.catalogue, canvas.candidates, viewer)
        ranked = rank(blend(logits, self._losses, canvas.blend, candidates), candidates, k)
        return {
            "title_ids": [self.catalogue.title_ids[column] for column in ranked.columns],
            "names": [self.catalogue.name(int(column)) for column in ranked.columns],
            "scores": ranked.scores.tolist(),
        }

    def _plays(self) -> Counts:
        plays = np.zeros(len(self.catalogue), dtype=np.int64)
        trained = self.scorer.bundle.titles["plays"].to_numpy()
        plays[: len(trained)] = trained.astype(np.int64)
        return plays


def _given(row: Row, name: str) -> Any:
    """Return a field of a request; empty text and the nulls of a data frame count as not given."""
    value = row.get(name)
    return None if value is None or value == "" or value != value else value


def _length(row: Row) -> int:
    requested = row.get("k")
    length = DEFAULT_LENGTH if requested is None or requested != requested else int(requested)
    if length < 1:
        raise RequestError(f"k is {length}, expected 1 or more")
    return length


def _titles(row: Row) -> list[str]:
    history = row.get("history")
    return [] if history is None or isinstance(history, float) else [str(title) for title in history]


def _history(titles: Sequence[str], canvas: str, at: datetime) -> pl.DataFrame | None:
    """Make plays of title ids, oldest first, the last one a step before the request."""
    if not titles:
        return None
    count = len(titles)
    schema = polars_schema("interactions")
    columns = {
        "event_id": [str(number) for number in range(count)],
        "member_id": ["anonymous"] * count,
        "seq": list(range(count)),
        "event_at": [at - STEP * (count - number) for number in range(count)],
        "action": ["play"] * count,
        "title_id": list(titles),
        "canvas": [canvas] * count,
        "country": [UNKNOWN_COUNTRY] * count,
        "progress": [1.0] * count,
    }
    nulls = {name: [None] * count for name in schema if name not in columns}
    return pl.DataFrame({name: (columns | nulls)[name] for name in schema}, schema=schema)
