"""A service of ten titles and three members with a scorer that is plain arithmetic, for tests of serving."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import uvicorn

from playbill.clock import FixedClock
from playbill.config import Project, ProjectSettings, Workspace
from playbill.datasets import Request
from playbill.definitions.specs import CanvasSpec, LabelSpec, ModelSpec, ResolvedModel, RowSpec
from playbill.features import OnlineFeatures
from playbill.ranking.page_scores import PageScores, page_of
from playbill.serving import ActiveModel, CatalogSnapshot, FactReader, ModelHandle, Recommender
from playbill.serving.limits import server_config
from playbill.settings import LimitsSettings
from playbill.tables import Tables

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TITLES = tuple(f"t{number}" for number in range(10))
NAMES = ("Alien", "Brazil", "Clue", "Dune", "Emma", "Fargo", "Gandhi", "Heat", "Ishtar", "Jaws")
COMING = ("t8", "t9")
LOSSES = {"play": "softmax", "like": "bce"}


def resolved() -> ResolvedModel:
    """Return a model of four canvases, two of them with fields of their own, and four rows on home."""
    label = LabelSpec.model_validate(
        {"kind": "Label", "name": "play", "version": 1, "from": {"action": "play"}, "matures_after": "0s"}
    )
    canvases = (
        _canvas("home", candidates={"watched": False}, rows=["picks", "because", "popular", "genres"]),
        _canvas("search", context=["member", "query", "country"]),
        _canvas("more_like_this", context=["member", "source_title", "country"], candidates={"exclude_source": True}),
        _canvas("coming_soon", candidates={"available": "upcoming"}, fallback="popular"),
    )
    rows = (
        _row("picks", title={"en": "For you", "de": "Für dich"}),
        _row(
            "because",
            title={"en": "Because you watched {title}"},
            scored_as="more_like_this",
            generator={"each": "watched_title", "limit": 1},
            candidates={"watched": False, "exclude_source": True},
        ),
        _row("popular", blend=None, policy="popular"),
        _row("genres", title={"en": "{genre}"}, generator={"each": "genre", "limit": 2}),
    )
    model = {
        "name": "tiny",
        "version": 1,
        "features": "tiny_v1",
        "canvases": [canvas.name for canvas in canvases],
        "heads": {"play": {"label": "play", "loss": "softmax"}, "like": {"label": "play", "loss": "bce"}},
    }
    return ResolvedModel(
        model=ModelSpec.model_validate(model),
        labels={"play": label},
        rewards={},
        canvases={canvas.name: canvas for canvas in canvases},
        rows={row.name: row for row in rows},
    )


def _canvas(name: str, **more: Any) -> CanvasSpec:
    return CanvasSpec.model_validate(
        {"name": name, "version": 1, "blend": {"play": 1.0, "like": 0.1}, "metric": "play", **more}
    )


def _row(name: str, **more: Any) -> RowSpec:
    base = {"name": name, "version": 1, "title": {"en": name}, "canvas": "home", "minimum_length": 1}
    return RowSpec.model_validate({**base, "candidates": {"watched": False}, "blend": {"play": 1.0}, **more})


def make_workspace(root: Path, name: str = "small") -> Workspace:
    """Ingest the service into a workspace whose clock stands at the end of its data."""
    workspace = Project(root, ProjectSettings()).workspace(name)
    with Tables(workspace).replace() as writer:
        writer.write("titles", _titles())
        writer.write("availability", _availability())
        writer.write("members", _members())
        writer.write("interactions", _interactions())
    return workspace


def _at(moment: datetime) -> pl.Expr:
    return pl.lit(moment, dtype=pl.Datetime("us", "UTC"))


def _titles() -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "title_id": TITLES,
            "name": NAMES,
            "genres": [["Drama"] if number % 2 else ["Comedy"] for number in range(10)],
            "kids": [number in (2, 6) for number in range(10)],
            "names": [[{"language": "de", "name": f"{name} auf Deutsch"}] for name in NAMES],
        }
    )
    return frame.with_columns(
        _at(NOW - 900 * DAY).alias("valid_from"), _at(NOW - 900 * DAY).alias("recorded_at"), kind=pl.lit("film")
    )


def _availability() -> pl.DataFrame:
    start = [NOW + 30 * DAY if title in COMING else NOW - 800 * DAY for title in TITLES]
    country = ["FR" if title == "t7" else "*" for title in TITLES]
    return pl.DataFrame(
        {"title_id": TITLES, "country": country, "available_from": start}, schema_overrides={"available_from": _us()}
    ).with_columns(_at(NOW - 900 * DAY).alias("recorded_at"))


def _us() -> pl.Datetime:
    return pl.Datetime("us", "UTC")


def _members() -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "member_id": ["42", "7", "kid"],
            "country": ["FR", "DE", "DE"],
            "language": [None, "de", None],
            "kids_profile": [False, None, True],
        }
    )
    return frame.with_columns(_at(NOW - 500 * DAY).alias("valid_from"), _at(NOW - 500 * DAY).alias("recorded_at"))


def _interactions() -> pl.DataFrame:
    plays = [("42", "t0", 20), ("42", "t1", 10), ("7", "t1", 9), ("7", "t3", 8), ("kid", "t3", 3), ("7", "t5", 2)]
    rows = [
        {"event_id": f"p-{member}-{title}", "member_id": member, "seq": 2 * order, "action": "play", "title_id": title}
        | {"event_at": NOW - days * DAY, "recorded_at": NOW - days * DAY}
        for order, (member, title, days) in enumerate(plays)
    ]
    rows.append({**rows[0], "event_id": "t-42-t0", "seq": 1, "action": "thumbs_up"})
    return pl.DataFrame(rows).with_columns(canvas=pl.lit("home"), country=pl.lit("DE"))


class FakeScorer:
    """Logits by formula: the shift, later titles first, more for titles whose name holds the query.

    Titles of the source's genre gain, so more_like_this differs; every watched title lowers all others alike.
    """

    def __init__(self, title_ids: Sequence[str] = TITLES, shift: float = 0.0, fails: bool = False) -> None:
        self.title_ids = tuple(title_ids)
        self.shift, self.fails = shift, fails
        self.requested: list[Request] = []
        self.gate: threading.Event | None = None
        self.terms: dict[str, tuple[float, np.ndarray]] = {}

    def score(self, requests: Sequence[Request]) -> dict[str, np.ndarray]:
        """Return [N, T] per head."""
        if self.gate is not None:
            self.gate.wait(10)
        if self.fails:
            raise RuntimeError("the weights are broken")
        self.requested += requests
        numbers = np.array([int(title[1:]) for title in self.title_ids], dtype=np.float32)
        rows = [numbers + self.shift + self._bonus(request) for request in requests]
        return {"play": np.stack(rows), "like": np.zeros((len(requests), len(numbers)), np.float32)}

    def score_page(self, requests: Sequence[Request], blends: Sequence[dict], candidates: np.ndarray) -> PageScores:
        """Blend every row over its candidates."""
        return page_of(self.score(requests), LOSSES, blends, candidates)

    def term_parts(self, request: Request, head: str) -> dict[str, tuple[float, np.ndarray]]:
        """Return the terms that a test gave the head."""
        return self.terms if head == "play" else {}

    def _bonus(self, request: Request) -> np.ndarray:
        bonus = np.zeros(len(self.title_ids), dtype=np.float32)
        for column, title in enumerate(self.title_ids):
            name = NAMES[int(title[1:])].lower()
            if request.query and request.query.lower().strip() in name:
                bonus[column] += 100.0
            if request.source_title_id and int(request.source_title_id[1:]) % 2 == column % 2:
                bonus[column] += 50.0
        return bonus


class FakeFeatures:
    """An online store that knows one number, or fails with what it is given."""

    def __init__(self, error: Exception | None = None, *, empty: bool = False) -> None:
        self.error, self.empty = error, empty
        self.requested: list[tuple[str, datetime]] = []

    def served(self, service: str, member_ids: Sequence[str | None], at: datetime) -> OnlineFeatures:
        """Return one row."""
        if self.error is not None:
            raise self.error
        self.requested.append((service, at))
        value, moment = (None, None) if self.empty else (3.0, at - timedelta(hours=1))
        rows = pl.DataFrame({"member_id": list(member_ids), "event_at": [at], "activity__plays_30d": [value]})
        return OnlineFeatures(rows, pl.DataFrame({"activity": [moment]}), pl.Series([True]))


class FakeLog:
    """Keeps rows in memory."""

    def __init__(self) -> None:
        self.rows: list[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]] = []

    def write(self, request: Mapping[str, Any], slates: Sequence[Mapping[str, Any]]) -> None:
        """Keep one."""
        self.rows.append((request, slates))


def serve_with(workspace: Workspace, scorer: FakeScorer | None, version: int | None = 1, **more: Any) -> ActiveModel:
    """Return a model over the workspace's tables."""
    snapshot = CatalogSnapshot.read(Tables(workspace), scorer.title_ids if scorer else None)
    digest = None if version is None else f"d{version}"
    return ActiveModel("tiny", resolved(), snapshot, scorer, version=version, digest=digest, facts_version="f1", **more)


def make_recommender(
    workspace: Workspace, served: ActiveModel, features: FakeFeatures | None = None, log: FakeLog | None = None
) -> Recommender:
    """Return a recommender over one served model, at the clock of the data."""
    facts = FactReader(Tables(workspace), features or FakeFeatures())
    return Recommender(ModelHandle(served), facts, FixedClock(NOW), log.write if log else None)


@contextmanager
def http(app: Any, limits: LimitsSettings | None = None) -> Iterator[httpx.Client]:
    """Serve an app on a free port of this machine, and lend a client of it. Shuts down as on SIGTERM."""
    server = uvicorn.Server(server_config(app, "127.0.0.1", 0, limits or LimitsSettings()))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(10)
