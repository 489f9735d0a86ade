"""The tree of errors that the stores raise on purpose.

```
StoreError
├── StoreConfigError       a setting or an address of feature_store.yaml, or a missing driver
├── UnknownFeatureError    a feature or metric that does not exist (nearest name suggested)
├── StoreDataError         many mistakes in sources, rows or keys, reported together
├── StoreStateError        something has to be done first (write a source, `feast apply`, `feast materialize`)
├── StoreServiceError      a database, an object store or a Ray cluster does not answer, or a disk takes no more
└── StoreIntegrityError    stored rows are damaged or of another format
```

Errors keep their arguments in `args`, so they survive pickling between the processes of a Ray cluster.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class StoreError(Exception):
    """Base of every error a user can act on. Its text says where, what, and the nearest right thing."""


class StoreConfigError(StoreError):
    """The stores' settings or installation are not usable as they are."""


class StoreStateError(StoreError):
    """Something was read before it was written. The text names what to do first."""


class StoreServiceError(StoreError):
    """An outside system or a disk did not do what it should. What was there before is unchanged."""


class StoreIntegrityError(StoreError):
    """Stored rows do not match their schema. They were not read."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the known name closest to `name`, an empty text when nothing is close."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"Did you mean '{close[0]}'?" if close else ""


class UnknownFeatureError(StoreError):
    """A name that is not among the known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        super().__init__(kind, name, self.known)

    def __str__(self) -> str:
        what = " ".join(filter(None, (f"unknown {self.kind} '{self.name}'.", suggestion(self.name, self.known))))
        return f"{what} Known: {', '.join(self.known) or 'none'}."


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in data: where it is, what it is, and where known the nearest right thing."""

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" {self.hint}" if self.hint else "")


class StoreDataError(StoreError):
    """Every mistake in some data, reported together. Nothing of it was written."""

    def __init__(self, subject: str, problems: Iterable[Mistake]) -> None:
        self.subject, self.problems = subject, tuple(problems)
        super().__init__(subject, self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"{self.subject}: {count} problem{'s' if count != 1 else ''}"]
        return "\n".join([*lines, *(f"  {problem}" for problem in self.problems)])
