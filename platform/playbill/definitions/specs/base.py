"""The pieces every definition is made of: the base class, names, references, durations and percentages.

Options that a registered plugin checks by a spec of its own: `type`, and what belongs to it.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, PydanticOmit

from playbill.errors import did_you_mean
from playbill.registry import Plugin, Registry
from playbill.schema import NAMESPACED

NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
REFERENCE_PATTERN = r"^[a-z][a-z0-9_]*(:[1-9][0-9]*)?$"
CANVAS_NAME_PATTERN = r"^([a-z][a-z0-9_]*\.)?[a-z][a-z0-9_]*$"
CANVAS_REFERENCE_PATTERN = r"^([a-z][a-z0-9_]*\.)?[a-z][a-z0-9_]*(:[1-9][0-9]*)?$"
MODEL_REFERENCE_PATTERN = r"^[a-z][a-z0-9_]*(:[1-9][0-9]*|@[a-z][a-z0-9_]*)?$"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PERCENT = re.compile(r"[+-]?\d+(?:\.\d+)?%")
_LONGEST = timedelta(days=36_500)
_PERCENT_RANGE = (-1.0, 10.0)


class Spec(BaseModel):
    """An immutable piece of a definition. An unknown key is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def added_later(default: Any, **limits: Any) -> Any:
    """Return a field that definitions and checkpoints lacked at first.

    Where it has its default it is in no JSON, so the hash of what was written before it is what it was.
    """
    return Field(default=default, exclude_if=lambda value: value == default, **limits)


class Unfinished:
    """Hides a key from the JSON schemas and the reference until something acts on it; definitions may have it."""

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> Any:
        raise PydanticOmit


UNFINISHED = Unfinished()

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Lower-case letters, digits and `_`, starting with a letter."""

Reference = Annotated[str, Field(pattern=REFERENCE_PATTERN)]
"""Another definition: `name` means its newest version, `name:2` that one."""

CanvasName = Annotated[str, Field(pattern=CANVAS_NAME_PATTERN)]
"""A canvas: a name, or one of a source's own surfaces with its namespace, such as `kuairand.tab_1`."""

CanvasReference = Annotated[str, Field(pattern=CANVAS_REFERENCE_PATTERN)]
"""A canvas definition: `home`, `home:2`, `kuairand.tab_1`."""

ModelReference = Annotated[str, Field(pattern=MODEL_REFERENCE_PATTERN)]
"""A trained model: `name`, `name:2`, or `name@alias`, resolved once at the start of a run."""


class Definition(Spec):
    """What every file of the zoo says about itself. Subclasses fix `kind`."""

    name: Name
    """What other files call it."""
    version: PositiveInt
    """Raised by one whenever the content of a published version would change."""
    description: str | None = None
    """One or two sentences for readers."""

    @property
    def reference(self) -> str:
        """`name:version`."""
        return f"{self.name}:{self.version}"


def split_reference(reference: str) -> tuple[str, int | None]:
    """Split `name:2` into ("name", 2) and `name` into ("name", None)."""
    name, _, version = reference.partition(":")
    return name, int(version) if version else None


def parse_duration(value: Any) -> Any:
    """Read `90s`, `30m`, `24h`, `7d` or `2w`, up to a hundred years. A timedelta is returned as it is."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise PydanticCustomError(
            "duration", "'{value}' is no duration, expected one such as 24h or 7d", {"value": value}
        )
    try:
        length = timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        length = timedelta.max
    if length > _LONGEST:
        context = {"value": value, "longest": format_duration(_LONGEST)}
        raise PydanticCustomError("duration", "'{value}' is too long, at most {longest}", context)
    return length


def format_duration(value: timedelta) -> str:
    """Write a duration in the largest unit that needs no fraction."""
    seconds = value.total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


def parse_percent(value: Any, info: ValidationInfo) -> Any:
    """Read `-0.5%` as -0.005 and `+2%` as 0.02. The sign is required: it says which way a change may go.

    Records of registered versions are JSON and write +2% as `2%`, so only definitions are held to the sign.
    """
    if not isinstance(value, str) or not _PERCENT.fullmatch(value):
        raise PydanticCustomError("percent", "'{value}' is no percentage, expected one such as -0.5%", {"value": value})
    fraction = float(value[:-1]) / 100
    if fraction and value[0] not in "+-" and info.mode == "python":
        hint = f"Write -{value} (may be {value} lower) or +{value} (must be {value} higher)."
        raise PydanticCustomError("percent", "'{value}' needs a sign", {"value": value, "hint": hint})
    low, high = _PERCENT_RANGE
    if not low <= fraction <= high:
        hint = f"From {format_percent(low)} to +{format_percent(high)}."
        raise PydanticCustomError("percent", "'{value}' is out of range", {"value": value, "hint": hint})
    return fraction


def format_percent(value: float) -> str:
    """Write -0.005 as `-0.5%`."""
    return f"{value * 100:.10g}%"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": rf"^{_DURATION.pattern}$", "examples": ["24h", "7d"]}),
]
"""A length of time such as `24h` or `7d`."""

Percent = Annotated[
    float,
    BeforeValidator(parse_percent),
    PlainSerializer(format_percent, return_type=str),
    WithJsonSchema({"type": "string", "pattern": rf"^{_PERCENT.pattern}$", "examples": ["-0.5%"]}),
]
"""A relative change such as `-0.5%`, held as a fraction."""

Size = Annotated[int, Field(ge=1, le=4096)]
"""Width or number of parts of a network."""

Weight = Annotated[float, Field(ge=-1000, le=1000)]
"""How much one term of a sum counts."""

Rate = Annotated[float, Field(gt=0, le=1)]
"""A learning rate."""


def unknown_name(kind: str, name: str, known: tuple[str, ...]) -> PydanticCustomError:
    """Build the error for a name that is not registered, with the nearest one that is."""
    hint = did_you_mean(name, known, f"Known: {', '.join(known) or 'none'}.")
    return PydanticCustomError("unknown_name", "unknown {kind} '{name}'", {"kind": kind, "name": name, "hint": hint})


def require_registered(registry: Registry, name: str) -> str:
    """Return a name that is in `registry`, or raise `unknown_name`. Nothing is imported to decide it."""
    if name not in registry:
        raise unknown_name(registry.kind, name, registry.names())
    return name


def registered(registry: Registry) -> AfterValidator:
    """Return the validator of a name that must be in `registry`."""
    return AfterValidator(lambda name: require_registered(registry, name))


def known_or_namespaced(kind: str, known: tuple[str, ...]) -> AfterValidator:
    """Return the validator of a name among `known`, or a source's own with a namespace."""

    def check(name: str) -> str:
        if name not in known and not NAMESPACED.fullmatch(name):
            raise unknown_name(kind, name, known)
        return name

    return AfterValidator(check)


Options = TypeVar("Options", bound=Spec)


def read_options(
    value: Any, registry: Registry, plain: type[Options], default: str | None = None, key: str = "type"
) -> Any:
    """Check options by the spec that their type registers; a bare name takes its defaults.

    Args:
        value: A name or a mapping; anything else is left to the field's own check.
        registry: Of the types.
        plain: Spec of a type that registers none.
        default: The type where the key is absent.
        key: Of the type.
    """
    if isinstance(value, str):
        value = {key: value}
    name = value.get(key, default) if isinstance(value, dict) else None
    if not isinstance(name, str):
        return value
    options: type[Options] | None = registry[require_registered(registry, name)].load_options()
    return (options or plain).model_validate(value)


def plugin_options(plugin: Plugin, options: dict[str, Any], what: str) -> Any | None:
    """Return a plugin's options, checked by the spec it registers, or None where it takes none.

    Raises:
        pydantic.ValidationError: An option is wrong; its place begins with `options`.
        PydanticCustomError: The plugin, which is called `what`, takes no options and is given some.
    """
    spec = plugin.load_options()
    if spec is None:
        if options:
            raise PydanticCustomError("options", f"{what} takes no options")
        return None
    try:
        return spec.model_validate(options)
    except ValidationError as error:
        raise ValidationError.from_exception_data(error.title, [_below(item) for item in error.errors()]) from None


def _below(item: ErrorDetails) -> InitErrorDetails:
    text = PydanticCustomError("options", "{text}", {"text": item["msg"]})
    return InitErrorDetails(type=text, loc=("options", *item["loc"]), input=item["input"])
