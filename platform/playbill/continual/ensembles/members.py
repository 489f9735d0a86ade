"""The members of an ensemble: which registered versions they are, and whether they can stand beside one another.

Everything is checked before long work, and every problem of every member is named together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from playbill.datasets import Split
from playbill.definitions.specs import EnsembleSpec, MemberSpec, ResolvedModel
from playbill.errors import (
    DefinitionError,
    PlaybillError,
    Problem,
    ServiceError,
    StateError,
    UnknownNameError,
    did_you_mean,
)
from playbill.evaluation.canvases.loaded_version import OpenModel, open_model
from playbill.evaluation.cases.event_log import TRAIN, EvaluationTables
from playbill.features import FeatureDoor
from playbill.ranking.blend import COMPETING
from playbill.ranking.scoring.bundle import read_bundle
from playbill.versions.tracking import ModelVersion, Tracking
from playbill.versions.tracking.registry import PREFIX, SPLIT_DIGEST

MEMBERS = "members"  # key of a manifest's `extra`: role -> version and digest
LEAST_KNOWN = 0.5
"""Share of the base's titles that a member has learnt; with fewer it is of another catalogue."""


@dataclass(frozen=True)
class Member:
    """A member that is a model, ready to be asked."""

    role: str
    spec: MemberSpec
    version: ModelVersion
    model: OpenModel

    @property
    def resolved(self) -> ResolvedModel:
        """Its definition."""
        return self.model.resolved

    def canvas(self, requested: str) -> str:
        """Return the canvas it is asked on when the ensemble is asked on another."""
        return self.spec.canvas or requested

    def record(self) -> dict[str, str]:
        """Return what a manifest says of it."""
        return {"version": self.version.reference, "digest": self.model.digest}


def open_members(
    ensemble: EnsembleSpec, tracking: Tracking, tables: EvaluationTables, features: FeatureDoor
) -> dict[str, Member]:
    """Return the members that are models by role, the base first, downloaded and verified.

    Raises:
        DefinitionError: One is not registered, lacks its alias or a canvas, was trained on the window that the gate
            learns from or on another catalogue, or the base lacks what a term needs; all are named.
        ServiceError: MLflow cannot be reached.
    """
    problems: list[Problem] = []
    found: dict[str, Member] = {}
    for role in sorted(ensemble.models, key=lambda role: role != ensemble.base):
        spec = ensemble.models[role]
        try:
            version = tracking.resolve(str(spec.model))
            folder = tracking.download(version.model, version.version)
            digests = {"digest": version.digest, "split_digest": version.tags.get(SPLIT_DIGEST)}
            found[role] = Member(role, spec, version, open_model(folder, tables, features, **digests))
        except ServiceError:
            raise
        except PlaybillError as error:
            problems.append(Problem(f"members.{role}", f"{spec.model}: {error}"))
    if ensemble.base in found:
        problems += check_members(ensemble, found)
    if problems:
        raise DefinitionError(f"ensemble '{ensemble.name}'", problems)
    return found


@dataclass(frozen=True)
class UnchangedEnsemble:
    """A version that another run would learn again: of the same definition, members and data."""

    model: str
    version: int
    members: dict[str, str]  # role -> version of a model, or term

    @property
    def reason(self) -> str:
        """Why there is nothing to do, in words."""
        named = ", ".join(f"{role} {what}" for role, what in self.members.items())
        return f"{self.model}:{self.version} was learnt from the same definition, data and members ({named})"


def unchanged_ensemble(spec: EnsembleSpec, tracking: Tracking, snapshot: str) -> UnchangedEnsemble | None:
    """Return the newest version of an ensemble that was learnt from the same; None where there is none.

    Args:
        spec: Today's definition.
        tracking: Where versions are.
        snapshot: Of the workspace's data.
    """
    versions = tracking.versions(spec.name)
    if not versions:
        return None
    try:
        members = {role: tracking.resolve(str(member.model)) for role, member in spec.models.items()}
    except UnknownNameError:  # `open_members` says what is missing, with everything else that is
        return None
    now = {role: {"version": one.reference, "digest": one.digest} for role, one in members.items()}
    for version in versions:
        # A run describes its version last, so one without a description is what a killed run left.
        if not version.description or version.tags.get(f"{PREFIX}data_snapshot") != snapshot:
            continue
        bundle = read_bundle(tracking.download(spec.name, version.version), version.digest)
        if bundle.extra.get(MEMBERS) == now and bundle.resolved.ensemble == spec:
            named = {role: one.reference for role, one in members.items()}
            terms = {role: str(member.term) for role, member in spec.terms.items()}
            return UnchangedEnsemble(spec.name, version.version, named | terms)
    return None


def check_members(ensemble: EnsembleSpec, members: Mapping[str, Member]) -> Iterator[Problem]:
    """Yield why members cannot stand beside the base."""
    base = members[ensemble.base]
    for role, member in members.items():
        place = f"members.{role}"
        if member.resolved.ensemble is not None:
            yield Problem(place, f"{member.version.reference} is an ensemble itself.", "Name its members instead.")
        if role != ensemble.base:
            yield from _beside(place, member, base)
    countries = base.model.scorer.encoder.vocabulary("country").entries
    for role, spec in ensemble.members.items():
        for country in spec.countries:
            if country not in countries:
                hint = did_you_mean(country, countries, f"Countries: {', '.join(countries) or 'none'}.")
                what = f"{base.version.reference} knows no country '{country}'."
                yield Problem(f"members.{role}.countries", what, hint)
    network = base.model.scorer.network
    kept = () if network.history_terms is None else network.history_terms.config.terms
    for role, spec in ensemble.terms.items():
        if spec.term in ensemble.history_terms and spec.term not in kept:
            what = f"{base.version.reference} has no term '{spec.term}'."
            yield Problem(f"members.{role}", what, f"Terms: {', '.join(kept) or 'none'}.")
        if spec.term == "content" and not network.config.titles.metadata:
            yield Problem(f"members.{role}", f"{base.version.reference} reads no metadata of titles.")


def _beside(place: str, member: Member, base: Member) -> Iterator[Problem]:
    own, reference = member.resolved, member.version.reference
    lacking = [name for name in base.resolved.canvases if member.canvas(name) not in own.canvases]
    if lacking and member.spec.canvas is None:
        hint = f"Name one that it is asked on instead: canvas: {own.main_canvas}."
        yield Problem(place, f"{reference} lacks canvas {', '.join(lacking)}.", hint)
    elif lacking:
        yield Problem(
            place, f"{reference} has no canvas '{member.spec.canvas}'.", f"Canvases: {', '.join(own.canvases)}."
        )
    if unranked := [name for name in own.canvases if own.canvases[name].target == "title" and not main_head(own, name)]:
        yield Problem(place, f"{reference} blends no head that ranks titles on canvas {', '.join(unranked)}.")
    known = set(base.model.scorer.bundle.encoder.state.titles)
    share = len(known.intersection(member.model.scorer.bundle.encoder.state.titles)) / max(1, len(known))
    if share < LEAST_KNOWN:
        what = f"{reference} has learnt {share:.1%} of the titles of {base.version.reference}, at least "
        yield Problem(place, f"{what}{LEAST_KNOWN:.0%} are needed.", "It was trained on another catalogue.")
    if seen := trained_on_window(base.model.trained, member.model.trained):
        what = f"{reference} was trained on {seen} events that are held out from {base.version.reference}, and the "
        hint = f"Train both on one state of the data under {base.model.trained.protocol}."
        yield Problem(place, f"{what}gate learns from a later window than its members.", hint)


def trained_on_window(split: Split, other: Split) -> int:
    """Return how many held-out events of a split, of both folds, are in the train fold of another."""
    folds = pl.col("fold").cast(pl.String)
    held = split.frame.filter(folds != TRAIN).select("event_id")
    return held.join(other.frame.filter(folds == TRAIN).select("event_id"), on="event_id", how="semi").height


def main_head(resolved: ResolvedModel, canvas: str) -> str | None:
    """Return the head that counts most in a canvas's blend, among those in which titles compete; None without one."""
    heads, blend = resolved.model.heads, resolved.canvases[canvas].blend
    ranking = [head for head in blend if head in heads and heads[head].loss in COMPETING and blend[head] > 0]
    return max(ranking, key=lambda head: blend[head], default=None)


def title_canvases(resolved: ResolvedModel) -> list[str]:
    """Return the canvases that list titles and blend a head in which titles compete."""
    named = resolved.canvases.items()
    return [name for name, canvas in named if canvas.target == "title" and main_head(resolved, name) is not None]


def require_window(split: Split) -> None:
    """Make sure that there is something to learn weights from.

    Raises:
        StateError: The validation fold is empty.
    """
    if not (split.frame["fold"].cast(pl.String) == "validation").any():
        raise StateError(
            f"the window between training and test of protocol '{split.protocol}' is empty, so there is nothing to "
            "learn the gate from; train the members again on more data"
        )
