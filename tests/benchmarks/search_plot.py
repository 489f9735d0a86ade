"""The picture of search: accuracy by query length, answers to what is not there, known-item queries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from search_measures import QUERY_LENGTHS

mpl.use("Agg")
from matplotlib import pyplot as plt

ARMS = ("popular", "prefix match", "head alone", "text alone", "chosen")


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw the first seed's arms, and the known items where they were measured."""
    panels = 3 if "known_item" in result else 2
    figure, axes = plt.subplots(1, panels, figsize=(5.2 * panels, 4.2), layout="constrained")
    found = next(iter(result["simulated"].values()))
    _lengths(axes[0], found["letters"])
    _others(axes[1], found["arms"])
    if panels == 3:
        _known_items(axes[2], result["known_item"]["arms"])
    figure.savefig(path)
    plt.close(figure)


def _lengths(axis: Any, letters: Mapping[str, Any]) -> None:
    for arm in ARMS:
        rows = [letters[length][arm]["known"]["ndcg@10"] for length in QUERY_LENGTHS]
        values = [row["value"] for row in rows]
        errors = [[abs(row["interval"][side] - row["value"]) for row in rows] for side in (0, 1)]
        axis.errorbar(QUERY_LENGTHS, values, errors, marker="o", capsize=3, label=arm)
    axis.set_title("titles that can be shown, by letters typed")
    axis.set_ylabel("NDCG@10")
    axis.legend(fontsize=8)


def _others(axis: Any, arms: Mapping[str, Any]) -> None:
    groups = {"known, but\nnot here": ("away", "nearness"), "no title has\nthe name": ("nowhere", "taste")}
    for place, arm in enumerate(ARMS):
        rows = [arms[arm][group][metric] for group, metric in groups.values()]
        values = [row["value"] if row else 0.0 for row in rows]
        axis.bar([at + (place - 2) * 0.16 for at in range(len(groups))], values, width=0.15, label=arm)
    axis.set_xticks(range(len(groups)), list(groups))
    axis.set_title("how near the list comes to what was wanted")
    axis.set_ylabel("share of the nearest list")


def _known_items(axis: Any, arms: Mapping[str, Any]) -> None:
    names = list(arms)
    rows = [arms[name]["ndcg@10"] for name in names]
    values = [row["value"] for row in rows]
    errors = [[abs(row["interval"][side] - row["value"]) for row in rows] for side in (0, 1)]
    axis.barh(range(len(names)), values, xerr=errors, capsize=3)
    axis.set_yticks(range(len(names)), [name.replace(", ", ",\n") for name in names], fontsize=7)
    axis.invert_yaxis()
    axis.set_title("known-item queries, NDCG@10")
