"""On-demand views that are computed without Feast and pandas: the shipped ones, each by the digest of its code.

Feast hands an on-demand view's pandas function frames, and importing the two takes a second. A view whose code is one
of these gives the same numbers here, to the bit; any other is left to Feast.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.features.values import REQUEST_AT

Derived = Callable[[pl.DataFrame], Mapping[str, npt.NDArray[np.float32]]]
"""Request fields and the `view__feature` columns that a view reads -> its features."""


def code_digest(source: str) -> str:
    """Return a digest of a function's code: of its signature and statements, not of its docstring or layout."""
    try:
        function = ast.parse(source).body[0]
    except (SyntaxError, IndexError):
        function = None  # a lambda, say, in the middle of a statement
    if not isinstance(function, ast.FunctionDef):
        return hashlib.sha256(source.encode()).hexdigest()[:16]
    documented = ast.get_docstring(function) is not None
    code = "\n".join([function.name, ast.unparse(function.args), *map(ast.unparse, function.body[documented:])])
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def request_time(rows: pl.DataFrame) -> Mapping[str, npt.NDArray[np.float32]]:
    """When the request is made, in UTC: `request_time` of the shipped feature_repo."""
    at = rows.get_column(REQUEST_AT).dt
    day = at.weekday().to_numpy().astype(np.int32) - 1
    angle = 2 * np.pi * day / 7
    return {
        "hour_of_day": at.hour().to_numpy().astype(np.float32),
        "day_of_week_sin": np.sin(angle).astype(np.float32),
        "day_of_week_cos": np.cos(angle).astype(np.float32),
        "weekend": (day >= 5).astype(np.float32),
    }


def elapsed(**since: tuple[str, int]) -> Derived:
    """Return a view of times gone by at the moment of the request, in whole seconds, as the shipped ones are.

    Args:
        since: Feature -> column of the moment it is counted from, and seconds in its unit.
    """

    def derive(rows: pl.DataFrame) -> Mapping[str, npt.NDArray[np.float32]]:
        at = _seconds(rows, REQUEST_AT)
        passed = {name: (at - _seconds(rows, column)).cast(pl.Float64) / unit for name, (column, unit) in since.items()}
        return {name: values.fill_null(np.nan).to_numpy().astype(np.float32) for name, values in passed.items()}

    return derive


def _seconds(rows: pl.DataFrame, column: str) -> pl.Series:
    return rows.get_column(column).dt.epoch("us") // 1_000_000


KNOWN: Mapping[str, Derived] = {
    "07a1d411f308d2ce": request_time,
    "32331f22fca35fd0": elapsed(age_days=("title_profile__launched_at", 86_400)),
    "eadb8a7cf8adbe80": elapsed(
        tenure_days=("member_profile__joined_at", 86_400),
        days_since_last_play=("member_activity__last_play_at", 86_400),
    ),
    "3b9a87d9534fd26e": elapsed(
        session_minutes=("member_session__started_at", 60),
        hours_since_last_event=("member_activity__last_event_at", 3_600),
    ),
}
"""Digest of a shipped view's code -> the same without pandas."""


def with_known(rows: pl.DataFrame, views: Mapping[str, str]) -> pl.DataFrame:
    """Append on-demand views to full-named columns.

    Args:
        rows: What they read, request fields under their own names.
        views: View -> digest of its code, one of `KNOWN`.
    """
    derived = {view: KNOWN[digest](rows) for view, digest in views.items()}
    return rows.with_columns(
        pl.Series(f"{view}__{name}", values) for view, columns in derived.items() for name, values in columns.items()
    )
