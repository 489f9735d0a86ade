"""A workspace that Playbill wrote when the stores were its own modules: served after one `playbill apply`.

`tests/fixtures/earlier_workspace` is what that version left of a small project: the rendered feature_store.yaml,
Feast's registry and the packed online rows as SQL, and the feature_repo that imports `SqlSource` by its earlier path.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from playbill.config import ProjectFolder, Workspace
from playbill.errors import StateError
from playbill.features import FeatureDoor

EARLIER = Path(__file__).parents[2] / "fixtures" / "earlier_workspace"
AT = datetime(2024, 3, 1, tzinfo=UTC)
MOODS = [
    ("m1", 0.25, "calm", "2024-02-01 10:00:00.000000", "2024-02-01 11:00:00.000000"),
    ("m1", 0.5, "glad", "2024-02-20 10:00:00.250000", "2024-02-20 11:00:00.000000"),
    ("m2", None, "röd", "2024-02-10 10:00:00.000000", "2024-02-10 11:00:00.000000"),
]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    (tmp_path / "playbill.toml").write_text('[workspaces.small]\nclock = "2024-03-01T00:00:00Z"\n')
    shutil.copytree(EARLIER / "feature_repo", tmp_path / "feature_repo")
    workspace = ProjectFolder.find(tmp_path).workspace("small")
    workspace.folder.mkdir(parents=True)
    rendered = (EARLIER / "feature_store.yaml").read_text().replace("{root}", str(tmp_path))
    workspace.feature_store_yaml.write_text(rendered)
    for name, dump in (("feast_registry.db", "registry.sql"), ("online_store.db", "online_store.sql")):
        with closing(sqlite3.connect(workspace.folder / name)) as database:
            database.executescript((EARLIER / dump).read_text())
    with closing(sqlite3.connect(tmp_path / "moods.db")) as database, database:
        columns = "member_id TEXT, mood FLOAT, words TEXT, asked_at TIMESTAMP, loaded_at TIMESTAMP"
        database.execute(f"CREATE TABLE moods ({columns})")
        database.executemany("INSERT INTO moods VALUES (?, ?, ?, ?, ?)", MOODS)
    monkeypatch.setenv("MOOD_DATABASE", str(tmp_path / "moods.db"))
    return workspace


def values(frame: pl.DataFrame) -> list[tuple[float | None, str | None]]:
    return frame.select("member_mood__mood", "member_mood__words").rows()


def test_without_apply_the_error_names_the_command(workspace: Workspace) -> None:
    door = FeatureDoor(workspace)
    with pytest.raises(StateError, match=r"written by an earlier version.*Run `playbill -w small apply`"):
        door.served("moods", ["m1"], AT)
    with pytest.raises(StateError, match=r"written by an earlier version.*Run `playbill -w small apply`"):
        door.materialize()


def test_one_apply_serves_what_was_materialized_before(workspace: Workspace) -> None:
    FeatureDoor(workspace).apply()
    assert "playbill.features" not in workspace.feature_store_yaml.read_text()
    assert b"playbill.features" not in (workspace.folder / "feast_registry.db").read_bytes()
    door = FeatureDoor(workspace)
    served = door.served("moods", ["m1", "m2", "m3"], AT)
    assert values(served.rows) == [(0.5, "glad"), (None, "röd"), (None, None)]
    assert served.values_at["member_mood"].to_list()[0] == datetime(2024, 2, 20, 10, 0, 0, 250_000, tzinfo=UTC)
    earlier = pl.DataFrame({"member_id": ["m1"], "event_at": [datetime(2024, 2, 5, tzinfo=UTC)]})
    assert values(door.member_features("moods", earlier)) == [(0.25, "calm")]
    assert values(door.served("moods", ["m1"], AT).rows) == [(0.5, "glad")]
    door.materialize()
    assert values(door.served("moods", ["m1", "m2"], AT).rows) == [(0.5, "glad"), (None, "röd")]


def test_the_earlier_path_of_sql_source_is_read_in_feature_repo_alone(workspace: Workspace) -> None:
    FeatureDoor(workspace).apply()
    with pytest.raises(ModuleNotFoundError):
        import playbill.features.sql_source  # noqa: F401
