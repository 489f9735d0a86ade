"""What scores a request cannot see what came of it: no import reaches rewards, and no field known after it matters."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from fixtures import serving_world as world
from playbill.config import Workspace
from playbill.datasets import Request
from playbill.datasets.encoding.requests import encode_requests
from playbill.datasets.examples import labelled
from playbill.errors import IntegrityError
from playbill.ranking.page_scores import PageScores, blend_page
from playbill.schema import INTERACTIONS
from playbill.serving.messages import RecommendRequest
from playbill.tables import Tables

ROOT = Path(__file__).parents[2]
AFTER = INTERACTIONS.names("after")
MOMENT = pl.Datetime("us", "UTC")


def test_a_fresh_interpreter_that_serves_has_loaded_no_reward() -> None:
    """Every module of the room is imported, not only the ones its door names."""
    code = (
        "import importlib, pkgutil, sys\n"
        "import playbill.serving as room\n"
        "for found in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "    importlib.import_module(found.name)\n"
        "kept = ('playbill.rewards', 'playbill_lab')\n"
        "found = sorted(name for name in sys.modules if name.startswith(kept))\n"
        "assert len([name for name in sys.modules if name.startswith(room.__name__)]) > 3\n"
        "sys.exit(f'loaded {found}' if found else 0)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]


def log_of(seed: int = 5, events: int = 120) -> pl.DataFrame:
    """Sixty days of three members, with every column that is known only afterwards filled in."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.integers(0, 60 * 1440, events))
    titles = [title for title in world.TITLES if title not in world.COMING]
    frame = pl.DataFrame(
        {
            "event_id": [f"e{number}" for number in range(events)],
            "member_id": rng.choice(["42", "7", "kid"], events),
            "seq": np.arange(events),
            "minute": at,
            "action": rng.choice(["play", "thumbs_up", "my_list_add", "abandon"], events),
            "title_id": rng.choice(titles, events),
            "season": rng.integers(1, 4, events).astype(np.int32),
            "episode": rng.integers(1, 9, events).astype(np.int32),
            "duration_s": rng.integers(60, 6_000, events).astype(np.float32),
            "progress": rng.random(events).astype(np.float32),
        }
    )
    moment = pl.lit(world.NOW - timedelta(days=61)).cast(MOMENT) + pl.duration(minutes="minute")
    return frame.with_columns(
        event_at=moment,
        recorded_at=moment + pl.duration(minutes=pl.col("season")),
        canvas=pl.lit("home"),
        country=pl.lit("DE"),
    ).drop("minute")


def changed_from(log: pl.DataFrame, at: datetime, seed: int) -> pl.DataFrame:
    """Permute each column known after a request among the events at `at` or later."""
    later = log["event_at"] >= at
    place = (later.cum_sum().cast(pl.Int64) - 1).clip(0)
    return log.with_columns(
        pl.when(later).then(pl.col(name).filter(later).shuffle(seed).gather(place)).otherwise(name).alias(name)
        for name in AFTER
    )


class Digesting:
    """A scorer whose scores depend on every bit of what it is given."""

    def __init__(self, title_ids: Sequence[str]) -> None:
        self.title_ids = tuple(title_ids)

    def score(self, requests: Sequence[Request]) -> dict[str, np.ndarray]:
        rows = np.stack([self._row(request) for request in requests])
        return {"play": rows, "like": rows}

    def score_page(self, requests: Sequence[Request], blends: Sequence[dict], candidates: np.ndarray) -> PageScores:
        scores = self.score(requests)
        pairs = [(row, head) for row, weights in enumerate(blends) for head in weights]
        rows = [scores[head][row] for row, head in pairs]
        return blend_page(rows, pairs, {"play": "softmax", "like": "bce"}, blends, candidates)

    def _row(self, request: Request) -> np.ndarray:
        texts = repr((request.at, request.canvas, request.country, sorted(request.features.items())))
        past = "" if request.history is None else request.history.write_json()
        seed = hashlib.sha256((texts + past).encode()).digest()
        return np.random.default_rng(list(seed)).random(len(self.title_ids)).astype(np.float32)


def answers(root: Path, log: pl.DataFrame, requested: Sequence[dict[str, Any]]) -> list[Any]:
    """Ingest a log and answer requests of the members in it, each at the moment of one of their events."""
    workspace: Workspace = world.make_workspace(root)
    with Tables(workspace).replace() as writer:
        writer.write("titles", Tables(workspace).titles())
        writer.write("availability", Tables(workspace).availability())
        writer.write("members", Tables(workspace).members())
        writer.write("interactions", log)
    served = world.serve_with(workspace, Digesting(world.TITLES))
    recommender = world.make_recommender(workspace, served)
    found = [recommender.recommend(RecommendRequest(canvas="coming_soon", **request)) for request in requested]
    assert all(answer.policy == "model" for answer in found)
    return [[(item.title_id, item.score) for item in answer.items] for answer in found]


def test_nothing_known_after_a_request_moves_its_scores(tmp_path: Path) -> None:
    log = log_of()
    for number, place in enumerate((30, 75, 110)):
        own = log.row(place, named=True)
        changed = changed_from(log, own["event_at"], seed=number)
        assert not changed[place].equals(log[place])
        assert changed[:place].equals(log[:place])
        requested = [{"member_id": own["member_id"], "at": own["event_at"]}]
        before = answers(tmp_path / f"{number}-before", log, requested)
        assert before == answers(tmp_path / f"{number}-after", changed, requested)
        requested[0]["at"] += timedelta(microseconds=1)
        assert answers(tmp_path / f"{number}-own", log, requested) != before


def test_the_row_of_a_request_is_the_same_whatever_came_of_it() -> None:
    log = log_of().with_columns(
        pl.lit(None, pl.String).alias(name) for name in ("device", "language", "query", "source_title_id")
    )
    changed = changed_from(log, log["event_at"][0], seed=1)
    assert not changed.equals(log)
    assert labelled.request_rows(changed).equals(labelled.request_rows(log))


@pytest.mark.parametrize("name", AFTER)
def test_a_field_known_after_a_request_is_no_part_of_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}\n.*Extra inputs are not permitted"):
        RecommendRequest.model_validate({"canvas": "home", name: 1})
    with pytest.raises(TypeError, match=name):
        Request(canvas="home", at=world.NOW, **{name: 1})
    monkeypatch.setattr(labelled, "CONTEXT_COLUMNS", (*labelled.CONTEXT_COLUMNS, name))
    with pytest.raises(IntegrityError, match=rf"columns \['{name}'\] are known only after a request"):
        labelled.request_rows(log_of())


def test_a_history_with_a_later_event_in_it_is_refused() -> None:
    log = log_of().filter(pl.col("member_id") == "7")
    request = Request(canvas="home", at=log["event_at"][10], member_id="7", history=log)
    with pytest.raises(IntegrityError, match=r"the history of a request at .* has an event at .*, after it"):
        encode_requests(SimpleNamespace(state=SimpleNamespace(history_length=20, anonymous=())), [request])  # type: ignore[arg-type]
