"""Heads on held-out exposures: who has the higher AUC on each surface, over members and seeds.

Axis letters: N exposures, M members, R draws of members, S seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from kuairand_models import Service, Trained
from scipy.special import stdtr, stdtrit

from playbill.datasets import Request
from playbill.evaluation.canvases.head_probabilities import held_out_labels
from playbill.evaluation.cases.build import request_frame
from playbill.evaluation.cases.event_log import TitleOrder
from playbill.metrics import adjust_p, auc, ece
from playbill.ranking.blend import COMPETING

ALL = "all"
LEVEL = 0.95
_DRAWS_AT_ONCE = 50

Values = npt.NDArray[np.float64]
_REQUESTED = ("member_id", "at", "country", "device", "language", "query", "source_title_id")


@dataclass(frozen=True)
class Exposures:
    """What was shown in the held-out time on the model's surfaces, and what came of it.

    Args:
        frame: [N] member_id, canvas, title_id, and a column of zeros and ones per head.
        requests: [N] each asked on its own surface, in the state before it.
        competing: Heads that spread one probability over all titles: their level means nothing for a single one.
    """

    frame: pl.DataFrame
    requests: list[Request]
    competing: frozenset[str]

    @classmethod
    def of(cls, service: Service) -> Exposures:
        """Gather the held-out exposures that every head has a label of."""
        found = held_out_labels(service.split, service.frames, service.resolved, "test")
        heads = list(found.rows)
        frame = found.rows[heads[0]].drop("value")
        for head in heads:
            values = found.rows[head].select("event_id", pl.col("value").cast(pl.Float64).alias(head))
            frame = frame.join(values, on="event_id", how="inner", maintain_order="left")
        frame = frame.filter(pl.col("canvas").is_in(list(service.resolved.canvases)))
        requested = request_frame(frame).select(*_REQUESTED).iter_rows(named=True)
        requests = [
            Request(canvas=canvas, history=found.log.past(state), features={}, **row)
            for canvas, state, row in zip(frame["canvas"], frame["state"].to_list(), requested, strict=True)
        ]
        competing = frozenset(head for head in heads if service.resolved.model.heads[head].loss in COMPETING)
        return cls(frame.select("event_id", "event_at", "member_id", "canvas", "title_id", *heads), requests, competing)

    @property
    def members(self) -> npt.NDArray[np.int64]:
        """[N] member of each exposure, dense codes from 0."""
        return self.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1

    def logits(self, model: Trained) -> dict[str, Values]:
        """Return head -> [N] what a model says of each exposure's own title."""
        columns = TitleOrder(model.reader.title_ids).codes(self.frame["title_id"])
        return model.own(self.requests, columns)

    def surfaces(self) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
        """Yield all exposures together, then each surface, largest first."""
        yield ALL, np.ones(self.frame.height, dtype=np.bool_)
        for canvas in self.frame["canvas"].value_counts(sort=True)["canvas"]:
            yield canvas, (self.frame["canvas"] == canvas).to_numpy()


class MemberDraws:
    """Draws of members with replacement, shared by every comparison.

    Args:
        members: [N] dense codes.
        resamples: R.
        seed: Of the draws.
    """

    def __init__(self, members: npt.NDArray[np.int64], resamples: int, seed: int = 0) -> None:
        self.members, size = members, int(members.max()) + 1
        generator = np.random.default_rng(seed)
        drawn = (np.bincount(generator.integers(0, size, size), minlength=size) for _ in range(resamples))
        self.counts = np.stack(list(drawn)).astype(np.float64)

    def auc(self, scores: Values, labels: Values, rows: npt.NDArray[np.bool_]) -> Values:
        """[R] AUC of each draw; NaN where a draw has one kind of exposure only.

        Exact and with ties counted half, as `playbill.metrics.auc`; sorted once for all draws.
        """
        values, group = np.unique(scores[rows], return_inverse=True)
        order = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[order], np.arange(len(values)))
        member, label = self.members[rows][order], labels[rows][order]
        found = []
        for start in range(0, len(self.counts), _DRAWS_AT_ONCE):
            weight = self.counts[start : start + _DRAWS_AT_ONCE][:, member]
            positive = np.add.reduceat(weight * label, starts, axis=1)
            negative = np.add.reduceat(weight * (1.0 - label), starts, axis=1)
            below = np.cumsum(negative, axis=1) - negative
            pairs = positive.sum(axis=1) * negative.sum(axis=1)
            ordered = (positive * (below + 0.5 * negative)).sum(axis=1)
            found.append(np.divide(ordered, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
        return np.concatenate(found)


@dataclass(frozen=True)
class Side:
    """One arm of the study: for every seed what its models say of the exposures.

    Args:
        logits: [S] head -> [N].
    """

    logits: Sequence[dict[str, Values]]


def compared(
    exposures: Exposures, ours: Side, theirs: Side, resamples: int, minimum_positives: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return surface -> head -> both AUCs, their difference with its interval, and whether it is a claim.

    The interval holds members and seeds: variance of the seeds' mean over draws of members, plus each side's variance
    between seeds over S, with Satterthwaite's degrees of freedom. A difference is a claim when its p-value stays below
    1 - `LEVEL` after Holm's correction for the heads of its surface, and there is more than one seed.
    """
    draws = MemberDraws(exposures.members, resamples)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for surface, rows in exposures.surfaces():
        found[surface] = {
            head: _head(exposures, draws, rows, head, ours, theirs, minimum_positives) for head in ours.logits[0]
        }
        _claim(found[surface], len(ours.logits))
    return found


def _head(
    exposures: Exposures,
    draws: MemberDraws,
    rows: npt.NDArray[np.bool_],
    head: str,
    ours: Side,
    theirs: Side,
    minimum_positives: int,
) -> dict[str, Any]:
    labels = exposures.frame[head].to_numpy()
    own = {
        "exposures": int(rows.sum()),
        "members": len(np.unique(exposures.members[rows])),
        "positives": int(labels[rows].sum()),
    }
    if min(own["positives"], own["exposures"] - own["positives"]) < minimum_positives:
        return own | {"auc_multi": None, "auc_single": None, "multi_minus_single": None}
    sides = {"multi": ours, "single": theirs}
    points = {
        name: np.array([auc(one[head][rows], labels[rows]) for one in side.logits]) for name, side in sides.items()
    }
    drawn = {
        name: np.mean([draws.auc(one[head], labels, rows) for one in side.logits], axis=0)
        for name, side in sides.items()
    }
    levels = {
        name: float(np.mean([ece(_sigmoid(one[head][rows]), labels[rows]) for one in side.logits]))
        for name, side in sides.items()
        if head not in exposures.competing
    }
    return own | {
        **{f"auc_{name}": float(values.mean()) for name, values in points.items()},
        **{f"auc_{name}_by_seed": values.tolist() for name, values in points.items()},
        **{f"auc_{name}_interval": np.nanquantile(values, _TAILS).tolist() for name, values in drawn.items()},
        **{f"ece_{name}": value for name, value in levels.items()},
        **difference(points["multi"], points["single"], drawn["multi"] - drawn["single"], own["members"]),
    }


_TAILS = [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0]


def difference(ours: Values, theirs: Values, drawn: Values, members: int) -> dict[str, Any]:
    """Return the difference of the means over seeds, its interval and its p-value before correction."""
    value = float(ours.mean() - theirs.mean())
    parts = [(float(np.nanvar(drawn, ddof=1)), max(members - 1, 1))]
    parts += [(float(side.var(ddof=1)) / len(side), len(side) - 1) for side in (ours, theirs) if len(side) > 1]
    total = sum(variance for variance, _ in parts)
    if total <= 0.0:
        return {"multi_minus_single": value, "interval": [value, value], "p": 1.0}
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    half = float(stdtrit(freedom, 0.5 + LEVEL / 2.0)) * total**0.5
    p = float(2.0 * stdtr(freedom, -abs(value) / total**0.5))
    return {"multi_minus_single": value, "interval": [value - half, value + half], "p": p}


def _claim(heads: dict[str, dict[str, Any]], seeds: int) -> None:
    """Add `adjusted_p` and `claim` to every head that was measured."""
    measured = [row for row in heads.values() if row["multi_minus_single"] is not None]
    for row, p in zip(measured, adjust_p([row["p"] for row in measured]).tolist() if measured else [], strict=True):
        better = "multi" if row["multi_minus_single"] > 0 else "single"
        row["adjusted_p"] = p
        row["claim"] = better if seeds > 1 and p <= 1.0 - LEVEL else None


def _sigmoid(logits: Values) -> Values:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))
