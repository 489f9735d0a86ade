"""What a worker needs of memory with a large table of titles: whole on every worker (DDP), or dealt out (FSDP).

    python tests/benchmarks/sharded_memory.py --titles 1000000 --json

Workers of one machine over gloo, each a process of its own, one thread. `steps_mib` is the most that a worker's
resident memory rose during the steps over what it was before the network was made, `tables` that over the size of the
table. Titles have an id and nothing else; one head ranks against drawn titles, so that a step names few of them.
"""

import datetime
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import torch
from torch import distributed as dist
from torch import multiprocessing

from playbill.models import HeadConfig, Network, NetworkConfig, TextConfig, TitleConfig, TrunkConfig
from playbill.training import LoopSettings, WorkerPlace, fit

MEMBERS, LENGTH, DRAWN = 32, 50, 1024


@click.command()
@click.option("--titles", default=1_000_000, show_default=True)
@click.option("--width", default=64, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--steps", default=4, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(titles, width, workers, steps, as_json):
    """Measure both."""
    table = titles * width * 4 / 2**20
    result = {"titles": titles, "width": width, "workers": workers, "table_mib": round(table)}
    for name, sharded in (("whole", False), ("sharded", True)):
        with tempfile.TemporaryDirectory() as folder:
            given = (folder, titles, width, workers, steps, sharded)
            multiprocessing.spawn(worker, args=given, nprocs=workers)
            found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(workers)]
        result[name] = {
            "steps_mib": [round(own["steps_mib"]) for own in found],
            "tables": [round(own["steps_mib"] / table, 2) for own in found],
            "peak_mib": [round(own["peak_mib"]) for own in found],
            "seconds_a_step": round(max(own["seconds_a_step"] for own in found), 2),
            "loss": found[0]["loss"],
        }
        print(name, json.dumps(result[name]), flush=True)
    if as_json:
        print(json.dumps(result))


def worker(rank, folder, titles, width, workers, steps, sharded):
    """Train as one of several."""
    torch.set_num_threads(1)
    where = {"init_method": f"file://{folder}/meet", "timeout": datetime.timedelta(minutes=30)}
    dist.init_process_group("gloo", rank=rank, world_size=workers, **where)
    before, source = resident(), Drawn(titles, steps)
    settings = LoopSettings(epochs=1, low_precision=False)
    place = WorkerPlace(rank, workers, sharded=sharded)
    report = fit(network_of(titles, width), source, settings, place=place).reports[0]
    found = {
        "steps_mib": max(source.resident[1:]) - before,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before,
        "seconds_a_step": float(np.median(np.diff(source.began)[1:])),
        "loss": report["loss"],
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def resident():
    """Return the resident memory of this process, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def network_of(titles, width):
    """Return a network over so many titles."""
    torch.manual_seed(0)
    return Network(
        NetworkConfig(
            length=LENGTH,
            trunk=TrunkConfig(dim=width, layers=2, heads=2, dropout=0.0),
            titles=TitleConfig(titles=titles + 1, metadata=False, id_mask=0.0),
            text=TextConfig(buckets=1, dim=1),
            heads=(HeadConfig(name="play", loss="sampled_softmax"),),
        )
    )


class Drawn:
    """Batches of random plays, and what memory they found.

    Args:
        titles: How many there are.
        steps: Batches.
    """

    def __init__(self, titles, count):
        self.count, self.size, self.batch_weights = count, titles, {}
        self.resident, self.began = [], []
        none, zeros = np.zeros(0, np.int64), np.zeros(titles + 1, np.int32)
        bags = dict.fromkeys(("genres", "name_grams", "synopsis_grams"), none)
        fields = dict.fromkeys(
            ("genre_offsets", "name_offsets", "synopsis_offsets", "kind", "language", "release_year"), zeros
        )
        self.titles = SimpleNamespace(
            index=np.arange(titles + 1),
            **bags,
            **fields,
            age_days=zeros.astype(np.float32),
            plays=zeros.astype(np.float32),
            has_id=np.arange(titles + 1) > 0,
            numeric=np.zeros((titles + 1, 0), np.float32),
            categorical=np.zeros((titles + 1, 0), np.int64),
            snapshots=np.zeros((1, titles + 1, 0), np.float32),
        )

    def steps(self, world):
        """Return their number."""
        return self.count

    def epoch(self, epoch, rank, world):
        """Yield a rank's part of each."""
        for number in range(self.count):
            self.resident.append(resident())
            self.began.append(time.perf_counter())
            draw = np.random.default_rng((epoch, number))
            plays = draw.integers(1, self.size, (MEMBERS, LENGTH + 1))[rank::world]
            yield batch_of(plays, draw.integers(1, self.size, DRAWN))
        self.resident.append(resident())
        self.began.append(time.perf_counter())


def batch_of(plays, drawn):
    """Return history, context and targets of members who play these titles."""
    members, length = plays.shape[0], LENGTH
    empty, rows = np.zeros((members, length), np.int64), members * (length + 1)
    fields = dict.fromkeys(("actions", "canvas", "device", "language", "gap", "duration"), empty)
    history = SimpleNamespace(title=plays[:, :-1], length=np.full(members, length), **fields)
    zeros = np.zeros(rows, np.int64)
    names = ("canvas", "country", "device", "language", "hour_of_week", "source_title", "query_offsets", "snapshot")
    context = SimpleNamespace(
        state=np.arange(rows),
        query_grams=np.zeros(0, np.int64),
        numeric=np.zeros((rows, 0), np.float32),
        categorical=np.zeros((rows, 0), np.int64),
        **dict.fromkeys(names, zeros),
    )
    title = plays.reshape(-1)
    negatives = SimpleNamespace(
        title=drawn,
        expected=np.full(len(drawn), 1e-3, np.float32),
        usable=drawn != title[:, None],
        shown=np.zeros((rows, 0), np.int64),
    )
    ones = np.ones(rows, np.float32)
    return (
        history,
        context,
        SimpleNamespace(title=title, labels={"play": ones}, weight=ones, negatives={"play": negatives}),
    )


if __name__ == "__main__":
    main()
