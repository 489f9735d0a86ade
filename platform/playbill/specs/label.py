"""Labels: which events teach a head, and with what value."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from playbill.schema import ACTIONS
from playbill.specs.base import Definition, Duration, Spec, unknown_name
from playbill.specs.plugins import EXTRACTORS, ExtractorName
from playbill.specs.where import WhereError, parse_where

_NAMESPACED = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


def _known_action(action: str) -> str:
    if action not in ACTIONS and not _NAMESPACED.fullmatch(action):
        raise unknown_name("action", action, ACTIONS)
    return action


Action = Annotated[str, AfterValidator(_known_action)]
"""An action of `schema.ACTIONS`, or a source's own such as `kuairand.follow`."""

Actions = Annotated[
    tuple[Action, ...],
    Field(min_length=1),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]
"""One action or several."""


def _below_options(item: ErrorDetails) -> InitErrorDetails:
    text = PydanticCustomError("options", "{text}", {"text": item["msg"]})
    return InitErrorDetails(type=text, loc=("options", *item["loc"]), input=item["input"])


def _checked_where(text: str) -> str:
    try:
        parse_where(text)
    except WhereError as error:
        context = {
            "message": error.message,
            "position": error.position,
            "hint": error.hint,
            "pointer": error.pointer,
        }
        raise PydanticCustomError("where", "{message} at character {position}", context) from None
    return text


Where = Annotated[
    str,
    AfterValidator(_checked_where),
    WithJsonSchema({"type": "string", "examples": ["prior_plays_of_title = 0 and progress >= 0.1"]}),
]
"""An expression over the columns of `interactions` and the derived ones."""


class EventRule(Spec):
    """The events that get value 1."""

    action: Actions
    """Action of the event, or a list of them."""
    where: Where | None = None
    """Condition on the event's columns and the derived ones; null never matches."""


class NegativesSpec(Spec):
    """The events that get value 0. Without any, a label only ever says 1."""

    actions: tuple[Action, ...] = ()
    """Events of these actions. An action that also gives ones gives zeros where `where` is false, not null."""
    shown_not_played: bool = False
    """Impressions whose title was not played in the same request."""


class LabelSpec(Definition):
    """A label: logged events and the value each teaches. Events it does not speak of are unlabelled."""

    kind: Literal["Label"] = "Label"
    events: EventRule | None = Field(default=None, alias="from")
    """Rule that picks the events with value 1; or use `extractor`."""
    extractor: ExtractorName | None = None
    """Registered extractor instead of `from`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The extractor's options."""
    matures_after: Duration = timedelta(0)
    """Younger events are unlabelled, never zero."""
    negatives: NegativesSpec = NegativesSpec()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.events is None) == (self.extractor is None):
            raise ValueError("a label needs either 'from' or 'extractor'")
        if self.options and self.extractor is None:
            raise ValueError("'options' belong to an 'extractor'")
        if self.extractor is not None and self.negatives != NegativesSpec():
            raise ValueError("'negatives' belong to 'from'; an extractor gives its own zeros")
        self._check_negatives()
        self.extractor_options()
        return self

    def _check_negatives(self) -> None:
        if self.events is None or self.events.where is not None:
            return
        if both := sorted(set(self.events.action) & set(self.negatives.actions)):
            raise ValueError(f"action '{both[0]}' cannot give ones and zeros without a 'where' that tells them apart")

    def extractor_options(self) -> Any:
        """Return the extractor's options, checked by the spec it registers, or None without an extractor."""
        if self.extractor is None:
            return None
        spec = EXTRACTORS[self.extractor].load_options()
        if spec is None:
            if self.options:
                raise PydanticCustomError("options", f"extractor '{self.extractor}' takes no options")
            return None
        try:
            return spec.model_validate(self.options)
        except ValidationError as error:
            raise ValidationError.from_exception_data(
                error.title, [_below_options(item) for item in error.errors()]
            ) from None
