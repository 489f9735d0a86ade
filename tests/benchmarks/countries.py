"""Six ways to serve countries on one split: what each gains by country, over a model that is not told the country.

    python tests/benchmarks/countries.py --json
    python tests/benchmarks/countries.py --log ml_1m:FOLDER:40 --log world:1500:28:31 --keep FILE --json

A log is `ml_1m:FOLDER:EVENTS`, MovieLens-1M with the first digit of the postcode as its country and the last EVENTS of
each member, under `leave_one_out`; or `world:MEMBERS:DAYS:SEED`, the simulated service, under
`global_time_successive`: there few members play often; or `planted:MEMBERS:SEED`, a log whose four countries play by
the same law but each with an order of popularity of its own. Arms:

- `global`: the country is withheld from the network;
- `context`: the country is a field of the context, as in the shipped models; the two last arms start from it;
- `country_id`: besides, each head has a vector of each country;
- `country_only`: a model for each country, from its events alone;
- `fine_tune`: a copy of `context` for each country, trained on with its events alone, and given up where it is not
  ahead on the validation fold;
- `gate`: factors by country (PEPNet);
- `low_rank`: what `playbill adapt` does with `context`;
- `projection`: the same with a matrix of full rank (`--arm fine_tune`).

The network is next_play of `sequence_quality.py`: one head, one canvas, ids of titles. NDCG@10 of the whole catalogue
but what the member has played, intervals over members, paired with `global`. `worst` is the country with the largest
loss, `small` the half of the countries with the fewest members. Of the simulated service the order by true chances is
known; of the planted log, what `global` reaches where the same members all follow one order of popularity, so that
there is no difference between countries to know of. `recovered` is the part of that lead over `global` that an arm
makes up. Seconds are CPU seconds of one thread for all that an arm learns, chooses and measures beyond `context`, where
it starts from that.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import click
import numpy as np
import polars as pl
import torch
from every_canvas import bring_in, without_folder
from sequence_quality import WEEK, SomeColumns, plain, scorer_of

from playbill.config import ProjectFolder, ProjectSettings
from playbill.continual.countries.country_scores import (
    LEAST_MEMBERS,
    choose_weights,
    country_gains,
    interval_of,
    ndcg_by_request,
)
from playbill.continual.countries.pooling import choose
from playbill.datasets import build_training_set, make_split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.errors import PlaybillError
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.ceiling import ceiling_of, truth_of
from playbill.evaluation.measure import measure
from playbill.features import FeatureDoor, build_features
from playbill.models import TitleInputs
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

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs/results/countries.json"
ARMS = ("country_id", "country_only", "fine_tune", "gate", "low_rank", "projection")
FINE_TUNE_RATE, FINE_TUNE_EPOCHS = 0.2, 2  # of the learning rate, and passes over a country's rows


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
    rows = json.loads(keep.read_text())["rows"] if keep and keep.exists() else []
    for name in logs:
        with tempfile.TemporaryDirectory() as scratch:
            study = Study.of(Path(scratch) / "log", name, seed, epochs, width, rate)
            for row in study.rows([arm for arm in arms.split(",") if arm]):
                print(json.dumps({key: value for key, value in row.items() if key != "countries"}), flush=True)
                key = ("log", "arm", "seed")
                rows = [other for other in rows if any(other[name] != row[name] for name in key)] + [row]
                if keep:
                    keep.write_text(json.dumps({"metric": "ndcg@10", "rows": rows}, indent=1) + "\n")
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

    @classmethod
    def of(cls, scratch, name, seed, epochs, width, rate):
        """Bring a log in."""
        scratch.mkdir(parents=True, exist_ok=True)
        workspace = ProjectFolder(ROOT, ProjectSettings(home=str(scratch), workspace="countries")).workspace()
        source, *rest = name.split(":")
        if "planted" in name:
            options = [int(text) for text in rest if text.isdigit()]
            ingest(workspace, "parquet", planted(scratch / "planted", *options, apart="alike" not in name))
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
        return cls(without_folder(name), scratch, workspace, tables, frames, door, split, seed, epochs, width, rate)

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

    def rows(self, arms):
        """Train everything, and yield a row for each arm."""
        seconds, plain_values = timed(self.whole, contexts={"without": ["country"]})
        ceiling = self.ceiling()
        yield self.row("global", plain_values, plain_values, seconds, ceiling)
        begun = time.process_time()
        context = self.trained(self.resolved())
        scorer = self.scorer(*context)
        values = self.ndcg(self.case, scorer, context[0])
        yield self.row("context", values, plain_values, time.process_time() - begun, ceiling)
        ways = {
            "country_id": lambda: self.whole(adaptation={"country": "id"}),
            "gate": lambda: self.whole(adaptation={"country": "gate"}),
            "country_only": lambda: self.each_country(values, None),
            "fine_tune": lambda: self.each_country(values, context),
            "low_rank": lambda: self.adapted(context, 4),
            "projection": lambda: self.adapted(context, self.width),
        }
        for arm in arms:
            spent, found = timed(ways[arm])
            yield self.row(arm, found, plain_values, spent, ceiling)

    def whole(self, **model):
        """Train one model of all countries, and return [N] NDCG@10 of the test fold."""
        found = self.trained(self.resolved(**model))
        return self.ndcg(self.case, self.scorer(*found), found[0])

    def ceiling(self):
        """Return [N] NDCG@10 of the order by true chances, or without the planted difference; None where not known."""
        if self.name.startswith("planted:"):
            other = Study.of(
                self.scratch / "alike", f"alike:{self.name}", self.seed, self.epochs, self.width, self.rate
            )
            return other.whole(contexts={"without": ["country"]})
        truth = truth_of(self.workspace.folder)
        if truth is None:
            return None
        truth.gather(self.case.log.frame[self.case.positions]["request_id"].drop_nulls().to_list())
        function = ceiling_of(self.case, truth)
        return None if function is None else measure(self.case, {"truth": function}, (10,))["truth"].values["ndcg@10"]

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
        chosen, _, _ = choose(found.means, found.errors)
        return [code for code, place in zip(codes, chosen, strict=True) if place >= 0]

    def parent(self, context):
        """Return a model as the version that others start from."""
        resolved, data, network = context
        scorer_of(self, resolved, data, network, self.door, self.scratch)
        (self.scratch / "bundle").rename(self.scratch / "parent")
        return Parent("context:1", read_bundle(self.scratch / "parent"))

    def adapted(self, context, rank):
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
        return ndcg_by_request(self.case, scorer, resolved, self.door, [start | own])[0]

    def row(self, arm, values, plain_values, seconds, ceiling):
        """Return what an arm reaches, by country and in all."""
        frame, change = self.case.frame, values - plain_values
        by_country = [self.country_row(code, values, plain_values, ceiling) for code in self.countries]
        small = frame["country"].is_in(self.countries[: len(self.countries) // 2])
        lowest = min(by_country, key=lambda one: one["change"][0], default={"country": None, "change": None})
        found = {
            "log": self.name,
            "arm": arm,
            "seed": self.seed,
            "requests": len(values),
            "ndcg@10": round(float(values.mean()), 4),
            "over_global": spread(interval_of(frame, change)),
            "worst": {"country": lowest["country"], "change": lowest["change"]},
            "small": spread(interval_of(frame.filter(small), change[small.to_numpy()])),
            "cpu_seconds": round(seconds, 1),
            "countries": by_country,
        }
        if ceiling is not None:
            found |= {"ceiling": round(float(ceiling.mean()), 4), "recovered": part_of(values, plain_values, ceiling)}
        return found

    def country_row(self, code, values, plain_values, ceiling):
        """Return what an arm reaches in one country."""
        here = (self.case.frame["country"] == code).fill_null(False)
        own = here.to_numpy()
        found = {
            "country": code,
            "requests": int(own.sum()),
            "global": round(float(plain_values[own].mean()), 4),
            "ndcg@10": round(float(values[own].mean()), 4),
            "change": spread(interval_of(self.case.frame.filter(here), (values - plain_values)[own])),
        }
        if ceiling is not None:
            found["recovered"] = part_of(values[own], plain_values[own], ceiling[own])
        return found


def part_of(values, plain_values, ceiling):
    """Return the part of the truth's lead that an arm makes up."""
    lead = float((ceiling - plain_values).mean())
    return round(float((values - plain_values).mean()) / lead, 4) if lead > 0 else None


def spread(interval):
    """Return a mean with the ends of its interval."""
    return [round(float(end), 4) for end in (interval.value, interval.low, interval.high)]


def in_country(case, code):
    """Return the requests of a case from one country, and which they are."""
    here = (case.frame["country"] == code).fill_null(False).to_numpy()
    return case.keep(here[case.rows]), here


def timed(work, **options):
    """Return CPU seconds and what some work returns."""
    begun = time.process_time()
    found = work(**options)
    return time.process_time() - begun, found


MAPPING = """
titles: {file: titles.parquet, columns: {title_id: id, name: name, kind: {constant: film}}}
members: {file: members.parquet, columns: {member_id: user, country: region}}
interactions:
  file: ratings.parquet
  columns: {member_id: user, title_id: item, event_at: at}
  rating: {from: stars, up: 4, down: 2, canvas: home}
  order_by: order
"""
SHARES = {"US": 0.6, "BR": 0.25, "JP": 0.1, "PT": 0.05}
TASTES, PLAYS = 5, 24


def planted(folder, members, seed, *, apart):
    """Write a log in which members play by popularity in their country and by taste; return how it is read.

    Countries that are `apart` order titles by popularity each in its own way, else all as the first one does.
    """
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    titles = 240
    taste_of = draw.integers(TASTES, size=titles)
    orders = {code: draw.permutation(titles) for code in SHARES}
    country = draw.choice(list(SHARES), size=members, p=list(SHARES.values()))
    tastes = draw.integers(TASTES, size=members)
    rows = []
    for member in range(members):
        place = orders[country[member] if apart else "US"]
        chance = np.where(taste_of == tastes[member], 4.0, 1.0) / (3.0 + np.argsort(place))
        chosen = draw.choice(titles, size=PLAYS, replace=False, p=chance / chance.sum())
        at = np.sort(draw.integers(0, 90 * 86_400, size=PLAYS))
        rows += [(f"m{member}", f"t{title}", 5.0, int(at[order]), order) for order, title in enumerate(chosen)]
    frame = pl.DataFrame(rows, schema=["user", "item", "stars", "second", "order"], orient="row")
    start = pl.lit(datetime(2024, 1, 1, tzinfo=UTC))
    frame.with_columns(at=start + pl.duration(seconds="second")).drop("second").write_parquet(
        folder / "ratings.parquet"
    )
    names = [f"t{title}" for title in range(titles)]
    pl.DataFrame({"id": names, "name": names}).write_parquet(folder / "titles.parquet")
    users = [f"m{member}" for member in range(members)]
    pl.DataFrame({"user": users, "region": country.tolist()}).write_parquet(folder / "members.parquet")
    (folder / "mapping.yaml").write_text(MAPPING)
    return {"path": folder, "mapping": folder / "mapping.yaml"}


def by_postcode(workspace, folder, events):
    """Let the first digit of the postcode be the country, and keep the last events of each member."""
    users = (line.split("::") for line in (folder / "users.dat").read_text(encoding="latin-1").splitlines())
    region = pl.DataFrame([(one[0], f"R{one[4][0]}") for one in users], schema=["member_id", "region"], orient="row")
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
