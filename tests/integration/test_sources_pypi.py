"""MovieLens 100K through PyPI, for real. It needs PyPI and nothing else."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from playbill.config import ProjectFolder
from playbill.sources import download, ingest
from playbill.tables import Tables


@pytest.fixture
def no_publisher(monkeypatch, tmp_path):
    """A publisher that is down, and an empty cache."""
    monkeypatch.setattr(download, "PUBLISHER", "http://127.0.0.1:9/")
    monkeypatch.setattr(download.platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))


def test_100k_from_the_wheel(no_publisher, tmp_path: Path, monkeypatch):
    workspace = ProjectFolder.find(tmp_path).workspace("ml_100k")
    report = ingest(workspace, "movielens_100k")
    assert "recbole==1.2.1 on PyPI, SHA-256 verified" in report.route
    assert report.actions == {"play": 99_991, "thumbs_down": 17_479, "thumbs_up": 55_370}
    assert report.rows == {"titles": 1663, "availability": 1663, "members": 943, "interactions": 172_840}
    assert report.notes[0].startswith("title 267 is called 'unknown' and has no release or genre")
    assert report.notes[1].startswith("18 titles with the name, kind, release and genres of another one")
    assert (report.ties.members, report.ties.last_tied) == (943, 415)
    tables = Tables(workspace)
    assert tables.data_end() == datetime(1998, 4, 22, 23, 10, 39, tzinfo=UTC)
    names = dict(tables.titles().select("title_id", "name").rows())
    assert names["543"] == "Les Misérables"
    assert names["12"] == "The Usual Suspects"
    assert "unknown" not in names.values()
    assert tables.titles().get_column("release_date").null_count() == 0
    assert tables.members().filter(pl.col("country") == "US-MN").height == 78

    # The second time it comes from the cache: neither the publisher nor PyPI is needed.
    monkeypatch.setattr(download.sys, "executable", "/no/such/python")
    assert ingest(workspace, "movielens_100k").snapshot_id == report.snapshot_id
