import sys

import pytest

from playbill.errors import ConfigError
from playbill.tables import open_database


def test_a_missing_driver_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'playbill\[postgres\]'"):
        open_database("postgresql+psycopg://someone@nowhere/driverless")


def test_a_malformed_url_is_a_configuration_error():
    with pytest.raises(ConfigError, match="cannot be used"):
        open_database("no url at all")
