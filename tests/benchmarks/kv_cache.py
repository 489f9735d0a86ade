"""What keys and values that are kept of members' histories (KV cache) save in serving, for every trunk.

    python tests/benchmarks/kv_cache.py --json
    python tests/benchmarks/kv_cache.py --dim 256 --layers 4 --json

A member asks after every event. `state` is what the trunk takes to read the history before that request, anew and from
what was kept one event ago; `page` is all that scoring a page of 20 rows takes, encoding and titles included.
Milliseconds of CPU of one thread with random weights, the lower quartile of all repeats, full and cached in turns.
"""

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import fixtures_path  # noqa: F401
import numpy as np
import torch

from fixtures.page_problem import AT, Features, launches, make_page, make_scorer, title_rows
from playbill.datasets.encoding.requests import encode_requests
from playbill.definitions.specs import TRUNKS
from playbill.models import ContextBatch, HistoryBatch
from playbill.ranking.scoring.scorer import Scorer
from playbill.ranking.scoring.state_cache import HISTORY_BYTES, KeptHistories


@click.command()
@click.option("--trunks", default=",".join(TRUNKS.names()), show_default=True)
@click.option("--lengths", default="50,200", show_default=True, help="Events of the histories.")
@click.option("--dim", default=64, show_default=True)
@click.option("--layers", default=2, show_default=True)
@click.option("--heads", default=2, show_default=True)
@click.option("--titles", default=10_000, show_default=True)
@click.option("--repeats", default=40, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(trunks, lengths, dim, layers, heads, titles, repeats, as_json):
    """Time requests.

    Example: python tests/benchmarks/kv_cache.py --trunks hstu --json
    """
    torch.set_num_threads(1)
    found = {}
    for trunk in trunks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            plain = make_scorer(Path(folder), titles, type=trunk, dim=dim, layers=layers, heads=heads)
            for events in map(int, lengths.split(",")):
                pages = [make_page(plain, events=events)]
                pages.insert(0, without_last(pages[0]))
                found[f"{trunk} {events}"] = {
                    "state": states(plain, pages, repeats),
                    "page": whole(plain, pages, repeats),
                }
                print(f"{trunk:<18}{events:>4} events  {describe(found[f'{trunk} {events}'])}", flush=True)
    if as_json:
        print(json.dumps({"dim": dim, "layers": layers, "titles": titles, "repeats": repeats, "requests": found}))


def without_last(page):
    """Return a page as it was before the last event."""
    history = page.requests[0].history
    shorter = history.head(history.height - 1)
    return replace(page, requests=tuple(replace(request, history=shorter) for request in page.requests))


@torch.inference_mode()
def states(plain, pages, repeats):
    """Time the trunk alone."""
    network, vectors = plain.network, plain.network.title_vectors(plain.inputs)
    before, after = (encode_requests(plain.encoder, page.requests[:1]) for page in pages)
    contexts = ContextBatch.from_arrays(after.context)
    before, after = (HistoryBatch.from_arrays(one.history) for one in (before, after))

    def cached():
        kept = KeptHistories(HISTORY_BYTES)
        kept.state(network, "m", before, vectors)
        return seconds(lambda: kept.state(network, "m", after, vectors))

    return compared(lambda: seconds(lambda: network.last_states(after, contexts, vectors)), cached, repeats)


def whole(plain, pages, repeats):
    """Time all that scores a page."""
    frames = title_rows(plain.title_ids), launches(plain.title_ids)
    keeping = Scorer(plain.bundle, *frames, Features(), as_of=AT, network=plain.network, kept_histories=HISTORY_BYTES)

    def scored(scorer, page):
        return seconds(lambda: scorer.score_page(page.requests, page.blends, page.candidates))

    def cached():
        scored(keeping, pages[0])
        return scored(keeping, pages[1])

    return compared(lambda: scored(plain, pages[1]), cached, repeats)


def compared(full, cached, repeats):
    """Return milliseconds of both ways, in turns, and how many times faster the second is."""
    both = np.array([(full(), cached()) for _ in range(repeats + 3)])[3:]
    ms_full, ms_cached = 1000 * np.quantile(both, 0.25, axis=0)
    return {"ms_full": round(ms_full, 2), "ms_cached": round(ms_cached, 2), "ratio": round(ms_full / ms_cached, 2)}


def seconds(function):
    """Return the CPU seconds of a call."""
    begun = time.process_time()
    function()
    return time.process_time() - begun


def describe(found):
    """Say both comparisons in a line."""
    parts = (
        f"{name} {own['ms_full']:.2f} -> {own['ms_cached']:.2f} ms ({own['ratio']:.1f}x)" for name, own in found.items()
    )
    return "   ".join(parts)


if __name__ == "__main__":
    main()
