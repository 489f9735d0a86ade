"""Errors of the Feast stores raised as Playbill's, with text and cause unchanged: the one place that knows both trees.

The stores (`playbill_feast`) work without Playbill and have errors of their own. Whatever reaches them, through Feast
or past it, does so inside `store_errors`; classes and functions that others call are decorated with `at_the_door`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from inspect import isfunction
from typing import ParamSpec, TypeVar

from playbill.errors import (
    ConfigError,
    DataError,
    IntegrityError,
    PlaybillError,
    Problem,
    ServiceError,
    StateError,
    UnknownNameError,
)
from playbill_feast.errors import (
    StoreConfigError,
    StoreDataError,
    StoreError,
    StoreIntegrityError,
    StoreServiceError,
    StoreStateError,
    UnknownFeatureError,
)
from playbill_feast.offline import scan_filter

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Door = TypeVar("Door", bound=type)

_WITH_A_TEXT: dict[type[StoreError], type[PlaybillError]] = {
    StoreConfigError: ConfigError,
    StoreStateError: StateError,
    StoreServiceError: ServiceError,
    StoreIntegrityError: IntegrityError,
}


def product_error(error: StoreError) -> PlaybillError:
    """Return Playbill's error for one of the stores', with the same text."""
    if isinstance(error, UnknownFeatureError):
        return UnknownNameError(error.kind, error.name, error.known)
    if isinstance(error, StoreDataError):
        return DataError(error.subject, [Problem(one.where, one.what, one.hint) for one in error.problems])
    for theirs, ours in _WITH_A_TEXT.items():
        if isinstance(error, theirs):
            return ours(str(error))
    return PlaybillError(str(error))


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise what the stores raise inside the block as Playbill's errors, with the same cause."""
    try:
        yield
    except StoreError as error:
        raise product_error(error).with_traceback(error.__traceback__) from error.__cause__


def raises_product_errors(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a function that does the same and raises Playbill's errors alone."""

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with store_errors():
            return function(*args, **kwargs)

    return call


def at_the_door(door: Door) -> Door:
    """Let a class's constructor and public methods raise Playbill's errors alone. The class is changed in place."""
    for name, member in list(vars(door).items()):
        if isfunction(member) and (name == "__init__" or not name.startswith("_")):
            setattr(door, name, raises_product_errors(member))
    return door


@contextmanager
def as_known_on(moment: datetime | None) -> Iterator[None]:
    """Read features as they were known at `moment`; see `playbill_feast.offline.scan_filter.as_known_on`."""
    with store_errors(), scan_filter.as_known_on(moment):
        yield
