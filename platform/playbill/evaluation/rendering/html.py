"""Reports as one HTML page that stands alone: tables, pictures inline, no script, nothing fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from playbill.evaluation.compare import ArmsReport
from playbill.evaluation.leakage_checks import LeakageCheck
from playbill.evaluation.rendering.grids import Grid, arm_grids, grids
from playbill.evaluation.rendering.plots import figures
from playbill.evaluation.report import EvaluationReport
from playbill.files import write_text

SLICES_SHOWN = 60

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 0.6rem 0 1.4rem; font-variant-numeric: tabular-nums; }
caption { caption-side: top; text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: 0.25rem 0.7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.strong td { font-weight: 600; }
figure { display: inline-block; margin: 0.4rem 0.8rem 0.4rem 0; vertical-align: top; }
img { max-width: 100%; }
p.note { color: #555; margin-top: -1rem; }
div.wide { overflow-x: auto; }
"""


def html_report(
    title: str,
    reports: Sequence[EvaluationReport],
    *,
    arms: ArmsReport | None = None,
    leakage_checks: Sequence[LeakageCheck] = (),
    skipped: dict[str, str] | None = None,
    drawn: Mapping[str, Sequence[Path]] | None = None,
) -> str:
    """Write reports as one page.

    `skipped` says why canvases were not measured. `drawn` is what `plots` drew of some canvases' reports already;
    others are drawn here.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    body = [f"<h1>{escape(title)}</h1>"]
    if arms is not None:
        body += ["<h2>Versions compared</h2>", *(html_table(grid) for grid in arm_grids(arms))]
    if leakage_checks:
        body += ["<h2>Leakage checks</h2>", html_table(_leakage_checks(leakage_checks))]
    for report in reports:
        body += _section(report, (drawn or {}).get(report.canvas))
    body += [f"<p>{escape(canvas)} was not measured: {escape(why)}</p>" for canvas, why in (skipped or {}).items()]
    return html_page(title, body)


def html_page(title: str, body: Sequence[str]) -> str:
    """Put parts of a body, already escaped, together as one page that stands alone."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def html_figure(figure: Any, about: str) -> str:
    """Return a matplotlib figure as a picture inside the page."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90)
    return _picture(picture.getvalue(), about)


def _picture(png: bytes, about: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<figure><img alt="{escape(about)}" src="data:image/png;base64,{data}"></figure>'


def write_html(path: Path, page: str) -> None:
    """Write a page; it appears whole or not at all."""
    write_text(path, page, "the page")


def _section(report: EvaluationReport, drawn: Sequence[Path] | None) -> Iterator[str]:
    yield f"<h2>{escape(report.model)} on {escape(report.subject)}</h2>"
    about = f"Protocol {report.protocol}, split {report.split_digest[:12]}, case {report.case_digest[:12]}."
    yield f"<p>{escape(about)}</p>"
    yield from (html_table(grid) for grid in grids(report, SLICES_SHOWN))
    if drawn is None:
        yield from (html_figure(figure, f"{report.subject} {name}") for name, figure in figures(report))
    else:
        yield from (_picture(file.read_bytes(), file.stem.replace("_", " ")) for file in drawn)


def _leakage_checks(results: Sequence[LeakageCheck]) -> Grid:
    rows = tuple((one.check, one.subject, "passed" if one.passed else "ALARM", one.message) for one in results)
    return Grid("what must not help, and what must", ("check", "of", "", "found"), rows)


def html_table(grid: Grid) -> str:
    """Return a table with its title and caption."""
    heads = "".join(f"<th>{escape(name)}</th>" for name in grid.columns)
    rows = "\n".join(_row(row, strong=place == grid.strong) for place, row in enumerate(grid.rows))
    table = f"<table><caption>{escape(grid.title)}</caption><tr>{heads}</tr>\n{rows}\n</table>"
    note = f'<p class="note">{escape(grid.caption)}</p>' if grid.caption else ""
    return f'<div class="wide">{table}</div>{note}'


def _row(cells: Sequence[str], *, strong: bool) -> str:
    opening = '<tr class="strong">' if strong else "<tr>"
    return opening + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
