"""A model with everything it refers to: what training, evaluation and serving are given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from playbill.definitions.specs.base import Spec
from playbill.definitions.specs.canvas import CanvasSpec
from playbill.definitions.specs.label import LabelSpec
from playbill.definitions.specs.model import ModelSpec
from playbill.definitions.specs.reward import RewardSpec
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
    """What was taken out of it, such as heads without an example, and why; see `without_heads`."""
    left_out: LeftOut = LeftOut()
    """The same by name, for those who ask about one of it."""
    written_blends: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Canvas -> the blend of its definition, where training learnt other weights; see `with_blends`."""

    @property
    def spec_hash(self) -> str:
        """SHA-256 of what is written: not of `notes`, `left_out`, learnt blends, key order, or files it came from."""
        apart = {"notes", "left_out", "written_blends"}
        return content_hash(self._with(self.written_blends).model_dump(mode="json", by_alias=True, exclude=apart))

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
