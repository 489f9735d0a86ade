"""Nothing later than a request takes part in its answer: checked on every case that is built, not trusted.

A mistake here shows as a number that is too good, which nobody questions. So a builder asserts what it believes.
Axis letters: N requests, M targets, E events.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from playbill.arrays import Mask
from playbill.datasets.splits import TIME_PROTOCOLS
from playbill.errors import IntegrityError
from playbill.evaluation.cases.case import EvaluationCase, launches
from playbill.evaluation.cases.event_log import microseconds
from playbill.ranking.candidates import NEVER

if TYPE_CHECKING:  # row cases check themselves with this module
    from playbill.evaluation.canvases.row_cases import RowCase


def assert_before_requests(case: EvaluationCase) -> None:
    """Check histories, fitted plays, the train fold, profiles and candidates against each request's moment.

    Raises:
        IntegrityError: Something later than a request would take part in its answer; everything found is named.
    """
    trained = _reaches(case, case.log.trained(), "train fold: its last event is of")
    checks = (_history(case), trained, _fitted(case), _profiles(case), _candidates(case))
    if found := [problem for problem in checks if problem]:
        subject = f"canvas '{case.canvas}' under '{case.protocol}' would be measured with what came later"
        raise IntegrityError("\n  ".join([subject, *found]))


def assert_history_before(case: EvaluationCase | RowCase) -> None:
    """Check only what members did before their requests.

    Raises:
        IntegrityError: A history holds something later than its request.
    """
    if found := _history(case):
        raise IntegrityError(f"canvas '{case.canvas}' would be measured with what came later: {found}")


def _history(case: EvaluationCase | RowCase) -> str:
    log = case.log
    at = microseconds(log.frame["event_at"])
    running = log.frame.select(pl.col("event_at").cum_max().over("member_id"))["event_at"]
    newest = microseconds(running)
    before = np.maximum(case.positions - 1, 0)
    has_past = case.positions > log.starts[case.positions]
    requested = microseconds(case.frame["at"])
    late = (has_past & (newest[before] > requested)) | (at[case.positions] != requested)
    return _spell(case, late, "history", "an event after the request, or the request is not at its own event")


def assert_fitted_before(case: EvaluationCase) -> None:
    """Check only what baselines would be fitted on: all of it comes before the requests.

    Raises:
        IntegrityError: It does not.
    """
    if found := _fitted(case):
        raise IntegrityError(
            f"canvas '{case.canvas}' under '{case.protocol}' would be measured with later plays: {found}"
        )


def _fitted(case: EvaluationCase) -> str:
    return _reaches(case, case.log.fitted() & case.log.plays, "popularity: fitted on plays up to")


def _reaches(case: EvaluationCase, read: Mask, what: str) -> str:
    """Say whether events that are learnt from reach into the requests.

    Where a protocol cuts by time, all of them lie before the first request; else each member's before its own first.
    """
    if case.log.protocol in TIME_PROTOCOLS:
        last, first = case.log.frame["event_at"].filter(pl.Series(read)).max(), case.frame["at"].min()
        if isinstance(last, datetime) and isinstance(first, datetime) and last >= first:
            return f"{what} {last.isoformat()}, the first request of {first.isoformat()}"
        return ""
    place = np.arange(read.size)
    first_request = np.full(read.size, read.size)
    np.minimum.at(first_request, case.log.starts[case.positions], case.positions)
    late = read & (place >= first_request[case.log.starts])
    if not late.any():
        return ""
    event = case.log.frame.row(int(late.argmax()), named=True)
    member, at = event["member_id"], event["event_at"].isoformat()
    return f"{what} {at} of member {member}, which is not before that member's request; {int(late.sum())} such events"


def _profiles(case: EvaluationCase) -> str:
    late = case.rule.profiles.known_from(case.frame) > microseconds(case.frame["at"])
    return _spell(case, late, "profiles", "a row of `members` that was known only after the request")


def _candidates(case: EvaluationCase) -> str:
    if case.rule.spec.available != "now":
        return ""
    requested = case.frame[case.rows]
    launch = launches(case.rule.catalogue, requested["country"].to_list(), case.columns)
    early = (launch == NEVER) | (launch > microseconds(requested["at"]))
    late = np.zeros(len(case), dtype=np.bool_)
    late[case.rows[early]] = True
    return _spell(case, late, "candidates", "a title that launches after the request")


def _spell(case: EvaluationCase | RowCase, late: Mask, what: str, how: str) -> str:
    if not late.any():
        return ""
    first = case.frame.row(int(late.argmax()), named=True)
    return (
        f"{what}: {int(late.sum())} of {late.size} requests would see {how}, the first of member "
        f"{first['member_id']} at {first['at'].isoformat()}"
    )
