"""Vectors that stay where they were when a model is trained again, while every score stays the same.

Training again turns and stretches the space of vectors: `q · e` is all that is learnt, and `(q A^-T) · (e A)` is the
same number for any invertible A. So A may be chosen for what the vectors should look like:

1. Standardise. A is chosen so that titles and members have one second moment, the diagonal S: E'ᵀE'/n = Q'ᵀQ'/m = S.
   That is the balanced form of control theory (Moore, 1981). It depends on nothing but the scores, up to a rotation
   among axes of equal strength.
2. Rotate. Orthogonal Procrustes (Schönemann, 1966) turns the titles that were published before onto where they were.
   A new lineage is turned so that strong and weak axes are mixed in every number. Were each number an axis of its own,
   a reader that standardises them would blow up what a weak one gets of a strong one from version to version: in a
   trial the log loss of a frozen model was 3.0 instead of 0.5 (docs/results/vector_stability.md).

Both are one matrix for titles and one for members. Source: "embedding stabilization", RecSys 2025
(doi 10.1145/3705328.3748141), which does the same by a standardisation of low rank. Biases of titles are no part of
the vectors: they are a column beside them, and stay as they are.
Axis letters: n titles, m members, D width, c titles in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import orthogonal_procrustes

from playbill.arrays import Floats32, Floats64
from playbill.errors import DataError, Problem

FLOOR = 1e-9
"""Least second moment of an axis, as a share of the mean one: an axis that no member uses stays invertible."""


@dataclass(frozen=True)
class PublishedTitles:
    """Title vectors as they were published."""

    title_ids: tuple[str, ...]
    vectors: Floats32  # [n, D]


@dataclass(frozen=True)
class StabilisingMap:
    """What is applied to the vectors of one version. `titles` [D, D] is A, `members` [D, D] is A^-T."""

    titles: Floats64
    members: Floats64
    common: int = 0
    """Titles that were turned onto where they were; 0 starts a lineage."""
    note: str = ""
    """Why a new lineage was started, if one was published before."""

    def of_titles(self, vectors: Floats32) -> Floats32:
        """Return title vectors [n, D] in the published space."""
        return (vectors.astype(np.float64) @ self.titles).astype(np.float32)

    def of_members(self, vectors: Floats32) -> Floats32:
        """Return member vectors [m, D] in the published space."""
        return (vectors.astype(np.float64) @ self.members).astype(np.float32)


def stabilising_map(
    members: Floats32, titles: Floats32, title_ids: Sequence[str], before: PublishedTitles | None = None
) -> StabilisingMap:
    """Return the map of a version's vectors into the published space.

    Args:
        members: [m, D] of a sample of members, some thousands; the balance is told by them.
        titles: [n, D].
        title_ids: Their n names.
        before: What was published last; None starts a lineage.

    Raises:
        DataError: The vectors are not finite, or fewer titles are in common than vectors are wide: no rotation could
            be told.
    """
    _require_finite(members, titles)
    width = titles.shape[1]
    balance, inverse = _balanced(_moment(members), _moment(titles))
    if before is None or before.vectors.shape[1] != width:
        note = "" if before is None else f"vectors are {width} wide, those published before {before.vectors.shape[1]}"
        mixing = _mixing(width)
        return StabilisingMap(balance @ mixing, inverse @ mixing, note=note)
    here, there = _common(title_ids, before.title_ids)
    if len(here) < width:
        what = f"{len(here)} titles were published before, and vectors of {width} numbers need {width} to be aligned."
        raise DataError("vectors", [Problem("titles in common", what, "Start a new lineage: --new-lineage.")])
    mine = titles[here].astype(np.float64) @ balance
    rotation, _ = orthogonal_procrustes(mine, before.vectors[there].astype(np.float64))
    return StabilisingMap(balance @ rotation, inverse @ rotation, common=len(here))


def _require_finite(members: Floats32, titles: Floats32) -> None:
    problems = [
        Problem(name, f"have {int((~np.isfinite(values)).any(axis=1).sum())} rows that are not finite.")
        for name, values in (("members", members), ("titles", titles))
        if not np.isfinite(values).all()
    ]
    problems += [
        Problem(name, "are none.") for name, values in (("members", members), ("titles", titles)) if not len(values)
    ]
    if problems:
        raise DataError("vectors", problems)


def _moment(vectors: Floats32) -> Floats64:
    """Return the second moment [D, D], raised a little so that it is positive definite."""
    exact = vectors.astype(np.float64)
    moment = exact.T @ exact / len(exact)
    mean = np.trace(moment) / len(moment)
    found: Floats64 = moment + FLOOR * (mean if mean > 0 else 1.0) * np.eye(len(moment))
    return found


def _balanced(members: Floats64, titles: Floats64) -> tuple[Floats64, Floats64]:
    """Return A and A^-T after which both second moments are the same diagonal matrix.

    With M = L Lᵀ of the members and Lᵀ T L = U S² Uᵀ of the titles, A = L U S^-1/2.
    """
    lower = np.linalg.cholesky(members)
    squares, axes = np.linalg.eigh(lower.T @ titles @ lower)
    strength = np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny))[::-1]
    axes = axes[:, ::-1]
    balance: Floats64 = lower @ axes / np.sqrt(strength)
    inverse: Floats64 = np.linalg.solve(lower.T, axes) * np.sqrt(strength)
    return balance, inverse


def _mixing(width: int) -> Floats64:
    """Return a rotation [D, D] that mixes all axes; the same for the same width."""
    turned, upper = np.linalg.qr(np.random.default_rng(width).normal(size=(width, width)))
    found: Floats64 = turned * np.sign(np.diag(upper))
    return found


def _common(now: Sequence[str], before: Sequence[str]) -> tuple[list[int], list[int]]:
    places = {title: place for place, title in enumerate(before)}
    pairs = [(place, places[title]) for place, title in enumerate(now) if title in places]
    return [here for here, _ in pairs], [there for _, there in pairs]
