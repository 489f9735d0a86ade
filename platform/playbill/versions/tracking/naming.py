"""Metric names in MLflow's alphabet, and back.

MLflow takes letters, digits and `_-. :/` in a metric's name. Ours read `home/ndcg@10` and
`home/country=US-MN/ndcg@10`; there they are `home/ndcg_at_10` and `home/country:US-MN/ndcg_at_10`.
"""

from __future__ import annotations

import re

_CUTOFF = re.compile(r"@(\d+)\b")
_CUTOFF_THERE = re.compile(r"_at_(\d+)\b")
_REFUSED = re.compile(r"[^\w.\- :/]")


def to_mlflow(name: str) -> str:
    """Spell one of our metric names in MLflow's alphabet.

    Whatever else it refuses becomes `-` and its code, such as `-3c` for `<`, so names stay apart.
    """
    return _REFUSED.sub(lambda match: f"-{ord(match[0]):x}", _CUTOFF.sub(r"_at_\1", name).replace("=", ":"))


def from_mlflow(name: str) -> str:
    """Spell an MLflow metric name as ours."""
    return _CUTOFF_THERE.sub(r"@\1", name).replace(":", "=")
