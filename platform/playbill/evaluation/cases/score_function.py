"""What evaluation asks of a model or a baseline: one score for every title of every request.

Requests carry what was known of their member strictly before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Indices, Mask
from playbill.datasets import Request
from playbill.errors import IntegrityError
from playbill.evaluation.cases.event_log import UNKNOWN, TitleOrder

Scores = npt.NDArray[np.floating[Any]]


@runtime_checkable
class ScoreFunction(Protocol):
    """Scores requests over its own titles. Higher is better; candidates are masked by the caller."""

    @property
    def title_ids(self) -> Sequence[str]:
        """The titles it scores, one per column."""

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, its titles] finite scores."""


class AlignedScorer:
    """A score function over a catalogue's columns.

    A title that the function does not know is no candidate of it: never listed, and as a target a miss.
    """

    def __init__(self, name: str, function: ScoreFunction, catalogue: TitleOrder) -> None:
        self.name, self.function = name, function
        places = catalogue.places_in(function.title_ids)
        self._known: Mask = places != UNKNOWN
        self._places: Indices = np.where(self._known, places, 0)
        self._in_order = np.array_equal(places, np.arange(len(function.title_ids)))
        self._every = bool(self._known.all())

    def score(self, requests: Sequence[Request], candidates: Mask) -> tuple[Scores, Mask]:
        """Return [N, T] scores over the catalogue, and those of the [N, T] candidates that the function knows.

        Raises:
            IntegrityError: A candidate's score is not a number, or the array has the wrong shape.
        """
        raw = self.function.score(requests)
        expected = (len(requests), len(self.function.title_ids))
        if raw.shape != expected:
            raise IntegrityError(f"'{self.name}' returned scores of shape {raw.shape}, expected {expected}")
        # Passes over [N, T] are what evaluation of a large catalogue consists of, so none is made for nothing.
        scores = raw if self._in_order else np.take(raw, self._places, axis=1)
        mask = candidates if self._every else candidates & self._known
        if np.isnan(scores.min(initial=0.0)) and (broken := np.isnan(scores) & mask).any():
            row = int(broken.any(axis=1).argmax())
            raise IntegrityError(
                f"'{self.name}' gave {int(broken.sum())} scores that are no number, the first to member "
                f"{requests[row].member_id} on canvas '{requests[row].canvas}'"
            )
        return scores, mask


_TEXT = ("member_id", "canvas", "country", "device", "language", "query", "source_title_id")
"""Fields of a request that features read, as text."""


class MemberFeatures(Protocol):
    """What is asked of `playbill.features.FeatureDoor`."""

    def member_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return `frame` with member and request features as of each row's `event_at`, strictly before it."""


def with_features(requests: Sequence[Request], service: str, features: MemberFeatures | None) -> list[Request]:
    """Return requests with what was known strictly before each moment; without `features` they stay as they are."""
    if features is None or not requests:
        return list(requests)
    frame = pl.DataFrame(
        {name: [getattr(request, name) for request in requests] for name in _TEXT}
        | {"event_at": [request.at for request in requests]},
        schema={name: pl.String for name in _TEXT} | {"event_at": pl.Datetime("us", "UTC")},
    )
    found = features.member_features(service, frame)
    names = [name for name in found.columns if name not in frame.columns]
    if not names:
        return list(requests)
    values = found.select(names).iter_rows(named=True)
    return [replace(request, features=row) for request, row in zip(requests, values, strict=True)]
