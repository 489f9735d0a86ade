"""What a training step costs as the catalogue grows, against drawn titles and against every one.

    python tests/benchmarks/step_growth.py --json
    python tests/benchmarks/step_growth.py --drawn 5000 --drawn 100000 --full 5000 --json

CPU milliseconds of a step of `everycanvas` on one thread, the making of its batch included, the median of some after
the first two. `step_ratio_100k_titles` is a step at 100,000 titles over one at 5,000, both against drawn titles. Where
`full` crosses `drawn` is what `training.full_softmax_titles` is set by, with room above: for as long as a step costs no
more than a few times as much, ranking against every title is better per second. The log is that of
tests/fixtures/large_catalogue.py.
"""

import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
SIZES = (2_500, 5_000, 10_000, 20_000, 40_000)
SMALL, LARGE = 5_000, 100_000
EVENTS, MEMBERS = 30_000, 3_000
NOT_COUNTED = 2
DRAWN, FULL = 0, 10_000_000
"""Values of `full_softmax_titles` under which no catalogue ranks against every title, and every one does."""


class TimedError(Exception):
    """Enough steps were timed."""


@click.command()
@click.option("--drawn", multiple=True, type=int, default=(*SIZES, LARGE), show_default=True, help="Sizes, drawn.")
@click.option("--full", multiple=True, type=int, default=SIZES, show_default=True, help="Sizes, every title.")
@click.option("--steps", default=12, show_default=True, help="Steps that are timed at each size.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(drawn, full, steps, as_json):
    """Measure steps."""
    found = {"drawn": {}, "full": {}}
    for titles in sorted({*drawn, *full}):
        kinds = {"drawn": DRAWN} if titles in drawn else {}
        kinds |= {"full": FULL} if titles in full else {}
        for kind, milliseconds in step_ms(titles, kinds, steps).items():
            found[kind][titles] = milliseconds
            print(f"{titles:>7,} titles, {kind}: {milliseconds:.0f} ms", flush=True)
    ratio = found["drawn"][LARGE] / found["drawn"][SMALL] if {SMALL, LARGE} <= found["drawn"].keys() else None
    if ratio is not None:
        print(f"a step at {LARGE:,} titles costs {ratio:.2f} times what one at {SMALL:,} does")
    if as_json:
        print(json.dumps({"step_ratio_100k_titles": ratio, "milliseconds": found}))


def step_ratio(steps=12):
    """Return a step at 100,000 titles over one at 5,000, both against drawn titles."""
    small, large = (step_ms(titles, {"drawn": DRAWN}, steps)["drawn"] for titles in (SMALL, LARGE))
    return large / small


def step_ms(titles, kinds, steps):
    """Return the CPU milliseconds of a step over a catalogue, for each kind of softmax."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return {kind: timed(*training(Path(folder), titles, most), steps) for kind, most in kinds.items()}


def training(folder, titles, full_softmax_titles):
    """Return a network that is not started, its training set, and the definition they come from."""
    from tests.benchmarks.catalogue_growth import fill, start_project

    from playbill.config import ProjectFolder
    from playbill.datasets import build_training_set
    from playbill.datasets.protocol_choice import model_split
    from playbill.definitions.zoo import open_zoo
    from playbill.features import FeatureDoor
    from playbill.models import Network, TitleInputs
    from playbill.tables import Tables, workspace_clock
    from playbill.training.build import network_config

    fresh = not (folder / "playbill.toml").exists()
    if fresh:
        start_project(folder, "shipped")
    project = ProjectFolder.find(folder)
    workspace = project.workspace()
    if fresh:
        fill(workspace, folder / "data", titles, MEMBERS, EVENTS)
    resolved = open_zoo(project.model_zoo, project.feature_repo).model("everycanvas")
    options = resolved.model.training.model_copy(update={"full_softmax_titles": full_softmax_titles})
    resolved = resolved.model_copy(update={"model": resolved.model.model_copy(update={"training": options})})
    tables, features = Tables(workspace), FeatureDoor(workspace)
    split = model_split(resolved, tables.interactions())
    data = build_training_set(tables, resolved, split, features, workspace_clock(workspace))
    trained = data.trained(resolved)
    torch_network = Network(network_config(trained, data.encoder))
    inputs = TitleInputs.from_arrays(data.titles)
    torch_network.titles.dynamic.calibrate(inputs.snapshots[:, 1:])
    return torch_network, data, trained


def timed(network, data, resolved, steps):
    """Return the median CPU milliseconds of a step."""
    from playbill.training.build import loop_settings
    from playbill.training.loop import fit

    ends = []

    def progress(_progress):
        ends.append(time.process_time())
        if len(ends) > steps + NOT_COUNTED:
            raise TimedError

    with contextlib.suppress(TimedError):
        fit(network, data, loop_settings(resolved), progress=progress)
    spent = [after - before for before, after in zip(ends[NOT_COUNTED:-1], ends[NOT_COUNTED + 1 :], strict=True)]
    return 1_000 * statistics.median(spent)


if __name__ == "__main__":
    main()
