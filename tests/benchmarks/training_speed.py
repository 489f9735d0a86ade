"""How fast the network trains on MovieLens-1M, beside RecTools' SASRec and beside its own bare matrix products.

    make bench-sequence ML_1M=FOLDER
    python tests/benchmarks/training_speed.py --data FOLDER --json

Width 64, two blocks, length 200, one thread on both sides, one after the other in one run. Speeds are in tokens (plays
that are read, padding not counted) per second of CPU, batches included, so another load on the machine does not count.
`ratio_to_matmul_limit`: a step's time over that of the matrix products that it cannot do without, forward and backward,
in the sizes and the number type that it has. `step_ratio_100k_titles` is that of
step_growth.py: a step over 100,000 titles against one over 5,000, both against drawn titles.
"""

import json
import os
import subprocess
import tempfile
import time
from itertools import islice
from pathlib import Path

import click
import numpy as np
import torch
from peers import write_requests
from sequence_quality import Log, SomeColumns, plain
from step_growth import step_ratio

from playbill.datasets import build_training_set
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.models.softmax_loss import block_rows
from playbill.models.weights import bfloat16_is_fast
from playbill.tables import workspace_clock
from playbill.training.build import build_network, loop_settings
from playbill.training.loop import WorkerPlace, fit

ROOT = Path(__file__).parents[2]
WIDTH, NEGATIVES, WARM_UP = 64, 256, 3


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), help="Folder of MovieLens-1M (default: MovieLens-100K)."
)
@click.option("--mapping", type=click.Path(path_type=Path), default=ROOT / "docs/guide/mappings/ml_1m.yaml")
@click.option(
    "--python",
    "peer_python",
    type=click.Path(path_type=Path),
    default=ROOT / ".venv-peers/bin/python",
    help="Python that has RecTools, see `make bench-peers`; without it only our own numbers.",
)
@click.option("--steps", default=40, show_default=True, help="Of ours.")
@click.option("--peer-steps", default=4, show_default=True, help="Of RecTools'; each reads eight times as much.")
@click.option("--home", type=click.Path(path_type=Path), help="Where the workspace is kept (default: thrown away).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(data, mapping, peer_python, steps, peer_steps, home, as_json):
    """Time steps.

    Example: python tests/benchmarks/training_speed.py --data ml-1m --json
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        log = Log.of(home or Path(scratch) / "home", data, mapping, "leave_one_out")
        full, sampled = made(log, "softmax"), made(log, "sampled_softmax")
        found = {"full": Steps.of(*full, steps), "sampled": Steps.of(*sampled, steps)}
        limit = product_seconds(full, steps)
        peers = {}
        if peer_python.exists():
            write_requests(log.case, Path(scratch))
            peers = {
                loss: peer(peer_python, Path(scratch), loss, peer_steps) for loss in ("softmax", "sampled_softmax")
            }
    speeds = {name: own.tokens / sum(own.seconds) for name, own in found.items()}
    theirs = {name: own["tokens"] / own["cpu_seconds"] for name, own in peers.items()}
    numbers = {
        "tokens_per_second": speeds["full"],
        "tokens_per_second_sampled": speeds["sampled"],
        "rectools_tokens_per_second": theirs.get("softmax"),
        "rectools_tokens_per_second_sampled": theirs.get("sampled_softmax"),
        "ratio_vs_rectools": speeds["full"] / theirs["softmax"] if theirs else None,
        "ratio_vs_rectools_sampled": speeds["sampled"] / theirs["sampled_softmax"] if theirs else None,
        "ratio_to_matmul_limit": sum(found["full"].seconds) / limit,
        "step_ratio_100k_titles": step_ratio(),
    }
    for name, value in numbers.items():
        print(f"{name:<36}{'' if value is None else format(value, '.2f')}")
    if as_json:
        print(json.dumps({**numbers, "steps": steps, "peer_steps": peer_steps, "titles": len(log.case.catalogue)}))


class Steps:
    """Seconds of each step after the warm-up, and what the steps read: of the processor, or by the clock on a card.

    Args:
        seconds: Of each step.
        tokens: Of all steps.
    """

    def __init__(self, seconds, tokens):
        self.seconds, self.tokens = seconds, tokens

    @classmethod
    def of(cls, resolved, data, steps, device="cpu", low_precision=None):
        """Take so many steps, and some before them that are not counted."""
        torch.manual_seed(0)
        source, ends = First(data, steps + WARM_UP), []
        settings = loop_settings(resolved).model_copy(
            update={"epochs": 1, "min_steps": 0, "low_precision": low_precision}
        )
        place, clock = WorkerPlace(device=torch.device(device)), time.process_time if device == "cpu" else card_clock
        fit(build_network(resolved, data), source, settings, progress=lambda _: ends.append(clock()), place=place)
        return cls(np.diff(ends)[WARM_UP - 1 :].tolist(), sum(source.tokens[WARM_UP:]))


def card_clock():
    """Return the time at which the card has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


class First:
    """The first batches of an epoch.

    Args:
        data: A training set.
        steps: How many.
    """

    def __init__(self, data, steps):
        self.data, self.count, self.tokens = data, min(steps, data.steps()), []
        self.titles, self.batch_weights = data.titles, data.batch_weights

    def steps(self, world=1):
        """Return their number."""
        return self.count

    def epoch(self, epoch, rank=0, world=1):
        """Yield them, made as they are needed."""
        for batch in islice(self.data.epoch(epoch, rank, world), self.count):
            self.tokens.append(int(batch.history.length.sum()))
            yield batch


def made(log, loss):
    """Return the definition with one loss, and its training set."""
    found = json.loads(plain(load_zoo(ROOT / "model_zoo").model("everycanvas"), WIDTH).to_json())
    if loss == "sampled_softmax":
        drawn = {"loss": loss, "negatives": {"policy": "uniform", "count": NEGATIVES}}
        found["model"]["heads"]["discovery_play"] |= drawn
    resolved = ResolvedModel.model_validate(found)
    data = build_training_set(log.tables, resolved, log.split, SomeColumns(log.door), workspace_clock(log.workspace))
    return data.trained(resolved), data


def product_seconds(given, steps):
    """Return the CPU seconds of the matrix products of the same steps, forward and backward."""
    resolved, data = given
    batches = islice(data.epoch(0), WARM_UP, WARM_UP + steps)
    shapes = [shape for batch in batches for shape in products(resolved.model.trunk, batch, len(data.titles.index))]
    kind = torch.bfloat16 if bfloat16_is_fast(torch.device("cpu")) else torch.float32
    return sum(seconds_of(shape, kind) for shape in shapes)


def products(trunk, batch, titles):
    """Return (number of products, rows, inner, columns) of a step's forward pass."""
    members, length = batch.history.title.shape
    rows, places, width = len(batch.context.state), members * (length + 1), trunk.dim
    block = [
        (1, places, width, 3 * width),
        (members * trunk.heads, length + 1, width // trunk.heads, length + 1),
        (members * trunk.heads, length + 1, length + 1, width // trunk.heads),
        (1, places, width, width),
        (1, places, width, 4 * width),
        (1, places, 4 * width, width),
    ]
    part = block_rows(titles, torch.device("cpu"))
    logits = [(1, min(part, rows - start), width, titles) for start in range(0, rows, part)]
    return [*block * trunk.layers, (1, rows, width, width), *logits]


def seconds_of(shape, kind):
    """Return the CPU seconds of a product and of the two products of its gradient."""
    number, rows, inner, columns = shape
    left, right = torch.rand(number, rows, inner).to(kind), torch.rand(number, inner, columns).to(kind)
    grad = torch.rand(number, rows, columns).to(kind)
    begun = time.process_time()
    torch.bmm(left, right)
    torch.bmm(grad, right.transpose(1, 2))
    torch.bmm(left.transpose(1, 2), grad)
    return time.process_time() - begun


def peer(python, folder, loss, steps):
    """Have RecTools take steps, with one thread."""
    script = Path(__file__).with_name("peers_speed.py")
    # The peers' environment must not find ours.
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [python, script, str(folder), loss, str(steps)]
    output = subprocess.run(command, check=True, env=clean, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


if __name__ == "__main__":
    main()
