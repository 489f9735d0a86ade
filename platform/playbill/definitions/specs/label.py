"""Labels: which events teach a head, and with what value."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from playbill.definitions.specs.base import Definition, Duration, Spec, format_duration, unknown_name
from playbill.definitions.specs.plugins import EXTRACTORS, ExtractorName, ExtractorPlugin, Level
from playbill.definitions.specs.where import WhereError, column_names, parse_where
from playbill.registry import Plugin
from playbill.schema import ACTIONS, NAMESPACED, OUTCOME_COLUMNS


def _known_action(action: str) -> str:
    if action not in ACTIONS and not NAMESPACED.fullmatch(action):
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


class ActedOnOptions(Spec):
    """Options of the extractor `acted_on`."""

    actions: Actions
    """Any of these makes an impression a one."""


class MeasuredOptions(Spec):
    """Options of the extractor `measured`."""

    actions: Actions = ("play",)
    """Events that are labelled."""
    column: Literal["progress", "duration_s"]
    """Their number: the share of the title that was watched, or the seconds."""


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
    """Impressions whose title was not played in the same request, within the `window`."""
    where: Where | None = None
    """Further condition on the events with value 0; null never matches."""
    window: Duration | None = None
    """How long after an impression a play of it counts; without it the label's own `window`, or for ever."""
    matures_after: Duration | None = None
    """Younger zeros are unlabelled; without it the label's own `matures_after` counts for them too."""


class LabelSpec(Definition):
    """A label: logged events and the value each teaches. Events it does not speak of are unlabelled."""

    kind: Literal["Label"] = "Label"
    level: Level = "title"
    """What a value is about. Of a `row` or `page` only the first event that the label speaks of is labelled."""
    events: EventRule | None = Field(default=None, alias="from")
    """Rule that picks the events with value 1; or use `extractor`."""
    extractor: ExtractorName | None = None
    """Registered extractor instead of `from`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The extractor's options."""
    window: Duration | None = None
    """How long after an event its outcome counts; the `later_...` columns of `where` need it."""
    matures_after: Duration = Field(default=timedelta(0), validate_default=True)
    """Younger events are unlabelled, never zero. At least the window, and more where records come late."""
    negatives: NegativesSpec = NegativesSpec()

    @field_validator("matures_after")
    @classmethod
    def _after_the_window(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        plugin = _plugin(info.data.get("extractor"))
        window = info.data.get("window") or (plugin.window if plugin else None)
        if window is not None and value < window:
            context = {"value": format_duration(value), "window": format_duration(window)}
            text = "{value} is shorter than the window {window}: a value would be final before its outcome is known"
            hint = f"Make it {context['window']} or more."
            raise PydanticCustomError("matures_after", text, context | {"hint": hint})
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.events is None) == (self.extractor is None):
            raise ValueError("a label needs either 'from' or 'extractor'")
        if self.options and self.extractor is None:
            raise ValueError("'options' belong to an 'extractor'")
        if self.extractor is not None and self.negatives != NegativesSpec():
            raise ValueError("'negatives' belong to 'from'; an extractor gives its own zeros")
        self._check_negatives()
        self._check_outcomes()
        self._check_level()
        self.extractor_options()
        return self

    def _check_negatives(self) -> None:
        window = self.negatives.window or self.window
        if window is not None and self.zeros_mature_after < window:
            what = f"zeros mature after {format_duration(self.zeros_mature_after)}, before the window "
            what += f"{format_duration(window)} has passed"
            hint = f"Make it {format_duration(window)} or more."
            raise _located(("negatives", "matures_after"), what, self.negatives.matures_after, hint)
        if self.events is None or self.events.where is not None or self.negatives.where is not None:
            return
        if both := sorted(set(self.events.action) & set(self.negatives.actions)):
            raise ValueError(
                f"action '{both[0]}' cannot give both ones and zeros without a 'where' that separates them"
            )

    def _check_outcomes(self) -> None:
        wheres = (("from", self.events.where if self.events else None), ("negatives", self.negatives.where))
        for key, where in wheres:
            names = sorted(column_names(parse_where(where)) & OUTCOME_COLUMNS.keys()) if where else []
            if names and self.window is None:
                what = f"'{names[0]}' looks at what comes after an event, so the label needs a 'window'"
                raise _located((key, "where"), what, where, "Add, say, `window: 1d` and `matures_after: 2d`.")

    def _check_level(self) -> None:
        plugin = self.plugin
        if plugin is not None and self.level not in plugin.levels:
            what = f"extractor '{self.extractor}' labels no {self.level}, only {' and '.join(plugin.levels)}"
            raise _located(("level",), what, self.level)

    @property
    def plugin(self) -> ExtractorPlugin | None:
        """The extractor as registered, or None for a label by rule."""
        return _plugin(self.extractor)

    @property
    def attribution_window(self) -> timedelta | None:
        """How long after an event its outcome counts: the label's own `window`, or its extractor's."""
        return self.window or (self.plugin.window if self.plugin else None)

    @property
    def zeros_mature_after(self) -> timedelta:
        """Age below which a zero is unlabelled."""
        return self.matures_after if self.negatives.matures_after is None else self.negatives.matures_after

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


def _plugin(name: str | None) -> ExtractorPlugin | None:
    """Return a registered extractor; a plain `Plugin` of an outside package says nothing of itself."""
    if name is None:
        return None
    found: Plugin = EXTRACTORS[name]
    return found if isinstance(found, ExtractorPlugin) else ExtractorPlugin(found.implementation, found.options)


def _located(loc: tuple[str, ...], what: str, value: Any, hint: str = "") -> ValidationError:
    """Build the error of a check that reads several keys, at the key it is about."""
    error = PydanticCustomError("label", "{what}", {"what": what, "hint": hint})
    return ValidationError.from_exception_data("LabelSpec", [InitErrorDetails(type=error, loc=loc, input=value)])
