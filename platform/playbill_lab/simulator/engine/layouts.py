"""How home pages are laid out: by the service's own law, or in the order of a policy that has one.

Axis letters: N pages, R rows of a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from playbill_lab.simulator.policies.page_orders import Pages, RowOrders, checked, law_propensity, ordering
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.random_streams import Streams
from playbill_lab.simulator.world.state import State

if TYPE_CHECKING:
    from playbill_lab.simulator.engine.visits import Visits
    from playbill_lab.simulator.policies.policies import Policy
    from playbill_lab.simulator.world.event_log import EventLog

Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Layout:
    """Who orders the rows of pages, with what luck."""

    policy: Policy
    rng: np.random.Generator


def lay_out(visits: Visits, places: Ints, state: State, streams: Streams, log: EventLog, layout: Layout | None) -> None:
    """Choose the rows of pages: what is to be continued, the top picks, then the others in the page's own order."""
    member = visits.member[places]
    keys = streams.uniform("page", member, visits.request[places], len(on.ROWS) + 1)
    own, chosen = keys[:, :-1], keys[:, -1]
    own[:, on.PINNED_ROWS] = -2.0, -1.0
    for row, lacks in lacking(member, state).items():
        own[lacks, row] = 9.0
    order = np.argsort(own, axis=1, kind="stable").astype(np.int8)
    fitting = (own < 9.0).sum(axis=1).astype(np.int16)
    # One of the member's genres, as often as it was played.
    edges = np.cumsum(state.genre_plays[member], axis=1)
    genre = np.minimum((chosen[:, None] * edges[:, -1:] >= edges).sum(axis=1), edges.shape[1] - 1).astype(np.int16)
    ordered = _ordered(visits, places, (order, fitting, genre), state, log, layout)
    if ordered is None:
        rows = order[:, : on.MOST_ROWS]
        ordered = RowOrders(rows, law_propensity(rows, fitting))
        visits.length[places] = np.minimum(fitting, on.MOST_ROWS)
    else:
        visits.length[places] = (ordered.rows >= 0).sum(axis=1)
    visits.rows[places], visits.row_propensity[places] = ordered.rows, ordered.propensity
    visits.genres[places] = np.where(ordered.rows == on.GENRE_ROWS, genre[:, None], -1)


def lacking(member: Ints, state: State) -> dict[int, NDArray[np.bool_]]:
    """Return row -> [N] whether the member lacks what it is made of."""
    return {
        on.CONTINUE_WATCHING: state.continuing[member, 0] < 0,
        on.BECAUSE_YOU_WATCHED: state.recent[member, 0] < 0,
        on.MY_LIST: state.my_list[member, 0] < 0,
        on.GENRE_ROWS: state.genre_plays[member].sum(axis=1) == 0,
        on.WATCH_IT_AGAIN: state.plays[member] < 5,
    }


def _ordered(
    visits: Visits,
    places: Ints,
    law: tuple[NDArray[np.int8], NDArray[np.int16], NDArray[np.int16]],
    state: State,
    log: EventLog,
    layout: Layout | None,
) -> RowOrders | None:
    """Ask the policy for its own order; None where it has none."""
    order = None if layout is None else ordering(layout.policy)
    if order is None or layout is None or not len(places):
        return None
    rows, fitting, genre = law
    pages = Pages(
        state=state,
        number=visits.request[places],
        member=visits.member[places],
        at_us=visits.now[places],
        device=visits.device[places],
        rows=np.where(np.arange(rows.shape[1]) < fitting[:, None], rows, on.NO_ROW).astype(np.int8),
        genre=genre,
        log=log,
    )
    found = order(pages, layout.rng)
    return None if found is None else checked(pages, found, layout.policy.name)
