"""The version that a model starts from (`init_from`): which one it is, and whether the model can start from it.

Everything is checked before long work. An alias means what it points at when a run begins: that version's digest is
part of the run's name, so a run after the alias has moved is another run.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from playbill.datasets import Split
from playbill.datasets.encoding.tokens import IGNORED_ACTIONS
from playbill.definitions.specs import ResolvedModel, StartSpec
from playbill.errors import DefinitionError, IntegrityError, Problem
from playbill.evaluation.canvases.loaded_version import frozen_split
from playbill.evaluation.compare import assert_not_trained_on
from playbill.ranking.scoring.bundle import read_bundle
from playbill.tables import Tables
from playbill.training.build import network_config
from playbill.training.inherit import Inherited, Parent
from playbill.versions.tracking import Tracking

LEAST_KNOWN = 0.5
"""Share of the log's events that are on titles the parent has learnt; with fewer it is another catalogue."""
TRAINING_ONLY = ("dropout", "sharing", "id_mask", "neighbours", "companions")
"""Keys of a network's configuration that its states do not depend on."""


def find_parent(tracking: Tracking, resolved: ResolvedModel, tables: Tables) -> Parent | None:
    """Return the version that a model starts from, downloaded and verified; None for one that starts afresh.

    Raises:
        UnknownNameError: No such model, version or alias; the nearest name is suggested.
        StateError: Nothing is registered yet.
        IntegrityError: The version's files are missing or damaged, or it was not registered by Playbill.
        DefinitionError: It has another trunk, another history, or other title vectors, or it was trained on another
            catalogue; every difference is named.
        ServiceError: MLflow cannot be reached.
    """
    start = resolved.model.init_from
    if start is None:
        return None
    version = tracking.resolve(start.model)
    folder = tracking.download(version.model, version.version)
    parent = Parent(version.reference, read_bundle(folder, version.digest))
    problems = [*network_differences(resolved, parent), *_other_data(tables, parent)]
    if problems:
        subject = f"model '{resolved.model.name}' cannot start from {_named(start, parent)}"
        raise DefinitionError(subject, problems)
    return parent


def _named(start: StartSpec, parent: Parent) -> str:
    return parent.reference if start.model == parent.reference else f"{parent.reference} ({start.model})"


def network_differences(resolved: ResolvedModel, parent: Parent) -> Iterator[Problem]:
    """Yield where a definition asks for other states than those of its parent, by key."""
    own, theirs = resolved.model, parent.bundle.resolved.model
    given = network_config(resolved, parent.bundle.encoder).model_dump()
    kept = parent.bundle.config.model_dump()
    pairs = {
        "history": (own.history.model_dump(), theirs.history.model_dump()),
        "trunk": (given["trunk"], kept["trunk"]),
        # The network's configuration says whether there is metadata, the definition which.
        "titles": (
            given["titles"] | {"metadata": sorted(own.titles.metadata)},
            kept["titles"] | {"metadata": sorted(theirs.titles.metadata)},
        ),
    }
    for part, (wanted, found) in pairs.items():
        # Options of another trunk cannot be compared, only that it is another one.
        keys = ["type"] if wanted.get("type") != found.get("type") else dict.fromkeys((*wanted, *found))
        for key in (key for key in keys if key not in TRAINING_ONLY and wanted.get(key) != found.get(key)):
            here, there, name = wanted.get(key), found.get(key), parent.reference.partition(":")[0]
            what = f"{here}, but {parent.reference} has {there}."
            yield Problem(f"{part}.{key}", what, f"Write {there}, or train '{name}' with {here}.")


def _other_data(tables: Tables, parent: Parent) -> Iterator[Problem]:
    """Yield what of the log is unknown to the parent, where that is most of it."""
    events = tables.interactions(columns=["action", "title_id"])
    events = events.filter(pl.col("title_id").is_not_null(), ~pl.col("action").is_in(IGNORED_ACTIONS))
    known = events["title_id"].is_in(list(parent.titles))
    share = float(known.mean() or 0.0) if events.height else 1.0  # type: ignore[arg-type]
    if share < LEAST_KNOWN:
        what = f"{share:.1%} of the log's events are on titles that {parent.reference} has learnt, at least "
        hint = f"It was trained on another catalogue; train '{parent.reference.partition(':')[0]}' on this one."
        yield Problem("titles", f"{what}{LEAST_KNOWN:.0%} are needed.", hint)
    actions = set(events["action"].unique().to_list())
    if actions and not actions & set(parent.state.actions):
        here, there = (", ".join(sorted(values)) for values in (actions, parent.state.actions))
        yield Problem("actions", f"none is known to {parent.reference}: the log has {here}, it has {there}.")


def assert_unseen(parent: Parent, split: Split) -> None:
    """Make sure that a parent has not learnt from what a model that starts from it is going to be measured on.

    Raises:
        ComparisonError: Test events are in its train fold.
        IntegrityError: What it was trained on is not what its record says.
        StateError: Its bundle does not say what it was trained on.
    """
    trained = frozen_split(parent.bundle.folder)
    if trained.digest != parent.bundle.extra.get("split_digest", trained.digest):
        raise IntegrityError(f"the split of {parent.reference} changed since it was registered")
    assert_not_trained_on(split, trained, model=parent.bundle.resolved.model.name)


def started_from(resolved: ResolvedModel, found: list[Inherited], parent: Parent) -> str:
    """Return one sentence on what a model has taken from its parent, for its notes and its description."""
    start = resolved.model.init_from
    trunk = "" if start is None else f", trunk {start.trunk}"
    new = [f"{one.total - one.taken:,} new {one.kind}" for one in found if one.taken < one.total]
    taken = ", ".join(map(str, found))
    return f"started from {parent.reference}{trunk}: took {taken}" + (f"; {', '.join(new)}" if new else "")


def parent_record(parent: Parent) -> dict[str, dict[str, str]]:
    """Return what a version's manifest says of its parent."""
    return {"parent": {"version": parent.reference, "digest": parent.digest}}
