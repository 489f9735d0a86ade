"""Long-term value with the luck of who leaves taken out.

Whether a member leaves in a night is a draw against a known chance, and one draw is worth hundreds of days. So to each
member's value is added, for each night it was there, (left - chance of leaving) x what staying was worth. Its mean is
zero whatever the last factor is, so the mean value stays what it was, and most of the noise goes: a control variate.
"""

from __future__ import annotations

import numpy as np

from playbill.clock import to_microseconds
from playbill_lab.simulator.world.behaviour_model import LAW
from playbill_lab.simulator.world.launches import DAY_US, NEVER


class Nights:
    """Watches the members of a run from one day to the next, M of them.

    Args:
        world: The world that runs.
        first_day: Nights before it are left as they were.
    """

    def __init__(self, world, first_day):
        self._spec, self._joined, self._first = world.spec, world.people.joined, first_day
        self._start = to_microseconds(world.spec.start)
        self._day, self._there = -1, np.zeros(len(world.people), np.bool_)
        self.luck = np.zeros(len(world.people))

    def see(self, state):
        """Look at the state before the first question of a day; later ones of the day change nothing."""
        if state.day != self._day:
            here = state.churned == NEVER
            if state.day == self._day + 1:
                self._night(here, state.satisfaction)
            self._day, self._there = state.day, here

    def settled(self, members):
        """Return [M] values of the finished run, from its members, with the luck taken out."""
        self._night(members["churned_at"].is_null().to_numpy(), members["satisfaction"].to_numpy())
        return members["value"].to_numpy() + self.luck

    def _night(self, stayed, satisfaction):
        """Count the night after the day seen last, from who stayed and the satisfaction that has faded since."""
        if self._day < self._first:
            return
        there = self._there & (self._joined < self._start + (self._day + 1) * DAY_US)
        chance = LAW.hazard(satisfaction / LAW.keep)
        left_days = self._spec.days - self._day - 1
        worth = left_days + LAW.remaining_days(satisfaction, self._spec.value_days)
        self.luck += there * (~stayed - chance) * worth
