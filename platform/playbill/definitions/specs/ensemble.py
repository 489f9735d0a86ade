"""Ensembles: members, a gate that learns which of them to trust where, and the guard on what it may cost a group.

One member's network reads every request. The others are folded into it, or are terms that are worked out beside it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from playbill.definitions.specs.base import (
    MODEL_REFERENCE_PATTERN,
    CanvasName,
    Definition,
    ModelReference,
    Name,
    Percent,
    Spec,
)
from playbill.definitions.specs.head import HISTORY_TERMS, HistoryTerm
from playbill.definitions.specs.measures import GateSpec
from playbill.errors import did_you_mean

MemberTerm = Literal["transitions", "ease", "recent_ease", "item_knn", "popular_7d", "popularity", "content"]
"""The terms of heads, and two of an ensemble alone."""
Context = Literal["country", "tenure", "title_age"]


class MemberSpec(Spec):
    """What an ensemble is made of: a registered model, or a term. A bare reference is a model."""

    model: ModelReference | None = None
    """`everycanvas@champion`, `everycanvas:3`, or `everycanvas` for the newest; which version it was is in the run."""
    term: MemberTerm | None = None
    """Instead of a model, what costs next to nothing: the terms of heads, among which `popular_7d` is what is trending;
    `popularity` of the training part in the request's country; `content`, the network's query against metadata."""
    canvas: CanvasName | None = None
    """Of the model: the canvas it is asked on, whatever the ensemble is asked on. For one that lacks canvases."""
    countries: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    """Where the member counts, such as the country it was tuned for; empty is everywhere."""

    @property
    def name(self) -> str | None:
        """The model without version or alias; None for a term."""
        return None if self.model is None else re.split("[@:]", self.model, maxsplit=1)[0]

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.model is None) == (self.term is None):
            raise ValueError("a member is a 'model' or a 'term', and not both")
        if self.term is not None and self.canvas is not None:
            raise ValueError("'canvas' is of a model, and a term is the same on every canvas")
        return self

    @model_serializer(mode="wrap")
    def _shortest(self, handler: SerializerFunctionWrapHandler) -> Any:
        plain = self.canvas is None and not self.countries
        return self.model if self.model is not None and plain else handler(self)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Offer the short form beside the long one."""
        return {"anyOf": [{"type": "string", "pattern": MODEL_REFERENCE_PATTERN}, handler(core_schema)]}


class GuardSpec(Spec):
    """What an ensemble must never do worse than one of its members: a gate of every promotion, by the interval."""

    slice: Context
    """Hold it in every group of this slice."""
    against: Name | None = None
    """The member it is compared with; absent is each that is a model."""
    worst: Percent
    """Relative change of NDCG that is allowed in the worst group. A version is refused that is significantly below."""

    @field_validator("worst")
    @classmethod
    def _is_a_limit(cls, value: float) -> float:
        if value > 0:
            raise ValueError("a guard is a limit on harm, so 'worst' is 0% or below")
        return value


class EnsembleSpec(Definition):
    """An ensemble: members by role, what its gate reads, and its guard."""

    kind: Literal["Ensemble"] = "Ensemble"
    members: dict[Name, MemberSpec] = Field(min_length=2)
    """Role -> model or term, such as `global: everycanvas@champion` and `trending: {term: popular_7d}`."""
    base: Name = "global"
    """The member whose network reads requests and whose canvases and rows are served. The others are folded into it."""
    gate: tuple[Context, ...] = Field(min_length=1)
    """What the gate reads to weigh the members, beside the canvas."""
    guard: GuardSpec | None = None
    """Limit on the harm to any group."""
    gates: tuple[GateSpec, ...] = ()
    """What else must hold before a promotion stands, as for a model."""

    @field_validator("gate")
    @classmethod
    def _each_once(cls, value: tuple[Context, ...]) -> tuple[Context, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"the gate reads each once, not {', '.join(value)}")
        return value

    @property
    def guarded(self) -> tuple[str, ...]:
        """The members that the guard compares with."""
        if self.guard is None:
            return ()
        return tuple(self.models) if self.guard.against is None else (self.guard.against,)

    @property
    def models(self) -> dict[str, MemberSpec]:
        """Role -> member of the members that are models."""
        return {role: member for role, member in self.members.items() if member.model is not None}

    @property
    def terms(self) -> dict[str, MemberSpec]:
        """Role -> member of the members that are terms."""
        return {role: member for role, member in self.members.items() if member.term is not None}

    @property
    def history_terms(self) -> tuple[HistoryTerm, ...]:
        """The terms of heads among the members, in their own order."""
        wanted = {member.term for member in self.members.values()}
        return tuple(term for term in HISTORY_TERMS if term in wanted)

    @model_validator(mode="after")
    def _base_reads_every_request(self) -> Self:
        problems = [*self._wrong_base(), *self._twice(), *self._wrong_guard()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _wrong_base(self) -> list[str]:
        if self.base not in self.members:
            hint = did_you_mean(self.base, self.models, f"Models: {', '.join(self.models) or 'none'}.")
            return [f"base '{self.base}' is no member. {hint}"]
        base = self.members[self.base]
        if base.model is None:
            return [f"base '{self.base}' is a term, and the base is the model that reads every request"]
        if base.canvas is not None or base.countries:
            return [f"base '{self.base}' is asked everywhere, so it has no 'canvas' or 'countries'"]
        return []

    def _twice(self) -> list[str]:
        first: dict[tuple[str, str | None], str] = {}
        found = []
        for role, member in self.members.items():
            what = (str(member.model or member.term), member.canvas)
            if what in first:
                found.append(f"'{role}' and '{first[what]}' are both {what[0]}")
            first.setdefault(what, role)
        return found

    def _wrong_guard(self) -> list[str]:
        named = None if self.guard is None else self.guard.against
        if named in self.terms:
            return [f"guard.against '{named}' is a term, and a guard compares with a model"]
        if named is not None and named not in self.members:
            hint = did_you_mean(named, self.models, f"Models: {', '.join(self.models)}.")
            return [f"guard.against '{named}' is no member. {hint}"]
        return []
