"""Labels as Feast has them: published whole or not at all, and read back by Feast itself."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from click.testing import CliRunner
from feast import FeatureStore

from fixtures.label_log import START, label_log
from playbill.cli.main import main
from playbill.config import ProjectFolder, Workspace
from playbill.definitions.zoo import load_zoo
from playbill.errors import DefinitionError, ServiceError
from playbill.features import FeatureDoor, LabelValues
from playbill.labels import label_columns
from playbill.tables import Tables

ROOT = Path(__file__).parents[3]
DAYS = 20
LABELS = load_zoo(ROOT / "model_zoo").labels
NAMES = [path.stem for path in sorted((ROOT / "model_zoo" / "labels").glob("*.yaml"))]
SILENT = {"plays_after_launch"}
"""Labels about which the log says nothing: it shows no title before its launch."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("labels")
    (folder / "playbill.toml").write_text("[workspaces.log]\n")
    workspace = ProjectFolder.find(folder).workspace("log")
    label_log(2_000, members=20, titles=60, seed=4, days=DAYS).write(workspace)
    found = run(workspace, "labels", "publish")
    assert list(found["labels"]) == NAMES
    return workspace


def run(workspace: Workspace, *words: str) -> dict:
    arguments = ["--project", str(workspace.project.root), "-w", workspace.name, *words, "--json"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def retrieved(workspace: Workspace, rows: pd.DataFrame) -> pl.DataFrame:
    store = FeatureStore(fs_yaml_file=workspace.feature_store_yaml)
    job = store.get_historical_features(rows, [f"label_{name}:{name}" for name in NAMES])
    return pl.from_pandas(job.to_df())


def test_feast_reads_back_what_labels_say(published: Workspace) -> None:
    tables = Tables(published)
    log, end = tables.interactions(), tables.data_end()
    rows = pd.DataFrame({"event_id": log["event_id"].to_list(), "event_timestamp": end + timedelta(seconds=1)})
    found = retrieved(published, rows)
    progress = label_columns([LABELS[name] for name in NAMES], log, end, tables.availability(), tables.titles())
    assert found["event_id"].to_list() == log["event_id"].to_list()
    for name in NAMES:
        assert (progress[name].count() > 0) == (name not in SILENT), name
        assert found[name].cast(pl.Float32).equals(progress[name]), name


def test_a_value_is_null_before_it_was_mature(published: Workspace) -> None:
    log = Tables(published).interactions().filter(pl.col("action") == "play", pl.col("progress").is_not_null())
    early = log.filter(pl.col("event_at") < START + timedelta(days=5)).head(20)
    matures = LABELS["quick_abandon"].matures_after
    for after, known in ((matures - timedelta(minutes=1), 0), (matures + timedelta(hours=3), early.height)):
        rows = early.select("event_id", event_timestamp=pl.col("event_at") + after).to_pandas()
        assert retrieved(published, rows)["quick_abandon"].count() == known


def test_the_views_say_what_they_are(published: Workspace) -> None:
    store = FeatureStore(fs_yaml_file=published.feature_store_yaml)
    views = {view.name: view for view in store.list_label_views()}
    assert sorted(views) == [f"label_{name}" for name in NAMES]
    assert {view.tags["label"] for view in views.values()} == set(NAMES)
    assert not any(view.online for view in views.values())
    labeler = pl.read_parquet(published.features / "labels" / "row_play.parquet")["labeler"].unique().to_list()
    assert labeler == ["row_play:1 (played_from:1)"]


def test_show_counts_what_was_published(published: Workspace) -> None:
    shown = {row["label"]: row for row in run(published, "labels", "show")["labels"]}
    for name in NAMES:
        values = pl.read_parquet(published.features / "labels" / f"{name}.parquet")[name]
        assert (shown[name]["positives"], shown[name]["zeros"]) == ((values > 0).sum(), (values == 0).sum())
    assert shown["completion"]["window"] == "7d"
    assert shown["page_play"]["level"] == "page"
    early = run(
        published, "labels", "show", "--label", "completion", "--as-of", (START + timedelta(days=9)).isoformat()
    )
    assert early["labels"][0]["positives"] < shown["completion"]["positives"]


def test_one_label_published_alone_leaves_the_others(published: Workspace) -> None:
    folder = published.features / "labels"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    cutoff = (START + timedelta(days=12)).isoformat()
    run(published, "labels", "publish", "--label", "thumbs_up", "--as-of", cutoff)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"thumbs_up.parquet", "_state.json"}


def test_a_later_publication_adds_values_and_changes_none(tmp_path: Path) -> None:
    """Two weeks, then what came since: what Feast said of the first moment it still says."""
    (tmp_path / "playbill.toml").write_text("[workspaces.log]\n")
    workspace = ProjectFolder.find(tmp_path).workspace("log")
    made = label_log(1_500, members=12, titles=40, seed=7, days=DAYS)
    log = made.interactions.with_columns(recorded_at=pl.col("event_at"))
    cut = START + timedelta(days=14)
    replace(made, interactions=log.filter(pl.col("event_at") < cut)).write(workspace)
    run(workspace, "labels", "publish", "--as-of", cut.isoformat())
    first = {name: files(workspace, name) for name in NAMES}
    rows = pd.DataFrame({"event_id": log["event_id"].to_list(), "event_timestamp": cut})
    then = retrieved(workspace, rows)
    Tables(workspace).append_events(log.filter(pl.col("event_at") >= cut))
    run(workspace, "labels", "publish")
    for name in NAMES:
        later = files(workspace, name)
        assert (later.height > first[name].height) == (name not in SILENT), name
        kept = later.join(first[name].select("event_id"), on="event_id", how="semi").drop("created_timestamp")
        assert kept.equals(first[name].drop("created_timestamp")), name
    assert retrieved(workspace, rows).equals(then)
    assert then["completion"].count() == first["completion"].height > 0


def files(workspace: Workspace, name: str) -> pl.DataFrame:
    return pl.read_parquet(workspace.features / "labels" / f"{name}.parquet")


def broken(part: pl.DataFrame) -> pl.DataFrame:
    raise OSError(errno.ENOSPC, "no space left on device")


def no_rows(part: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame(schema=["event_id", "member_id", "title_id", "value", "known_at"])


@pytest.mark.parametrize(
    ("name", "rows", "error", "message"),
    [
        ("thumbs_dwn", no_rows, DefinitionError, r"no LabelView 'label_thumbs_dwn'\. Did you mean 'label_thumbs_down'"),
        ("thumbs_down", broken, ServiceError, "the disk is full.*What was there before is unchanged"),
    ],
)
def test_a_failed_publication_changes_nothing(
    published: Workspace, name: str, rows: Callable[[pl.DataFrame], pl.DataFrame], error: type[Exception], message: str
) -> None:
    before = {path: path.read_bytes() for path in (published.features / "labels").iterdir()}
    values = [LabelValues("thumbs_up", "thumbs_up:1", no_rows), LabelValues(name, f"{name}:1", rows)]
    with pytest.raises(error, match=message):
        FeatureDoor(published).publish_labels(values, [pl.DataFrame()], START + timedelta(days=DAYS))
    assert {path: path.read_bytes() for path in (published.features / "labels").iterdir()} == before
    assert not list(published.features.glob(".labels*"))


def test_every_shipped_label_has_its_view() -> None:
    views = load_zoo(ROOT / "model_zoo", ROOT / "feature_repo").features.views
    assert {view.removeprefix("label_") for view in views if view.startswith("label_")} == set(NAMES)
