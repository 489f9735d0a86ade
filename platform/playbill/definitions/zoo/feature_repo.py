"""The names feature_repo/ defines, read from its text: Feast takes seconds to import, a check may not."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playbill.definitions.zoo.feature_definitions import (
    DECORATORS,
    EXTENDED,
    SERVICE,
    VIEWS,
    called,
    keyword,
    python_files,
    service_problems,
)
from playbill.definitions.zoo.yaml_tree import SourcePlace, problem
from playbill.errors import Problem

_TAKEN = sys.stdlib_module_names | {
    *("feast", "numpy", "pandas", "pyarrow", "playbill", "sqlalchemy", "yaml", "click", "pydantic")
}


@dataclass(frozen=True, slots=True)
class FeatureNames:
    """What feature_repo/ defines."""

    services: frozenset[str]
    views: frozenset[str]
    computed: tuple[str, ...] = ()
    """Places of names that are not literal, so that only Feast knows them."""


def scan_feature_repo(folder: Path, problems: list[Problem]) -> FeatureNames:
    """Read the names of feature services and views. Mistakes are appended to `problems`.

    A file named like a module that Python has already imported is a mistake: `feast apply` skips it silently.
    """
    found: dict[str, set[str]] = {"service": set(), "view": set()}
    computed: list[str] = []
    for path in python_files(folder):
        relative = path.relative_to(folder)
        shown = f"{folder.name}/{relative.as_posix()}"
        if len(relative.parts) == 1 and path.stem in _TAKEN:
            what = f"a file called {path.name} is silently skipped by Feast, Python has a module of that name"
            problems.append(problem(SourcePlace(shown, 1, 1), (), what, "Rename it."))
        tree = _parse(path, shown, problems)
        if tree is None:
            continue
        constants = _constants(tree)
        for kind, node, name in _definitions(tree):
            literal = _literal(name, constants)
            if literal is None:
                computed.append(f"{shown}:{node.lineno}")
            else:
                found[kind].add(literal)
    problems.extend(service_problems(folder))
    return FeatureNames(frozenset(found["service"]), frozenset(found["view"]), tuple(computed))


def _parse(path: Path, shown: str, problems: list[Problem]) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        place = SourcePlace(shown, error.lineno or 1, error.offset or 1)
        problems.append(problem(place, (), f"Python syntax: {error.msg}"))
    except (ValueError, OSError) as error:
        problems.append(problem(SourcePlace(shown, 1, 1), (), f"cannot be read: {error}"))
    return None


def _constants(tree: ast.Module) -> dict[str, str]:
    constants: dict[str, str] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                constants[name] = text
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(text))):
                constants[name] = text
    return constants


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.expr | ast.stmt, ast.expr | None]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=function) if called(function) in {SERVICE, *VIEWS}:
                kind = "service" if called(function) == SERVICE else "view"
                yield kind, node, keyword(node, "name") or (node.args[0] if node.args else None)
            case ast.Call(func=ast.Name(id=function), args=[_, *own]) if function == EXTENDED:
                yield "service", node, keyword(node, "name") or (own[0] if own else None)
            case ast.FunctionDef(name=name, decorator_list=decorators):
                for decorator in decorators:
                    function = decorator.func if isinstance(decorator, ast.Call) else decorator
                    if called(function) in DECORATORS:
                        given = keyword(decorator, "name") if isinstance(decorator, ast.Call) else None
                        yield "view", node, given or ast.Constant(name)


def _literal(name: ast.expr | None, constants: dict[str, str]) -> str | None:
    match name:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=variable):
            return constants.get(variable)
    return None
