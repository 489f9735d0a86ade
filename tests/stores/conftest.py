"""Tests of the stores where there is no Playbill: `tests/contract/test_stores_alone.py` runs this folder that way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "problems"))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis database that tests may write to: a throwaway server, or the one PLAYBILL_TEST_REDIS names."""
    from throwaway_redis import find, throwaway_redis

    if given := os.environ.get("PLAYBILL_TEST_REDIS"):
        yield given
    elif find():
        with throwaway_redis() as url:
            yield url
    else:
        pytest.skip("Redis is not installed: apt-get install redis-server")
