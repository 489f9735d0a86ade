"""A log weighed for one model: rows with both policies' probabilities, and the groups they are read in.

Axis letter: n rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.errors import ComparisonError
from playbill.metrics import OffPolicyData
from playbill.metrics.topk import Mask

GROUPS = ("canvas", "country", "device", "row_id")
"""Columns an estimate may be sliced by."""


@dataclass(frozen=True)
class PolicyLog:
    """What a log says about a model's policy.

    Args:
        model: Name of the model.
        policy: Name of the target policy made of its scores.
        outcome: Name of the reward.
        version: Version id of the reward.
        data: The rows.
        groups: [n] slice columns of each row, `GROUPS`.
        member_ids: [n].
        outside: Rows whose title the model's canvas could not have shown; their target probability is 0.
        without_propensity: Slates dropped because a propensity was missing.
        direct_fit: Share of the rewards' variance that the direct model explains on held-out members; None = no model.
    """

    model: str
    policy: str
    outcome: str
    version: str
    data: OffPolicyData
    groups: pl.DataFrame
    member_ids: pl.Series
    outside: int = 0
    without_propensity: int = 0
    direct_fit: float | None = None

    def keep(self, rows: Mask) -> PolicyLog:
        """Return only some rows, whole slates together."""
        kept = pl.Series(rows)
        return replace(
            self,
            data=self.data.keep(rows),
            groups=self.groups.filter(kept),
            member_ids=self.member_ids.filter(kept),
        )


def combine(logs: Sequence[PolicyLog]) -> PolicyLog:
    """Put the logs of several canvases of one model and one reward together; members are one across them.

    Raises:
        ComparisonError: They speak of different models, policies or rewards.
    """
    first = logs[0]
    said = {(log.model, log.policy, log.outcome, log.version) for log in logs}
    if len(said) > 1:
        raise ComparisonError(f"estimates of different things cannot be put together: {sorted(said)}")
    ids = pl.concat([log.member_ids for log in logs])
    starts = np.cumsum([0, *(int(log.data.slates.max(initial=-1)) + 1 for log in logs)])
    direct = all(log.data.predicted is not None for log in logs)

    def joined(name: str) -> npt.NDArray[np.float64]:
        return np.concatenate([getattr(log.data, name) for log in logs])

    data = OffPolicyData(
        members=np.unique(ids.to_numpy(), return_inverse=True)[1].astype(np.int64),
        slates=np.concatenate([log.data.slates + start for log, start in zip(logs, starts, strict=False)]),
        positions=np.concatenate([log.data.positions for log in logs]),
        logged=joined("logged"),
        target=joined("target"),
        reward=joined("reward"),
        predicted=joined("predicted") if direct else None,
        expected=joined("expected") if direct else None,
        immature=sum(log.data.immature for log in logs),
    )
    fits = [log.direct_fit for log in logs if log.direct_fit is not None]
    return replace(
        first,
        data=data,
        groups=pl.concat([log.groups for log in logs]),
        member_ids=ids,
        outside=sum(log.outside for log in logs),
        without_propensity=sum(log.without_propensity for log in logs),
        direct_fit=float(np.mean(fits)) if direct else None,
    )
