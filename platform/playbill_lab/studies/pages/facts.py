"""Public facts of titles on pages, and what members did there: what the held-out page reward is fitted on.

A policy's scores are not among them, nor is anything hidden: only what any log and catalogue say.
Axis letters: N pages (or rows asked for), R rows, K places of a row, F features, L looks.

A held-out model of what members do on pages: look at the next title, the next row, leave, or play.

A cascade over two axes (Craswell et al., WSDM 2008, for one list; "Learning a personalized homepage", Netflix, 2015,
for the page): a visit looks at the first title of the first row. A title that is looked at is played with a probability
of its own, and then nothing further is looked at. Else the next title of the row is looked at, or the row is left; then
the next row is looked at, or the page is left. Three logistic regressions say how likely each is. They read public
facts of the title, the row and the member, never a score of the policies they judge, and are fitted on other members.
Axis letters: N pages, R rows, C columns, L looks (titles looked at), F features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from playbill.arrays import AnyInts, Bools, Floats64, Ints64
from playbill.errors import StateError
from playbill.metrics.probabilities import auc, ece, log_loss
from playbill_lab.simulator.engine.choices import Response
from playbill_lab.simulator.policies.policy_request import PolicyRequest, Slates
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.launches import DAY_US, NEVER
from playbill_lab.simulator.world.state import State


def page_facts(
    state: State, member: AnyInts, at_us: AnyInts, rows: AnyInts, places: AnyInts, titles: AnyInts
) -> Floats64:
    """Return [N, R, K, F] public facts of the titles on pages; those of empty places mean nothing.

    `member` and `at_us` (microseconds since 1970) are [N]; `rows`, which row each is, and `places`, its place on the
    page, [N, R]; `titles` [N, R, K]; -1 fills.
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
    """Takes note of what some members do on home pages; give `watch` to a simulation."""

    members: Bools  # [M] whose looks count
    days: tuple[int, int]  # First day and the day after the last one
    _parts: list[dict[str, npt.NDArray[Any]]] = field(default_factory=list)

    def watch(self, request: PolicyRequest, slates: Slates, response: Response) -> None:
        """Note the titles that were looked at in one round of questions."""
        if not self.days[0] <= request.state.day < self.days[1]:
            return
        own = (request.canvas == on.HOME) & self.members[request.member] & (response.examined > 0)
        if not (chosen := np.flatnonzero(own)).size:
            return
        part, titles, examined = request.take(chosen), slates.titles[chosen], response.examined[chosen]
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
        observed = joined["left"] & (joined["row"] < on.MOST_ROWS - 1)
        return Looks(
            features=joined["facts"],
            row=joined["row"],
            column=joined["column"],
            played=joined["played"],
            went_on=joined["on"].astype(np.float64),
            went_down=np.where(observed, below, np.nan),
        )


INVERSE_RIDGE = 1.0  # One over the weight of half the squared coefficients beside the sum of losses
MOST_STEPS = 500


@dataclass(frozen=True)
class Looks:
    """L titles that members looked at on pages, and what they did.

    `went_on` [L] is whether the next title of the row was looked at; nan where it was played, or the last of the row.
    """

    features: Floats64  # [L, F] public facts of each: see this module
    row: Ints64  # [L] place of its row on the page
    column: Ints64  # [L] its place in the row
    played: Bools  # [L]
    went_on: Floats64
    went_down: Floats64  # [L] whether the next row was looked at; nan where the row was not left here, or was the last

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Logistic:
    """Ridge-regularised logistic regression with standardised features."""

    weights: Floats64  # [F + 1]; the last is the intercept
    mean: Floats64  # [F]
    scale: Floats64  # [F]

    @classmethod
    def fit(cls, features: Floats64, label: Floats64) -> Logistic:
        """Fit it with scikit-learn.

        Raises:
            StateError: All labels are equal, or there are none: nothing can be told apart.
        """
        from sklearn.linear_model import LogisticRegression

        if not len(label) or label.min() == label.max():
            raise StateError(f"{len(label)} looks that all ended alike cannot teach what members do on pages")
        mean, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        found = LogisticRegression(C=INVERSE_RIDGE, max_iter=MOST_STEPS).fit((features - mean) / scale, label > 0)
        return cls(np.append(found.coef_[0], found.intercept_[0]), mean, scale)

    def __call__(self, features: Floats64) -> Floats64:
        """Return probabilities of features [..., F]."""
        return _sigmoid((features - self.mean) / self.scale @ self.weights[:-1] + self.weights[-1])


def _sigmoid(values: Floats64) -> Floats64:
    return 1.0 / (1.0 + np.exp(-np.clip(values, -30, 30)))


@dataclass(frozen=True)
class PageReward:
    """The fitted cascade: how likely a title that is looked at is played, and how looking goes on."""

    play: Logistic
    on: Logistic
    down: Logistic

    @classmethod
    def fit(cls, looks: Looks) -> PageReward:
        """Fit it on what members did; see `Logistic.fit` for what it raises."""
        on, down = ~np.isnan(looks.went_on), ~np.isnan(looks.went_down)
        return cls(
            play=Logistic.fit(looks.features, looks.played.astype(np.float64)),
            on=Logistic.fit(_place(looks.row[on], looks.column[on]), looks.went_on[on]),
            down=Logistic.fit(_place(looks.row[down], looks.column[down]), looks.went_down[down]),
        )

    def looks_at(self, features: Floats64, there: Bools) -> tuple[Floats64, Floats64]:
        """Return [N, R, C] how likely each place is looked at, and how likely it is played from if it is.

        `there` [N, R, C] marks places that hold a title, from the left and the top on; features are [N, R, C, F].
        """
        chance = self.play(features) * there
        rows, columns = there.shape[1:]
        at = np.indices((rows, columns))
        on, down = (
            step(_place(*(axis.ravel() for axis in at))).reshape(rows, columns) for step in (self.on, self.down)
        )
        looked = np.zeros(there.shape)
        reach = np.ones(len(there))
        for row in range(rows):
            here, left = reach, np.zeros(len(there))
            for column in range(columns):
                here = here * there[:, row, column]
                looked[:, row, column] = here
                stays = here * (1 - chance[:, row, column])
                last = ~there[:, row, column + 1] if column + 1 < columns else np.ones(len(there), np.bool_)
                goes = np.where(last, 0.0, on[row, column])
                left += stays * (1 - goes) * down[row, column]
                here = stays * goes
            reach = left
        return looked, chance

    def reward(self, features: Floats64, there: Bools, worth: Floats64 | None = None) -> Floats64:
        """Return [N] the expected reward of pages: the chance of a play, or the `worth` [N, R, C] of what is played."""
        looked, chance = self.looks_at(features, there)
        value = looked * chance if worth is None else looked * chance * worth
        found: Floats64 = value.sum(axis=(1, 2))
        return found


def _place(row: Ints64, column: Ints64) -> Floats64:
    return np.column_stack([row, column, row == 0, column == 0]).astype(np.float64)


@dataclass(frozen=True)
class RewardError:
    """How far the model is from what other members did later: read every page reward beside it."""

    looks: int
    log_loss: float  # Of plays, in nats per look
    constant_log_loss: float  # Of the share of plays in the fit, told of every look
    auc: float
    ece: float  # Expected calibration error of the probability of a play
    observed: float  # Share of looks that ended in a play
    expected: float
    went_on: float  # Share of unplayed titles after which the next one of the row was looked at
    expected_on: float
    went_down: float  # Share of rows left after which the next row was looked at
    expected_down: float


def reward_error(model: PageReward, fitted: Looks, held_out: Looks) -> RewardError:
    """Judge a page reward model on looks of other members in another period."""
    label = held_out.played.astype(np.float64)
    chance = model.play(held_out.features)
    share = np.full(len(label), fitted.played.mean())
    on, down = ~np.isnan(held_out.went_on), ~np.isnan(held_out.went_down)
    return RewardError(
        looks=len(held_out),
        log_loss=log_loss(chance, label),
        constant_log_loss=log_loss(share, label),
        auc=auc(chance, label),
        ece=ece(chance, label),
        observed=float(label.mean()),
        expected=float(chance.mean()),
        went_on=float(held_out.went_on[on].mean()),
        expected_on=float(model.on(_place(held_out.row[on], held_out.column[on])).mean()),
        went_down=float(held_out.went_down[down].mean()),
        expected_down=float(model.down(_place(held_out.row[down], held_out.column[down])).mean()),
    )
