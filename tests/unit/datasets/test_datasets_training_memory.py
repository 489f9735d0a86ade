"""What a worker holds in memory of its own while it reads a training set from disk, as the log grows."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from playbill.datasets import TrainingSet

SMALL, LARGE = 100, 400
"""Times the log of the fixture."""
BATCHES = 20


def times(training_set: TrainingSet, count: int) -> TrainingSet:
    """Return the training set of a log with so many copies of every member."""
    tokens, rows, context, windows = (getattr(training_set, name) for name in ("tokens", "rows", "context", "windows"))
    members, requests = int(training_set.token_member.max()) + 1, len(context.canvas)

    def tiled(values: np.ndarray, step: int = 0) -> np.ndarray:
        shifts = np.repeat(np.arange(count) * step, len(values)).reshape(-1, *[1] * (values.ndim - 1))
        return (
            (np.concatenate([values] * count) + shifts).astype(values.dtype)
            if step
            else np.concatenate([values] * count)
        )

    def each(part: object, **steps: int) -> dict[str, np.ndarray]:
        own = {field.name: getattr(part, field.name) for field in fields(part)}
        return {
            name: tiled(values, steps.get(name, 0)) for name, values in own.items() if isinstance(values, np.ndarray)
        }

    grown = each(rows, slot=len(tokens) + members, request=requests)
    if len(rows.slate_offsets):
        ends = [rows.slate_offsets[:-1] + place * len(rows.slate) for place in range(count)]
        grown["slate_offsets"] = np.append(np.concatenate(ends), count * len(rows.slate))
    heads = {
        kind: {head: tiled(values) for head, values in getattr(rows, kind).items()} for kind in ("labels", "weights")
    }
    return replace(
        training_set,
        tokens=tiled(tokens),
        token_member=tiled(training_set.token_member, members),
        snapshot=tiled(training_set.snapshot),
        state=tiled(training_set.state),
        moment=tiled(training_set.moment),
        rows=replace(rows, **grown, **heads),
        context=replace(context, **each(context, query_offsets=len(context.query_grams))),
        windows=replace(windows, **each(windows, start=len(tokens), member=members)),
    )


def peak(folder: Path) -> tuple[int, int]:
    """Return the bytes allocated at most while batches are read, and the rows that there are."""
    data = TrainingSet.load(folder)
    tracemalloc.start()
    try:
        data.batch_weights  # noqa: B018 - worked out once for a run
        for _ in islice(data.epoch(0), BATCHES):
            pass
        return tracemalloc.get_traced_memory()[1], len(data.rows)
    finally:
        tracemalloc.stop()


def test_a_log_with_copies_of_its_members_teaches_the_same(training_set: TrainingSet) -> None:
    """Else the comparison below would be of something else."""
    two = times(training_set, 2)
    found = Counter(title for row, _ in two.rows_read(0) for title in two.rows.title[row].tolist())
    once = Counter(title for row, _ in training_set.rows_read(0) for title in training_set.rows.title[row].tolist())
    assert found == Counter({title: 2 * plays for title, plays in once.items()})
    assert len(list(two.epoch(0))) == two.steps()


def test_a_workers_own_memory_grows_by_a_few_bytes_a_row(training_set: TrainingSet, tmp_path: Path) -> None:
    found = {}
    for count in (SMALL, LARGE):
        times(training_set, count).save(tmp_path / str(count))
        found[count] = peak(tmp_path / str(count))
    stored = sum(file.stat().st_size for file in (tmp_path / str(LARGE)).glob("*.npy"))
    (low, few), (high, many) = found[SMALL], found[LARGE]
    each = (high - low) / (many - few)
    print(
        f"{stored / many:.0f} bytes a row on disk, {each:.1f} in memory; {low / 2**20:.1f} and {high / 2**20:.1f} MiB"
    )
    assert each < 8, "windows of members: not rows"


UNDER_A_CEILING = """
import json, re, resource, sys
from pathlib import Path
from playbill.datasets import TrainingSet

def used(kind):
    return 1024 * int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

data, ceiling = TrainingSet.load(Path(sys.argv[1])), int(sys.argv[2])
before, most = used("RssAnon"), 0
limit = used("VmData") + ceiling
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
tokens = 0
for batch in data.epoch(0):
    tokens += int(batch.history.length.sum())
    most = max(most, used("RssAnon") - before)
print(json.dumps({"tokens": tokens, "own": most, "mapped": used("RssFile")}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_a_log_four_times_the_memory_that_there_is_is_read_to_the_end(
    training_set: TrainingSet, tmp_path: Path
) -> None:
    large = times(training_set, 2 * LARGE)
    large = replace(large, settings=replace(large.settings, batch_slots=3_200))
    large.save(tmp_path / "set")
    stored = sum(file.stat().st_size for file in (tmp_path / "set").glob("*.npy"))
    command = [sys.executable, "-c", UNDER_A_CEILING, str(tmp_path / "set"), str(stored // 4)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    print(
        f"{stored / 2**20:.0f} MiB on disk; {found['own'] / 2**20:.0f} of its own, {found['mapped'] / 2**20:.0f} mapped"
    )
    assert found["tokens"] == large.windows.length.sum()
    assert found["own"] < stored / 4
