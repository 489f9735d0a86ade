"""What has happened in a run so far: what the service knows of members and titles, and how members feel.

Axis letters: M members, T titles, G genres, C countries, L languages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from playbill.arrays import AnyInts, Bools, Floats32, Floats64, Ints64
from playbill.clock import to_microseconds
from playbill_lab.simulator.world.behaviour_model import LAW
from playbill_lab.simulator.world.launches import DAY_US, HOUR_US, NEVER

if TYPE_CHECKING:
    from playbill_lab.simulator.world.world import World


GEMS_BELOW = 0.6
TRENDING_TITLES = 60
NEW_DAYS = 60
TOP = 10
_PRIOR_PLAYS = 3.0
_CONTINUING, _LISTED, _RECENT, _REMINDERS = 6, 12, 3, 6


class State:
    """The counters of one run. Those by country stand still during a day; a member's own move with every event.

    Attributes:
        plays_7d, plays_2d: [C, T] of the last full days; before the run what the titles' pull lets expect.
        played: [M, T] uint8 plays of each title by each member, at most 255.
        genre_plays, language_plays: [M, G] and [M, L] plays by genre, and by the title's language.
        continuing, episodes_done: [M, 6] titles left unfinished, newest first, -1 none; their episodes that are behind.
        my_list, reminders, recent: [M, 12], [M, 6], [M, 3] titles, newest first, -1 none. Recent are finished ones.
        satisfaction: [M] the hidden S of the law. No policy may read it.
        sessions, questions, plays, hours: [M] so far.
        churned, busy_until: [M] microseconds since 1970: leaving (NEVER = still a member), and the last session's end.
    """

    def __init__(self, world: World) -> None:
        count, genres = len(world.people), len(world.catalogue.genres)
        self.world, self.day = world, 0
        self.plays_7d = _prior(world)
        self.plays_2d = (self.plays_7d / 3.5).astype(np.float32)
        self._daily = [(self.plays_7d / 7).astype(np.float32) for _ in range(7)]
        self._today = np.zeros_like(self.plays_7d)
        self.played = np.zeros((count, len(world.catalogue)), np.uint8)
        self.genre_plays = np.zeros((count, genres), np.float32)
        self.language_plays = np.zeros((count, len(world.catalogue.languages)), np.float32)
        self.continuing, self.my_list, self.recent, self.reminders = (
            np.full((count, places), -1, np.int32) for places in (_CONTINUING, _LISTED, _RECENT, _REMINDERS)
        )
        self.episodes_done = np.zeros((count, _CONTINUING), np.int16)
        self.satisfaction = np.zeros(count)
        self.sessions, self.questions, self.plays = (np.zeros(count, np.int64) for _ in range(3))
        self.hours = np.zeros(count)
        self.churned = np.full(count, NEVER, np.int64)
        self.busy_until = world.people.joined.copy()
        self._open_titles(0)
        self._standings()

    def start_day(self, day: int, yesterday: Floats32) -> None:
        """Bring the counters by country to the morning of `day`, from 1 on; `yesterday` [C, T]: all members' plays."""
        self._daily = [*self._daily[1:], yesterday]
        self.plays_7d = np.sum(self._daily, axis=0, dtype=np.float32)
        self.plays_2d = np.sum(self._daily[-2:], axis=0, dtype=np.float32)
        self.day = day
        self._open_titles(day)
        self._standings()

    def take_today(self) -> Floats32:
        """Return [C, T] the plays counted since it was last called."""
        today, self._today = self._today, np.zeros_like(self._today)
        return today

    def available(self, country: AnyInts, at_us: Ints64) -> Bools:
        """Return [N, T]: what can be watched in these countries at these moments of the day or the night after."""
        found = self._open_all_day[country]
        for title in self._changing:
            opens, closes = self.world.windows.opens[title][country], self.world.windows.closes[title][country]
            found[:, title] = (opens <= at_us) & (at_us < closes)
        return found

    def upcoming(self, country: AnyInts, at_us: Ints64, days: int) -> Bools:
        """Return [N, T]: what is announced and launches in these countries within some days."""
        opens = self.world.windows.opens.T[country]
        known = self.world.windows.announced[None, :] <= at_us[:, None]
        return (opens > at_us[:, None]) & (opens <= at_us[:, None] + days * DAY_US) & known

    def count_play(self, member: AnyInts, title: AnyInts) -> None:
        """Count one play of each member; a member occurs once."""
        world = self.world
        self.played[member, title] += self.played[member, title] < 255
        np.add.at(self._today, (world.people.country[member], title), 1)
        self.genre_plays[member] += world.catalogue.genre[title]
        self.language_plays[member, world.catalogue.language[title]] += 1
        self.plays[member] += 1

    def feel(self, member: AnyInts, change: Floats64) -> None:
        """Change the satisfaction of members; a member occurs once."""
        felt = self.satisfaction[member] + change
        self.satisfaction[member] = np.clip(felt, -LAW.glad_most, LAW.glad_most)

    def _open_titles(self, day: int) -> None:
        windows = self.world.windows
        first = to_microseconds(self.world.spec.start) + day * DAY_US
        last = first + DAY_US + 12 * HOUR_US
        always = (windows.opens <= first) & (windows.closes > last)
        never = (windows.opens > last) | (windows.closes <= first)
        self._changing = np.flatnonzero(~(always | never).all(axis=1))
        self._open_all_day = np.ascontiguousarray(always.T)

    def _standings(self) -> None:
        """Rank titles in each country: the top ten, what grows, what few have played, what is new."""
        open_now = self._open_all_day
        plays = np.where(open_now, self.plays_7d, -1.0)
        order = np.argsort(-plays, axis=1, kind="stable")
        self.top_10 = order[:, :TOP].astype(np.int32)
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(order.shape[1])[None, :].repeat(len(order), 0), 1)
        self.gems = rank > (1 - GEMS_BELOW) * open_now.sum(axis=1, keepdims=True)
        growth = np.where(open_now, (self.plays_2d / 2 + 0.5) / (self.plays_7d / 7 + 0.5), -1.0)
        growing = np.argsort(-growth, axis=1, kind="stable")[:, :TRENDING_TITLES]
        self.trending = np.zeros_like(open_now)
        np.put_along_axis(self.trending, growing, True, 1)
        since = to_microseconds(self.world.spec.start) + (self.day - NEW_DAYS) * DAY_US
        self.new = np.ascontiguousarray((self.world.windows.opens >= since).T)
        self.log_plays_7d = np.log1p(self.plays_7d)


def _prior(world: World) -> Floats32:
    """Return [C, T] plays expected in the week before the run, by the pull and appeal of what was open."""
    truth, spec = world.truth, world.spec
    residents = np.bincount(world.people.country, minlength=len(spec.countries))
    weight = np.exp(0.55 * truth.pull + 0.6 * truth.appeal)[None, :] * (
        to_microseconds(spec.start) >= world.windows.opens.T
    )
    share = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-9)
    open_now = np.array([country.launch_day <= 0 for country in spec.countries])
    plays = _PRIOR_PLAYS * residents * spec.sessions_per_day * open_now
    prior: Floats32 = (plays[:, None] * share).astype(np.float32)
    return prior
