"""Tables of the benchmark of search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from search_measures import QUERY_LENGTHS


def simulated_table(seed: str, found: Mapping[str, Any]) -> Table:
    """Return one service's arms: accuracy for known titles, nearness for others."""
    table = Table(title=f"search, seed {seed}, {found['searches']} searches of the last week")
    lengths = [f"NDCG@10, {length}" for length in QUERY_LENGTHS]
    for name in ("", "NDCG@10", "95 % interval", "HR@1", "HR@10", *lengths, "not here", "nowhere", "filled"):
        table.add_column(name, justify="right" if name else "left")
    for arm, groups in found["arms"].items():
        known = groups["known"]
        low, high = known["ndcg@10"]["interval"]
        by_length = [_value(found["letters"][length][arm]["known"]["ndcg@10"]) for length in QUERY_LENGTHS]
        others = (groups["away"]["nearness"], groups["nowhere"]["taste"], groups["all"]["filled"])
        accuracy = (_value(known["ndcg@10"]), f"{low:.3f} to {high:.3f}", _value(known["hr@1"]), _value(known["hr@10"]))
        table.add_row(arm, *accuracy, *by_length, *(_value(one) for one in others))
    return table


def made_table(seed: str, found: Mapping[str, Any]) -> Table:
    """Return the share of titles with the character or genre of a query among those there could be."""
    table = Table(title=f"made queries, seed {seed}: titles that have it in the first ten, of those there could be")
    table.add_column("")
    for name in found["made"]:
        table.add_column(name, justify="right")
    for arm in next(iter(found["made"].values())):
        table.add_row(arm, *(_value(rows[arm]) for rows in found["made"].values()))
    return table


def known_item_table(found: Mapping[str, Any]) -> Table:
    """Return the arms on known-item queries."""
    table = Table(title=f"{found['queries']} queries for {found['films']} of {found['titles']} films")
    metrics = next(iter(found["arms"].values()))
    for name in ("", *metrics, "95 % interval of ndcg@10"):
        table.add_column(name, justify="right" if name else "left")
    for arm, rows in found["arms"].items():
        low, high = rows["ndcg@10"]["interval"]
        table.add_row(arm, *(f"{row['value']:.4f}" for row in rows.values()), f"{low:.4f} to {high:.4f}")
    return table


def _value(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else f"{row['value']:.3f}"
