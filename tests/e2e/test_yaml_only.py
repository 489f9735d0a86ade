"""A new objective, a new canvas and a new feature reach the model without a line of Python in the package."""

import json
from datetime import UTC, datetime

import polars as pl

from fixtures.small_project import Shell

HEAD = """
  find: {label: find, loss: bce, weight: 0.2}
"""
LABEL = """
kind: Label
name: find
version: 1
from: {action: play, where: "prior_plays_of_title = 0 and popularity_percentile_of_title < 80"}
negatives: {actions: [play]}
"""
CANVAS = """
kind: Canvas
name: lobby
version: 1
target: title
context: [member, country, device, language, hour_of_week]
impute: {query: none, source_title: none}
candidates: {available: now, watched: false}
blend: {discovery_play: 1.0, find: 0.5}
metric: find
fallback: trending
rows: [lobby_finds]
"""
ROW = """
kind: Row
name: lobby_finds
version: 1
title: {en: "Found for you", de: "Für dich gefunden"}
canvas: lobby
candidates: {available: now, watched: false, popularity_percentile: {below: 80}}
blend: {find: 1.0, discovery_play: 0.2}
minimum_length: 3
"""
VIEW = """
from datetime import timedelta

from feast import FeatureView, Field, FileSource
from feast.types import Float32

from members import member

member_patience = FeatureView(
    name="member_patience",
    entities=[member],
    ttl=timedelta(days=3650),
    schema=[Field(name="minutes", dtype=Float32)],
    source=FileSource(
        name="member_patience_source",
        path="member_patience.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    ),
    offline=False,
)
"""


def test_a_new_label_head_canvas_and_row_are_yaml_only(filled, tmp_path):
    """Checked, trained, evaluated by its own label, promoted and served: nothing but these files is new."""
    project = Shell(filled.copy(tmp_path / "project").folder)
    zoo = project.folder / "model_zoo"
    (zoo / "labels" / "find.yaml").write_text(LABEL)
    (zoo / "canvases" / "lobby.yaml").write_text(CANVAS)
    (zoo / "rows" / "lobby_finds.yaml").write_text(ROW)
    model = zoo / "models" / "everycanvas" / "model.yaml"
    text = model.read_text().replace("\n  - home\n", "\n  - home\n  - lobby\n", 1)
    model.write_text(text.replace("\ntasks:", HEAD + "tasks:", 1))
    for command in ("check", "apply", "materialize"):
        assert project.type(command).exit_code == 0, command
    outcome = project.json("train", "everycanvas", "--epochs", "1")
    assert 0 <= outcome["canvases"]["lobby"]["ndcg@10"] <= 1
    project.json("promote", f"everycanvas:{outcome['version']}")
    answer = project.json("recommend", "--member", "m5", "--canvas", "lobby", "--language", "de", "-k", "5")
    assert answer["policy"] == "model"
    assert len(answer["items"]) == 5
    assert [(row["row_id"], row["title"], len(row["items"])) for row in answer["rows"]] == [
        ("lobby_finds", "Für dich gefunden", 5)
    ]
    found = project.json(
        "recommend", "--member", "m5", "--canvas", "lobby", "--explain", answer["items"][0]["title_id"]
    )
    assert found["places"][0]["position"] == 0


def test_a_new_feature_view_reaches_the_model(filled, tmp_path):
    project = Shell(filled.copy(tmp_path / "project").folder)
    repository = project.folder / "feature_repo"
    (repository / "patience.py").write_text(VIEW)
    services = repository / "services.py"
    before, name, own = services.read_text().partition('name="everycanvas_v3"')
    text = before + name + own.replace("features=[", "features=[\n        member_patience,", 1)
    services.write_text(text.replace("from feast import", "from patience import member_patience\nfrom feast import", 1))
    start = datetime(2023, 12, 1, tzinfo=UTC)
    members = [f"m{number}" for number in range(160)]
    frame = pl.DataFrame({"member_id": members, "minutes": [float(number % 40) for number in range(160)]})
    frame = frame.with_columns(
        event_timestamp=pl.lit(start, pl.Datetime("us", "UTC")), created=pl.lit(start, pl.Datetime("us", "UTC"))
    )
    features = project.folder / ".playbill" / "small" / "features"
    frame.write_parquet(features / "member_patience.parquet")
    for command in ("apply", "materialize"):
        assert project.type(command).exit_code == 0, command
    outcome = project.json("train", "everycanvas", "--epochs", "1")
    (run,) = (project.folder / ".playbill" / "small" / "runs").glob("everycanvas-*")
    encoder = json.loads((run / "bundle" / "encoder.json").read_text())
    assert "member_patience__minutes" in encoder["numeric"]
    project.json("promote", f"everycanvas:{outcome['version']}")
    answer = project.json("recommend", "--member", "m7", "--canvas", "home", "-k", "5")
    assert answer["policy"] == "model"
