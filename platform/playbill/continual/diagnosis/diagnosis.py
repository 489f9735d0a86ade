"""What a diagnosis says of each slice: its gap, the reasons for it, and what to do, as a table, a picture and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from playbill.continual.diagnosis.slice_facts import FACTS, PARTS
from playbill.errors import ConfigError
from playbill.evaluation.rendering.grids import Grid, with_interval, with_sign
from playbill.evaluation.rendering.plots import bars_with_intervals
from playbill.metrics import Interval

Verdict = Literal["below", "above", "no gap shown", "not concluded"]

LEAST_SHARE = 0.15  # of a gap, from which on a part of it is a reason
FAR = 1.0  # standard deviations from the other slices, from which on a fact is a reason
MOST_REASONS = 3
MOST_BARS = 40
_MATCHED = ("cold_members", "history", "lead")  # facts that are no reasons: matched already, or an outcome

_NEW = "take new titles and trends in by `playbill update {model}`, daily"
_MORE_DATA = "draw it more often: `sampling: {{strata: [{by}]}}` with a floor in the model's YAML"
_TASTE = (
    "tune it to its members: `playbill adapt {model} --countries {slice}`, or `adaptation: {{country: gate}}` in the "
    "model's YAML"
)
_CONTEXT = "let the model read it: `{by}` in the `context` of canvas {canvas}"
_LANGUAGE = "name `original_language` in `titles.metadata`, and `language` in the `context` of canvas {canvas}"
_TRUST = "let local popularity speak there: a country-aware ensemble, `playbill ensemble`"
_LEVEL = "learn its level: `adaptation: {{country: id}}` in the model's YAML"
_UNKNOWN = "no fact stands out: read its requests before the model is changed"
SUGGESTIONS: dict[str, dict[str, str]] = {
    "country": {
        **dict.fromkeys(("new_titles", "cold_titles", "drift"), _NEW),
        **dict.fromkeys(("events", "members"), _MORE_DATA),
        **dict.fromkeys(("local_titles", "popularity_divergence", "unexplained"), _TASTE),
        **dict.fromkeys(("mainstream", "shared_plays"), _TRUST),
        **dict.fromkeys(("foreign_language", "language_match"), _LANGUAGE),
        "calibration": _LEVEL,
        "catalogue": "its catalogue is larger, which is no fault: judge it by its lead over popularity",
    }
}
"""Slice -> leading reason -> what helps. For slices that no adaptation knows, see `_suggestion`."""


@dataclass(frozen=True)
class SliceDiagnosis:
    """One slice of a model's requests."""

    slice: str  # such as `NZ`
    requests: int
    members: int
    verdict: Verdict
    metric: Interval
    expected: float  # what the others have at the same lengths of history
    size_effect: float  # `expected` minus what the others have at their own lengths
    gap: Interval  # `metric` minus `expected`
    adjusted_p: float | None  # of no gap, corrected for all slices; None of one with too few members
    parts: dict[str, Interval]  # fact of requests -> its part of the gap
    unexplained: Interval  # what the parts leave
    facts: dict[str, float | None]  # fact of the slice -> value; None = the log does not know it
    # fact -> standard deviations from the other slices, positive = harder; None = too few slices to say
    distances: dict[str, float | None]
    reasons: tuple[str, ...] = ()
    suggestion: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """A model, slice by slice: the largest gap first, slices with too few members last."""

    version: str  # such as `everycanvas:3`
    by: str
    canvas: str
    protocol: str
    fold: str
    main_metric: str
    requests: int
    members: int
    minimum_members: int
    overall: Interval
    slices: tuple[SliceDiagnosis, ...]
    notes: tuple[str, ...] = ()

    @property
    def failing(self) -> tuple[SliceDiagnosis, ...]:
        """Slices that do worse than expected, beyond noise."""
        return tuple(one for one in self.slices if one.verdict == "below")

    def to_polars(self) -> pl.DataFrame:
        """Return a row for each slice: sizes, metric, gap with its interval, facts and the suggestion."""
        return pl.DataFrame(
            [
                {
                    "slice": one.slice,
                    "requests": one.requests,
                    "members": one.members,
                    "verdict": one.verdict,
                    self.main_metric: one.metric.value,
                    "expected": one.expected,
                    "gap": one.gap.value,
                    "gap_low": one.gap.low,
                    "gap_high": one.gap.high,
                    **{name: one.facts.get(name) for name in FACTS},
                    "suggestion": one.suggestion,
                }
                for one in self.slices
            ],
            schema_overrides=dict.fromkeys(FACTS, pl.Float64),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON: an interval is an object with `value`, `low` and `high`."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def reasons_of(one: SliceDiagnosis) -> tuple[tuple[str, str], ...]:
    """Return the reasons for a gap below expectation, the strongest first, each with the name of its fact.

    First what is measured to explain a share of the gap; for what that leaves, the facts in which the slice is far from
    the others on the harder side. Those are candidates and no proof: there are as many cases as slices.
    """
    if one.verdict != "below":
        return ()
    explained = sorted(
        (part.value / one.gap.value, name) for name, part in one.parts.items() if part.high < 0.0 > part.value
    )
    found = [
        (name, f"{PARTS[name]} ({share:.0%} of the gap)") for share, name in reversed(explained) if share >= LEAST_SHARE
    ]
    left = one.unexplained.value / one.gap.value
    if left >= LEAST_SHARE:
        found += [(name, f"{FACTS[name].label}: {_fact(one, name)}") for name in _far(one)]
        found.append(("unexplained", f"like requests do worse here ({left:.0%} of the gap)"))
    return tuple(found[:MOST_REASONS])


def suggestion_of(one: SliceDiagnosis, causes: tuple[str, ...], diagnosis: Diagnosis) -> str:
    """Return one line that says what to do about a slice."""
    if one.verdict == "not concluded":
        return f"none: {one.members} members are too few to conclude from (under {diagnosis.minimum_members})"
    if one.verdict == "above":
        return "none: it does better than its lengths of history let one expect"
    if one.verdict == "no gap shown":
        if one.size_effect < 0.0 and one.size_effect < -0.1 * one.expected:
            return "none for the slice: its histories are short; `sampling: {strata: [tenure]}` draws such members more"
        return "none: no gap beyond noise"
    model = diagnosis.version.partition(":")[0]
    cause = next((name for name in causes if name != "unexplained"), "unexplained") if causes else "unexplained"
    return _suggestion(diagnosis.by, cause).format(
        model=model, by=diagnosis.by, canvas=diagnosis.canvas, slice=one.slice
    )


def _suggestion(by: str, cause: str) -> str:
    own = SUGGESTIONS["country"]
    if by == "country":
        return own.get(cause, _UNKNOWN)
    if own.get(cause) in (_NEW, _LANGUAGE):
        return own[cause]
    if by == "tenure":
        return _MORE_DATA
    return _CONTEXT if cause != "catalogue" else own[cause]


def diagnosis_grids(diagnosis: Diagnosis) -> list[Grid]:
    """Return the tables of a diagnosis: gaps, facts, and what to do."""
    metric, shown = diagnosis.main_metric, diagnosis.slices
    known = [name for name in FACTS if any(one.facts.get(name) is not None for one in shown)]
    about = f"{diagnosis.version} on {diagnosis.canvas} by {diagnosis.by}, {diagnosis.protocol}, {diagnosis.fold} fold"
    gaps = Grid(
        f"{about}: {metric} {with_interval(diagnosis.overall)}",
        (diagnosis.by, "members", "n", metric, "at its size", "gap", "explained", "verdict"),
        tuple(
            (
                one.slice,
                f"{one.members:,}",
                f"{one.requests:,}",
                with_interval(one.metric),
                f"{one.expected:.4f}",
                with_sign(one.gap),
                f"{sum(part.value for part in one.parts.values()):+.4f}" if one.parts else "-",
                one.verdict,
            )
            for one in shown
        ),
        caption="at its size: what other slices have at the same lengths of history; explained: what its targets and "
        "catalogue do; gaps are judged after correction for all slices (Benjamini-Hochberg)",
    )
    facts = Grid(
        "facts of slices, and how far each is from the other slices in standard deviations (+ is harder)",
        (diagnosis.by, *known),
        tuple((one.slice, *(_fact(one, name) for name in known)) for one in shown),
        caption="; ".join(f"{name}: {FACTS[name].label}" for name in known),
    )
    acted = [one for one in shown if one.verdict == "below"]
    rows = tuple((one.slice, "; ".join(one.reasons) or "-", one.suggestion) for one in acted)
    what = [Grid("why, and what to do", (diagnosis.by, "why", "suggestion"), rows)] if rows else []
    return [gaps, facts, *what]


def check_plot(file: Path) -> None:
    """Refuse a file that no picture can be written to, before anything is measured.

    Raises:
        ConfigError: It ends in neither .svg nor .png.
    """
    if file.suffix.lower() not in (".svg", ".png"):
        raise ConfigError(f"--plot: '{file.name}' is neither an SVG nor a PNG file: try {file.stem}.svg")


def draw(diagnosis: Diagnosis, file: Path) -> Path:
    """Draw each slice's gap with its interval, as SVG or PNG by the file's ending.

    Those below expectation are red, those with too few members for a conclusion grey; of many slices the largest gaps.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    shown = diagnosis.slices[:MOST_BARS]
    rows = [(f"{one.slice} ({one.members})", one.gap) for one in shown]
    title = f"{diagnosis.version}, {diagnosis.canvas}: gap of {diagnosis.main_metric} by {diagnosis.by} (members)"
    label = "minus what others have at the same lengths of history, 95 % interval by member"
    colours = {
        "marked": [place for place, one in enumerate(shown) if one.verdict == "below"],
        "pale": [place for place, one in enumerate(shown) if one.verdict == "not concluded"],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    bars_with_intervals(title, label, rows, **colours).savefig(file, dpi=110)
    return file


def _far(one: SliceDiagnosis) -> list[str]:
    """Return the facts in which a slice is far from the others on the harder side, the farthest first."""
    found = []
    for name, distance in one.distances.items():
        if distance is None or name in _MATCHED:
            continue
        harder = abs(distance) if name == "calibration" else distance if FACTS[name].harmful else 0.0
        if harder >= FAR:
            found.append((-harder, name))
    return [name for _, name in sorted(found)]


def _fact(one: SliceDiagnosis, name: str) -> str:
    value, distance = one.facts.get(name), one.distances.get(name)
    if value is None:
        return "-"
    written = f"{value:,.0f}" if name in ("events", "members", "history") else f"{value:.3f}"
    return written if distance is None else f"{written} ({distance:+.1f})"


def _plain(content: Any) -> Any:
    if isinstance(content, Interval):
        return {name: _plain(value) for name, value in content._asdict().items()}
    if isinstance(content, Mapping):
        return {name: _plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
