"""Public facts of titles on pages, and what members did there: what the held-out page reward is fitted on.

A policy's scores are not among them, nor is anything hidden: only what any log and catalogue say.
Axis letters: N pages (or rows asked for), R rows, K places of a row, F features, L looks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from playbill_lab.simulator.engine.choices import Response
from playbill_lab.simulator.policies.policy_request import Asked, Slates
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.launches import DAY_US, NEVER
from playbill_lab.simulator.world.state import State
from playbill_lab.studies.pages.page_reward import Looks

Ints = npt.NDArray[np.integer[Any]]
Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def page_facts(state: State, member: Ints, at_us: Ints, rows: Ints, places: Ints, titles: Ints) -> Values:
    """Return [N, R, K, F] public facts of the titles on pages; those of empty places mean nothing.

    Args:
        state: What has happened so far.
        member: [N].
        at_us: [N] moment, microseconds since 1970.
        rows: [N, R] which row each is; -1 fills.
        places: [N, R] its place on the page.
        titles: [N, R, K] -1 fills.
    """
    world, title = state.world, np.maximum(titles, 0)
    who = member[:, None, None]
    country = world.people.country[member][:, None, None]
    genres = state.genre_plays[member]
    share = genres / np.maximum(genres.sum(axis=1, keepdims=True), 1)
    match = np.einsum("ng,nrkg->nrk", share, world.catalogue.genre[title], optimize=True)
    opens = world.windows.opens[title, country]
    age = np.where(opens == NEVER, 0, at_us[:, None, None] - opens) / DAY_US
    started = (state.continuing[member][:, None, None, :] == title[..., None]).any(axis=-1)
    newest = state.continuing[member, 0][:, None, None] == title
    column = np.broadcast_to(np.arange(titles.shape[2]), titles.shape)
    place = np.broadcast_to(places[:, :, None], titles.shape)
    facts = [
        state.log_plays_7d[country, title],
        match,
        np.log1p(np.maximum(age, 0)),
        state.played[who, title] > 0,
        started,
        newest,
        (state.my_list[member][:, None, None, :] == title[..., None]).any(axis=-1),
        world.people.speaks[who, world.catalogue.language[title]],
        np.broadcast_to(np.log1p(state.plays[member])[:, None, None], titles.shape),
        column,
        place,
        place == 0,
        *(np.broadcast_to((rows == row)[:, :, None], titles.shape) for row in range(len(on.ROWS))),
    ]
    return np.stack([np.asarray(fact, np.float64) for fact in facts], axis=-1)


@dataclass
class LookLog:
    """Takes note of what some members do on home pages; give `watch` to a simulation.

    Args:
        members: [M] whose looks count.
        days: First day and the day after the last one.
    """

    members: Flags
    days: tuple[int, int]
    _parts: list[dict[str, npt.NDArray[Any]]] = field(default_factory=list)

    def watch(self, asked: Asked, slates: Slates, response: Response) -> None:
        """Note the titles that were looked at in one round of questions."""
        if not self.days[0] <= asked.state.day < self.days[1]:
            return
        own = (asked.canvas == on.HOME) & self.members[asked.member] & (response.examined > 0)
        if not (chosen := np.flatnonzero(own)).size:
            return
        part, titles, examined = asked.take(chosen), slates.titles[chosen], response.examined[chosen]
        place = part.row_position.astype(np.int64)
        facts = page_facts(part.state, part.member, part.at_us, part.row[:, None], place[:, None], titles[:, None])
        who, column = np.nonzero(np.arange(titles.shape[1]) < examined[:, None])
        played = response.played[chosen][who] == column
        last = column == (titles >= 0).sum(axis=1)[who] - 1
        ended = column == examined[who] - 1
        self._parts.append(
            {
                "request": part.request[who],
                "row": place[who],
                "column": column.astype(np.int64),
                "facts": facts[who, 0, column],
                "played": played,
                "on": np.where(played | last, np.nan, ~ended),
                "left": ended & ~played,
            }
        )

    def looks(self) -> Looks:
        """Return what was noted. A row below is known to have been looked at if it was noted too."""
        joined = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        wide = on.MOST_ROWS + 1
        there = np.unique(joined["request"] * wide + joined["row"])
        below = np.isin(joined["request"] * wide + joined["row"] + 1, there)
        told = joined["left"] & (joined["row"] < on.MOST_ROWS - 1)
        return Looks(
            features=joined["facts"],
            row=joined["row"],
            column=joined["column"],
            played=joined["played"],
            went_on=joined["on"].astype(np.float64),
            went_down=np.where(told, below, np.nan),
        )
