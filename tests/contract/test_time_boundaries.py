"""Whatever is made from the log has a boundary in time: every builder refuses what lies past it, or cannot see it.

Builders are found by their names, so a new one has to say here which of the two it does, or why it needs neither.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fixtures import delayed_world as law
from fixtures import shown_service as service
from playbill.datasets import Split, build_training_set, make_split
from playbill.datasets.examples.labelled import train_events
from playbill.datasets.examples.selection import learn
from playbill.datasets.export.rows import Log, labelled_rows
from playbill.definitions.specs import BASELINES, LabelSpec, ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.errors import ComparisonError, IntegrityError
from playbill.evaluation import EvaluationCase, EvaluationTables, build_baseline, build_case, evaluate, tuned_ease
from playbill.evaluation.baselines.ease import pick_penalty
from playbill.evaluation.canvases.head_probabilities import held_out_labels
from playbill.evaluation.canvases.loaded_version import OpenModel
from playbill.evaluation.canvases.row_cases import build_row_case
from playbill.evaluation.canvases.synthetic_queries import more_like_this_case, search_case
from playbill.evaluation.off_policy.evaluate import held_out_since
from playbill.features.axis import CHANGED_AT, Span
from playbill.features.views import EVENT_VIEWS
from playbill.labels import extract, label_columns, label_events
from playbill.rewards import DelayedFeedback, DelayedSettings, reward_values
from playbill.training.example_weights import example_rewards
from playbill_lab.bridge.simulated_log import fit_model

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform/playbill"
ROOMS = ("labels", "rewards", "features", "datasets", "models", "evaluation", "training")
LAB = ROOT / "platform/playbill_lab"
LAB_ROOMS = ("bridge", "ab", "studies")
BUILDER = re.compile(
    r"fit|fit_\w+|build_(?!optimizer)\w+|learn|learn_\w+|tuned_\w+|pick_\w+|\w+_case|\w+_baselines|replayed|held_out_\w+|make_split"
    r"|train|train_events|labelled_rows|label_(events|columns)|extract|example_rewards|reward_values|svd_vectors|weigh_\w+"
)
TIME, MEMBER = "global_time", "leave_one_out"
HEADS = {"play": {"label": "play", "loss": "softmax"}}
QUICK = DelayedSettings(trees=3, most=1_500)
NOW = service.START + timedelta(days=25)


def builders() -> set[str]:
    """Return `room.module.function`, or `room.module.Class.method`, of everything that is named like a builder."""
    return {
        f"{path.parent.name}.{path.stem}.{name}"
        for folder in (*(PACKAGE / room for room in ROOMS), *(LAB / room for room in LAB_ROOMS))
        for path in folder.rglob("*.py")
        for name in _public(ast.parse(path.read_text(encoding="utf-8")))
        if BUILDER.fullmatch(name.rpartition(".")[2])
    }


def _public(module: ast.Module) -> list[str]:
    found = []
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            found.append(node.name)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [f"{node.name}.{own.name}" for own in node.body if isinstance(own, ast.FunctionDef)]
    return [name for name in found if not name.startswith("_")]


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return service.log()


@pytest.fixture(scope="module")
def model() -> ResolvedModel:
    found = service.model(HEADS)
    home = found.canvases["home"]
    found.canvases["search"] = home.model_copy(update={"name": "search", "context": ("member", "query")})
    return found


class World:
    """The small service for one protocol, sound or with a split whose folds are the wrong way round."""

    def __init__(self, log: pl.DataFrame, model: ResolvedModel, protocol: str) -> None:
        self.log, self.model, self.protocol = log, model, protocol
        self.tables = service.Tables(log)
        self.split = make_split(protocol, log)

    @property
    def turned(self) -> Split:
        """Held-out events are trained on, and the other way round."""
        fold = pl.when(pl.col("fold") == "train").then(pl.lit("test")).otherwise(pl.lit("train"))
        return replace(self.split, frame=self.split.frame.with_columns(fold=fold))

    def frames(self) -> EvaluationTables:
        names = pl.List(pl.Struct({"language": pl.String, "name": pl.String}))
        titles = _titles().with_columns(names=pl.lit(None, names), kids=pl.lit(value=False))
        members = self.tables.members().with_columns(kids_profile=pl.lit(value=False))
        return EvaluationTables(titles, members, self.tables.availability(), self.log, service.CLOCK.now())

    def case(self, split: Split | None = None, **options: Any) -> EvaluationCase:
        return build_case(self.frames(), split or self.split, self.model, "home", **options)

    def learnt(self, split: Split) -> Any:
        return build_training_set(self.tables, self.model, split, service.NoFeatures(), service.CLOCK)

    def exported(self, split: Split) -> Any:
        known = Log(self.log, self.tables.availability())
        schema = service.NoFeatures().schema("none_v1")
        return labelled_rows(self.tables, self.model, schema, known, split, service.CLOCK.now())  # type: ignore[arg-type]

    def simulated(self, split: Split, folder: Path) -> Any:
        self.tables.clock = lambda: service.CLOCK  # type: ignore[attr-defined]
        return fit_model(self.tables, self.model, split, service.NoFeatures(), folder)  # type: ignore[arg-type]


MemberHistory = Callable[[World], Any]
"""Asks a builder for something past its boundary."""


def _late_baseline(name: str) -> MemberHistory:
    return lambda world: build_baseline(name, world.case(), until=service.CLOCK.now())


def _late_replay(world: World) -> None:
    split = world.turned.under("replay") if world.protocol == TIME else world.turned
    evaluate(Constant(), split, world.frames(), world.model, "home", baselines=("popular",))


class Constant:
    title_ids = service.TITLES

    def score(self, requests: Any) -> Any:
        raise AssertionError("nothing is scored before its boundaries are known to hold")


def _late_predictor(_world: World) -> None:
    world, now = law.DelayedWorld.make(plays=800), law.START + timedelta(days=30)
    fitted = DelayedFeedback.fit(law.REWARD, law.LABELS, world.outcomes, world.log, now, settings=QUICK)
    reward_values(law.REWARD, law.LABELS, world.outcomes, world.log, now - timedelta(days=5), fitted)


def _early_log(world: World) -> datetime:
    opened = OpenModel(world.model, None, world.split, "")  # type: ignore[arg-type]
    return held_out_since(opened, world.split.cutoff and world.split.cutoff - timedelta(days=1))


REFUSES: dict[str, MemberHistory] = {
    "datasets.build.build_training_set": lambda world: world.learnt(world.turned),
    "examples.selection.learn": lambda world: learn(world.tables, world.model, world.turned, service.CLOCK, None),
    "examples.labelled.train_events": lambda world: train_events(world.log, world.turned),
    "export.rows.labelled_rows": lambda world: world.exported(world.turned),
    "cases.build.build_case": lambda world: world.case(world.turned),
    "canvases.row_cases.build_row_case": lambda world: build_row_case(
        world.frames(), world.turned, world.model, "home"
    ),
    "canvases.synthetic_queries.search_case": lambda world: search_case(
        world.frames(), world.turned, world.model, "search"
    ),
    "canvases.synthetic_queries.more_like_this_case": lambda world: more_like_this_case(
        world.frames(), world.turned, world.model, "home"
    ),
    **{f"baselines.popularity.build_baseline/{name}": _late_baseline(name) for name in BASELINES.names()},
    "baselines.popularity.tuned_ease": lambda world: tuned_ease(world.case(), world.case()),
    "baselines.ease.pick_penalty": lambda world: pick_penalty(world.case(), (1.0,)),
    "evaluation.evaluate.replayed": _late_replay,
    "canvases.head_probabilities.held_out_labels": lambda world: held_out_labels(
        world.turned, world.frames(), world.model, "test"
    ),
    "off_policy.evaluate.held_out_since": _early_log,
    "bridge.simulated_log.fit_model": lambda world: world.simulated(world.turned, Path("nowhere")),
    "rewards.delayed.DelayedFeedback.predict": _late_predictor,
}
"""Builder -> how it is asked for something past its boundary, which it must refuse."""


@cache
def _zoo_labels() -> list[LabelSpec]:
    """Return every shipped label of a title."""
    return [label for label in load_zoo(ROOT / "model_zoo").labels.values() if label.level == "title"]


@cache
def _titles() -> pl.DataFrame:
    return service.Tables(service.log()).titles().with_columns(genres=pl.lit(["Drama"], pl.List(pl.String)))


Known = Callable[[pl.DataFrame], pl.DataFrame]
"""The log as it is, or without what was not known yet."""


def _labelled(known: Known) -> pl.DataFrame:
    return label_events(_zoo_labels(), known(service.log()), NOW, service.availability(), _titles())


def _extracted(known: Known) -> pl.DataFrame:
    log = known(service.log())
    found = [extract(label, log, NOW, service.availability(), titles=_titles()) for label in _zoo_labels()[:2]]
    return pl.concat(found)


def _columns(known: Known) -> pl.DataFrame:
    log = known(service.log())
    made = label_columns(_zoo_labels(), log, NOW, service.availability(), _titles())
    return log.select("event_id").hstack(made).filter(log["event_at"] < NOW)


def _worth(known: Known) -> pl.DataFrame:
    log = known(service.log(members=60))
    resolved = service.model(
        {"play": {"label": "play", "loss": "softmax", "reward": "worth"}},
        labels={"liked": {"from": {"action": "thumbs_up"}}},
        rewards={"worth": {"terms": {"liked": {"weight": 1.0, "within": "7d"}}, "delayed": ["liked"]}},
    )
    made = example_rewards(resolved, log, service.availability(), _titles(), NOW, QUICK)
    return log.select("event_id").with_columns(pl.Series(made["play"])).filter(log["event_at"] < NOW)


def _delayed(known: Known) -> pl.DataFrame:
    world = law.DelayedWorld.make(plays=800)
    log = known(world.log)
    fitted = DelayedFeedback.fit(law.REWARD, law.LABELS, world.outcomes, log, NOW, settings=QUICK)
    return reward_values(law.REWARD, law.LABELS, world.outcomes, log, NOW, fitted)


def _view(name: str) -> Callable[[Known], pl.DataFrame]:
    return lambda known: (
        EVENT_VIEWS[name].encode(known(_looked_at()), _titles(), Span()).filter(pl.col(CHANGED_AT) <= NOW)
    )


def _looked_at() -> pl.DataFrame:
    """The service's log in which the details of what comes first are looked at."""
    first = (pl.col("action") == "impression") & (pl.col("position") == 0)
    return service.log().with_columns(action=pl.when(first).then(pl.lit("details_view")).otherwise("action"))


BLIND: dict[str, Callable[[Known], pl.DataFrame]] = {
    "labels.extraction.label_events": _labelled,
    "labels.extraction.label_columns": _columns,
    "labels.extraction.extract": _extracted,
    "rewards.delayed.DelayedFeedback.fit": _delayed,
    "rewards.values.reward_values": _delayed,
    "training.example_weights.example_rewards": _worth,
    **{f"features.build.build_features/{name}": _view(name) for name in EVENT_VIEWS},
}
"""Builder -> what it makes as of `NOW`, to which a later event must make no difference."""

_CHECKED = "reads plays that build_baseline, or build_case of the same log, has checked"
_OF_THE_SET = "reads nothing but a training set, which build_training_set has checked"
NEITHER: dict[str, str] = {
    "datasets.splits.make_split": "draws the boundary",
    "datasets.parts.build_in_parts": "tells folds by the split's rule; its sets are build_training_set's, by a test",
    "encoding.fit.fit_encoder": "reads the train fold that learn, or labelled_rows, has checked",
    "baselines.ease.Ease.fit": _CHECKED,
    "baselines.ials.Ials.fit": _CHECKED,
    "baselines.item_knn.ItemKnn.fit": _CHECKED,
    "baselines.sasrec.SasRec.fit": _CHECKED,
    "evaluation.evaluate.evaluate_case": "measures a case that build_case has checked",
    "off_policy.direct_models.fit_direct": "its line is between members: each is told by the others",
    "off_policy.evaluate.weigh_model": "reads the log from held_out_since on",
    "pages.facts.Logistic.fit": "reads looks, whose members and days the study has set apart",
    "pages.facts.PageReward.fit": "reads looks, whose members and days the study has set apart",
    "ledger.head_gains.labelled_rows": "reads held-out labels, which held_out_labels has checked",
    "models.history_terms.HistoryTerms.fit": "reads fitted plays of a log whose cases learn_weights checks",
    "models.companions.Companions.fit": _OF_THE_SET,
    "models.item_similarity.Likeness.fit": _OF_THE_SET,
    "models.item_similarity.fit_prior": _OF_THE_SET,
    "models.adaptation.build_adaptation": "makes parts of a network before their first step",
    "models.network.Network.train": "switches between training and evaluation",
    "models.svd.svd_vectors": _OF_THE_SET,
    "training.build.build_network": _OF_THE_SET,
    "training.loop.fit": _OF_THE_SET,
    "training.country_adapters.learn_country": _OF_THE_SET,
    "training.placement.TrainingPlace.fit": _OF_THE_SET,
    "training.ray_trainer.fit_distributed": _OF_THE_SET,
    "training.term_fit.fit_weights": "reads samples of cases that learn_weights has checked",
    "training.term_weights.learn_weights": "reads cases that build_case and assert_fitted_before have checked",
    "training.run.train": "goes through build_training_set",
    "freshness.versions.VersionTrainer.train": "goes through build_training_set",
}
"""Builder -> why it needs neither."""


def test_every_builder_says_how_it_keeps_to_its_boundary() -> None:
    texts = {name.partition("/")[0] for name in (*REFUSES, *BLIND, *NEITHER)}
    assert builders() - texts == set(), "say in REFUSES, BLIND or NEITHER what these do with what lies past a boundary"
    assert texts - builders() == {"rewards.delayed.DelayedFeedback.predict"}, "builders that are there no more"


@pytest.mark.parametrize("protocol", [TIME, MEMBER])
@pytest.mark.parametrize("name", REFUSES)
def test_what_lies_past_its_boundary_is_refused(name: str, protocol: str, log: pl.DataFrame, model: Any) -> None:
    with pytest.raises((IntegrityError, ComparisonError)):
        REFUSES[name](World(log, model, protocol))


@pytest.mark.parametrize("name", BLIND)
def test_what_comes_later_makes_no_difference(name: str) -> None:
    made = BLIND[name](lambda log: log)
    assert made.height > 100
    assert made.equals(BLIND[name](lambda log: log.filter((pl.col("event_at") < NOW) & (pl.col("recorded_at") <= NOW))))


@pytest.mark.parametrize("protocol", [TIME, MEMBER])
def test_a_sound_split_passes_every_boundary(log: pl.DataFrame, model: Any, protocol: str) -> None:
    world = World(log, model, protocol)
    assert world.learnt(world.split).plays.sum() > 0
    assert world.exported(world.split)[0].height > 0
    case = world.case()
    for name in ("popular", "popular_7d", "ease", "item_knn"):  # the others are fitted alike, and slowly
        assert build_baseline(name, case).title_ids
    assert pick_penalty(world.case(fold="validation"), (1.0, 10.0)) in (1.0, 10.0)
    assert held_out_labels(world.split, world.frames(), model, "test").rows["play"].height > 0
