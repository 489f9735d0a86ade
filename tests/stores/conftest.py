"""Tests of the stores where there is no Playbill: `tests/contract/test_stores_alone.py` runs this folder that way."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis database that tests may write to: a throwaway server, or the one PLAYBILL_TEST_REDIS names."""
    from fixtures.throwaway_redis import find, throwaway_redis

    if given := os.environ.get("PLAYBILL_TEST_REDIS"):
        yield given
    elif find():
        with throwaway_redis() as url:
            yield url
    else:
        pytest.skip("Redis is not installed: apt-get install redis-server")
