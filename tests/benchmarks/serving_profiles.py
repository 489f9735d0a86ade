"""One model served fresh and cached: latency, age of the answers, and what their age costs.

Example: python tests/benchmarks/serving_profiles.py --json
Small:   python tests/benchmarks/serving_profiles.py --titles 500 --members 20 --requests 60 --json

Members ask for home one after the other, a few of them often, one request a second on the traffic's own clock. Between
requests some of them play something. Every request is answered by both profiles over the same network, and once more
with a millisecond to do it in. `overlap@10` compares a kept answer with the fresh one of the same moment, for members
who have played since. Times are of the whole request but its log, on one core. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import fixtures_path  # noqa: F401
import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table

from fixtures.page_problem import AT, launches, make_page, make_scorer, title_rows
from playbill.clock import FixedClock
from playbill.ranking.candidates import Catalogue
from playbill.ranking.fallbacks import PlayLog
from playbill.ranking.scoring.scorer import Scorer
from playbill.schema import UNKNOWN_COUNTRY
from playbill.serving import ActiveModel, CatalogSnapshot, ModelHandle, Recommender
from playbill.serving.active_model import Members
from playbill.serving.messages import RecommendRequest
from playbill.serving.profile import Profile
from playbill.serving.ranking_context import MemberState, ServedFeatures

K = 10


class Pasts:
    """Every member's past in memory, as it grows.

    Args:
        scorer: Gives the titles.
        members: How many there are.
        events: In a past at the start.
    """

    def __init__(self, scorer: Scorer, members: int, events: int) -> None:
        self.titles = scorer.title_ids
        pasts = (make_page(scorer, 1, events, seed).requests[0].history for seed in range(members))
        self.pasts = [past.with_columns(event_id=pl.lit("e")) for past in pasts if past is not None]
        self.played = [0] * members

    def play(self, member: int, title: int) -> None:
        """Let a member play a title now."""
        past, self.played[member] = self.pasts[member], self.played[member] + 1
        one = past.tail(1).with_columns(
            title_id=pl.lit(self.titles[title]),
            seq=pl.col("seq") + 1,
            event_at=pl.lit(AT - timedelta(minutes=59)) + pl.duration(seconds=self.played[member]),
        )
        self.pasts[member] = pl.concat([past, one])

    def read(self, served: ActiveModel, member_id: str | None, at: Any, **how: Any) -> MemberState:
        """Return what is known of a member."""
        history = self.pasts[int(member_id or 0)]
        return MemberState(history, ServedFeatures(), country=UNKNOWN_COUNTRY)

    def unread(self, served: ActiveModel, member_id: str | None) -> MemberState:
        """Return what is known without reading."""
        return MemberState(self.pasts[0].head(0), ServedFeatures(), country=UNKNOWN_COUNTRY)


def main() -> None:
    """Let both profiles answer the same traffic."""
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scorer = make_scorer(Path(folder) / "bundle", options.titles)
    result = measured(scorer, options)
    _show(result)
    if options.json:
        print(json.dumps(result))


def measured(scorer: Scorer, options: argparse.Namespace) -> dict[str, Any]:
    """Return percentiles of milliseconds, ages and overlaps."""
    rng, second = np.random.default_rng(options.seed), [0.0]
    pasts = Pasts(scorer, options.members, options.events)
    served = served_model(scorer)
    fresh = Recommender(ModelHandle(served), pasts, FixedClock(AT))  # type: ignore[arg-type]
    cached = Recommender(
        ModelHandle(served),
        pasts,  # type: ignore[arg-type]
        FixedClock(AT),
        profile=Profile.named("cached", options.cache_seconds),
        timer=lambda: second[0],
    )
    members = _zipf(rng, options.members, options.requests)
    ms: dict[str, list[float]] = {"fresh": [], "made": [], "kept": [], "late": []}
    ages, overlaps, seen = [], [], dict[int, int]()
    for number, member in enumerate(members.tolist()):
        second[0] = float(number)
        request = RecommendRequest(canvas="home", member_id=str(member), k=K)
        new, took = _timed(fresh.recommend, request)
        ms["fresh"].append(took)
        old, took = _timed(cached.recommend, request)
        ms["kept" if old.age_s else "made"].append(took)
        if not old.age_s:
            seen[member] = pasts.played[member]
        elif pasts.played[member] > seen[member]:
            overlaps.append(len({item.title_id for item in old.items} & {item.title_id for item in new.items}) / K)
        ages.append(old.age_s)
        late, took = _timed(fresh.recommend, request.model_copy(update={"timeout_ms": 1}))
        if late.reason:
            ms["late"].append(took)
        for player in rng.integers(0, options.members, rng.binomial(options.members, options.plays)).tolist():
            pasts.play(player, int(rng.integers(options.titles)))
    return {
        "requests": options.requests,
        "titles": options.titles,
        "cache_seconds": options.cache_seconds,
        **{f"{name}_ms_{at}": _percentile(times, at) for name, times in ms.items() for at in ("p50", "p95")},
        "hit_share": len(ms["kept"]) / options.requests,
        **{f"age_s_{at}": _percentile(ages, at) for at in ("p50", "p95", "p100")},
        "overlap@10": float(np.mean(overlaps)) if overlaps else None,
        "overlaps": len(overlaps),
        "timed_out_share": len(ms["late"]) / options.requests,
        "ratio_fresh_to_kept": _ratio(ms["fresh"], ms["kept"]),
    }


def served_model(scorer: Scorer) -> ActiveModel:
    """Return a scorer as a server has it."""
    titles, availability = title_rows(scorer.title_ids), launches(scorer.title_ids)
    titles = titles.with_columns(kids=pl.lit(False))
    availability = availability.with_columns(available_until=pl.lit(None, pl.Datetime("us", "UTC")))
    catalogue = Catalogue(scorer.title_ids, titles, availability)
    plays = make_page(scorer, 1, 200).requests[0].history
    assert plays is not None
    profiles = pl.DataFrame(schema={"member_id": pl.String, "country": pl.String, "language": pl.String})
    members = Members(profiles.with_columns(kids_profile=pl.lit(False)))
    log = PlayLog(catalogue, plays.with_columns(country=pl.lit("US")))
    snapshot = CatalogSnapshot("s", catalogue, log, members, frozenset({"US"}))
    return ActiveModel("m", scorer.bundle.resolved, snapshot, scorer, version=1, digest="d")


def _zipf(rng: np.random.Generator, members: int, requests: int) -> np.ndarray:
    weights = 1 / np.arange(1, members + 1)
    return rng.choice(members, requests, p=weights / weights.sum())


def _timed(call: Callable[[RecommendRequest], Any], request: RecommendRequest) -> tuple[Any, float]:
    began = time.perf_counter()
    response = call(request)
    return response, 1e3 * (time.perf_counter() - began)


def _percentile(values: list[float], at: str) -> float | None:
    return float(np.percentile(values, int(at[1:]))) if values else None


def _ratio(above: list[float], below: list[float]) -> float | None:
    return float(np.median(above) / np.median(below)) if below else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--events", type=int, default=200, help="in a member's past")
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--plays", type=float, default=0.02, help="share of members who play between two requests")
    parser.add_argument("--cache-seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    return parser.parse_args()


def _show(result: dict[str, Any]) -> None:
    table = Table("what", "p50", "p95", title="One model, two profiles")
    for name, title in (
        ("fresh_ms", "fresh, ms"),
        ("made_ms", "cached, made now, ms"),
        ("kept_ms", "cached, kept, ms"),
        ("late_ms", "out of time, ms"),
        ("age_s", "age, s"),
    ):
        pair = (result[f"{name}_p50"], result[f"{name}_p95"])
        table.add_row(title, *("-" if value is None else f"{value:.2f}" for value in pair))
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
