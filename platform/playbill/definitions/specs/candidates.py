"""Candidate rules: which titles may be shown."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cached_property
from itertools import product
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from playbill.definitions.specs.base import Duration, Spec, known_or_namespaced
from playbill.errors import did_you_mean
from playbill.schema import KINDS, NAMESPACED

TitleKind = Annotated[
    str,
    known_or_namespaced("kind of title", KINDS),
    WithJsonSchema({"anyOf": [{"enum": list(KINDS)}, {"type": "string", "pattern": f"^{NAMESPACED.pattern}$"}]}),
]
"""What a title is: one of `schema.KINDS`, or a source's own such as `shop.podcast`."""


class PercentileRange(Spec):
    """A range of popularity percentiles at request time; 100 is the most played title."""

    below: float | None = Field(default=None, gt=0, le=100)
    """Only titles under this percentile."""
    above: float | None = Field(default=None, ge=0, lt=100)
    """Only titles over this percentile."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.below is None and self.above is None:
            raise ValueError("needs 'below', 'above' or both")
        if self.below is not None and self.above is not None and self.above >= self.below:
            raise ValueError(f"nothing is above {self.above:g} and below {self.below:g}")
        return self


class YearRange(Spec):
    """A range of years of release."""

    since: int | None = Field(default=None, ge=1800, le=2200)
    """The first year."""
    until: int | None = Field(default=None, ge=1800, le=2200)
    """The last year, which is in the range."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.since is None and self.until is None:
            raise ValueError("needs 'since', 'until' or both")
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError(f"no year is from {self.since} on and until {self.until}")
        return self


class RuntimeRange(Spec):
    """A range of runtimes, in minutes."""

    below: int | None = Field(default=None, ge=1, le=100_000)
    """Only titles that are shorter."""
    above: int | None = Field(default=None, ge=0, le=100_000)
    """Only titles that are longer."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.below is None and self.above is None:
            raise ValueError("needs 'below', 'above' or both")
        if self.below is not None and self.above is not None and self.below - self.above < 2:
            raise ValueError(f"no runtime is above {self.above} and below {self.below} minutes")
        return self


def _known_timezone(name: str) -> str:
    if name not in available_timezones():
        hint = did_you_mean(name, available_timezones(), "Write one such as Europe/Amsterdam.")
        raise PydanticCustomError("timezone", "unknown time zone '{name}'", {"name": name, "hint": hint})
    return name


class TitleRules(Spec):
    """Rules about what a title is, which never changes."""

    kids: bool | None = None
    """true shows only titles marked for kids, false none of them, absent does not ask."""
    kind: tuple[TitleKind, ...] | None = Field(default=None, min_length=1)
    """Only titles of these kinds: `film`, `series`, `game`, or kinds of your own such as `shop.podcast`."""
    genres: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Only titles that have all of these genres."""
    original_language: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Only titles made in one of these languages."""
    origin: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Only titles from one of these countries."""
    characters: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Only titles with one of these characters."""
    released: YearRange | None = None
    """Only titles released in these years."""
    runtime_min: RuntimeRange | None = None
    """Only titles of this runtime in minutes; one whose runtime is not known satisfies no range."""


class HoursSpec(TitleRules):
    """Rules about what a title is that hold in some hours of the day only."""

    begins: int = Field(alias="from", ge=0, le=23)
    """The first hour, such as 22."""
    ends: int = Field(alias="to", ge=0, le=24)
    """The hour in which they hold no more; before `from` it is one of the next day."""
    timezone: Annotated[str, AfterValidator(_known_timezone)] = "UTC"
    """Whose hours are meant, such as `Europe/Amsterdam`; requests say no time zone of their own."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.begins == self.ends % 24:
            raise ValueError(f"no hour is from {self.begins} and to {self.ends}")
        if not self.rules:
            raise ValueError(f"needs a rule that holds then: {', '.join(ABOUT_TITLES)}")
        return self

    @property
    def rules(self) -> dict[str, Any]:
        """The rules by name."""
        return {name: getattr(self, name) for name in ABOUT_TITLES if getattr(self, name) is not None}

    @property
    def hours(self) -> frozenset[int]:
        """The hours of the day in which they hold."""
        last = self.ends if self.ends > self.begins else self.ends + 24
        return frozenset(hour % 24 for hour in range(self.begins, last))

    def hold(self, moment: datetime) -> bool:
        """Say whether they hold at a moment, which has a time zone."""
        return moment.astimezone(ZoneInfo(self.timezone)).hour in self.hours

    def __str__(self) -> str:
        zone = "" if self.timezone == "UTC" else f" in {self.timezone}"
        return f"from {self.begins} to {self.ends} h{zone}"


class CandidatesSpec(TitleRules):
    """Which titles may be shown. Every rule must hold. On a kids' profile all others are hidden, whatever is said."""

    available: Literal["now", "upcoming"] = "now"
    """`now`: in the request's country at the request's time. `upcoming`: announced by then, launching there later."""
    watched: bool | None = None
    """false hides what the member has played, true shows nothing else, absent does not ask."""
    in_progress: bool | None = None
    """true shows only titles whose newest play stopped before the last tenth and that were not abandoned since."""
    on_my_list: bool | None = None
    """true shows only titles on the member's list, false none of them, absent does not ask."""
    finished_before: Duration | None = None
    """Only titles that the member finished, the last time at least this long ago, and has not begun again."""
    exclude_source: bool = False
    """Hide the request's source title."""
    hours: tuple[HoursSpec, ...] = ()
    """Further rules for some hours of the day of the request: `[{from: 22, to: 5, runtime_min: {below: 45}}]`."""
    popularity_percentile: PercentileRange | None = None
    """Only titles within this range of popularity."""
    top_in_country: int | None = Field(default=None, ge=1, le=1000)
    """Only so many titles: those played most in the request's country in the last seven days."""
    launched_within: Duration | None = None
    """Only titles whose launch in the country is at most this long ago."""
    launched_before: Duration | None = None
    """Only titles whose launch in the country is at least this long ago."""
    launches_within: Duration | None = None
    """Only titles that launch in the country at most this long from now."""
    launches_after: Duration | None = None
    """Only titles that launch in the country more than this long from now."""

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        ahead = [name for name in _AHEAD if getattr(self, name) is not None]
        behind = [name for name in _BEHIND if getattr(self, name) is not None]
        if ahead and self.available == "now":
            raise ValueError(f"'{ahead[0]}' is about upcoming launches: it needs available: upcoming")
        if behind and self.available == "upcoming":
            raise ValueError(f"'{behind[0]}' is about titles that have launched: it needs available: now")
        self._check_hours()
        played = [name for name in ("in_progress", "finished_before") if getattr(self, name)]
        if played and self.watched is False:
            raise ValueError(f"nothing satisfies both '{played[0]}' and watched: false")
        if len(played) == 2:
            raise ValueError("nothing satisfies both 'in_progress' and 'finished_before'")
        for low, high in (("launched_before", "launched_within"), ("launches_after", "launches_within")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least >= most:
                raise ValueError(f"no launch satisfies both '{low}' and '{high}'")
        return self

    def written(self, names: str) -> str:
        """Return rules as YAML has them, `kids: true`; what names no key is returned as it is."""
        given = self.model_dump(mode="json", exclude_none=True)
        keys = [name for name in names.split(", ") if name in given]
        return (
            ", ".join(f"{name}: {json.dumps(given[name], ensure_ascii=False).replace(chr(34), '')}" for name in keys)
            or names
        )

    def _check_hours(self) -> None:
        for place, one in enumerate(self.hours):
            if both := [name for name in one.rules if getattr(self, name) is not None]:
                raise ValueError(f"'{both[0]}' is given for all hours and for those {one}: leave one of them out")
            for other in self.hours[:place]:
                apart = other.timezone == one.timezone and not one.hours & other.hours
                if not apart and (both := [name for name in one.rules if name in other.rules]):
                    raise ValueError(f"'{both[0]}' is given {other} and {one}, which overlap")

    def at(self, moment: datetime) -> CandidatesSpec:
        """Return the rules that hold at a moment, without any about hours."""
        return self._during[tuple(one.hold(moment) for one in self.hours)] if self.hours else self

    @cached_property
    def _during(self) -> dict[tuple[bool, ...], CandidatesSpec]:
        found = {}
        for held in product((False, True), repeat=len(self.hours)):
            rules = [one.rules for one, holds in zip(self.hours, held, strict=True) if holds]
            update = {name: value for own in rules for name, value in own.items()}
            found[held] = self.model_copy(update={**update, "hours": ()})
        return found

    @property
    def personal(self) -> bool:
        """Whether a rule asks for the member's own past."""
        return any(getattr(self, name) is not None for name in ("in_progress", "on_my_list", "finished_before"))

    @cached_property
    def about_titles(self) -> dict[str, CandidatesSpec]:
        """Each rule about what a title is (kids, kind, genres, ...), which never changes, by itself."""
        requested = {name: getattr(self, name) for name in ABOUT_TITLES if getattr(self, name) is not None}
        return {name: CandidatesSpec(**{name: value}) for name, value in requested.items()}


ABOUT_TITLES = tuple(TitleRules.model_fields)
"""Rules about what a title is."""
ABOUT_LAUNCHES = ("launched_within", "launched_before", "launches_within", "launches_after")
"""Rules about how long ago a title launched, or how far ahead that is."""
_AHEAD = ("launches_within", "launches_after")
_BEHIND = ("launched_within", "launched_before", "in_progress", "finished_before", "top_in_country")
