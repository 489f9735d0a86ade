"""Model time of a whole home page on one core: 20 rows, 10,000 titles, 200 events, the default trunk.

Example: python tests/benchmarks/page_scoring.py --json

Times are CPU milliseconds of this process, which has one thread of torch: another load does not change them much.
`page` is the time of a page without its encoding: the trunk over the member's past, the scores of every title in
every (row, head) pair, the blends over each row's candidates, and the best 40 of each row. `plain` is the same page by
`Scorer.score`, `blend` and `rank`: every head of every row, in float64. Both take turns, so that a slow moment of the
machine meets both. The weights are random: time does not depend on them. The last line is one JSON object: p50 and p95
of milliseconds, the parts' medians, and whether both ways list the same titles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import fixtures_path  # noqa: F401
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fixtures.page_problem import Page, losses, make_page, make_scorer
from playbill.ranking.blend import RankedList, blend, rank
from playbill.ranking.scoring import scorer as scorer_module
from playbill.ranking.scoring.scorer import Scorer

WARM_UP = 5
PARTS = ("encode", "trunk", "blend", "topk", "score")


def main() -> None:
    """Time both ways in turns and print the medians."""
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scorer = make_scorer(Path(folder) / "bundle", options.titles, dim=options.dim, layers=2, heads=2)
    page = make_page(scorer, options.rows, options.events)
    if options.valued:
        page = with_values(page)
    result = measured(scorer, page, options)
    _show(result)
    if options.json:
        print(json.dumps(result))


def with_values(page: Page) -> Page:
    """Ask for the plays of each row's titles too, as a page with `expected` does: each row as if it came first."""
    own = [replace(page.requests[0], row=request.row, row_position=0) for request in page.requests]
    nothing = np.zeros_like(page.candidates)
    blends = (*page.blends, *({"thumbs_up": 0.0} for _ in own))
    return Page((*page.requests, *own), blends, np.concatenate([page.candidates, nothing]))


def measured(scorer: Scorer, page: Page, options: argparse.Namespace) -> dict[str, Any]:
    """Return medians and 95th percentiles in milliseconds, and ratios."""
    spent: dict[str, list[float]] = defaultdict(list)
    plain: list[float] = []
    for turn in range(WARM_UP + options.repeats):
        parts, fast = timed_page(scorer, page, options.k)
        began = time.process_time()
        slow = plain_page(scorer, page, options.k)
        took = 1e3 * (time.process_time() - began)
        if turn >= WARM_UP:
            plain.append(took)
            for name, value in parts.items():
                spent[name].append(value)
    same = all(np.array_equal(one.columns, other.columns) for one, other in zip(fast, slow, strict=True))
    model = [sum(times) for times in zip(*(spent[part] for part in PARTS if part != "encode"), strict=True)]
    whole = [sum(times) for times in zip(*(spent[part] for part in PARTS), strict=True)]
    return {
        "rows": options.rows,
        "titles": options.titles,
        "events": options.events,
        "dim": options.dim,
        "page_ms_p50": statistics.median(model),
        "page_ms_p95": float(np.quantile(model, 0.95)),
        **{f"{part}_ms": statistics.median(spent[part]) for part in PARTS},
        "with_encoding_ms_p50": statistics.median(whole),
        "plain_ms_p50": statistics.median(plain),
        "ratio_vs_plain": statistics.median(plain) / statistics.median(whole),
        "same_lists": int(same),
    }


def timed_page(scorer: Scorer, page: Page, k: int) -> tuple[dict[str, float], list[RankedList]]:
    """Score a page, and return the milliseconds of its parts and the lists."""
    spent = dict.fromkeys(PARTS, 0.0)
    with (
        _timing(scorer_module, "encode_requests", spent, "encode"),
        _timing(scorer.network, "last_states", spent, "trunk"),
        _timing(scorer_module, "blend_page", spent, "blend"),
    ):
        began = time.process_time()
        found = scorer.score_page(page.requests, page.blends, page.candidates)
        whole = 1e3 * (time.process_time() - began)
    spent["score"] = whole - sum(spent.values())
    began = time.process_time()
    lists = [found.best(row, k) for row in range(len(found)) if page.candidates[row].any()]
    spent["topk"] = 1e3 * (time.process_time() - began)
    return spent, lists


@contextmanager
def _timing(owner: Any, name: str, spent: dict[str, float], part: str) -> Iterator[None]:
    """Add up the time of a function's calls."""
    original: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: Any) -> Any:
        began = time.process_time()
        result = original(*arguments)
        spent[part] += 1e3 * (time.process_time() - began)
        return result

    with mock.patch.object(owner, name, timed):
        yield


def plain_page(scorer: Scorer, page: Page, k: int) -> list[RankedList]:
    """Score every head of every row, blend in float64 and rank, row by row."""
    logits, of = scorer.score(page.requests), losses(scorer)
    lists = []
    for row, (weights, candidates) in enumerate(zip(page.blends, page.candidates, strict=True)):
        if not candidates.any():
            continue
        own = {head: values[row] for head, values in logits.items()}
        lists.append(rank(blend(own, of, weights, candidates), candidates, k))
    return lists


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--titles", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=200, help="in the member's past")
    parser.add_argument("--dim", type=int, default=128, help="width of the trunk")
    parser.add_argument("--k", type=int, default=40, help="titles listed in a row")
    parser.add_argument("--valued", action="store_true", help="value rows by the expected play of their titles")
    parser.add_argument("--repeats", type=int, default=100, help="measured pages")
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    return parser.parse_args()


def _show(result: dict[str, Any]) -> None:
    table = Table("part", "ms", title=f"A page of {result['rows']} rows over {result['titles']:,} titles, one core")
    for part in ("trunk", "score", "blend", "topk"):
        table.add_row(part, f"{result[f'{part}_ms']:.2f}")
    table.add_row("page, p50", f"{result['page_ms_p50']:.2f}")
    table.add_row("page, p95", f"{result['page_ms_p95']:.2f}", end_section=True)
    table.add_row("with encoding, p50", f"{result['with_encoding_ms_p50']:.2f}")
    table.add_row("row by row, p50", f"{result['plain_ms_p50']:.2f}")
    table.add_row("ratio", f"{result['ratio_vs_plain']:.1f}x")
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
