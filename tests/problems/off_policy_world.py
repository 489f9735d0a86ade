"""What off-policy estimates are held against: a simulated service's questions, with every title's exact chances.

Axis letters: N questions, T titles, K places, P target policies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from playbill import metrics
from playbill.evaluation.off_policy.direct_models import DirectLog, DirectModel, fit_direct
from playbill.evaluation.off_policy.terms import OffPolicyData
from playbill_lab.simulator import World, simulate
from playbill_lab.simulator.engine.choices import Response, leanings
from playbill_lab.simulator.policies.policies import PlackettLuce
from playbill_lab.simulator.policies.policy_request import PolicyRequest, Slates
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.behaviour_model import LAW

OUTCOMES = ("play", "satisfaction")


class Blend(PlackettLuce):
    """The service's own score, plus what only a study can know: what titles promise, and what they are worth."""

    def __init__(self, name: str, *, appeal: float = 0.0, quality: float = 0.0, level: float = 1.0, **own: float):
        super().__init__(**own)
        self.name, self.appeal, self.quality, self.level = name, appeal, quality, level

    def logits(self, request: PolicyRequest) -> np.ndarray:
        truth = request.world.truth
        hidden = (self.appeal * truth.appeal + self.quality * truth.quality) / self.temperature
        return np.asarray(self.level * super().logits(request) + hidden[None, :], np.float32)


LOGGING = Blend("logging", temperature=1.5)


def target_policies() -> dict[str, Blend]:
    """Ten policies to be judged, from near the logging one to far from it."""
    return {
        "cool": Blend("cool", temperature=1.0),
        "warm": Blend("warm", temperature=3.0),
        "uniform": Blend("uniform", level=0.0),
        "popular": Blend("popular", popularity=1.4, taste=0.5, temperature=1.5),
        "taste": Blend("taste", popularity=0.2, taste=5.0, temperature=1.5),
        "appeal": Blend("appeal", appeal=1.0, temperature=1.5),
        "bait": Blend("bait", appeal=1.0, quality=-1.2, temperature=1.5),
        "quality": Blend("quality", quality=1.2, temperature=1.5),
        "value": Blend("value", appeal=0.7, quality=1.0, temperature=1.5),
        "dull": Blend("dull", appeal=-0.8, quality=0.4, temperature=1.5),
    }


@dataclass(frozen=True)
class Questions:
    """N questions of one canvas or row, and everything that decides what a slate is worth.

    Args:
        member: [N].
        logging: [N, T] the logging policy's chance of each title at the first place; 0 = no candidate.
        targets: [P, N, T] the same of each target policy.
        plays: [N, T] chance of a play if it is looked at.
        worth: [N, T] expected change of satisfaction by a play.
        look: Chance to look at the next place.
        shown: [N, K] what the run really showed.
        propensity: [N, K] as the run logged it.
        examined: [N] places that members really looked at.
        played: [N] place they really played, -1 none.
        check: Largest difference of `slate_value` from the simulator's own exact expectation.
    """

    member: np.ndarray
    logging: np.ndarray
    targets: np.ndarray
    plays: np.ndarray
    worth: np.ndarray
    look: float
    shown: np.ndarray
    propensity: np.ndarray
    examined: np.ndarray
    played: np.ndarray
    check: float

    def reward(self, outcome: str) -> np.ndarray:
        """[N, T] what a play of each title is worth."""
        return np.ones_like(self.plays) if outcome == "play" else self.worth

    def slate_value(self, rows: np.ndarray, shown: np.ndarray, outcome: str) -> np.ndarray:
        """[n] exact expectation of slates, by the click model: look down, stop at a play."""
        chance = self.plays[rows[:, None], shown]
        reached = np.cumprod(np.concatenate([np.ones((len(rows), 1)), 1 - chance[:, :-1]], axis=1), axis=1)
        looked = self.look ** np.arange(shown.shape[1]) * reached
        return (looked * chance * self.reward(outcome)[rows[:, None], shown]).sum(axis=1)

    def truth(self, policy: int, places: int, outcome: str, draws: int, generator: np.random.Generator) -> float:
        """Mean value of a target policy's slates; exact for one place, else the mean of exact values of draws."""
        if places == 1:
            return float((self.targets[policy] * self.plays * self.reward(outcome)).sum(axis=1).mean())
        rows = np.arange(len(self.member))
        values = [self.slate_value(rows, draw(self.targets[policy], places, generator), outcome) for _ in range(draws)]
        return float(np.mean(values))


@dataclass(frozen=True)
class Log:
    """One log of some questions: what was shown, how far members looked, what they played.

    Args:
        rows: [n] question of each slate.
        members: [n] member, dense.
        shown: [n, K].
        propensity: [n, K].
        seen: [n, K] places looked at.
        reward: [n, K] 0 in places that were not looked at.
    """

    rows: np.ndarray
    members: np.ndarray
    shown: np.ndarray
    propensity: np.ndarray
    seen: np.ndarray
    reward: np.ndarray

    def direct(self, questions: Questions) -> DirectModel:
        """Fit the direct model by member, with the logging policy's log odds as the score."""
        logging = questions.logging[self.rows]
        slate, place = np.nonzero(self.seen)
        arrays = (slate, place, self.shown[slate, place], self.reward[slate, place])
        groups = np.zeros(len(self.rows), np.int64)
        scores = np.log(np.maximum(logging, 1e-9)).astype(np.float64)
        return fit_direct(DirectLog(self.members, groups, scores, logging > 0, *arrays))

    def weighed(self, questions: Questions, policy: int, model: DirectModel | None) -> OffPolicyData:
        """Give every place that was looked at its chance under a target policy, as rows."""
        weight = questions.targets[policy][self.rows]
        target, left = conditional(weight, self.shown)
        expected = predicted = None
        slate, place = np.nonzero(self.seen)
        if model is not None:
            own = np.take_along_axis(weight * model.quality, self.shown, 1)
            above = np.cumsum(own, axis=1) - own
            total = np.einsum("nt,nt->n", weight, model.quality)[:, None]
            means = np.divide(total - above, left, out=np.zeros_like(left), where=left > 1e-12)
            expected = (means * model.factor[None, : left.shape[1]])[slate, place]
            predicted = model.of_rows(slate, place, self.shown[slate, place])
        return OffPolicyData(
            members=self.members[slate],
            slates=slate,
            positions=place,
            logged=self.propensity[slate, place],
            target=target[slate, place],
            reward=self.reward[slate, place],
            predicted=predicted,
            expected=expected,
            supported=(weight * (questions.logging[self.rows] > 0)).sum(axis=1)[slate],
        )


def real_log(questions: Questions, places: int, outcome: str) -> Log:
    """The log that the run itself wrote."""
    rows = np.flatnonzero((questions.shown[:, :places] >= 0).all(axis=1))
    shown = questions.shown[rows, :places]
    seen = np.arange(places)[None, :] < questions.examined[rows, None]
    at = questions.played[rows]
    reward = np.zeros(shown.shape)
    hit = np.flatnonzero((at >= 0) & (at < places))
    reward[hit, at[hit]] = questions.reward(outcome)[rows[hit], shown[hit, at[hit]]]
    members = np.unique(questions.member[rows], return_inverse=True)[1]
    return Log(rows, members, shown, questions.propensity[rows, :places].astype(np.float64), seen, reward)


def another_log(questions: Questions, places: int, outcome: str, generator: np.random.Generator) -> Log:
    """A fresh log: members drawn with replacement, slates drawn by the logging policy, members' luck drawn anew."""
    people, code = np.unique(questions.member, return_inverse=True)
    order = np.argsort(code, kind="stable")
    count = np.bincount(code)
    first = np.cumsum(count) - count
    drawn = generator.integers(0, people.size, people.size)
    sizes = count[drawn]
    inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows = order[np.repeat(first[drawn], sizes) + inside]
    shown = draw(questions.logging[rows], places, generator)
    propensity, _ = conditional(questions.logging[rows], shown)
    looks = generator.random(shown.shape) < questions.look
    looks[:, 0] = True
    plays = generator.random(shown.shape) < questions.plays[rows[:, None], shown]
    before = np.cumsum(plays, axis=1) - plays
    seen = np.logical_and.accumulate(looks, axis=1) & (before == 0)
    reward = np.where(seen & plays, questions.reward(outcome)[rows[:, None], shown], 0.0)
    return Log(rows, np.repeat(np.arange(people.size), sizes), shown, propensity, seen, reward)


def draw(weight: np.ndarray, places: int, generator: np.random.Generator) -> np.ndarray:
    """[n, K] Plackett-Luce lists, by an exponential race."""
    luck = generator.standard_exponential(weight.shape, np.float32)
    arrival = np.divide(luck, weight, out=np.full_like(luck, np.inf), where=weight > 0)
    front = np.argpartition(arrival, places - 1, axis=1)[:, :places]
    order = np.argsort(np.take_along_axis(arrival, front, 1), axis=1)
    return np.take_along_axis(front, order, 1)


def conditional(weight: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, K] chance of each title at its place given the ones above, and what was left of the weight there."""
    own = np.take_along_axis(weight, shown, 1).astype(np.float64)
    left = weight.sum(axis=1, dtype=np.float64)[:, None] - (np.cumsum(own, axis=1) - own)
    return np.divide(own, left, out=np.zeros_like(own), where=left > 1e-12), left


class ProgressListener:
    """Sits beside a run of the logging policy and notes questions, chances, and ranks of what was played."""

    def __init__(self, world: World, policies: dict[str, Blend]) -> None:
        self.world, self.policies = world, policies
        self.parts: dict[str, list[dict[str, np.ndarray]]] = {"billboard": [], "top_picks": []}
        self.plays: list[dict[str, np.ndarray]] = []

    def __call__(self, request: PolicyRequest, slates: Slates, response: Response) -> None:
        chosen = {"billboard": request.canvas == on.BILLBOARD, "top_picks": request.row == on.TOP_PICKS}
        for name, where in chosen.items():
            if where.any():
                self._note(name, np.flatnonzero(where), request, slates, response)
        played = np.flatnonzero((response.played >= 0) & (request.canvas != on.SEARCH))
        if played.size:
            title = slates.titles[played, response.played[played]]
            self._rank(request.take(played), title, LAW.satisfying(response.satisfaction_logit[played]))

    def _note(self, name: str, rows: np.ndarray, request: PolicyRequest, slates: Slates, response: Response) -> None:
        part = request.take(rows)
        size = int(part.size.max())
        every = np.broadcast_to(
            np.arange(len(self.world.catalogue), dtype=np.int32), (len(part), len(self.world.catalogue))
        )
        leaning = leanings(part, every)
        shown = Slates(slates.titles[rows, :size], slates.propensity[rows, :size])
        own = {outcome: self.world.expected(part, shown, outcome) for outcome in OUTCOMES}
        self.parts[name].append(
            {
                "member": part.member,
                "logging": first_place(LOGGING, part),
                "targets": np.stack([first_place(policy, part) for policy in self.policies.values()]),
                "plays": (leaning.click * leaning.play).astype(np.float32),
                "worth": LAW.satisfying(leaning.satisfaction_logit).astype(np.float32),
                "shown": shown.titles,
                "propensity": shown.propensity,
                "examined": response.examined[rows],
                "played": response.played[rows],
                "own_play": own["play"],
                "own_satisfaction": own["satisfaction"],
            }
        )

    def _rank(self, request: PolicyRequest, titles: np.ndarray, worth: np.ndarray) -> None:
        """Rank what was played among everything the member could watch and had not, under every policy."""
        state = request.state
        offered = state.available(request.country, request.at_us) & (state.played[request.member] == 0)
        fresh = np.flatnonzero(offered[np.arange(len(request)), titles])
        if not fresh.size:
            return
        part = request.take(fresh)
        nothing = np.full(fresh.size, -1, np.int32)
        plain = replace(part, source_title=nothing, canvas=np.full(fresh.size, on.HOME, np.int8))
        rows, wanted = np.arange(fresh.size), titles[fresh].astype(np.int64)
        ranks = [
            metrics.target_ranks(policy.logits(plain), rows, wanted, offered[fresh])
            for policy in self.policies.values()
        ]
        ranked = np.stack(ranks, axis=1)
        noted = {"member": part.member, "at": part.at_us, "title": wanted, "ranks": ranked, "worth": worth[fresh]}
        self.plays.append(noted)

    def questions(self, name: str) -> Questions:
        """Put together what was noted of one canvas or row."""
        parts = self.parts[name]
        joined = {key: np.concatenate([part[key] for part in parts], axis=int(key == "targets")) for key in parts[0]}
        own = {outcome: joined.pop(f"own_{outcome}") for outcome in OUTCOMES}
        look = float(on.LOOK[on.BILLBOARD if name == "billboard" else on.HOME])
        found = Questions(**joined, look=look, check=0.0)
        full = np.flatnonzero((found.shown >= 0).all(axis=1))
        apart = [
            np.abs(found.slate_value(full, found.shown[full], outcome) - own[outcome][full]).max()
            for outcome in OUTCOMES
        ]
        return replace(found, check=float(max(apart)))

    def ranks(self) -> dict[str, np.ndarray]:
        """[plays] member, at, title, worth, and [plays, P] ranks, in order of time."""
        joined = {key: np.concatenate([part[key] for part in self.plays]) for key in self.plays[0]}
        order = np.argsort(joined["at"], kind="stable")
        return {key: values[order] for key, values in joined.items()}


def first_place(policy: Blend, request: PolicyRequest) -> np.ndarray:
    """[N, T] chance of each title at the first place."""
    candidates = request.candidates()
    logits = np.where(candidates, policy.logits(request), -np.inf)
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


def watched_run(world: World, policies: dict[str, Blend]) -> ProgressListener:
    """Run the logging policy once, with a watcher beside it."""
    watcher = ProgressListener(world, policies)
    simulate(world, LOGGING, watch=watcher)
    return watcher
