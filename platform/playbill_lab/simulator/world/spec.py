"""What a simulated world is made of: its size, its time, its countries, and the policy that fills its pages.

A simulated world as written in a YAML file.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field, NonNegativeFloat, PositiveInt, ValidationError

from playbill.definitions.specs.base import Spec
from playbill.definitions.zoo.yaml_tree import YamlNode, read_yaml
from playbill.errors import ConfigError, DefinitionError, Problem, nearest
from playbill_lab.simulator.policies.table import PolicyReference

Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[float, Field(ge=-20, le=20)]  # Log odds; beyond these bounds nothing is left to chance


class CountrySpec(Spec):
    """A country: who lives there, when the service opens there, and how much of the catalogue it has."""

    code: str = Field(pattern=r"^[A-Z]{2}$")
    """ISO 3166 code."""
    languages: tuple[str, ...] = Field(min_length=1)
    """Languages spoken, the main one first."""
    launch_day: int = 0
    """Day of the run on which the service opens there; 0 or less: it is open from the start."""
    members_share: float = Field(gt=0, le=1, default=0.1)
    """Part of all members, before the parts of all countries are brought to a sum of 1."""
    catalogue_share: float = Field(gt=0, le=1, default=0.9)
    """Part of the titles of the world that are licensed there."""
    utc_offset_hours: float = Field(ge=-12, le=14, default=0)
    """Local time minus UTC."""


class EffectsSpec(Spec):
    """Sizes of effects that a world may have beside the plain law; 0 leaves one out.

    Log odds where nothing else is said. Shapes are in `simulator.effects`.
    """

    device_length: Size = 0
    """Of a click, for each standard deviation of a sitting's length: more on a TV, less on a phone."""
    evening_films: Size = 0
    """Of long films on a TV between 19 and 23 o'clock, for each standard deviation above the mean length."""
    hour_genre: Size = 0
    """Of a genre at its hour of the local day: animation in the morning, horror past midnight."""
    weekday_kind: Size = 0
    """Of films at the weekend and of series during the week."""
    season_genre: Size = 0
    """Of a genre at its time of the year: horror late in October, family titles in December."""
    device_rows: Size = 0
    """Of rows that draw more on one device than on another."""
    device_look: Size = 0
    """Of looking further along a list on a TV than on a phone; of scrolling further down it is the opposite."""
    households: Share = 0
    """Part of the variance of taste that is another person's wherever a member's device is no TV."""
    franchise_share: Share = 0
    """Part of the generated films that belong to a franchise of two to six parts."""
    sequel: Size = 0
    """Of the next part of what was finished last; less of what was finished before that."""
    out_of_order: Size = 0
    """Taken from a part whose part before was never played."""
    momentum: Size = 0
    """Of titles like those finished last, for each standard deviation of likeness."""
    service_sequels: Size = 0
    """What the service's own policy adds to the log odds of showing the next part."""


def default_countries(days: int) -> tuple[CountrySpec, ...]:
    """Return six countries that are open from the start, and two that open during a run of `days`."""
    rows = (
        ("US", ("en", "es"), 0.34, 1.0, -6.0, 0),
        ("GB", ("en",), 0.13, 0.95, 0.0, 0),
        ("DE", ("de", "en"), 0.12, 0.9, 1.0, 0),
        ("BR", ("pt",), 0.12, 0.85, -3.0, 0),
        ("FR", ("fr",), 0.1, 0.85, 1.0, 0),
        ("JP", ("ja",), 0.08, 0.75, 9.0, 0),
        ("IN", ("hi", "en"), 0.07, 0.7, 5.5, days // 6),
        ("PL", ("pl",), 0.04, 0.6, 1.0, 2 * days // 5),
    )
    return tuple(
        CountrySpec(
            code=code,
            languages=languages,
            members_share=members,
            catalogue_share=catalogue,
            utc_offset_hours=offset,
            launch_day=opens,
        )
        for code, languages, members, catalogue, offset, opens in rows
    )


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


class WorldSpec(Spec):
    """A simulated streaming service. Equal specs make equal worlds, to the bit."""

    seed: int = Field(default=7, ge=0, lt=2**31)
    """Every random stream of the world and of a run starts from it."""
    members: PositiveInt = 1000
    """Members in all, those included who join during the run."""
    titles: PositiveInt = 600
    """Titles in all, those included that launch during the run and after it."""
    days: PositiveInt = 28
    """Length of the run in days."""
    start: Annotated[AwareDatetime, AfterValidator(_utc)] = datetime(2025, 1, 6, tzinfo=UTC)
    """First moment of the run."""
    countries: tuple[CountrySpec, ...] = Field(
        default_factory=lambda given: default_countries(given.get("days", 28)), min_length=1
    )
    """Where the service is, or will be; eight countries where none are given, two of which open during the run."""
    factors: PositiveInt = 16
    """Length F of taste and title vectors."""
    launches_per_week: NonNegativeFloat = 6.0
    """New titles a week during the run."""
    joining_share: Share = 0.2
    """Part of the members of an open country who join during the run."""
    kids_share: Share = 0.08
    """Part of the members whose profile is a kids' one."""
    sessions_per_day: float = Field(default=0.18, gt=0, le=4)
    """Visits a day of the mean member who is neither glad nor sorry."""
    value_days: PositiveInt = 365
    """Days after the end that count in a member's long-term value."""
    effects: EffectsSpec = EffectsSpec()
    """Effects of device, hour, season, franchises and what was finished last; none of them where nothing is given."""
    policy: PolicyReference = "plackett_luce"
    """Registered policy, or `module:attribute` of your own, that fills the pages where `simulate` is given no other."""

    @property
    def end(self) -> datetime:
        """The first moment after the run."""
        return self.start + timedelta(days=self.days)


def read_spec(given: dict[str, Any]) -> WorldSpec:
    """Check a world given as plain values.

    Raises:
        DefinitionError: Anything is wrong; every mistake is named, with the nearest right name.
    """
    problems: list[Problem] = []
    spec: WorldSpec | None = None
    try:
        spec = WorldSpec.model_validate(given)
    except ValidationError as error:
        problems += [_problem(dict(item)) for item in error.errors()]
    problems += spec_problems(spec) if spec else _loose_problems(given)
    if problems or spec is None:
        raise DefinitionError("the simulated world", problems)
    return spec


def check_spec(spec: WorldSpec) -> None:
    """Check what spans fields.

    Raises:
        DefinitionError: A country opens after the end, is named twice, or none is open at the start.
    """
    if problems := spec_problems(spec):
        raise DefinitionError("the simulated world", problems)


def spec_problems(spec: WorldSpec) -> list[Problem]:
    """Return every mistake that spans fields of a spec."""
    return _country_problems([country.model_dump() for country in spec.countries], spec.days)


def _loose_problems(given: dict[str, Any]) -> list[Problem]:
    """Look for mistakes between fields even where others are broken, so that all come together."""
    countries, days = given.get("countries", ()), given.get("days", 28)
    rows = [row if isinstance(row, dict) else row.model_dump() for row in countries if isinstance(row, dict | Spec)]
    return _country_problems(rows, days) if isinstance(days, int) and days > 0 else []


def _country_problems(countries: list[dict[str, Any]], days: int) -> list[Problem]:
    problems, seen = [], set()
    opens = [row.get("launch_day", 0) for row in countries if isinstance(row.get("launch_day", 0), int)]
    for number, row in enumerate(countries):
        code, day = row.get("code"), row.get("launch_day", 0)
        if code in seen:
            problems.append(Problem(f"countries.{number}.code", f"'{code}' is listed twice."))
        seen.add(code)
        if isinstance(day, int) and day >= days:
            what = f"'{code}' opens on day {day}, but the run ends after day {days - 1}."
            problems.append(Problem(f"countries.{number}.launch_day", what, f"At most {days - 1}."))
    if opens and min(opens) > 0:
        what = f"no country is open on the first day; the earliest opens on day {min(opens)}."
        problems.append(Problem("countries", what, "Give one launch_day 0."))
    return problems


def _problem(item: dict[str, Any]) -> Problem:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return Problem(place, f"{item['msg']}.", (item.get("ctx") or {}).get("hint", ""))
    nested: dict[str, type[Spec]] = {"countries": CountrySpec, "effects": EffectsSpec}
    fields = (nested[item["loc"][0]] if item["loc"][0] in nested and len(item["loc"]) > 1 else WorldSpec).model_fields
    close = nearest(str(item["loc"][-1]), fields)
    return Problem(place, "unknown key.", f"Did you mean '{close}'?" if close else f"Known: {', '.join(fields)}.")


WORLDS = Path(__file__).with_name("worlds")  # Worlds that can be named instead of a file


def named_worlds() -> tuple[str, ...]:
    """Return the names of the worlds that come with Playbill."""
    return tuple(sorted(path.stem for path in WORLDS.glob("*.yaml")))


def read_world_file(path: Path, given: dict[str, Any]) -> WorldSpec:
    """Read a world from YAML, or one of `named_worlds`; fields of `given` replace the file's.

    Raises:
        ConfigError: There is no such file.
        DefinitionError: It has mistakes; all are named, with their places.
    """
    if not path.is_file() and str(path) in named_worlds():
        path = WORLDS / f"{path}.yaml"
    if not path.is_file():
        raise ConfigError(f"world file {path} does not exist; worlds known by name: {', '.join(named_worlds())}")
    problems: list[Problem] = []
    node = read_yaml(path, str(path), problems)
    if problems or node is None:
        raise DefinitionError("the simulated world", problems)
    if not isinstance(node.value, dict):
        raise DefinitionError("the simulated world", [Problem(str(node.place), "a world is a mapping of its fields.")])
    plain = node.plain()
    try:
        return read_spec({**plain, **given})
    except DefinitionError as error:
        placed = sorted((_placed(node, problem, given) for problem in error.problems), key=lambda pair: pair[0])
        raise DefinitionError("the simulated world", [problem for _, problem in placed]) from None


def chosen_countries(codes: str, days: int) -> tuple[dict[str, Any], ...]:
    """Return some of the default countries by comma-separated codes, as plain values.

    Raises:
        DefinitionError: Codes that are none of theirs; all are named.
    """
    known = {country.code: country for country in default_countries(days)}
    wanted = [code.strip().upper() for code in codes.split(",") if code.strip()]
    problems = [
        Problem(
            f"--countries {code}", "not one of the default countries.", f"Known: {', '.join(known)}; others: --world."
        )
        for code in wanted
        if code not in known
    ]
    if problems or not wanted:
        raise DefinitionError("the simulated world", problems or [Problem("--countries", "no country is named.")])
    return tuple(known[code].model_dump() for code in wanted)


def _placed(node: YamlNode, problem: Problem, given: dict[str, Any]) -> tuple[tuple[int, int], Problem]:
    """Return a problem with its place, and line and column to sort by: what options replaced comes first."""
    path = [int(part) if part.isdigit() else part for part in problem.where.split(".")]
    if path[0] in given:
        return (0, 0), problem
    place = node.key_place(path)
    return (place.line, place.column), Problem(f"{place}: {problem.where}", problem.what, problem.hint)
