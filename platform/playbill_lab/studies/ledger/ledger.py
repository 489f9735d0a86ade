"""The consolidation ledger: does one model serve every canvas as well as the separate models it replaces, at what cost?

The one model and each of the separate ones learn from the same log and the same histories, with the same network and
recipe, and answer the same held-out requests. Parity is claimed for a canvas only where the interval of its relative
difference, over members and training seeds, ends at or above -1 %.

Sources: "Lessons learnt from consolidating ML models in a large scale recommendation system", Netflix TechBlog 2023;
Bhattacharya, Ostuni and Lamkhede, "Joint modeling of search and recommendations", RecSys 2024 (arXiv 2408.10394).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from playbill_lab.studies.ledger.ablations import Comparison, compare_part
from playbill_lab.studies.ledger.cells import LedgerCells
from playbill_lab.studies.ledger.data import LedgerService
from playbill_lab.studies.ledger.head_gains import HeadGain, head_gains
from playbill_lab.studies.ledger.options import LedgerOptions
from playbill_lab.studies.ledger.run import LedgerRun
from playbill_lab.studies.ledger.table import LedgerTable, ledger_table


@dataclass(frozen=True)
class Ledger:
    """What came out.

    Args:
        model: The consolidated model's name.
        options: What was asked.
        canvases: Every canvas that was measured.
        skipped: Canvas -> why it was not.
        table: The main table; None where it was not asked for.
        comparisons: Part -> its arms beside the consolidated model.
        heads: Each head joint and alone; empty where that was not asked for.
    """

    model: str
    options: LedgerOptions
    canvases: tuple[str, ...]
    skipped: dict[str, str]
    table: LedgerTable | None = None
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    heads: tuple[HeadGain, ...] = ()


def run_ledger(service: LedgerService, folder: Path, told: Callable[[str], None] | None = None) -> Ledger:
    """Run the parts that were asked for, or what is left of them.

    Args:
        service: The log, the model, and what is asked.
        folder: Where finished cells are kept. Those that are there already are not made again.
        told: Called with the name of every model that was trained and asked.

    Raises:
        StateError: No canvas can be measured, or none has rows to learn from.
        ProblemsError: It cannot be run as asked.
    """
    service.options.check()
    run = LedgerRun(service, LedgerCells(folder, told))
    asked, parts = run.canvases(), service.options.parts
    table = ledger_table(run) if "canvases" in parts else None
    others = [part for part in parts if part not in ("canvases", "heads")]
    comparisons = {part: compare_part(run, part) for part in others}
    heads = head_gains(run) if "heads" in parts else ()
    return Ledger(
        model=service.resolved.model.name,
        options=service.options,
        canvases=tuple(asked),
        skipped=dict(run.skipped),
        table=table,
        comparisons=comparisons,
        heads=heads,
    )
