"""What folded members add to a request: the whole request but its log, by a network alone and with members in it.

Example: python tests/benchmarks/ensemble_cost.py --titles 3000,10000 --members 1,2,4 --json

Networks have random weights of the shipped model's sizes and every history has 200 events, which no cache has. A member
is as wide as the base. Beside the folded ones there are always `content` and `popularity`, and every weight counts. For
comparison: what a second network costs that is asked the same. Times are of the processor, so that a busy machine does
not change them. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import fixtures_path  # noqa: F401
import torch
from serving_profiles import K, Pasts, served_model

from fixtures.page_problem import AT, Features, launches, make_page, make_scorer, title_rows
from playbill.clock import FixedClock
from playbill.models import Network
from playbill.models.config import EnsembleConfig, FoldedConfig
from playbill.ranking.scoring.scorer import Scorer
from playbill.serving import ModelHandle, Recommender
from playbill.serving.messages import RecommendRequest

WIDTH = 128


def main() -> None:
    """Time every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", default="3000,10000")
    parser.add_argument("--members", default="1,2,4")
    parser.add_argument("--requests", type=int, default=80)
    parser.add_argument("--json", action="store_true", help="print the JSON object, as always")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for titles in (int(size) for size in options.titles.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            base = make_scorer(Path(folder) / "bundle", titles, dim=WIDTH, layers=2, heads=2)
            scorers = {"base": base}
            for count in (int(size) for size in options.members.split(",")):
                scorers[f"{count} members"] = with_members(base, count)
            found.append({"titles": titles, **timed(scorers, options.requests), "second_network_ms": alone(base)})
            print(found[-1], flush=True)
    print(json.dumps(found))


def with_members(base: Scorer, count: int) -> Scorer:
    """Return a scorer of the same network with folded members in it."""
    roles = tuple(f"member{number}" for number in range(count))
    config = EnsembleConfig(
        members=(*roles, "content", "popularity"),
        heads=("discovery_play",),
        countries=1 + len(base.encoder.state.countries),
        folded={role: FoldedConfig(width=WIDTH) for role in roles},
        terms={"content": "content", "popularity": "popularity"},
    )
    network = Network(base.network.config.model_copy(update={"ensemble": config})).eval()
    network.load_state_dict({**network.state_dict(), **base.network.state_dict()})
    members = network.ensemble
    assert members is not None
    members.weights.fill_(0.3)
    members.popularity.normal_()
    for role in roles:
        folded = members.folded_member(role)
        for values in (folded.titles, folded.query, folded.bias):
            values.normal_(std=0.05)
        folded.known.fill_(True)
    rows = title_rows(base.title_ids), launches(base.title_ids)
    return Scorer(base.bundle, *rows, Features(), as_of=AT, network=network)


def timed(scorers: dict[str, Scorer], requests: int) -> dict[str, Any]:
    """Return the median milliseconds of the processor for a request by each, asked in turn."""
    recommenders = {}
    for name, scorer in scorers.items():
        pasts = Pasts(scorer, requests, 200)
        handle = ModelHandle(served_model(scorer))
        recommenders[name] = Recommender(handle, pasts, FixedClock(AT))  # type: ignore[arg-type]
    times: dict[str, list[float]] = {name: [] for name in scorers}
    for member in range(requests):
        for name, recommender in recommenders.items():
            begun = time.process_time()
            recommender.recommend(RecommendRequest(canvas="home", member_id=str(member), country="US", k=K))
            times[name].append(1e3 * (time.process_time() - begun))
    return {f"{name}_ms": round(statistics.median(values[5:]), 2) for name, values in times.items()}


def alone(scorer: Scorer) -> float:
    """Return the median milliseconds of the processor for one head of one request: what a second network is asked."""
    requests = [make_page(scorer, 1, 200, seed).requests[0] for seed in range(40)]
    times = []
    for request in requests:
        begun = time.process_time()
        scorer.score([request], ["discovery_play"])
        times.append(1e3 * (time.process_time() - begun))
    return round(statistics.median(times[5:]), 2)


if __name__ == "__main__":
    main()
