"""Addresses of databases: secrets taken from the environment, and drivers that are not installed."""

from __future__ import annotations

import os
import re

from playbill_feast.errors import StoreConfigError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand_variables(text: str, where: str) -> str:
    """Replace every `${NAME}` in a text from the environment.

    Raises:
        StoreConfigError: A variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise StoreConfigError(f"{where} uses ${{{match[1]}}}, which is not set in the environment") from None

    return _VARIABLE.sub(value, text)


def missing_driver(error: ModuleNotFoundError) -> str:
    """Say which database driver is not installed, and how to install the one for Postgres."""
    advice = ": pip install 'psycopg[binary]'" if (error.name or "").startswith("psycopg") else ""
    return f"{error}{advice}"
