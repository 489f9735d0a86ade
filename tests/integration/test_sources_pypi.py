"""MovieLens 100K through PyPI, for real. It needs PyPI and nothing else."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from playbill.config import Project
from playbill.errors import ServiceError
from playbill.sources import download, ingest
from playbill.tables import Tables


@pytest.fixture
def no_publisher(monkeypatch, tmp_path):
    """A publisher that is down, and an empty cache."""

    def down(url, target, progress):
        raise ServiceError(f"{url} cannot be reached: it is down for this test")

    monkeypatch.setattr(download, "_download", down)
    monkeypatch.setattr(download.platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))


def test_100k_from_the_wheel(no_publisher, tmp_path: Path, monkeypatch):
    workspace = Project.find(tmp_path).workspace("ml_100k")
    report = ingest(workspace, "movielens_100k")
    assert "recbole==1.2.1 on PyPI, SHA-256 verified" in report.route
    assert report.actions == {"play": 100_000, "thumbs_down": 17_480, "thumbs_up": 55_375}
    assert report.rows == {"titles": 1682, "availability": 1682, "members": 943, "interactions": 172_855}
    tables = Tables(workspace)
    assert tables.data_end() == datetime(1998, 4, 22, 23, 10, 39, tzinfo=UTC)
    names = dict(tables.titles().select("title_id", "name").rows())
    assert names["543"] == "Les Misérables"
    assert names["12"] == "The Usual Suspects"
    assert names["267"] == "unknown"
    assert tables.titles().get_column("release_date").null_count() == 1
    assert tables.members().filter(pl.col("country") == "US-MN").height == 78

    # The second time it comes from the cache: neither the publisher nor PyPI is needed.
    monkeypatch.setattr(download.sys, "executable", "/no/such/python")
    assert ingest(workspace, "movielens_100k").snapshot_id == report.snapshot_id
