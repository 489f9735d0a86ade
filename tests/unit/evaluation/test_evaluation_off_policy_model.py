"""A trained model against the log: its row's own rule and blend, only what it was not trained on; and the command."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from fixtures.logged_service import T0, LoggedService
from playbill.cli import off_policy as command
from playbill.cli.main import Selection
from playbill.definitions.specs import CanvasSpec, HeadSpec, LabelSpec, ModelSpec, ResolvedModel, RowSpec
from playbill.definitions.specs.measures import ESTIMATORS
from playbill.errors import ComparisonError, ConfigError, DataError, UnknownNameError
from playbill.evaluation.off_policy import evaluate as op
from playbill.evaluation.off_policy.evaluate import LogOptions, held_out_since, log_context, weigh_model

LABEL = LabelSpec.model_validate({"kind": "Label", "name": "discovery_play", "version": 1, "from": {"action": "play"}})


class TwoHeads:
    """Heads that score by member: `play` likes what the service liked, `thumb` the opposite."""

    def __init__(self, service: LoggedService) -> None:
        self.title_ids, self.chance = service.title_ids, service.chance.astype(np.float32)

    def remember(self, moments) -> None:
        pass

    def score(self, requests, heads=None):
        rows = self.chance[[int(request.member_id[1:]) for request in requests]]
        return {"play": 3 * rows, "thumb": -3 * rows}


def model_of(service: LoggedService, protocol: str = "global_time") -> SimpleNamespace:
    canvas = {"name": "home", "version": 1, "blend": {"play": 1.0}, "metric": "discovery_play"}
    row = {
        "name": "top_picks", "version": 1, "title": {"en": "Top"}, "canvas": "home", "blend": {"thumb": 1.0},
        "candidates": {"watched": False},
    }  # fmt: skip
    other = {**row, "name": "popular", "blend": None, "policy": "popular"}
    heads = {name: HeadSpec(label="discovery_play", loss="softmax") for name in ("play", "thumb")}
    resolved = ResolvedModel(
        model=ModelSpec(name="tiny", version=1, features="tiny_v1", canvases=("home",), heads=heads),
        labels={"discovery_play": LABEL},
        rewards={},
        canvases={"home": CanvasSpec.model_validate(canvas)},
        rows={name: RowSpec.model_validate(spec) for name, spec in (("top_picks", row), ("popular", other))},
    )
    cutoff = T0 + timedelta(minutes=100)
    split = SimpleNamespace(
        protocol=protocol, cutoff=None if protocol == "leave_one_out" else cutoff, frame=service.split.frame
    )
    return SimpleNamespace(resolved=resolved, scorer=TwoHeads(service), trained=split)


@pytest.fixture(scope="module")
def service() -> LoggedService:
    return LoggedService.make()


def weighed(service: LoggedService, options: LogOptions | None = None) -> op.ImportanceLog:
    model = model_of(service)
    scene = log_context(model, service.tables)
    return weigh_model(model, scene, None, "home", op.SoftmaxPolicy(), op.played_outcome(), options)


def test_only_requests_after_training_are_weighed(service):
    log = weighed(service)
    assert set(log.member_ids) == {f"m{member}" for member in range(100, 400)}
    model = model_of(service)
    later = T0 + timedelta(minutes=300)
    assert held_out_since(model, later) == later
    with pytest.raises(ComparisonError, match=r"trained on events up to .* has seen what came of those requests"):
        held_out_since(model, T0)
    with pytest.raises(ComparisonError, match="holds out no period"):
        held_out_since(model_of(service, "leave_one_out"))


def test_a_row_is_judged_by_its_own_rule_and_blend(service):
    whole = weighed(service)
    row = weighed(service, LogOptions(rows=("top_picks",)))
    assert (whole.outside, row.outside > 0) == (0, True)  # the row hides t0, which everybody had played
    kept = row.data.target > 0
    assert np.corrcoef(np.log(whole.data.target[kept]), np.log(row.data.target[kept]))[0, 1] < -0.5
    with pytest.raises(ConfigError, match="rules of their own"):
        weighed(service, LogOptions(rows=("top_picks", "popular")))


def test_a_canvas_that_the_model_does_not_serve_is_named(service):
    model = model_of(service)
    with pytest.raises(UnknownNameError, match="Did you mean 'home'"):
        weigh_model(model, log_context(model, service.tables), None, "hme", op.SoftmaxPolicy(), op.played_outcome())


class Recorded:
    """Stands in for MLflow: keeps what is recorded."""

    def __init__(self) -> None:
        self.run_id, self.tags, self.metrics, self.kept = "run7", {}, {}, {}

    @contextmanager
    def log_evaluation(self, version, protocol, split_digest, metrics, tags):
        self.about, self.metrics, self.tags = (version.reference, protocol, split_digest), metrics, tags
        yield self

    def log_table(self, frame, name):
        self.kept[name] = frame

    def log_figure(self, figure, name):
        self.kept[name] = figure

    def log_text(self, text, name):
        self.kept[name] = text


def run(monkeypatch, service, *arguments):
    version = SimpleNamespace(
        reference="tiny:3", tags={"playbill.split_digest": "s1", "playbill.rewards": "other:1:aa,played:1:bb"}
    )
    recorded = Recorded()
    found = command.Weighed(weighed(service), version, recorded)
    monkeypatch.setattr(command, "weighed", lambda selection, reference, wanted: found)
    result = CliRunner().invoke(command.offpolicy, ["tiny", *arguments], obj=Selection(None, None))
    return result, recorded


def test_the_command_prints_one_object_last_and_writes_what_is_asked_for(monkeypatch, service, tmp_path):
    files = {name: tmp_path / file for name, file in FILES.items()}
    given = [str(part) for pair in files.items() for part in pair]
    result, recorded = run(monkeypatch, service, "--estimator", "slate_snips", "--floor", "20", "--json", *given)
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout.strip().splitlines()[-1])
    assert content["estimator"] == "slate_snips"
    assert content["low"] < content["value"] < content["high"]
    assert content["difference"]["value"] == pytest.approx(content["value"] - content["logged"]["value"])
    assert content["effective_sample_size"] > 20
    report = op.OffPolicyReport.from_json(files["--report"].read_text())
    assert report.summary()["value"] == content["value"]
    assert files["--plot"].stat().st_size > 5000
    assert files["--html"].read_text() == recorded.kept["off_policy/report.html"]
    assert "learned by the reward played:1:bb, and is judged here by" in result.stderr.replace("\n", " ")
    assert content["run_id"] == "run7"


FILES = {"--plot": "plot.png", "--report": "report.json", "--html": "page.html"}


def test_estimates_are_recorded_with_reward_estimator_and_policy(monkeypatch, service):
    _, recorded = run(monkeypatch, service, "--estimator", "slate_snips", "--estimator", "slate", "--floor", "20")
    assert recorded.about == ("tiny:3", "off_policy", "s1")
    assert recorded.tags["playbill.estimator"] == "slate_snips"
    assert recorded.tags["playbill.estimators"] == "slate_snips,slate"
    assert recorded.tags["playbill.policy"] == "softmax(1)"
    assert recorded.tags["playbill.reward"] == "played in the same request within 24 h"
    assert recorded.metrics.keys() >= {"home/slate/reward=played", "home/slate_snips/reward=played/minus=logged"}
    assert recorded.kept.keys() >= {"off_policy_estimators", "off_policy", "off_policy/report.html"}
    assert op.OffPolicyReport.from_json(recorded.kept["off_policy/report.json"]).main == "slate_snips"
    _, left = run(monkeypatch, service, "--floor", "20", "--no-log")
    assert not left.kept


def test_nothing_is_recorded_or_written_when_propensities_cannot_be_used(monkeypatch, service, tmp_path):
    wrong = pl.when(pl.col("event_id") == "i200-0").then(0.0).otherwise("propensity")
    frame = service.tables.interactions.with_columns(propensity=wrong)
    broken = replace(service, tables=replace(service.tables, interactions=frame))
    recorded = Recorded()

    def fetched(selection, reference, wanted):
        return command.Weighed(weighed(broken), SimpleNamespace(reference="tiny:3", tags={}), recorded)

    monkeypatch.setattr(command, "weighed", fetched)
    given = [part for name, file in FILES.items() for part in (name, str(tmp_path / file))]
    result = CliRunner().invoke(command.offpolicy, ["tiny", *given, "--json"], obj=Selection(None, None))
    assert isinstance(result.exception, DataError)
    assert "propensity: 1 of 900 are 0, the first is event i200-0." in str(result.exception)
    assert list(tmp_path.iterdir()) == []
    assert not recorded.kept
    assert result.stdout == ""


def test_the_command_says_what_is_missing_when_it_refuses(monkeypatch, service):
    result, recorded = run(monkeypatch, service, "--floor", "5000", "--json")
    assert result.exit_code == 0
    assert "more slates of this kind are missing" in result.stderr.replace("\n", " ")
    content = json.loads(result.stdout.strip().splitlines()[-1])
    assert "value" not in content
    assert content["refused"]
    assert recorded.tags["playbill.refused"].startswith("slate,")
    assert not [name for name in recorded.metrics if "minus=logged" in name]


def test_the_help_names_every_estimator():
    words = re.findall(r"\w+", CliRunner().invoke(command.offpolicy, ["--help"]).output)
    assert set(ESTIMATORS.names()) <= set(words)


def test_a_mistyped_estimator_is_found_before_anything_is_read():
    result = CliRunner().invoke(command.offpolicy, ["tiny", "--estimator", "snip"], obj=Selection(None, None))
    assert isinstance(result.exception, UnknownNameError)
    assert "Did you mean 'snips'" in str(result.exception)
