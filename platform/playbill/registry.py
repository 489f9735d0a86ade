"""Explicit, lazy tables of plug-ins: a short name -> its options and its implementation.

Options live in modules free of torch, Ray, Feast and MLflow, so a definition is checked without importing
them. The implementation is imported on first use. Outside packages add names through entry points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from playbill.errors import ConfigError, DuplicateNameError, PlaybillError, UnknownNameError


def load_object(path: str) -> Any:
    """Import `package.module:attribute`. Only for paths written in our own tables, never in YAML."""
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


@dataclass(frozen=True, slots=True)
class Plugin:
    """One registered name: where its options spec and its implementation are, as `module:attribute`."""

    implementation: str
    options: str | None = None

    def load(self) -> Any:
        """Import and return the implementation."""
        return load_object(self.implementation)

    def load_options(self) -> Any | None:
        """Import and return the options spec, or None when the plug-in takes none."""
        return load_object(self.options) if self.options else None


class Registry:
    """The plug-ins of one kind, by short name.

    Args:
        kind: What one of them is called in messages, such as "trunk".
        group: Entry-point group for outside packages, such as "playbill.trunks". An outside entry point
            names a `Plugin` object, so its options stay importable without its implementation.
        table: The plug-ins that ship with Playbill.
    """

    def __init__(self, kind: str, group: str, table: Mapping[str, Plugin]) -> None:
        self.kind, self.group = kind, group
        self._table = dict(table)

    @cached_property
    def _outside(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            if point.name in self._table and self._table[point.name].implementation == point.value:
                continue
            if point.name in self._table or point.name in found:
                first = found[point.name].value if point.name in found else self._table[point.name].implementation
                raise DuplicateNameError(self.kind, point.name, first, point.value)
            found[point.name] = point
        return found

    def claim(self, name: str, plugin: Plugin) -> None:
        """Add a plug-in while the process runs, as a decorator does. The same one may be added again.

        Raises:
            DuplicateNameError: Another plug-in has the name.
        """
        taken = self._table[name].implementation if name in self._table else None
        if taken is None and name in self._outside:
            taken = self._outside[name].value
        if taken not in (None, plugin.implementation):
            raise DuplicateNameError(self.kind, name, str(taken), plugin.implementation)
        self._table[name] = plugin

    @contextmanager
    def temporary_claims(self) -> Iterator[None]:
        """Forget, after a `with` block, what was claimed in it; for tests of plug-ins."""
        before = dict(self._table)
        try:
            yield
        finally:
            self._table = before

    def names(self) -> tuple[str, ...]:
        """Return every known name, sorted."""
        return tuple(sorted({*self._table, *self._outside}))

    def __contains__(self, name: object) -> bool:
        return name in self._table or name in self._outside

    def __getitem__(self, name: str) -> Plugin:
        if name in self._table:
            return self._table[name]
        if name in self._outside:
            return self._loaded(self._outside[name])
        raise UnknownNameError(self.kind, name, self.names())

    def _loaded(self, point: EntryPoint) -> Plugin:
        owner = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
        where = f"{self.kind} '{point.name}': entry point {point.value}{owner}"
        try:
            plugin = point.load()
        except PlaybillError:
            raise
        except Exception as error:  # whatever an outside module does when it is imported
            raise ConfigError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
        if not isinstance(plugin, Plugin):
            what = f"{where} is a {type(plugin).__name__}, no Plugin."
            raise ConfigError(f"{what} Name what a decorator of Playbill returned, or a Plugin.")
        return plugin
