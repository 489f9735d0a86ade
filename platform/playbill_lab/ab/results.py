"""What every study does with its results: numbers as JSON, Markdown tables, pictures, and a run in MLflow."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.box import SIMPLE_HEAD
from rich.table import Table

from playbill.errors import Problem
from playbill.files import write_text
from playbill.metrics import Interval
from playbill.versions.tracking import Tracking

EXPERIMENTS = "experiments"  # MLflow's experiment, after the workspace's name
BLUE, BLACK, RED = "#4477aa", "#222222", "#aa3377"


def repeated(option: str, values: Sequence[object]) -> list[Problem]:
    """Return a problem for each value of an option that is there twice."""
    twice = sorted({str(value) for value in values if list(values).count(value) > 1})
    return [Problem(option, f"'{value}' is there twice.") for value in twice]


def with_interval(name: str, interval: Interval, ends: str = "interval") -> dict[str, Any]:
    """Return a value as `name` and the two ends of its interval as `ends`, JSON-ready."""
    return {name: interval.value, ends: [interval.low, interval.high]}


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write the JSON of a study."""
    write_text(path, json.dumps(report, indent=1), "the report")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def numbers_table(title: str, first: str, columns: Iterable[str], no_wrap: bool = True) -> Table:
    """Return a table for the terminal without rows yet: a column of names, then columns of numbers."""
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column(first, no_wrap=no_wrap)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=no_wrap)
    return table


def draw_intervals(axes: Any, intervals: Sequence[Interval], at: Any, along: str = "x", **style: Any) -> None:
    """Draw points with error bars along `x` or `y`, at positions `at` of the other axis."""
    values, low, high = np.array([(one.value, one.low, one.high) for one in intervals]).reshape(-1, 3).T
    reach = np.maximum([values - low, high - values], 0.0)  # a ratio's interval need not contain its value
    points = (values, at) if along == "x" else (at, values)
    axes.errorbar(*points, **{f"{along}err": reach}, **{"fmt": "o", "capsize": 3} | style)


def record_results(
    tracking: Tracking,
    title: str,
    *,
    tags: Mapping[str, str],
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    tables: Mapping[str, pl.DataFrame],
    texts: Mapping[str, str],
    draw: Callable[[Path], object],
) -> str:
    """Record a study in MLflow and return the run's id; `draw` leaves its pictures in the folder it is given."""
    with tracking.start_run(EXPERIMENTS, title, tags, params) as run:
        run.log_metrics(metrics)
        for name, frame in tables.items():
            run.log_table(frame, name)
        for path, text in texts.items():
            run.log_text(text, path)
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder))
            for picture in sorted(Path(folder).iterdir()):
                run.log_artifact(picture, "figures")
        return run.run_id
