"""What weights of many countries cost beside one full training of the shipped model.

    python tests/benchmarks/adapter_cost.py FOLDER --json

MovieLens-1M with all its events, its members in `--regions` regions by a hash of the first two digits of their
postcode, and `everycanvas` as it is shipped, told the country on home. The first passes of a training are timed
(`--passes`), and scaled to as many as the definition asks for; weights of all regions are learnt and chosen as
`playbill adapt` does, which is timed in whole. Both start from the same training set, whose building is not counted.
Seconds are CPU seconds of one thread. The last line is one JSON object.
"""

import json
import tempfile
import time
import zlib
from pathlib import Path

import click
import torch
from countries import ROOT, by_postcode
from every_canvas import bring_in
from sequence_quality import scorer_of

from playbill.config import ProjectFolder, ProjectSettings
from playbill.continual.countries.country_scores import LEAST_MEMBERS, choose_weights
from playbill.datasets import build_training_set, make_split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.features import FeatureDoor, build_features
from playbill.models import TitleInputs
from playbill.tables import Tables, workspace_clock
from playbill.training.build import build_network, loop_settings
from playbill.training.country_adapters import (
    AdapterSettings,
    FrozenNetwork,
    adapters_of,
    country_examples,
    country_members,
    learn_country,
    with_low_rank,
)
from playbill.training.loop import fit
from playbill.training.options import TrainOptions


class Log:
    """MovieLens-1M by regions, with what is asked of it."""

    def __init__(self, folder, home, regions):
        self.workspace = ProjectFolder(ROOT, ProjectSettings(home=str(home), workspace="regions")).workspace()
        bring_in(self.workspace, ("ml_1m", str(folder)))
        by_postcode(self.workspace, folder, 100_000, lambda code: f"R{zlib.crc32(code[:2].encode()) % regions:02}")
        self.door = FeatureDoor(self.workspace)
        self.door.apply()
        build_features(self.workspace)
        self.tables = Tables(self.workspace)
        self.frames = EvaluationTables.read(self.tables)
        self.split = make_split("leave_one_out", self.tables.interactions())

    def resolved(self, epochs=None):
        """Return the shipped definition with the country in the context of home."""
        found = json.loads(load_zoo(ROOT / "model_zoo").model("everycanvas").to_json())
        home = found["canvases"]["home"]
        home["context"] = sorted({*home["context"], "country"})
        options = TrainOptions(protocol=self.split.protocol, epochs=epochs)
        return options.applied(ResolvedModel.model_validate(found))


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--regions", default=20, show_default=True)
@click.option("--passes", default=1, show_default=True)
@click.option("--arm", type=click.Choice(["low_rank", "fine_tune"]), default="low_rank", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON object, as always.")
def main(folder, regions, passes, arm, as_json):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        log = Log(folder, Path(scratch) / "home", regions)
        resolved = log.resolved(passes)
        clock = workspace_clock(log.workspace)
        data = build_training_set(log.tables, resolved, log.split, log.door, clock)
        wanted = loop_settings(data.trained(log.resolved())).total_epochs(data.steps())
        resolved = data.trained(resolved)
        begun = time.process_time()
        network = fit(build_network(resolved, data), data, loop_settings(resolved)).network
        trained = time.process_time() - begun
        made = loop_settings(resolved).total_epochs(data.steps())
        found = {"regions": regions, "arm": arm, "width": resolved.model.trunk.dim, "plays": int(data.plays.sum())}
        found |= {"passes": made, "of": wanted, "stretch_seconds": round(trained, 1)}
        found["training_seconds"] = round(trained * wanted / made, 1)
        print(json.dumps(found), flush=True)
        rank = resolved.model.trunk.dim if arm == "fine_tune" else 4
        found |= adapted(log, resolved, data, network, rank, Path(scratch))
        found["share"] = round((found["learn_seconds"] + found["choose_seconds"]) / found["training_seconds"], 3)
    print(json.dumps(found))


def adapted(log, resolved, data, network, rank, scratch):
    """Learn weights of every region, choose, and return the seconds of both."""
    begun = time.process_time()
    settings, network = AdapterSettings(), with_low_rank(network, rank, 17)
    known, members = data.encoder.state.countries, country_members(data)
    indices = tuple(index for index, count in members.items() if count >= LEAST_MEMBERS)
    frozen = FrozenNetwork(network, TitleInputs.from_arrays(data.titles), settings)
    rows, paths = 0, {}
    for examples in country_examples(data, indices, settings):
        rows += examples.rows
        index, paths[index] = learn_country(frozen, examples)
    learnt = time.process_time()
    start = {index: own for index, own in adapters_of(network).items() if index in paths}
    scorer = scorer_of(log, resolved, data, network, log.door, scratch)
    case = build_case(log.frames, log.split, resolved, "home", fold="validation")
    choice = choose_weights(case, scorer, resolved, log.door, start, paths, known)
    return {
        "countries": len(indices),
        "rows": rows,
        "learn_seconds": round(learnt - begun, 1),
        "choose_seconds": round(time.process_time() - learnt, 1),
        "taken": len(choice.taken),
    }


if __name__ == "__main__":
    main()
