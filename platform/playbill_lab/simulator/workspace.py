"""Simulating a workspace: its tables are replaced by a service's log, and the world behind it is kept beside them."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from playbill.clock import FixedClock
from playbill.config import ProjectFolder, Workspace
from playbill.errors import DataError, Problem, StateError, nearest
from playbill.tables import Tables
from playbill_lab.simulator.engine.run import RunOutcome, executor_size, simulate
from playbill_lab.simulator.engine.shards import blocks_of
from playbill_lab.simulator.fit import fit_report
from playbill_lab.simulator.policies.policies import load_policy
from playbill_lab.simulator.world.catalogue import WorldCatalogue
from playbill_lab.simulator.world.checkpoint import WorldCheckpoint, is_simulated
from playbill_lab.simulator.world.random_streams import Streams
from playbill_lab.simulator.world.real_catalogue import read_catalogue
from playbill_lab.simulator.world.spec import WorldSpec
from playbill_lab.simulator.world.world import World

StageProgress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done of it, and all of it (0 where nobody knows)."""


@dataclass(frozen=True)
class Simulated:
    """A workspace's log and how it came about."""

    world: World
    outcome: RunOutcome
    fit: dict[str, Any]  # Its distance to MovieLens, as of `fit.fit_report`
    seconds: float
    cpu_seconds: float  # Of all processes together; what is left of `seconds` on a machine with other work
    peak_gib: float  # Most memory, of all processes together
    processes: int

    def as_json(self) -> dict[str, Any]:
        """Return the numbers of a report."""
        spec, people = self.world.spec, self.outcome.members
        means = people.select(pl.col("sessions", "plays", "hours", "days", "value").mean()).row(0, named=True)
        return {
            "events": self.outcome.events,
            "seconds": round(self.seconds, 2),
            "cpu_seconds": round(self.cpu_seconds, 2),
            "peak_gib": round(self.peak_gib, 3),
            "gini": self.fit["gini"],
            "gini_movielens": self.fit["gini_movielens"],
            "activity": {
                "simulated": self.fit["activity_quantiles"],
                "movielens": self.fit["activity_quantiles_movielens"],
            },
            "popularity": {
                "simulated": self.fit["popularity_shares"],
                "movielens": self.fit["popularity_shares_movielens"],
            },
            "members": spec.members,
            "days": spec.days,
            "titles": len(self.world.catalogue),
            "countries": list(self.world.countries),
            "seed": spec.seed,
            "policy": self.outcome.policy,
            "processes": self.processes,
            "per_member": {name: round(value, 4) for name, value in means.items()},
            "left": round(1 - people["churned_at"].null_count() / people.height, 4),
            "counts": self.outcome.counts,
        }


def simulate_workspace(
    workspace: Workspace,
    spec: WorldSpec,
    catalogue: WorldCatalogue | None = None,
    *,
    processes: int | None = None,
    replace: bool = False,
    progress: StageProgress | None = None,
) -> Simulated:
    """Fill a workspace with the log of a simulated service. Its tables are replaced whole, or stay as they were.

    `catalogue` None generates titles. `replace` also replaces a log that was not simulated. The events are the same for
    any number of `processes` (None = one for each core).

    Raises:
        StateError: The workspace holds another log, or nobody played anything.
        DefinitionError: The world contradicts itself.
        UnknownNameError: There is no such policy.
        IntegrityError: The policy answered what cannot be shown.
    """
    begun, worked, tell = time.perf_counter(), _cpu_seconds(), progress or (lambda _stage, _done, _total: None)
    tables = Tables(workspace)
    if tables.exists() and not is_simulated(workspace.folder) and not replace:
        raise StateError(
            f"workspace '{workspace.name}' holds a log that was not simulated; choose another one with -w, or give "
            "--replace to lose it"
        )
    policy = load_policy(spec.policy)
    tell("draw the world", 0, 0)
    world = World.make(spec, catalogue)
    size = executor_size(processes, len(blocks_of(world)))
    stage = f"simulate {spec.members:,} members for {spec.days} days under {policy.name}"
    # Events end with the run; some are known a few hours later.
    clock = FixedClock(spec.end + timedelta(days=1))
    with WorldCheckpoint(workspace.folder) as keeping:
        with tables.replace(clock) as writer:
            outcome = simulate(
                world, policy, writer=writer, processes=size, progress=lambda done, total: tell(stage, done, total)
            )
            fit = fit_report(outcome.titles_per_member, outcome.members_per_title)
            tell("check and publish the tables", 0, 0)
            keeping.retire()
        keeping.save(spec, catalogue)
    seconds, cpu_seconds = time.perf_counter() - begun, _cpu_seconds() - worked
    return Simulated(world, outcome, fit, seconds, cpu_seconds, _peak_gib(size), size)


def find_catalogue(project: ProjectFolder, given: str, seed: int, *, keep_availability: bool = False) -> WorldCatalogue:
    """Return a real catalogue: from a file or folder of titles (see `read_titles`), or a workspace that has some.

    What it leaves out is drawn from the world's `seed`; `keep_availability` keeps the workspace's own availability
    instead of drawing launches.

    Raises:
        DataError: There is nothing there, or titles have mistakes; all are named.
    """
    rng = Streams(seed).generator("catalogue")
    path = Path(given)
    if path.exists():
        return read_catalogue(path, None, rng)
    names = sorted({*project.settings.workspaces, *(found.name for found in project.home.glob("*") if found.is_dir())})
    if given not in names:
        close = nearest(given, names)
        hint = f"Did you mean the workspace '{close}'?" if close else f"Workspaces: {', '.join(names) or 'none'}."
        raise DataError("the catalogue", [Problem(given, "there is no such file, folder or workspace.", hint)])
    tables = Tables(project.workspace(given)).require()
    return read_catalogue(tables.titles(), tables.availability() if keep_availability else None, rng)


def _cpu_seconds() -> float:
    """Return what this process and its finished children have worked."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak_gib(processes: int) -> float:
    """Return the most memory of this process, and of its largest child for each that ran."""
    unit = 2**30 if sys.platform == "darwin" else 2**20
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if processes > 1 else 0
    return (own + processes * child) / unit
