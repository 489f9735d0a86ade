"""The law of a simulated service: every constant of every equation, and the equations themselves.

Axis letters: M members, T titles, F factors, G genres, C countries, N questions, K places.

A member has a taste u, a title a vector v; x = u.v is their match, of variance 1 over members and titles.
A session has an intent w (often none); i = w.v. `s` is the logistic function.

    attraction  A = click_base + click_taste x + click_intent i + click_appeal appeal + click_pull pull
                    + buzz 2^(-age / half_life) + foreign [not the member's language] + seen [played before]
                    + started [to be continued] + reminded [asked for a reminder] + wanted [searched for] + draw
    click       p = s(A), of a title that is looked at
    play        q = s(play_base + play_taste x + play_intent i + play_started [to be continued or searched for]),
                after a click; so a play has probability p q
    looking     place 1 is looked at; place k + 1 with probability `look` if k was looked at and not played
    satisfaction g = glad_base + glad_taste x + glad_intent i + glad_quality quality
    ending      played to the end with s(g); else left in the first minutes with s(leave_base + leave_glad g)
    thumbs      up with s(up_base + up_glad g), else down with s(down_base + down_glad g), after a play
    satisfying  d = finished [played to the end] + left [left early] + deep tanh(g / 2)
    state       S <- clip(S + d, -3, 3) after a play; S <- keep S every night
    visits      sessions of a day ~ Poisson(activity e^(visit_effect S) weekday), at most three
    churn       a member leaves at night with hazard h(S) = min(h_most, h_base e^(-h_effect S))
    value       days alive in the run, plus (for who is alive) the days of the next H that the hazard at their
                last S leaves: sum_{k=1..H} (1 - h)^k = (1 - h) (1 - (1 - h)^H) / h

`pull` is a title's popularity beyond taste (heavy-tailed), `appeal` what makes members click, `quality` what makes
them glad. Bait has much appeal and little quality. Where clicks are what a policy seeks, it finds bait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.arrays import Floats64


@dataclass(frozen=True, slots=True)
class BehaviourModel:
    """The constants. Log odds where nothing else is said."""

    click_base: float = -4.0
    click_taste: float = 0.9
    click_intent: float = 0.7
    click_appeal: float = 0.9
    click_pull: float = 0.45
    foreign: float = -0.8
    seen: float = -1.2
    started: float = 3.4
    reminded: float = 2.0
    wanted: float = 5.0
    play_base: float = 0.8
    play_taste: float = 0.5
    play_intent: float = 0.3
    play_started: float = 2.0
    glad_base: float = 0.0
    glad_taste: float = 0.9
    glad_intent: float = 0.3
    glad_quality: float = 1.2
    leave_base: float = -0.6
    leave_glad: float = -1.0
    up_base: float = -2.8
    up_glad: float = 1.0
    down_base: float = -3.6
    down_glad: float = -1.0
    finished: float = 0.35
    left: float = -0.5
    deep: float = 0.45
    keep: float = 0.96
    visit_effect: float = 0.25
    h_base: float = 0.004
    h_effect: float = 1.0
    h_most: float = 0.15
    glad_most: float = 3.0  # Largest size of a member's satisfaction

    def hazard(self, satisfaction: Floats64) -> Floats64:
        """Return h(S): the probability to leave at the end of a day."""
        return np.minimum(self.h_most, self.h_base * np.exp(-self.h_effect * satisfaction))

    def remaining_days(self, satisfaction: Floats64, days: int) -> Floats64:
        """Return how many of the next `days` a member stays, in the mean, if satisfaction holds."""
        stays = 1.0 - self.hazard(satisfaction)
        return stays * (1.0 - stays**days) / (1.0 - stays)

    def leaves_early(self, satisfaction_logit: Floats64) -> Floats64:
        """Return the probability that a play is left in its first minutes."""
        return (1.0 - logistic(satisfaction_logit)) * logistic(self.leave_base + self.leave_glad * satisfaction_logit)

    def satisfying(self, satisfaction_logit: Floats64) -> Floats64:
        """Return the expected change of satisfaction by a play of this satisfaction logit."""
        ends = self.finished * logistic(satisfaction_logit) + self.left * self.leaves_early(satisfaction_logit)
        return ends + self.deep * np.tanh(satisfaction_logit / 2.0)


LAW = BehaviourModel()


def logistic(log_odds: Floats64) -> Floats64:
    """Return 1 / (1 + e^-x)."""
    return 1.0 / (1.0 + np.exp(-log_odds))
