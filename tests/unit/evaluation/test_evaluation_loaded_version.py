"""A bundle on disk: opened, measured on its frozen split, refused on rows it was trained on; and the command."""

from __future__ import annotations

import json
import re
import types
from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner

from fixtures import evaluation_service as world
from playbill import Project
from playbill.cli.evaluate import evaluate as command
from playbill.datasets import Encoder, EncoderState, make_split
from playbill.errors import ComparisonError, IntegrityError, StateError, UnknownNameError
from playbill.evaluation import CanvasScorer, EvaluationTables, Judging, evaluate_canvas, open_model
from playbill.features.reports import LeakReport
from playbill.models import HeadConfig, Network, NetworkConfig
from playbill.ranking.scoring.bundle import write_bundle

TITLES = tuple(str(i) for i in range(1, 13))
QUICK = Judging(minimum_members=5, resamples=50)


@pytest.fixture
def data():
    frames = world.tables_of(world.random_rows(), titles=list(TITLES))
    titles = frames.titles.with_columns(
        kind=pl.lit("film"),
        original_language=pl.lit(None, dtype=pl.String),
        release_date=pl.lit(None, dtype=pl.Datetime("us", "UTC")),
        synopsis=pl.lit(None, dtype=pl.String),
    )
    return EvaluationTables(titles, frames.members, frames.availability, frames.interactions, frames.end)


@pytest.fixture
def bundle(tmp_path, data):
    """An untrained model with the split it would have been trained on."""
    resolved = world.resolved_of()
    state = EncoderState(
        history_length=8,
        merge=True,
        titles=TITLES,
        actions=("play",),
        canvases=("home",),
        countries=(),
        devices=(),
        languages=(),
        genres=("Drama",),
        kinds=("film",),
        original_languages=(),
        year_edges=(1990,),
        metadata=("genres", "kind"),
        text_buckets=64,
        snapshot_hours=24,
        canvas_fields={"home": ("country",)},
        service="tiny_v1",
        service_version="v",
    )
    encoder = Encoder(state)
    heads = (HeadConfig(name="play", loss="softmax"),)
    sizes = {**encoder.network_sizes(), "trunk": {"dim": 8, "heads": 2}, "heads": heads}
    config = NetworkConfig.model_validate(sizes)
    torch.manual_seed(1)
    folder = tmp_path / "bundle"
    digest = write_bundle(
        folder,
        resolved=resolved,
        encoder=encoder,
        config=config,
        weights=Network(config).state_dict(),
        plays=np.zeros(len(TITLES) + 1),
        extra={"watermark": "1998-03-01T00:00:00+00:00"},
    )
    split = make_split("leave_one_out", data.interactions)
    split.save(folder / "split.parquet")
    return types.SimpleNamespace(folder=folder, digest=digest, split=split)


def test_an_opened_model_is_measured_on_its_frozen_split(bundle, data):
    model = open_model(bundle.folder, data, None, digest=bundle.digest, split_digest=bundle.split.digest)
    split = model.split(None, data)
    assert split.digest == bundle.split.digest
    assert model.split("leave_one_out", data).digest == split.digest
    function = CanvasScorer(model.scorer, model.resolved, "home", None)
    report = evaluate_canvas(function, split, data, model.resolved, "home", judging=QUICK)
    again = evaluate_canvas(function, split, data, model.resolved, "home", judging=QUICK)
    assert report.n == 60
    assert 0 < report.result.metrics["hr@10"].value <= 1
    assert report.to_json() == again.to_json()


def test_another_protocol_is_refused_with_the_remedy(bundle, data):
    model = open_model(bundle.folder, data, None)
    with pytest.raises(ComparisonError, match="playbill train tiny --protocol global_time"):
        model.split("global_time", data)


def test_a_bundle_without_its_split_cannot_be_measured(bundle, data):
    (bundle.folder / "split.parquet").unlink()
    with pytest.raises(StateError, match=r"no split\.parquet"):
        open_model(bundle.folder, data, None)


def test_a_split_that_is_not_the_recorded_one_is_refused(bundle, data):
    with pytest.raises(IntegrityError, match="its record says"):
        open_model(bundle.folder, data, None, split_digest="0" * 64)
    with pytest.raises(IntegrityError, match="its record says"):
        open_model(bundle.folder, data, None, digest="0" * 64)


def test_other_data_in_the_workspace_is_noticed(bundle, data):
    strangers = [(f"x{member}", title, at) for member, title, at in world.random_rows(seed=9)]
    other = world.tables_of(strangers, titles=list(TITLES))
    model = open_model(bundle.folder, data, None)
    with pytest.raises(StateError, match="train again"):
        model.split(None, other)


class FakeTracking:
    def __init__(self, bundle) -> None:
        self.bundle, self.logged, self.texts, self.numbers = bundle, [], {}, {}

    def resolve(self, reference):
        tags = {"playbill.split_digest": self.bundle.split.digest}
        return types.SimpleNamespace(model="tiny", version=3, reference="tiny:3", digest=self.bundle.digest, tags=tags)

    def download(self, model, version):
        return self.bundle.folder

    @contextmanager
    def log_evaluation(self, version, protocol, split_digest, metrics, tags=None):
        self.logged.append((version.reference, protocol, split_digest, metrics))
        yield FakeRun(self.texts, metrics, self.numbers)


class FakeRun:
    run_id = "r1"

    def __init__(self, texts, metrics, numbers) -> None:
        self.texts, self.metrics, self.numbers = texts, metrics, numbers

    def log_metrics(self, metrics):
        self.metrics |= metrics

    def log_numbers(self, metrics, requests):
        self.numbers |= metrics
        self.texts |= {f"{canvas} by request": frame for canvas, frame in requests.items()}

    def log_text(self, text, name):
        self.texts[name] = text

    def log_table(self, frame, name):
        self.texts[name] = frame

    def log_artifact(self, path, folder=None):
        self.texts[path.name] = path.read_bytes()


@pytest.fixture
def run(monkeypatch, bundle, data, tmp_path):
    """Run the command with MLflow, Feast and the tables replaced; everything between them is real."""

    class Door:
        def __init__(self, workspace) -> None: ...

        def member_features(self, service, frame):
            return frame

        def file_digests(self, service):
            return {}

        def leaks(self, service):
            return LeakReport((), (), ())

        def title_snapshots(self, service, moments, title_ids):
            values = np.zeros((len(moments), len(title_ids), 0), np.float32)
            return types.SimpleNamespace(columns=(), values=values, categorical=pl.DataFrame())

    tracking = FakeTracking(bundle)
    monkeypatch.setattr("playbill.project.evaluation.Tracking", lambda workspace: tracking)
    monkeypatch.setattr("playbill.project.evaluation.FeatureDoor", Door)
    monkeypatch.setattr("playbill.evaluation.EvaluationTables.read", classmethod(lambda cls, tables: data))
    monkeypatch.setattr("playbill.project.evaluation.Tables", lambda workspace: None)
    selection = types.SimpleNamespace(project=Project(types.SimpleNamespace(folder=tmp_path)))

    def invoke(*arguments):
        return CliRunner().invoke(command, arguments, obj=selection)

    invoke.tracking = tracking
    return invoke


def test_the_command_prints_one_object_as_its_last_line(run):
    result = run("tiny@champion", "--protocol", "leave_one_out", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert (found["model"], found["version"], found["protocol"], found["canvas"]) == (
        "tiny",
        3,
        "leave_one_out",
        "home",
    )
    assert found["n"] == 60
    assert {"hr@10", "ndcg@10", "mrr@10", "coverage@10", "intervals", "slices"} <= set(found)
    assert set(found["baselines"]) == {"popular", "popular_7d", "item_knn", "ease"}
    popular = found["baselines"]["popular"]
    assert popular["difference"] == pytest.approx(found["ndcg@10"] - popular["ndcg@10"])
    assert popular["includes_zero"] == (popular["interval"][0] <= 0 <= popular["interval"][1])
    assert "hr@10" in popular
    assert found["run_id"] == "r1"
    ((reference, protocol, digest, metrics),) = run.tracking.logged
    assert (reference, protocol, digest) == ("tiny:3", "leave_one_out", found["split_digest"])
    assert metrics["home/ndcg@10"] == found["ndcg@10"]
    ends = ("", "/low", "/high", "/best_baseline")
    assert set(metrics) == {f"home/ndcg@10{end}" for end in ends}, "charts have headlines, the rest is a table"
    best = max(row["ndcg@10"] for row in found["baselines"].values())
    assert metrics["home/ndcg@10/best_baseline"] == pytest.approx(best)
    assert {"home/ndcg@10", "home/hr@10", "home/ndcg@10/minus=popular/low"} <= set(run.tracking.numbers)
    by_request = run.tracking.texts["home by request"]
    assert by_request.height == found["n"]
    assert {"request_id", "member", "ndcg@10", "popular/ndcg@10"} <= set(by_request.columns)
    assert "member_id" not in by_request.columns
    assert by_request["ndcg@10"].mean() == pytest.approx(found["ndcg@10"], abs=1e-6)
    assert run.tracking.texts["evaluation/report.html"].startswith("<!doctype html>")


def test_the_command_prints_tables_and_writes_files(run, tmp_path):
    arguments = ("--baselines", "popular", "--plots", str(tmp_path / "p"), "--report", str(tmp_path / "r.json"))
    result = run("tiny", *arguments)
    assert result.exit_code == 0, result.output
    assert "leave_one_out" in result.stdout
    assert (tmp_path / "p" / "home_baselines.png").is_file()
    assert json.loads((tmp_path / "r.json").read_text())["model"] == "tiny"


def test_the_command_writes_one_page_that_stands_alone_and_can_leave_mlflow_out(run, tmp_path):
    result = run("tiny", "--baselines", "popular", "--no-log", "--html", str(tmp_path / "r.html"))
    assert result.exit_code == 0, result.output
    assert run.tracking.logged == []
    page = (tmp_path / "r.html").read_text()
    assert "data:image/png;base64," in page
    assert "leave_one_out" in page
    assert not re.search(r"<script|https?://|<link|src=\"(?!data:)", page)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "r.html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--protocol", "leave_one"), "Did you mean 'leave_one_out'"),
        (("--slices", "contry"), "Did you mean 'country'"),
        (("--slices", "country", "--minimum-members", "900"), "no group of at least 900 members"),
        (("--window", "3 days", "--protocol", "replay"), "is no duration"),
        (("--window", "3d"), "--window is of the protocol 'replay'"),
        (("--canvas", "hme"), "Did you mean 'home'"),
        (("--baselines", "popluar"), "Did you mean 'popular'"),
    ],
)
def test_what_the_command_refuses_names_the_nearest_right_thing_and_writes_nothing(run, tmp_path, arguments, message):
    result = run("tiny", *arguments, "--html", str(tmp_path / "r.html"))
    assert re.search(message, str(result.exception))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert run.tracking.logged == []


@pytest.mark.parametrize("option", ["--protocol", "--slices", "--baselines"])
def test_names_are_looked_up_before_anything_is_fetched(run, monkeypatch, option):
    monkeypatch.setattr(run.tracking, "resolve", lambda reference: pytest.fail("fetched"))
    assert isinstance(run("tiny", option, "nothing_like_it").exception, UnknownNameError)


def test_a_group_with_too_few_members_has_no_number(run):
    result = run("tiny", "--baselines", "popular", "--slices", "popularity", "--minimum-members", "20", "--json")
    found = json.loads(result.stdout.splitlines()[-1])
    few = [group for group in found["slices"] if group["too_few_members"]]
    assert few
    assert all(group["ndcg@10"] is None and group["interval"] is None and group["members"] < 20 for group in few)
    assert found["worst_slice"] == found["slices"][0]


def test_the_command_runs_the_leakage_checks(run):
    result = run("tiny", "--leakage-checks", "--baselines", "popular_7d,ease", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])["leakage_checks"]
    assert {(one["check"], one["of"]) for one in found} == {
        *((check, of) for check in ("future", "chance") for of in ("tiny", "popular_7d", "ease")),
        ("order", "tiny"),
    }
    assert all(one["passed"] for one in found if one["check"] != "order")


def test_the_command_refuses_what_the_model_was_trained_on(run):
    for protocol in ("global_time", "replay"):
        result = run("tiny", "--protocol", protocol)
        assert isinstance(result.exception, ComparisonError)
        assert "playbill train tiny --protocol global_time" in str(result.exception)
