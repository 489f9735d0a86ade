"""What a card computes and how fast: the tests that need one, then the speed and memory of training on it.

    make gpu ML_1M=FOLDER
    python tests/benchmarks/gpu.py --data FOLDER --json

Writes a block of docs/results/gpu.json by the name of the card, so that cards are kept apart; blocks of other cards
stay. Without a card it refuses, and writes nothing. Speeds are in tokens (plays that are read, padding not counted) per
second by the clock, batches included, of `next_play` (`plain` in sequence_quality.py), after a warm-up; `peak_gib` is
the most memory that torch had of the card.
"""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import torch
from sequence_quality import ROOT, Log
from training_speed import Steps, made

OUT = ROOT / "docs/results/gpu.json"
TESTS = (
    "tests/parity/test_models_devices.py",
    "tests/parity/test_models_golden.py",
    "tests/unit/models/test_models_trunks.py",
)
SLOTS = (3_200, 25_600, 102_400)
KINDS = {"float32": False, "bfloat16": True}


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), help="Folder of MovieLens-1M (default: MovieLens-100K)."
)
@click.option("--mapping", type=click.Path(path_type=Path), default=ROOT / "docs/guide/mappings/ml_1m.yaml")
@click.option("--steps", default=40, show_default=True)
@click.option("--home", type=click.Path(path_type=Path), help="Where the workspace is kept (default: thrown away).")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(data, mapping, steps, home, out, as_json):
    """Run the tests of a card, and time training on it."""
    if not torch.cuda.is_available():
        raise click.ClickException(
            f"there is no card here: torch {torch.__version__} sees no CUDA device. Run this on a machine with one, "
            "with a CUDA build of torch (infra/README.md, 'On GPUs')"
        )
    block = {"torch": torch.__version__, "cuda": torch.version.cuda, "tests": passed()}
    with tempfile.TemporaryDirectory() as scratch:
        log = Log.of(home or Path(scratch) / "home", data, mapping, "leave_one_out")
        block |= {"data": "movielens_100k" if data is None else data.name, "speed": speeds(log, steps)}
    kept = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    kept[torch.cuda.get_device_name()] = block
    out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps({torch.cuda.get_device_name(): block}))


def passed():
    """Run the tests that need a card, and return how many passed.

    Raises:
        ClickException: One failed, or all were left out.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *TESTS]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) passed", run.stdout)
    if run.returncode or found is None:
        raise click.ClickException(f"the tests of the card failed, so nothing is timed:\n{run.stdout}{run.stderr}")
    return int(found[1])


def speeds(log, steps):
    """Return tokens per second and memory by loss, number type and slots of a batch."""
    found = []
    for loss in ("softmax", "sampled_softmax"):
        resolved, data = made(log, loss)
        for slots in SLOTS:
            for kind, low in KINDS.items():
                torch.cuda.reset_peak_memory_stats()
                taken = Steps.of(resolved, with_slots(data, slots), steps, "cuda", low)
                row = {"loss": loss, "batch_slots": slots, "type": kind, "steps": len(taken.seconds)}
                row["tokens_per_second"] = round(taken.tokens / sum(taken.seconds))
                row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
                print(json.dumps(row), flush=True)
                found.append(row)
    return found


def with_slots(data, slots):
    """Return a training set whose batches have so many slots."""
    return replace(data, settings=replace(data.settings, batch_slots=slots))


if __name__ == "__main__":
    main()
