"""A model with everything it refers to: what training, evaluation and serving are given.

What a reward's terms mean together with the labels they name, and the one id of a reward.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import Field

from playbill.definitions.specs.base import Definition, Spec, added_later, split_reference
from playbill.definitions.specs.canvas import CanvasSpec
from playbill.definitions.specs.ensemble import EnsembleSpec
from playbill.definitions.specs.label import LabelSpec
from playbill.definitions.specs.model import ModelSpec
from playbill.definitions.specs.reward import REWARDED, Attribution, RewardSpec, TermSpec
from playbill.definitions.specs.row import RowSpec
from playbill.errors import UnknownNameError


def content_hash(content: Any) -> str:
    """Return the SHA-256 of JSON-ready content, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class LeftOut(Spec):
    """What a log taught nothing of, so that a model was trained without it."""

    heads: dict[str, str] = Field(default_factory=dict)
    """Head -> why."""
    canvases: dict[str, str] = Field(default_factory=dict)
    """Canvas -> why the model does not serve it."""
    rows: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Canvas -> row -> why it is not shown there."""
    blends: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Canvas -> heads that its blend lost."""

    def and_also(self, other: LeftOut) -> LeftOut:
        """Return what one or the other leaves out."""
        rows = {canvas: {**self.rows.get(canvas, {}), **own} for canvas, own in other.rows.items()}
        blends = {canvas: (*self.blends.get(canvas, ()), *own) for canvas, own in other.blends.items()}
        return LeftOut(
            heads={**self.heads, **other.heads},
            canvases={**self.canvases, **other.canvases},
            rows={**self.rows, **rows},
            blends={**self.blends, **blends},
        )


class ResolvedModel(Spec):
    """A model and the labels, rewards, canvases and rows it uses, each once and by its plain name."""

    model: ModelSpec
    """References in it carry no version any more; the versions are those of the definitions beside it."""
    labels: dict[str, LabelSpec]
    """Labels of its heads, of its canvases' metrics and of its rewards' terms."""
    rewards: dict[str, RewardSpec]
    canvases: dict[str, CanvasSpec]
    """Its canvases, in the model's order."""
    rows: dict[str, RowSpec]
    """Its rows, in the order of the page."""
    notes: tuple[str, ...] = ()
    """What was taken out of it, such as heads without an example, and why; see `prune_heads`."""
    left_out: LeftOut = LeftOut()
    """The same by name, for those who ask about one of it."""
    written_blends: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Canvas -> the blend of its definition, where training learnt other weights; see `with_blends`."""
    ensemble: EnsembleSpec | None = added_later(None)
    """The ensemble of which this is the base, as it is served."""

    def afresh(self) -> ResolvedModel:
        """Return the model without the version that it starts from."""
        return self.model_copy(update={"model": self.model.model_copy(update={"init_from": None})})

    @property
    def spec_hash(self) -> str:
        """SHA-256 of what is written: not of `notes`, `left_out`, learnt blends, key order, or files it came from."""
        return content_hash(self.as_written())

    def as_written(self) -> dict[str, Any]:
        """Return what is written, ready for JSON: without `notes` and `left_out`, and with the blends as they were."""
        apart = {"notes", "left_out", "written_blends"}
        return self._with(self.written_blends).model_dump(mode="json", by_alias=True, exclude=apart)

    def with_blends(self, learnt: Mapping[str, Mapping[str, float]]) -> ResolvedModel:
        """Return the model with weights that training learnt in the place of those of some canvases' blends."""
        written = {name: self.canvases[name].blend for name in learnt if self.canvases[name].blend != learnt[name]}
        found = self._with({name: dict(learnt[name]) for name in written})
        return found.model_copy(update={"written_blends": {**written, **self.written_blends}})

    def _with(self, blends: Mapping[str, dict[str, float]]) -> ResolvedModel:
        changed = {name: self.canvases[name].model_copy(update={"blend": blend}) for name, blend in blends.items()}
        return self.model_copy(update={"canvases": {**self.canvases, **changed}})

    def to_json(self) -> str:
        """Return this as JSON that `from_json` reads back."""
        return self.model_dump_json(by_alias=True, indent=2)

    @classmethod
    def from_json(cls, text: str) -> ResolvedModel:
        """Read what `to_json` wrote."""
        return cls.model_validate_json(text)

    @property
    def main_canvas(self) -> str:
        """The canvas that is meant where none is named: `home` if the model serves it, else its first one."""
        return "home" if "home" in self.canvases else next(iter(self.canvases))

    def canvas(self, name: str) -> CanvasSpec:
        """Return one canvas.

        Raises:
            UnknownNameError: The model does not serve it.
        """
        try:
            return self.canvases[name]
        except KeyError:
            raise UnknownNameError("canvas", name, self.canvases) from None

    def rows_of(self, canvas: str) -> tuple[RowSpec, ...]:
        """Return the rows of a canvas, in the order of the page."""
        return tuple(row for row in self.rows.values() if row.canvas == canvas)


def attribution(term: TermSpec, label: LabelSpec) -> Attribution:
    """Return which event a term's label speaks of.

    Without word from the term the label's actions decide: `same_title` when none of them can have a reward. An
    extractor is taken to speak of the play or impression itself.
    """
    if term.attribute is not None:
        return term.attribute
    if label.events is None or set(label.events.action) & set(REWARDED):
        return "event"
    return "same_title"


def attribution_window(term: TermSpec, label: LabelSpec) -> timedelta | None:
    """Return how long after a play something on another event counts for it; None = however long."""
    return term.within if term.within is not None else label.attribution_window


def matures_after(term: TermSpec, label: LabelSpec, action: str) -> timedelta:
    """Return how old a row of an action (`play` or `impression`) must be for nothing to change this term any more."""
    spans = [timedelta(0)]
    if attribution(term, label) == "same_title":
        spans.append((attribution_window(term, label) or timedelta(0)) + label.matures_after)
    elif label.events is None or action in label.events.action:
        spans.append(label.matures_after)
    if action in label.negatives.actions or (action == "impression" and label.negatives.shown_not_played):
        spans.append(label.zeros_mature_after)
    return max(spans)


def reward_version(reward: RewardSpec, labels: Mapping[str, LabelSpec]) -> str:
    """Return the one id of a reward that loss weights, reports, off-policy estimates and gates carry.

    It is `name:version:hash`, the hash being twelve digits over everything the reward and its terms' labels (by plain
    name) say beyond the defaults: it changes when a label does although the reward's own version stays.
    """
    terms = {name: _content(labels[split_reference(name)[0]]) for name in reward.terms}
    content = {"reward": _content(reward), "labels": terms}
    return f"{reward.reference}:{content_hash(content)[:12]}"


def _content(definition: Definition) -> dict[str, Any]:
    return definition.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def reward_versions(resolved: ResolvedModel) -> dict[str, str]:
    """Return name -> version id of every reward of a model: those that weigh heads, and the one it is judged by."""
    return {name: reward_version(reward, resolved.labels) for name, reward in resolved.rewards.items()}


def speaks_of(term: TermSpec, label: LabelSpec) -> frozenset[str]:
    """Return the actions of the rows this term can say something about, now or later: plays, impressions or both.

    An extractor is taken to speak of plays.
    """
    if attribution(term, label) == "same_title":
        return frozenset(REWARDED)
    if label.events is None:
        return frozenset(("play",))
    shown = ("impression",) if label.negatives.shown_not_played else ()
    return frozenset((*label.events.action, *label.negatives.actions, *shown)) & frozenset(REWARDED)
