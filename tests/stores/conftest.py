"""Tests of the stores where there is no Playbill: `tests/contract/test_stores_alone.py` runs this folder that way."""

from fixtures.database_urls import redis_url

__all__ = ["redis_url"]
