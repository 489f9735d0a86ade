"""Feast, imported in a quarter of its time: types are checked where definitions are read, and not where they are used.

Feast decorates its classes with typeguard's `typechecked`, which compiles a whole module anew for each method: 3.3 of
the 4.2 s of CPU of `import feast`. Here a method is compiled that way at its first call within `types_checked`, which
is entered around the code of `feature_repo/`; any other call goes to the plain method.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from importlib import import_module
from importlib.util import find_spec
from inspect import iscoroutinefunction, isfunction, isgeneratorfunction
from types import FunctionType
from typing import Any

from playbill.errors import ConfigError

_checked: ContextVar[bool] = ContextVar("types of Feast's arguments are checked", default=False)


def import_feast() -> None:
    """Import Feast, if it is not imported yet.

    Raises:
        ConfigError: It is not installed.
    """
    if "feast" in sys.modules:
        return
    if find_spec("feast") is None:
        raise ConfigError("Feast is not installed. Run `pip install 'playbill[features]'`.")
    typeguard: Any = import_module("typeguard")
    eager = typeguard.typechecked
    typeguard.typechecked = lambda target: late(target, eager) if isinstance(target, type) else eager(target)
    try:
        import_module("feast")
    finally:
        typeguard.typechecked = eager


@contextmanager
def types_checked() -> Iterator[None]:
    """Check the types of everything that is handed to Feast's classes in this block, as Feast itself always does."""
    token = _checked.set(True)
    try:
        yield
    finally:
        _checked.reset(token)


def late(target: type, check: Callable[[Any], Any]) -> type:
    """Let methods of a class, changed in place, be checked (by what `check` makes of them) in `types_checked` alone."""
    for name, member in list(vars(target).items()):
        if isinstance(member, classmethod | staticmethod):
            changed: Any = type(member)(_late(target, member.__func__, check))
        elif isinstance(member, property):
            get, put, remove = (_late(target, part, check) for part in (member.fget, member.fset, member.fdel))
            changed = type(member)(get, put, remove, member.__doc__)
        else:
            changed = _late(target, member, check)
        if changed is not member:
            setattr(target, name, changed)
    return target


def _late(target: type, plain: Any, check: Callable[[Any], Any]) -> Any:
    """Return a function of a class that is checked when it has to be; anything else as it is."""
    if not isfunction(plain) or hasattr(plain, "__wrapped__") or not _own(target, plain):
        return plain
    if iscoroutinefunction(plain) or isgeneratorfunction(plain):
        return check(plain)
    made: list[Any] = []
    checking, quiet = _checked.get, _unlocated

    def call(*args: Any, **kwargs: Any) -> Any:
        if not checking():
            return plain(*args, **kwargs)
        if not made:
            with quiet():
                made.append(check(plain))
        return made[0](*args, **kwargs)

    # Under the plain function's globals: what Feast warns its caller of stays a warning of Feast's module.
    theirs = FunctionType(call.__code__, plain.__globals__, plain.__name__, None, call.__closure__)
    return update_wrapper(theirs, plain)


@contextmanager
def _unlocated() -> Iterator[None]:
    """Pass over what typeguard warns of: a method that a dataclass wrote has no source to compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _own(target: type, function: Any) -> bool:
    """Whether a function was written in a class, as against put into it, such as a dataclass's `__init__`."""
    module, name = function.__module__, function.__qualname__
    return bool(module == target.__module__ and name.startswith(f"{target.__qualname__}."))
