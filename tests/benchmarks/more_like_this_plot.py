"""The picture of more-like-this: likeness of lists by popularity band."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

PANELS = {"truth": "true likeness of the first ten", "metadata": "shared metadata of the first ten"}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw each term's bars by band, under both judges."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(11, 4), sharey=True, layout="constrained")
    bands = list(result["bands"])
    for axis, (judge, title) in zip(axes, PANELS.items(), strict=True):
        terms = {name: rows for name, rows in result["terms"][judge].items() if "head" not in name}
        for place, (name, rows) in enumerate(terms.items()):
            left = [band + (place - len(terms) / 2) * 0.16 for band in range(len(bands))]
            heights = [rows[band]["value"] if band in rows else 0.0 for band in bands]
            axis.bar(left, heights, width=0.15, label=name)
        axis.set_xticks(range(len(bands)), [f"{band}\n{result['bands'][band]} titles" for band in bands])
        axis.set_title(title)
    axes[0].set_ylabel("share of the most there could be")
    axes[0].legend(fontsize=8, ncols=2)
    figure.savefig(path)
    plt.close(figure)
