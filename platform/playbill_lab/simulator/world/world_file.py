"""A simulated world as written in a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playbill.errors import ConfigError, DefinitionError, Problem
from playbill.zoo.nodes import Node, read_yaml
from playbill_lab.simulator.world.spec import WorldSpec, default_countries, read_spec

WORLDS = Path(__file__).with_name("worlds")
"""Worlds that can be named instead of a file."""


def named_worlds() -> tuple[str, ...]:
    """Return the names of the worlds that come with Playbill."""
    return tuple(sorted(path.stem for path in WORLDS.glob("*.yaml")))


def read_world_file(path: Path, given: dict[str, Any]) -> WorldSpec:
    """Read a world.

    Args:
        path: YAML with the fields of `WorldSpec`, or one of `named_worlds`.
        given: Fields that replace those of the file.

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


def _placed(node: Node, problem: Problem, given: dict[str, Any]) -> tuple[tuple[int, int], Problem]:
    """Return a problem with its place, and line and column to sort by: what options replaced comes first."""
    path = [int(part) if part.isdigit() else part for part in problem.where.split(".")]
    if path[0] in given:
        return (0, 0), problem
    place = node.key_place(path)
    return (place.line, place.column), Problem(f"{place}: {problem.where}", problem.what, problem.hint)
