"""Tests of the stores where there is no Playbill, as `tests/integration/test_stores_alone.py` runs this folder."""

from fixtures.database_urls import redis_url

__all__ = ["redis_url"]
