"""Six ways to serve countries on one split: what each gains by country, over a model that is not told the country.

    python tests/benchmarks/countries.py --json
    python tests/benchmarks/countries.py --log ml_1m:FOLDER:40 --log world:1500:28:31 --keep FILE --json

A log is `ml_1m:FOLDER:EVENTS`, MovieLens-1M with the first digit of the postcode as its country and the last EVENTS of
each member, under `leave_one_out`; or `world:MEMBERS:DAYS:SEED`, the simulated service, under
`global_time_successive`: there few members play often; or `planted:MEMBERS:SEED`, a log whose eight countries play by
the same law but each with an order of popularity of its own (`planted_countries.py`). Logs of one kind are also pooled:
intervals are over the members of all of them. Arms:

- `global`: the country is withheld from the network;
- `context`: the country is a field of the context, as in the shipped models; those that are tuned start from it;
- `country_id`: besides, each head has a vector of each country;
- `country_only`: a model for each country, from its events alone;
- `fine_tune`: a copy of `context` for each country, trained on with its events alone, and given up where it is not
  ahead on the validation fold;
- `gate`: factors by country (PEPNet);
- `low_rank`: what `playbill adapt` does with `context`;
- `projection`: the same with a matrix of full rank (`--arm fine_tune`);
- `ensemble`: what `playbill ensemble` does: its base is the arm of one network that is ahead on the validation fold,
  beside it are the fine-tuned copies where they were made, each for its country, and the terms `popularity`, by
  country, and `popular_7d`; the gate reads the country.

The network is next_play of `sequence_quality.py`: one head, one canvas, ids of titles. NDCG@10 of the whole catalogue
but what the member has played, intervals over members, paired with `global`. `worst` is the country with the largest
loss, `small` the half of the countries with the fewest members. `truth` is what the best order reaches: by the true
chances in the simulated service; in the planted log by the chances given the country and the history. `gap` is its lead
over `global`; of the planted log less that lead where the same members all follow one order of popularity, so what is
left is the work of countries alone. `recovered` is the part of the gap that an arm makes up. Seconds are CPU seconds of
one thread for all that an arm learns, chooses and measures beyond what it starts from.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import numpy as np
import polars as pl
import torch
from countries_report import Measured, pooled
from every_canvas import bring_in, without_folder
from planted_countries import Planted
from sequence_quality import WEEK, SomeColumns, plain, scorer_of

from playbill.config import ProjectFolder, ProjectSettings
from playbill.continual.countries.country_scores import (
    LEAST_MEMBERS,
    choose_weights,
    ndcg_by_request,
)
from playbill.continual.ensembles.ensemble_report import gains_table
from playbill.continual.ensembles.folding import folded_network
from playbill.continual.ensembles.gate import learn_gate
from playbill.continual.ensembles.gate_window import GateWindow
from playbill.continual.ensembles.members import Member
from playbill.continual.pooling import choose, country_gains
from playbill.datasets import build_training_set, make_split
from playbill.definitions.specs import EnsembleSpec, MemberSpec, ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.errors import PlaybillError
from playbill.evaluation.canvases.loaded_version import OpenModel
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.ceiling import ceiling_of, truth_of
from playbill.evaluation.measure import measure
from playbill.features import FeatureDoor, build_features
from playbill.models import TitleInputs
from playbill.models.config import HistoryTermsConfig
from playbill.ranking.scoring.bundle import read_bundle
from playbill.sources import ingest
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
from playbill.training.inherit import Parent, knowing
from playbill.training.loop import fit
from playbill.training.options import TrainOptions
from playbill.training.term_weights import add_terms, log_of
from playbill.versions.tracking import ModelVersion

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs/results/countries.json"
ARMS = ("country_id", "country_only", "fine_tune", "gate", "low_rank", "projection", "ensemble")
FINE_TUNE_RATE, FINE_TUNE_EPOCHS = 0.5, 6  # of the learning rate, and passes over a country's rows


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--log", "logs", multiple=True, default=("world:1500:28:31",), show_default=True)
@click.option("--arms", default=",".join(ARMS), show_default=True, help="Beside global and context.")
@click.option("--seed", default=17, show_default=True)
@click.option("--epochs", default=4, show_default=True)
@click.option("--width", default=64, show_default=True)
@click.option("--rate", default=AdapterSettings().learning_rate, show_default=True, help="Of low_rank and projection.")
@click.option("--keep", type=click.Path(path_type=Path), help="JSON file whose rows of these logs are replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(logs, arms, seed, epochs, width, rate, keep, as_json):
    torch.set_num_threads(1)
    rows, kinds = json.loads(keep.read_text())["rows"] if keep and keep.exists() else [], {}

    def tell(row):
        print(json.dumps({key: value for key, value in row.items() if key != "countries"}), flush=True)
        rows[:] = [other for other in rows if any(other[name] != row[name] for name in ("log", "arm", "seed"))] + [row]
        if keep:
            lines = ",\n".join(json.dumps(row) for row in rows)
            keep.write_text(f'{{"metric": "ndcg@10", "rows": [\n{lines}\n]}}\n')

    for name in logs:
        with tempfile.TemporaryDirectory() as scratch:
            study = Study.of(Path(scratch) / "log", name, seed, epochs, width, rate)
            measured = study.measured([arm for arm in arms.split(",") if arm], tell)
            kinds.setdefault(name.partition(":")[0], []).append(measured)
    for parts in (own for own in kinds.values() if len(own) > 1):
        together = pooled(parts)
        for arm in together.values:
            tell(together.row(arm))
    if as_json:
        print(json.dumps({"metric": "ndcg@10", "rows": rows}))


@dataclass(frozen=True)
class Study:
    """One log, its split, and what is trained on it."""

    name: str
    scratch: Path
    workspace: object
    tables: Tables
    frames: EvaluationTables
    door: SomeColumns
    split: object
    seed: int
    epochs: int
    width: int
    rate: float
    planted: Planted | None = None

    @classmethod
    def of(cls, scratch, name, seed, epochs, width, rate):
        """Bring a log in."""
        scratch.mkdir(parents=True, exist_ok=True)
        workspace = ProjectFolder(ROOT, ProjectSettings(home=str(scratch), workspace="countries")).workspace()
        source, *rest = name.split(":")
        if "planted" in name:
            planted = Planted(*(int(text) for text in rest if text.isdigit()), apart=source == "planted")
            ingest(workspace, "parquet", planted.write(scratch / "planted"))
        elif source == "ml_1m":
            bring_in(workspace, (source, rest[0]))
            by_postcode(workspace, Path(rest[0]), int(rest[1]))
        else:
            bring_in(workspace, (source, *rest))
        FeatureDoor(workspace).apply()
        build_features(workspace)
        tables, protocol = Tables(workspace), "global_time_successive" if source == "world" else "leave_one_out"
        door = SomeColumns(FeatureDoor(workspace), WEEK)
        frames, split = EvaluationTables.read(tables), make_split(protocol, tables.interactions())
        own = (without_folder(name), scratch, workspace, tables, frames, door, split, seed, epochs, width, rate)
        return cls(*own, planted if "planted" in name else None)

    def resolved(self, **model):
        """Return next_play with the country in its context, and some keys of the model changed."""
        found = json.loads(plain(load_zoo(ROOT / "model_zoo").model("everycanvas"), self.width).to_json())
        found["canvases"]["home"]["context"] = ["member", "country"]
        found["model"]["heads"]["discovery_play"].pop("terms", None)
        for key, value in model.items():
            found["model"][key] = {**(found["model"].get(key) or {}), **value}
        options = TrainOptions(protocol=self.split.protocol, seed=self.seed, epochs=self.epochs)
        return options.applied(ResolvedModel.model_validate(found))

    @cached_property
    def models(self):
        """Networks of all countries, by arm: definition, data and network."""
        return {}

    @cached_property
    def copies(self):
        """Networks that were fine-tuned for a country, likewise."""
        return {}

    @cached_property
    def case(self):
        """The test fold."""
        return build_case(self.frames, self.split, self.resolved(), "home")

    @cached_property
    def validation(self):
        """The validation fold."""
        return build_case(self.frames, self.split, self.resolved(), "home", fold="validation")

    @cached_property
    def countries(self):
        """Countries with members enough in both folds, the smallest first."""
        counts = [
            one.frame.group_by("country").agg(pl.col("member_id").n_unique()) for one in (self.case, self.validation)
        ]
        both = [dict(one.iter_rows()) for one in counts]
        known = [code for code in both[0] if min(one.get(code, 0) for one in both) >= LEAST_MEMBERS]
        return sorted(known, key=lambda code: (both[0][code], code))

    def trained(self, resolved, parent=None):
        """Train a model, and return its definition, data and network."""
        clock = workspace_clock(self.workspace)
        data = knowing(build_training_set(self.tables, resolved, self.split, self.door, clock), resolved, parent)
        resolved = data.trained(resolved)
        return resolved, data, fit(build_network(resolved, data, parent), data, loop_settings(resolved)).network

    def scorer(self, resolved, data, network):
        """Return what scores requests."""
        return scorer_of(self, resolved, data, network, self.door, self.scratch)

    def ndcg(self, case, scorer, resolved):
        """Return [N] NDCG@10 of a case's requests."""
        function = CanvasScorer(scorer, resolved, "home", self.door)
        return measure(case, {"model": function}, (10,))["model"].values["ndcg@10"]

    def measured(self, arms, tell):
        """Train everything, tell of each arm as it comes, and return what all of them reach."""
        found = None
        self.models["global"], spent = timed(self.trained, self.resolved(contexts={"without": ["country"]}))
        self.models["context"], of_context = timed(self.trained, self.resolved())
        members = country_members(self.models["context"][1])
        known = self.models["context"][1].encoder.state.countries
        found = Measured(
            self.name,
            self.seed,
            self.case.frame.select("member_id", "country"),
            self.countries,
            {known[index - 1]: count for index, count in members.items()},
            self.truth(),
        )
        for arm, seconds in (("global", spent), ("context", of_context)):
            found.values[arm], found.seconds[arm] = self.whole(arm), seconds
        if self.planted is not None:
            found.alike = self.lead_alike()
        ways = {
            "country_id": lambda: self.whole("country_id", adaptation={"country": "id"}),
            "gate": lambda: self.whole("gate", adaptation={"country": "gate"}),
            "country_only": lambda: self.each_country(found.values["context"], None),
            "fine_tune": lambda: self.each_country(found.values["context"], self.models["context"]),
            "low_rank": lambda: self.adapted("low_rank", self.models["context"], 4),
            "projection": lambda: self.adapted("projection", self.models["context"], self.width),
            "ensemble": self.ensemble,
        }
        for arm in ("global", "context"):
            tell(found.row(arm))
        for arm in arms:
            found.values[arm], found.seconds[arm] = timed(ways[arm])
            tell(found.row(arm))
        if "ensemble" in found.values:
            for arm in found.values:  # once more, each beside the ensemble
                tell(found.row(arm))
        return found

    def whole(self, arm, **model):
        """Train one model of all countries, unless it is there, and return [N] NDCG@10 of the test fold."""
        if arm not in self.models:
            self.models[arm] = self.trained(self.resolved(**model))
        resolved, *rest = self.models[arm]
        return self.ndcg(self.case, self.scorer(resolved, *rest), resolved)

    def truth(self):
        """Return [N] NDCG@10 of the best order; None where it is not known."""
        function = self.planted
        if function is None:
            truth = truth_of(self.workspace.folder)
            if truth is None:
                return None
            truth.gather(self.case.log.frame[self.case.positions]["request_id"].drop_nulls().to_list())
            function = ceiling_of(self.case, truth)
        return None if function is None else measure(self.case, {"truth": function}, (10,))["truth"].values["ndcg@10"]

    def lead_alike(self):
        """Return how far the best order is ahead of a model where countries do not differ."""
        own = (f"alike-{self.name}", self.seed, self.epochs, self.width, self.rate)
        other = Study.of(self.scratch / "alike", *own)
        return float((other.truth() - other.whole("global", contexts={"without": ["country"]})).mean())

    def ensemble(self):
        """Return [N] NDCG@10 of an ensemble over the arms that were trained, and say what its gate has learnt."""
        ahead = {
            arm: float(self.ndcg(self.validation, self.scorer(*own), own[0]).mean()) for arm, own in self.models.items()
        }
        base = max(ahead, key=ahead.__getitem__)
        events, terms = (
            log_of(self.split, self.frames),
            HistoryTermsConfig(terms=("popular_7d",), heads=("discovery_play",), popularity=0),
        )
        resolved, data, network = self.models[base]
        if data.encoder.state.title_snapshot:
            network = add_terms(network, terms, events, data.encoder)
        given = {base: (resolved, data, network)} | {code: own for code, own in self.copies.items()}
        members, named = {}, {}
        for role, own in given.items():
            name = role.lower()
            named[name] = MemberSpec(model=f"{name}:1", countries=() if role == base else (role,))
            model = OpenModel(own[0], self.scorer(*own), self.split, "")
            members[name] = Member(name, named[name], ModelVersion(name, 1, "", None, ""), model)
        named["local"] = MemberSpec(term="popularity")
        if data.encoder.state.title_snapshot:
            named["trending"] = MemberSpec(term="popular_7d")
        spec = EnsembleSpec(name="everywhere", version=1, members=named, base=base, gate=("country",))
        network, folded = folded_network(spec, members, events, self.door, self.seed)
        scorer = self.scorer(resolved, data, network)
        window = GateWindow(spec, scorer, resolved, members, events, self.split, self.frames, self.door, self.seed)
        learnt = learn_gate(window)
        explained = {one.role: round(one.explained, 3) for one in folded}
        print(json.dumps({"base": base, "validation": ahead, "explained": explained}), flush=True)
        with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, tbl_hide_dataframe_shape=True):
            print(gains_table(learnt.gains).drop("base ndcg@10", "best alone", "its ndcg@10"))
            print(learnt.weights.pivot("member", index=["country", "requests"], values="weight"), flush=True)
        return self.ndcg(self.case, scorer, resolved)

    def each_country(self, otherwise, context):
        """Return [N] NDCG@10 of a model for each country, from `context` on where that is given.

        A country that cannot be learnt alone, or whose copy is not ahead on the validation fold, has `otherwise`.
        """
        found, gains = otherwise.copy(), {}
        parent = None if context is None else self.parent(context)
        before = None if context is None else self.ndcg(self.validation, self.scorer(*context), context[0])
        for code in self.countries:
            resolved = self.resolved(only={"country": [code]})
            if parent is not None:
                training = {
                    "learning_rate": resolved.model.training.learning_rate * FINE_TUNE_RATE,
                    "epochs": FINE_TUNE_EPOCHS,
                }
                resolved = self.resolved(only={"country": [code]}, training=training, init_from={"model": "context:1"})
                resolved = TrainOptions(epochs=FINE_TUNE_EPOCHS).applied(resolved)
            try:
                own = self.trained(resolved, parent)
            except PlaybillError as error:
                print(f"{code}: {error}", flush=True)
                continue
            if parent is not None:
                self.copies[code] = own
            scorer = self.scorer(*own)
            here = in_country(self.case, code)
            values = self.ndcg(here[0], scorer, own[0])
            if parent is None:
                found[here[1]] = values
                continue
            asked = in_country(self.validation, code)
            gains[code] = (self.ndcg(asked[0], scorer, own[0]), asked[1], here[1], values)
        if parent is not None:
            for code in self.ahead(before, gains):
                found[gains[code][2]] = gains[code][3]
        return found

    def ahead(self, before, gains):
        """Return the countries whose copies are ahead on the validation fold, by the rule of `playbill adapt`."""
        after = before.copy()
        for values, requests, _, _ in gains.values():
            after[requests] = values
        codes = list(gains)
        found = country_gains(self.validation.frame, np.stack([before, after]), codes)
        chosen, _, _ = choose(found.means, found.errors, found.requests)
        return [code for code, place in zip(codes, chosen, strict=True) if place >= 0]

    def parent(self, context):
        """Return a model as the version that others start from."""
        resolved, data, network = context
        scorer_of(self, resolved, data, network, self.door, self.scratch)
        (self.scratch / "bundle").rename(self.scratch / "parent")
        return Parent("context:1", read_bundle(self.scratch / "parent"))

    def adapted(self, arm, context, rank):
        """Return [N] NDCG@10 with low-rank weights of countries, chosen as by `playbill adapt`."""
        resolved, data, network = context
        settings, network = (
            AdapterSettings(learning_rate=self.rate, seed=self.seed),
            with_low_rank(network, rank, self.seed),
        )
        known, members = data.encoder.state.countries, country_members(data)
        indices = tuple(index for index, count in members.items() if count >= LEAST_MEMBERS)
        frozen = FrozenNetwork(network, TitleInputs.from_arrays(data.titles), settings)
        paths = dict(learn_country(frozen, examples) for examples in country_examples(data, indices, settings))
        start = {index: own for index, own in adapters_of(network).items() if index in paths}
        scorer = self.scorer(resolved, data, network)
        choice = choose_weights(self.validation, scorer, resolved, self.door, start, paths, known)
        print(json.dumps({"taken": choice.taken, "best": choice.best}), flush=True)
        own = {known.index(code) + 1: paths[known.index(code) + 1][place] for code, (place, _) in choice.taken.items()}
        found = ndcg_by_request(self.case, scorer, resolved, self.door, [start | own])[0]
        self.models[arm] = (resolved, data, network)
        return found


def in_country(case, code):
    """Return the requests of a case from one country, and which they are."""
    here = (case.frame["country"] == code).fill_null(False).to_numpy()
    return case.keep(here[case.rows]), here


def timed(work, *options):
    """Return what some work returns, and its CPU seconds."""
    begun = time.process_time()
    found = work(*options)
    return found, time.process_time() - begun


def by_postcode(workspace, folder, events, name=lambda postcode: f"R{postcode[0]}"):
    """Let a name of the postcode, its first digit, be the country, and keep the last events of each member."""
    users = (line.split("::") for line in (folder / "users.dat").read_text(encoding="latin-1").splitlines())
    region = pl.DataFrame([(one[0], name(one[4])) for one in users], schema=["member_id", "region"], orient="row")
    tables = Tables(workspace)
    frames = {name: getattr(tables, name)() for name in ("titles", "availability", "interactions")}
    frames["members"] = tables.member_versions()
    for name in ("members", "interactions"):
        frame = frames[name].join(region, on="member_id", how="left", maintain_order="left")
        kind = frames[name].schema["country"]
        frames[name] = frame.with_columns(country=pl.col("region").cast(kind)).drop("region")
    kept = frames["interactions"].sort("member_id", "seq").group_by("member_id", maintain_order=True).tail(events)
    frames["interactions"] = kept.select(frames["interactions"].columns)
    with tables.replace() as writer:
        for name, frame in frames.items():
            writer.write(name, frame)


if __name__ == "__main__":
    main()
