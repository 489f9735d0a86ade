"""Outcomes of runs of Feast's universal suites: read from pytest's XML, shown as tables, written as a page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

# Every test of a run is about the same stores; only a second environment, with a feature server, is worth a word.
STORE_IN_NAME = re.compile(
    r"(?:ParameterSet\(values=\()?LOCAL:\w+:\w+:"
    r"(?:python_fs:False|(python_fs:True))(?:,\), marks=\[\], id=None\))?"
)
WORDS = {"failure": "failed", "error": "failed", "skipped": "skipped"}


@dataclass
class Outcome:
    """One run.

    Attributes:
        name: The run's name.
        stores: What was tested, in words.
        passed: Names of tests that passed.
        failed: Test -> the error's last line.
        skipped: Test -> why.
        left_out: Tests that were not run -> why.
        seconds: Wall time.
    """

    name: str
    stores: str
    seconds: float
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of tests by what became of them."""
        return {"passed": len(self.passed), "failed": len(self.failed), "skipped": len(self.skipped)}


def read_outcome(outcome: Outcome, xml: Path) -> Outcome:
    """Fill an outcome from pytest's JUnit XML."""
    for case in ElementTree.parse(xml).iter("testcase"):
        name = STORE_IN_NAME.sub(r"\1", case.get("name", "")).replace("[-", "[").replace("[]", "")
        sign = next((child for child in case if child.tag in WORDS), None)
        if sign is None:
            outcome.passed.append(name)
        elif sign.tag == "skipped":
            outcome.skipped[name] = _why_skipped(case, sign.get("message") or "")
        else:
            outcome.failed[name] = (sign.get("message") or "").strip().splitlines()[0][:300]
    return outcome


def _why_skipped(case: ElementTree.Element, message: str) -> str:
    if message.startswith("got empty parameter set"):
        meant = [one.get("value") for one in case.iter("property") if one.get("name") == "only"]
        return f"Feast runs it for {meant[0] if meant else 'other stores'} only"
    return re.sub(r"\s+", " ", message)


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print the table of runs, then what was skipped and what failed."""
    table = Table("run", "stores", "passed", "failed", "skipped", "left out", "seconds")
    for one in outcomes:
        counts = (str(number) for number in one.counts.values())
        table.add_row(one.name, one.stores, *counts, str(len(one.left_out)), f"{one.seconds:.0f}")
    console.print(table)
    for one in outcomes:
        for reason, number in Counter(one.skipped.values()).items():
            console.print(f"{one.name}: {number} skipped: {reason}", highlight=False)
        for test, why in one.left_out.items():
            console.print(f"{one.name}: left out {test.split('/')[-1]}: {why}", highlight=False)
        for test, error in one.failed.items():
            console.print(f"[red]{one.name}: FAILED {test}[/red]: {error}", highlight=False)


def page(outcomes: Sequence[Outcome], source: str, versions: Mapping[str, str], command: str) -> str:
    """Return docs/results/feast_conformance.md."""
    rows = "\n".join(f"| {one.name} | {one.stores} | {_numbers(one)} | {one.seconds:.0f} |" for one in outcomes)
    parts = [
        "# Feast's own universal suites against our stores",
        f"Tests: {source}. Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}.",
        f"```\n{command}\n```",
        f"| run | stores | passed | failed | skipped | seconds |\n|---|---|---|---|---|---|\n{rows}",
        "Seconds are wall time of one process on a shared machine.",
        *(_failures(outcomes)),
        "## Skipped, and why",
        "\n".join(_skips(outcomes)),
        "## Left out, and why",
        "\n".join(sorted({f"- `{test}`: {why}." for one in outcomes for test, why in one.left_out.items()})),
    ]
    return "\n\n".join(parts) + "\n"


def _numbers(outcome: Outcome) -> str:
    return " | ".join(str(number) for number in outcome.counts.values())


def _failures(outcomes: Sequence[Outcome]) -> list[str]:
    lines = [f"- {one.name}: `{test}`: {error}" for one in outcomes for test, error in one.failed.items()]
    return ["## Failed", "\n".join(lines) or "Nothing."]


def _skips(outcomes: Sequence[Outcome]) -> list[str]:
    runs: dict[tuple[str, str], list[str]] = {}
    for one in outcomes:
        for test, why in one.skipped.items():
            runs.setdefault((test, why), []).append(one.name)
    return [f"- `{test}` ({', '.join(names)}): {why}." for (test, why), names in sorted(runs.items())]
