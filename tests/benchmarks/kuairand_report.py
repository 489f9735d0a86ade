"""Tables and a picture of the study on KuaiRand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
from matplotlib import pyplot as plt


def show(console: Console, result: Mapping[str, Any]) -> None:
    """Print what was found."""
    for surface, rows in {"all surfaces together": result["heads"], **result["surfaces"]}.items():
        console.print(_heads(surface, rows))
    for surface, found in result["lists"].items():
        console.print(_lists(surface, found))
    for table in _off_policy(result["off_policy"] or {}):
        console.print(table)
    seconds, cpu = result["train_seconds"], result["train_cpu_seconds"]
    console.print(
        f"training: one model {seconds['multi']:.0f} s ({cpu['multi']:.0f} CPU s), one per head "
        f"{seconds['single']:.0f} s ({cpu['single']:.0f} CPU s), {cpu['single_over_multi']:.1f} times as much",
        highlight=False,
    )


def _heads(surface: str, rows: Mapping[str, Any]) -> Table:
    table = Table(title=f"AUC of heads, {surface}")
    for name in ("head", "exposures", "ones", "one model", "one per head", "difference", "95 % interval", "claim"):
        table.add_column(name, justify="left" if name == "head" else "right")
    for head, row in rows.items():
        counts = (f"{row['exposures']:,}", f"{row['positives']:,}")
        if row["multi_minus_single"] is None:
            table.add_row(head, *counts, "too few", "", "", "", "")
            continue
        low, high = row["interval"]
        values = (f"{row['auc_multi']:.4f}", f"{row['auc_single']:.4f}", f"{row['multi_minus_single']:+.4f}")
        table.add_row(head, *counts, *values, f"{low:+.4f} to {high:+.4f}", row["claim"] or "")
    return table


def _lists(surface: str, found: Mapping[str, Any]) -> Table | str:
    if "skipped" in found:
        return f"lists of {surface}: {found['skipped']}"
    table = Table(title=f"lists of {surface}, {found['requests']} requests of {found['members']} members")
    for name in ("", "NDCG@10", "95 % interval", "HR@10"):
        table.add_column(name, justify="right" if name else "left")
    for name, row in found.items():
        if isinstance(row, Mapping):
            value, low, high = row["ndcg@10"]
            table.add_row(name, f"{value:+.4f}", f"{low:+.4f} to {high:+.4f}", f"{row['hr@10'][0]:+.4f}")
    return table


def _off_policy(found: Mapping[str, Any]) -> list[Table | str]:
    tables: list[Table | str] = []
    for outcome, sources in found.get("outcomes", {}).items():
        for source, own in sources.items():
            title = f"{outcome} on {found['surface']}: {source}"
            if "refused" in own:
                tables.append(f"{title}: {own['refused']}")
                continue
            table = Table(title=f"{title}, mean {own['mean']:.4f} of {own['exposures']:,}")
            for name in ("policy", "estimator", "value", "95 % interval", "exposures it rests on"):
                table.add_column(name, justify="left" if name in ("policy", "estimator") else "right")
            for policy, estimates in own["policies"].items():
                for estimator, one in estimates.items():
                    table.add_row(policy, estimator, *_estimate(one))
            tables.append(table)
    return tables


def _estimate(one: Mapping[str, Any]) -> tuple[str, ...]:
    size = f"{one.get('effective_sample_size', one.get('exposures', 0)):.0f}"
    if "refused" in one:
        return "refused", "", size
    low, high = one["interval"]
    return f"{one['value']:.4f}", f"{low:.4f} to {high:.4f}", size


def plot(result: Mapping[str, Any], file: Path) -> None:
    """Draw the difference of every head on every surface with its interval."""
    groups = {"all": result["heads"], **result["surfaces"]}
    heads = list(result["heads"])
    figure, axes = plt.subplots(1, len(groups), figsize=(2.6 * len(groups), 4.2), sharey=True, squeeze=False)
    for axis, (surface, rows) in zip(axes[0], groups.items(), strict=True):
        axis.axvline(0.0, color="0.6", linewidth=1)
        for place, head in enumerate(heads):
            row = rows[head]
            if row["multi_minus_single"] is None:
                axis.plot(0, place, "x", color="0.7")
                continue
            low, high = row["interval"]
            colour = {"multi": "tab:green", "single": "tab:red"}.get(row["claim"], "tab:blue")
            axis.plot([low, high], [place, place], color=colour)
            axis.plot(row["multi_minus_single"], place, "o", color=colour)
        axis.set_title(surface.removeprefix("kuairand."), fontsize=10)
        axis.set_xlim(-0.35, 0.35)
    axes[0][0].set_yticks(range(len(heads)), heads)
    axes[0][0].invert_yaxis()
    figure.supxlabel("AUC of one model minus one model per head", fontsize=10)
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)
