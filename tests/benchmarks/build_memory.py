"""What memory it takes to build the training set of a log: of the whole log at once, and in parts.

    python tests/benchmarks/build_memory.py --data ML_1M --members 1000 --members 4000 --json

The first members of MovieLens-1M, `everycanvas`, `global_time`. Each way is a process of its own with one thread: it
makes the split, builds the training set, starts the network and takes 20 batches. `own_mib` is the most that its own
memory (`RssAnon`, looked at every 10 ms) rose in each of these over what it was before; `log_mib` is the log as a frame
in memory. With --ceiling a process that builds in parts may not allocate more than so many MiB (RLIMIT_DATA).
"""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path

import click
import polars as pl

from playbill.config import ProjectFolder, ProjectSettings

ROOT = Path(__file__).parents[2]
WAYS, BATCHES = ("whole", "parts"), 20
MIB = 2**20


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of MovieLens-1M.")
@click.option("--members", "sizes", multiple=True, default=(1_000, 2_000, 4_000), show_default=True)
@click.option("--way", "ways", multiple=True, default=WAYS, show_default=True)
@click.option("--events", default=100_000, show_default=True, help="In memory at a time, in parts.")
@click.option("--ceiling", type=int, help="MiB that building in parts may allocate.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(data, sizes, ways, events, ceiling, as_json):
    """Measure each size each way."""
    rows = []
    for members in sizes:
        with tempfile.TemporaryDirectory() as home:
            prepare(Path(home), data, members)
            for way in ways:
                limit = ceiling if way == "parts" and ceiling else 0
                command = [sys.executable, __file__, "measure", home, way, str(events), str(limit)]
                threads = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
                run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | threads)
                if run.returncode:
                    sys.exit(run.stderr)
                rows.append({"members": members, "way": way} | json.loads(run.stdout.splitlines()[-1]))
                print(json.dumps(rows[-1]), flush=True)
    if as_json:
        print(json.dumps({"rows": rows}))


def workspace_of(home):
    """Return the workspace of a measurement."""
    return ProjectFolder(ROOT, ProjectSettings(home=str(home / "home"), workspace="bench")).workspace()


def prepare(home, data, members):
    """Bring the first members in, and build their features."""
    from playbill.features import FeatureDoor, build_features
    from playbill.sources import ingest

    folder = home / "data"
    folder.mkdir()
    for file in ("movies.dat", "users.dat", "abstracts.json"):
        (folder / file).symlink_to(data.resolve() / file)
    log = pl.scan_parquet(data / "interactions.parquet").filter(pl.col("user_id") <= members)
    log.sink_parquet(folder / "interactions.parquet")
    workspace = workspace_of(home)
    ingest(workspace, "parquet", {"path": folder, "mapping": ROOT / "docs/guide/mappings/ml_1m.yaml"})
    FeatureDoor(workspace).apply()
    build_features(workspace)


class Own:
    """The most own memory of this process since it was last asked, in MiB over what it was at first."""

    def __init__(self):
        self.before = self.most = used("RssAnon")
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self):
        while True:
            self.most = max(self.most, used("RssAnon"))
            time.sleep(0.01)

    def taken(self):
        """Return it, and begin anew."""
        most, self.most = max(self.most, used("RssAnon")), used("RssAnon")
        return round((most - self.before) / MIB)


def used(kind):
    """Return bytes by a name of /proc/self/status."""
    return 1024 * int(re.search(kind + r":\s+(\d+)", Path("/proc/self/status").read_text())[1])


def measure(home, way, events, ceiling):
    """Build one way, in this process."""
    import torch

    from playbill.datasets import build_training_set, make_split
    from playbill.datasets.parts import build_in_parts
    from playbill.datasets.splits import SPLIT_COLUMNS
    from playbill.definitions.zoo import load_zoo
    from playbill.features import FeatureDoor
    from playbill.tables import Tables, workspace_clock
    from playbill.training.build import build_network

    torch.set_num_threads(1)
    workspace, resolved = workspace_of(home), load_zoo(ROOT / "model_zoo").model("everycanvas")
    tables, door = Tables(workspace), FeatureDoor(workspace)
    door.schema(resolved.model.features)
    own, begun = Own(), time.process_time()
    if ceiling:
        limit = used("VmData") + ceiling * MIB
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    found = {"events": tables.event_count(), "own_mib": {}}
    split = make_split("global_time", tables.interactions(columns=SPLIT_COLUMNS))
    found["own_mib"]["split"] = own.taken()
    given = (tables, resolved, split, door, workspace_clock(workspace))
    with tempfile.TemporaryDirectory(dir=home) as folder:
        if way == "whole":
            data = build_training_set(*given)
            found["log_mib"] = round(tables.interactions().estimated_size("mb"))
        else:
            data = build_in_parts(*given, Path(folder), events)
        found["own_mib"]["build"] = own.taken()
        build_network(data.trained(resolved), data)
        found["own_mib"]["network"] = own.taken()
        data.batch_weights  # noqa: B018 - worked out once for a run
        rows = sum(len(batch.targets.title) for batch in islice(data.epoch(0), BATCHES))
        found["own_mib"]["batches"] = own.taken()
    found |= {"rows": len(data.rows), "rows_read": rows, "cpu_seconds": round(time.process_time() - begun, 1)}
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
