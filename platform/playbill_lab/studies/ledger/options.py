"""What a ledger is asked: which parts, which canvases, how much data and how long to learn."""

from __future__ import annotations

from dataclasses import dataclass

from playbill.errors import Problem, ProblemsError, nearest

PARTS = ("canvases", "ablations", "transfer", "heads", "ladder", "improvement")
"""`canvases` is the main table; the others say what the consolidated model owes its quality to."""
METRICS = ("ndcg", "mrr", "hr")
"""Of each list; the first one decides."""


@dataclass(frozen=True)
class LedgerOptions:
    """Sizes of a ledger.

    Args:
        parts: Some of `PARTS`.
        canvases: Canvases of the model; empty = all.
        seeds: Of weights, order and dropout; every model is trained once for each.
        protocol: What is held out; None = the definition's.
        members: Drawn at random to learn from; None = all. Whoever is not drawn is asked all the same.
        requests: Held-out requests of a canvas at most, whole members; None = all.
        dim: Width of every network; None = the definition's.
        epochs: Passes over the data; None = the definition's.
        min_steps: Optimizer steps at least, of every model; None = the definition's.
        k: Places of a list.
        minimum_members: A canvas with held-out requests of fewer is named and not judged.
        resamples: Draws of members behind intervals.
    """

    parts: tuple[str, ...] = ("canvases",)
    canvases: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (17, 18, 19)
    protocol: str | None = "global_time"
    members: int | None = None
    requests: int | None = 6000
    dim: int | None = None
    epochs: int | None = None
    min_steps: int | None = None
    k: int = 10
    minimum_members: int = 20
    resamples: int = 1000

    def check(self) -> None:
        """Refuse what cannot be run, before anything is.

        Raises:
            ProblemsError: A part is unknown, or there is no seed, or one comes twice; all is named.
        """
        problems = []
        for part in self.parts:
            if part not in PARTS:
                close = nearest(part, PARTS)
                hint = f"Did you mean '{close}'?" if close else f"There are {', '.join(PARTS)}."
                problems.append(Problem("parts", f"there is no part '{part}'.", hint))
        if not self.seeds:
            problems.append(Problem("seeds", "at least one is needed."))
        twice = sorted({seed for seed in self.seeds if self.seeds.count(seed) > 1})
        problems += [Problem("seeds", f"{seed} is there twice.") for seed in twice]
        if problems:
            raise ProblemsError("the ledger", problems)
