"""Labels: which events teach a head, and with what value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from pydantic_core import InitErrorDetails, PydanticCustomError

from playbill.definitions.specs.base import (
    Definition,
    Duration,
    Spec,
    format_duration,
    known_or_namespaced,
    plugin_options,
    registered,
)
from playbill.definitions.specs.where import WhereError, column_names, parse_where
from playbill.registry import Plugin, Registry
from playbill.schema import ACTIONS, OUTCOME_COLUMNS

Level = Literal["title", "row", "page"]
"""What a label speaks about: a title, a row of a page, a page."""


@dataclass(frozen=True, slots=True)
class ExtractorPlugin(Plugin):
    """A registered label extractor: what it needs, and how it is called (`playbill.labels.label_extractor`)."""

    version: int = 1
    """Raised when it gives other values than before."""
    inputs: tuple[str, ...] = ()
    """Columns of `interactions` it reads beside those every label reads."""
    tables: tuple[str, ...] = ()
    """Which of `titles` and `availability` it reads."""
    window: timedelta | None = None
    """How long after an event its outcome counts, where the label does not say."""
    levels: tuple[Level, ...] = ("title", "row", "page")
    """What its values may be about."""
    actions: tuple[str, ...] = ()
    """Actions of the events it gives values to, for counts of those it leaves out; none is any."""
    function: Callable[..., Any] | None = None
    """The implementation, where a decorator has it at hand."""
    spec: type[Spec] | None = None
    """The options spec, likewise."""

    def load(self) -> Any:
        """Return the implementation, imported where it is not at hand."""
        return self.function or Plugin.load(self)

    def load_options(self) -> Any | None:
        """Return the options spec, or None when the extractor takes none."""
        return self.spec or Plugin.load_options(self)

    def __call__(self, *arguments: Any) -> Any:
        """Call the implementation, so that a decorated function can still be used as one."""
        return self.load()(*arguments)


EXTRACTORS = Registry(
    "label extractor",
    "playbill.labels",
    {
        "acted_on": ExtractorPlugin(
            "playbill.labels.built_in_extractors:acted_on",
            options="playbill.definitions.specs.label:ActedOnOptions",
            inputs=("request_id",),
            window=timedelta(days=1),
            levels=("title",),
            actions=("impression",),
        ),
        "measured": ExtractorPlugin(
            "playbill.labels.built_in_extractors:measured",
            options="playbill.definitions.specs.label:MeasuredOptions",
            inputs=("progress", "duration_s"),
            levels=("title",),
        ),
        "played_from": ExtractorPlugin(
            "playbill.labels.built_in_extractors:played_from",
            inputs=("request_id",),
            window=timedelta(days=1),
            levels=("row", "page"),
            actions=("impression",),
        ),
        "visit_continues": ExtractorPlugin(
            "playbill.labels.built_in_extractors:visit_continues",
            inputs=("request_id", "session_id"),
            window=timedelta(days=1),
            levels=("page",),
            actions=("impression",),
        ),
    },
)
"""Label extractors, called as `extract(events, context)`; see `playbill.labels.extractors`."""

ExtractorName = Annotated[str, registered(EXTRACTORS)]


Action = Annotated[str, known_or_namespaced("action", ACTIONS)]
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
        plugin = self.plugin
        return None if plugin is None else plugin_options(plugin, self.options, f"extractor '{self.extractor}'")


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
