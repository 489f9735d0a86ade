"""A report as plain grids of text, which the terminal (as rich tables) and the HTML page show alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from playbill.evaluation.compare import ArmsReport
from playbill.evaluation.report import POPULARITY, Difference, EvaluationReport, ScoredRow
from playbill.metrics import Interval

SLICE_ROWS = 12
WINDOW_ROWS = 12
MAIN = ("hr", "ndcg", "mrr", "coverage")  # metrics of the first table; all others come in one of their own
NOT_AHEAD = "!"  # marks a canvas where the model is not ahead of a baseline
FACTORISATION = ("ials", "ease")  # baselines that stand for matrix factorisation, the better known first


@dataclass(frozen=True)
class Grid:
    """A table of text; all columns but the first are set to the right, row `strong` in bold (-1 = none)."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    strong: int = -1


def grids(report: EvaluationReport, slice_rows: int = SLICE_ROWS) -> list[Grid]:
    """Return a report's tables: results, differences, some slices, worst first, other metrics, heads, windows."""
    found = [_results(report)]
    if report.differences:
        found.append(_differences(report))
    if report.slices:
        found.append(_slices(report, slice_rows))
    return [*found, *_others(report), *_heads(report), *_windows(report)]


def ladder(report: EvaluationReport) -> dict[str, float]:
    """Return the model's relative lead on the main metric over popularity and over matrix factorisation.

    Popularity is the better of the popularity lists; matrix factorisation the first of `FACTORISATION` there is. A
    rung that was not measured, or may stand no higher than chance, is absent: a share of nothing says nothing.
    """
    own, chance = report.result.metrics[report.main_metric].value, chance_level(report)
    return {name: own / found.value - 1.0 for name, found in _rungs(report).items() if found.low > chance}


def chance_level(report: EvaluationReport) -> float:
    """Return the main metric of a random order of the catalogue: sum of 1 / log2(1 + place) over its places / titles.

    That is of one target a request, and of every title a candidate; with more targets or fewer candidates it is higher.
    """
    cut = int(report.main_metric.partition("@")[2])
    return sum(1.0 / math.log2(place + 2) for place in range(min(cut, report.catalogue))) / report.catalogue


def _rungs(report: EvaluationReport) -> dict[str, Interval]:
    found = {row.name: row.metrics[report.main_metric] for row in report.baselines}
    popular = max((name for name in POPULARITY if name in found), key=lambda name: found[name].value, default=None)
    factorised = next((name for name in FACTORISATION if name in found), None)
    return {name: found[name] for name in (popular, factorised) if name is not None}


def with_interval(interval: Interval) -> str:
    """Write a mean with the ends of its interval."""
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def with_sign(interval: Interval) -> str:
    """Write a difference with the ends of its interval."""
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def arm_grids(report: ArmsReport) -> list[Grid]:
    """Return arms with their seeds, and the first arm against each other one."""
    names = list(report.rows[0].metrics)
    about = f"{report.canvas}: {report.protocol}, {report.n} requests of {report.members} members"
    arms = Grid(
        f"{about}; intervals over members and seeds",
        ("", "seeds", *names),
        tuple(
            (
                row.name,
                str(row.seeds) if row.seeds else "-",
                *(
                    with_interval(row.metrics[name]) + (f" ±{row.spread[name]:.4f}" if row.spread else "")
                    for name in names
                ),
            )
            for row in report.rows
        ),
        caption="± is the standard deviation between seeds" if any(row.spread for row in report.rows) else "",
        strong=0,
    )
    if not report.differences:
        return [arms]
    rows = tuple(
        (
            row.other,
            *(f"{with_sign(row.metrics[name])} p {with_p(row.adjusted_p[name])}" for name in names),
            _claim(row.claims, row.why_not),
        )
        for row in report.differences
    )
    title = f"{report.rows[0].name} minus each other"
    return [arms, Grid(title, ("", *names, "claims"), rows, caption=_corrected(len(rows)))]


def with_p(p: float) -> str:
    """Write a p-value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _corrected(comparisons: int) -> str:
    several = f"corrected for {comparisons} comparisons (Holm)" if comparisons > 1 else "of one comparison"
    return f"p: two-sided, {several}"


def _claim(claims: Sequence[str], why_not: str) -> str:
    return f"none: {why_not}" if why_not else ", ".join(claims) or "none"


def _results(report: EvaluationReport) -> Grid:
    left_out = f", {report.left_out} targets it could not show left out" if report.left_out else ""
    metrics = [name for name in report.result.metrics if _of(name) in MAIN]
    scored = (*report.rows, *(() if report.ceiling is None else (report.ceiling,)))
    rows = tuple(
        (
            row.name,
            *(with_interval(row.metrics[name]) for name in metrics),
            *(f"{value:.4f}" for value in row.coverage.values()),
        )
        for row in scored
    )
    return Grid(
        f"{report.subject}: {report.protocol}, {report.fold} fold, {report.n} requests of {report.members} "
        f"members over {report.catalogue} titles{left_out}",
        ("", *metrics, *report.result.coverage),
        rows,
        caption="; ".join([*_standing(report), *report.notes]),
        strong=0,
    )


def _standing(report: EvaluationReport) -> Iterator[str]:
    if report.not_ahead_of:
        yield f"{NOT_AHEAD} not ahead of {', '.join(report.not_ahead_of)} on {report.main_metric}"
    if (share := report.share_of_ceiling) is not None:
        yield f"{share:.0%} of the way from popularity to the ceiling (a ranking by the simulated world's truth)"


def summary_grid(reports: Sequence[EvaluationReport]) -> Grid:
    """Return one line for each canvas of a model: it, its baselines and the ceiling on the main metric."""
    baselines = tuple(dict.fromkeys(row.name for report in reports for row in report.baselines))
    truth = any(report.ceiling is not None for report in reports)
    rows = tuple(_summary_row(report, baselines, truth) for report in reports)
    behind = any(report.not_ahead_of for report in reports)
    captions = [
        f"{NOT_AHEAD} not ahead: the paired 95 % interval of the model minus that baseline is not above 0"
        if behind
        else "ahead of every baseline on every canvas, by paired 95 % intervals",
        *(["ceiling: a ranking by the truth of the simulated world; way: from popularity to it"] if truth else []),
    ]
    metrics = ", ".join(dict.fromkeys(report.main_metric for report in reports))
    return Grid(
        f"{reports[0].model} beside its baselines: {metrics} on every canvas",
        ("canvas", reports[0].model, *baselines, *(("ceiling", "way") if truth else ()), "not ahead of"),
        rows,
        caption="; ".join(captions),
    )


def _summary_row(report: EvaluationReport, baselines: Sequence[str], truth: bool) -> tuple[str, ...]:
    scored = {row.name: row for row in report.baselines}
    share = report.share_of_ceiling

    def value(row: ScoredRow | None) -> str:
        return "-" if row is None else f"{row.metrics[report.main_metric].value:.4f}"

    return (
        report.canvas,
        value(report.result),
        *(value(scored.get(name)) for name in baselines),
        *((value(report.ceiling), "-" if share is None else f"{share:.0%}") if truth else ()),
        f"{NOT_AHEAD} {', '.join(report.not_ahead_of)}" if report.not_ahead_of else "",
    )


def _differences(report: EvaluationReport) -> Grid:
    metrics = [name for name in report.result.metrics if _of(name) in MAIN]
    gaps = [f"{gap:+.0%} to {_rung(name)}" for name, gap in ladder(report).items()]
    rows = tuple(
        (
            row.baseline,
            *(with_sign(row.metrics[name]) for name in metrics),
            with_p(row.adjusted_p[report.main_metric]) if report.main_metric in row.adjusted_p else "-",
            _inside_noise(row, metrics),
        )
        for row in report.differences
    )
    captions = [f"gap on {report.main_metric}: {', '.join(gaps)}"] if gaps else []
    if low := [name for name in _rungs(report) if name not in ladder(report)]:
        level = f"{report.main_metric} {chance_level(report):.4f}"
        captions.append(f"no gap to {', '.join(map(_rung, low))}, which may be no better than chance ({level})")
    return Grid(
        f"{report.model} minus each baseline, paired {100 * report.level:.0f} % intervals by member",
        ("", *metrics, f"p of {report.main_metric}", "not significant"),
        rows,
        caption="; ".join([*captions, _corrected(len(rows)), f"not significant: {_noise(report)}"]),
    )


def _rung(name: str) -> str:
    return f"{name} (matrix factorisation)" if name in FACTORISATION else f"{name} (popularity)"


def _noise(report: EvaluationReport) -> str:
    return f"{100 * report.level:.0f} % interval includes 0, or p above {1 - report.level:.2g} when corrected"


def _inside_noise(row: Difference, metrics: Sequence[str]) -> str:
    return ", ".join(name for name in metrics if not row.is_claim(name)) or "-"


def _slices(report: EvaluationReport, limit: int) -> Grid:
    large = [row for row in report.slices if not row.small]
    small = len(report.slices) - len(large)
    rows = tuple(
        (
            f"{group.slice} {group.group}",
            str(group.members),
            str(group.requests),
            with_interval(group.metrics[report.main_metric]),
            *(
                f"{one.value:+.4f}" + ("" if group.is_claim(name) else " (?)")
                for name, one in group.differences.items()
            ),
        )
        for group in large[:limit]
    )
    worst = f", the worst is {large[0].slice} {large[0].group}" if large else ""
    too_few = f"; {small} groups have too few members (under {report.minimum_members})" if small else ""
    return Grid(
        f"slices by {report.main_metric}, worst first{worst}{too_few}",
        ("slice", "members", "n", report.main_metric, *(f"minus {row.baseline}" for row in report.differences)),
        rows,
        caption=f"(?) not significant: {_noise(report)} for all groups (Benjamini-Hochberg)"
        if report.differences
        else "",
    )


def _others(report: EvaluationReport) -> Iterator[Grid]:
    several = any(_of(name) == "recall" for name in report.result.metrics)
    metrics = [
        name for name in report.result.metrics if _of(name) not in MAIN and (several or _of(name) != "map")
    ]  # with one target each, map is mrr
    if metrics:
        rows = tuple((row.name, *(with_interval(row.metrics[name]) for name in metrics)) for row in report.rows)
        caption = "calibration: lower is nearer to the member's own genres"
        caption += f"; reward {report.reward}" if report.reward else ""
        yield Grid(f"{report.subject}: beyond plain accuracy", ("", *metrics), rows, caption, strong=0)


def _heads(report: EvaluationReport) -> Iterator[Grid]:
    if report.heads:
        names = ("auc", "ece", *(("mae",) if any("mae" in row.metrics for row in report.heads) else ()))
        rows = tuple(
            (
                row.head,
                f"{row.rows:,}",
                f"{row.positives:,}",
                *(with_interval(row.metrics[name]) if name in row.metrics else "-" for name in names),
            )
            for row in report.heads
        )
        title = f"{report.canvas}: heads on labelled events of the {report.fold} fold"
        yield Grid(title, ("head", "rows", "positive", *names), rows)


def _windows(report: EvaluationReport) -> Iterator[Grid]:
    if report.windows:
        step = max(1, -(-len(report.windows) // WINDOW_ROWS))
        names = [row.name for row in report.rows]
        rows = tuple(
            (
                window.start[:16],
                str(window.requests),
                with_interval(window.metrics[names[0]]),
                *(f"{window.metrics[name].value:.4f}" for name in names[1:]),
            )
            for window in report.windows[::step]
        )
        every = "" if step == 1 else f", every {step}. of {len(report.windows)}"
        title = f"{report.canvas}: {report.main_metric} by window{every}"
        yield Grid(title, ("from", "n", *names), rows)


def _of(metric: str) -> str:
    return metric.partition("@")[0]


def tables(report: EvaluationReport, slice_rows: int = SLICE_ROWS) -> list[Table]:
    """Return the model with its baselines, the differences, the slices, worst first, and what else was measured."""
    return [grid_table(grid) for grid in grids(report, slice_rows)]


def summary_table(reports: Sequence[EvaluationReport]) -> Table:
    """Return one line for each canvas: the model beside its baselines and the ceiling."""
    return grid_table(summary_grid(reports))


def arm_tables(report: ArmsReport) -> list[Table]:
    """Return arms with their seeds, and the first arm against each other one."""
    return [grid_table(grid) for grid in arm_grids(report)]


def grid_table(grid: Grid) -> Table:
    """Return a table of text as a rich table; nothing in it is read as markup, whatever prints it."""
    table = Table(title=Text(grid.title), caption=Text(grid.caption) if grid.caption else None)
    for place, name in enumerate(grid.columns):
        table.add_column(Text(name), justify="right" if place else "left")
    for place, row in enumerate(grid.rows):
        table.add_row(*(Text(cell) for cell in row), style="bold" if place == grid.strong else "")
    return table
