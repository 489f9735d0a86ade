"""An off-policy report as tables, a picture, a page, and flat numbers that gates and MLflow read."""

from __future__ import annotations

from html import escape
from typing import Any

import polars as pl

from playbill.evaluation.off_policy.report import Estimated, OffPolicyReport
from playbill.evaluation.rendering.grids import Grid, with_interval, with_sign
from playbill.evaluation.rendering.html import html_figure, html_page, html_table
from playbill.evaluation.rendering.plots import figure_with_axes

_REFUSED, _ARE_REFUSED = " is refused: ", " are refused: "


def policy_grids(report: OffPolicyReport) -> list[Grid]:
    """Return the estimators, and the groups if there are any, lowest difference first."""
    return [_estimators(report), *([_groups(report)] if report.groups else [])]


def policy_frames(report: OffPolicyReport) -> dict[str, pl.DataFrame]:
    """Return the same two tables with plain numbers, by name."""
    found = {"off_policy_estimators": pl.DataFrame([_numbers(one) for one in report.estimates])}
    if report.groups:
        rows = [
            {"slice": row.slice, "group": row.group, "logged": row.logged.value, **_numbers(row.estimated)}
            for row in report.groups
        ]
        found["off_policy_slices"] = pl.DataFrame(rows, infer_schema_length=None)
    return found


def policy_figure(report: OffPolicyReport) -> Any:
    """Draw every estimate with its interval beside what was earned.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    shown = [(one.estimator, one.estimate.interval) for one in report.estimates if one.estimate is not None]
    rows = [("logged", report.logged), *shown]
    figure, axes = figure_with_axes(7, 1.2 + 0.35 * len(rows))
    for place, (_, ends) in enumerate(rows):
        axes.plot([ends.low, ends.high], [place, place], color="#4477aa", linewidth=2)
        axes.plot([ends.value], [place], "o", color="#4477aa")
    axes.axvline(report.logged.value, color="#aa3377", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{report.outcome} per {report.unit}, 95 % interval by member")
    axes.set_title(f"{report.model}, {report.policy}, {', '.join(report.canvases)}")
    return figure


def policy_page(report: OffPolicyReport) -> str:
    """Write the report as one page with tables and picture.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    title = f"{report.model} from the log"
    about = f"Reward {report.version}. Members are the clusters of every interval. Floor of the effective sample size "
    about += f"{report.floor:g}."
    refused = [f"<p>{escape(line)}</p>" for line in refusals(report)]
    tables = [html_table(grid) for grid in policy_grids(report)]
    picture = html_figure(policy_figure(report), "estimates")
    return html_page(title, [f"<h1>{escape(title)}</h1>", f"<p>{escape(about)}</p>", *tables, *refused, picture])


def refusals(report: OffPolicyReport) -> list[str]:
    """Return why estimates are missing, a reason that several share once."""
    names: dict[str, list[str]] = {}
    for one in report.estimates:
        if one.refused:
            names.setdefault(one.refused.partition(_REFUSED)[2] or one.refused, []).append(f"'{one.estimator}'")
    return [f"{', '.join(group)}{_REFUSED if len(group) == 1 else _ARE_REFUSED}{why}" for why, group in names.items()]


def _estimators(report: OffPolicyReport) -> Grid:
    dropped = f", {report.immature} rows not mature" if report.immature else ""
    if report.without_propensity:
        dropped += f", {report.without_propensity} slates without propensities"
    fit = "" if report.direct_fit is None else f"; direct model's R squared {report.direct_fit:.3f} on held-out members"
    return Grid(
        f"{report.model} as {report.policy} on {', '.join(report.canvases)}: {report.outcome} per {report.unit}, "
        f"{report.slates} slates of {report.members} members{dropped}",
        ("estimator", "value", "minus logged", "effective n", "largest weight", "coverage"),
        tuple(_cells(one) for one in report.estimates),
        f"logged {with_interval(report.logged)}; {report.outside} of {report.rows} rows show what the model's canvas "
        f"could not; reward {report.version}{fit}",
        next(place for place, one in enumerate(report.estimates) if one.estimator == report.main),
    )


def _groups(report: OffPolicyReport) -> Grid:
    rows = tuple(
        (row.slice, row.group, str(row.members), f"{row.logged.value:.4f}", *_cells(row.estimated)[1:4])
        for row in report.groups
    )
    columns = ("slice", "group", "members", "logged", "value", "minus logged", "effective n")
    return Grid(f"slices by {report.main} minus logged, lowest first", columns, rows)


def _cells(one: Estimated) -> tuple[str, ...]:
    found = one.estimate
    if found is None or one.difference is None:
        return (one.estimator, "refused", "", f"{one.effective_sample_size:.0f}", "", "")
    return (
        one.estimator,
        with_interval(found.interval),
        with_sign(one.difference),
        f"{found.effective_sample_size:.0f} of {found.n}",
        f"{found.weight_max:.3g}",
        f"{found.coverage:.3f}",
    )


def _numbers(one: Estimated) -> dict[str, Any]:
    found, difference = one.estimate, one.difference
    return {
        "estimator": one.estimator,
        **{name: getattr(found, name, None) for name in ("value", "low", "high")},
        "minus_logged": getattr(difference, "value", None),
        "minus_logged_low": getattr(difference, "low", None),
        "minus_logged_high": getattr(difference, "high", None),
        "effective_sample_size": one.effective_sample_size,
        **{name: getattr(found, name, None) for name in ("weight_max", "coverage")},
        "refused": one.refused,
    }
