"""The truth behind held-out requests: how likely each title was to be played in them, then and there.

The log of a workspace is written by a run that can be repeated to the bit. It is run again, and at each wanted request
the chance of every title is worked out from the state of that moment:

    sum over rows of the page: P(the row is reached) P(the title stands at a place that is looked at) p q

with p and q of `world.behaviour_model`. A page's rows are those that the service's own law could lay out, so what the
page happened to be is not known, nor in which row anything was played; the member's taste and mood are. Lists of a
`ScoredPolicy` come from an exponential race: given that title t arrives at time s, those before it are looked at and
passed, or the look ends, independently, so its chance is an integral over s of one product, see `looked_at`.
Axis letters: N requests, T titles, S arrival times.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.special import pdtr

from playbill.arrays import AnyFloats, AnyInts, Floats32, Floats64, Ints32
from playbill_lab.simulator.engine.choices import Response, every_leaning
from playbill_lab.simulator.engine.run import simulate
from playbill_lab.simulator.engine.steps import listed_by_rule
from playbill_lab.simulator.engine.visits import lacking
from playbill_lab.simulator.policies.policies import Policy, ScoredPolicy, load_policy
from playbill_lab.simulator.policies.policy_request import PolicyRequest, Slates
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.checkpoint import FILE, read_world
from playbill_lab.simulator.world.effects import examination_logit, next_row_of
from playbill_lab.simulator.world.event_log import QUESTIONS_EACH
from playbill_lab.simulator.world.world import World

MOST_MEMBERS = 20_000  # Members of a world that is run again: a minute, on one core
MOST_CELLS = 200_000_000  # Requests x titles that are held: 800 MB
ARRIVALS = np.exp(np.linspace(-7.0, 9.0, 33))
"""[S] times at which the race is looked at; weights sum to 1, so few titles come before the first or after the last."""
DRAWS = 64  # Lists drawn of a policy that gives no scores
_AT_ONCE = 32
_GENRES = 4  # Genres of a genre row that are followed up, the likeliest first
_STEP = float(np.log(ARRIVALS[1] / ARRIVALS[0]))


@dataclass
class TruePlays:
    """How likely each title was to be played in requests of a simulated log.

    `believed` is the same world by another law, that of an oracle which believes in it; None = the law of the world.
    """

    world: World
    note: str = ""  # Why nothing more is known; empty while all is
    believed: World | None = None
    _found: dict[str, Floats32] = field(default_factory=dict)
    _sought: set[str] = field(default_factory=set)

    @property
    def title_ids(self) -> list[str]:
        """The titles, one for each column."""
        return self.world.title_ids.to_list()

    def gather(self, request_ids: Collection[str]) -> None:
        """Run the world again and keep the truth of requests; those that are known already cost nothing."""
        wanted = set(request_ids) - self._sought
        self.note = self._refusal(len(wanted))
        if not wanted or self.note:
            return
        self._sought |= wanted
        policy = load_policy(self.world.spec.policy)

        def watch(request: PolicyRequest, _slates: Slates, _response: Response) -> None:
            begins = np.flatnonzero(request.number == request.request)
            ids = request_names(request.take(begins)) if len(begins) else []
            here = [(place, name) for place, name in zip(begins.tolist(), ids, strict=True) if name in wanted]
            for start in range(0, len(here), _AT_ONCE):
                part = here[start : start + _AT_ONCE]
                seen = request.take(np.array([place for place, _ in part]))
                values = true_plays(replace(seen, world=self.believed or self.world), policy)
                self._found |= {name: row for (_, name), row in zip(part, values.astype(np.float32), strict=True)}

        simulate(self.world, policy, watch=watch)

    def of(self, request_ids: Collection[str]) -> Floats32 | None:
        """Return [N, T] of requests; None where one of them is not of this world's run, and `note` says what is."""
        self.gather(request_ids)
        known = [self._found.get(name) for name in request_ids]
        rows = [row for row in known if row is not None]
        if len(rows) < len(known) and not self.note:
            self.note = f"no ceiling: {len(known) - len(rows)} of {len(known)} requests are not of the simulated run"
        return np.stack(rows) if rows and len(rows) == len(known) else None

    def _refusal(self, wanted: int) -> str:
        members, cells = len(self.world.people), wanted * len(self.world.catalogue)
        if members > MOST_MEMBERS:
            return f"no ceiling: a world of {members:,} members takes too long to run again (at most {MOST_MEMBERS:,})"
        if cells > MOST_CELLS:
            return f"no ceiling: {wanted:,} requests of {len(self.world.catalogue):,} titles are too many to hold"
        return ""


def truth_of(folder: Path) -> TruePlays | None:
    """Return the truth behind a workspace's log, None where it was not simulated, or a killed run has cost its world.

    Raises:
        IntegrityError: What was kept of the world is damaged.
    """
    return TruePlays(read_world(folder)) if (folder / FILE).is_file() else None


def request_names(request: PolicyRequest) -> list[str]:
    """Return the ids that the log gives the requests, [N]."""
    members = request.world.member_ids.gather(request.member.astype(np.int64)).to_list()
    return [
        f"{member}-r{number}"
        for member, number in zip(members, (request.request % QUESTIONS_EACH).tolist(), strict=True)
    ]


def true_plays(request: PolicyRequest, policy: Policy) -> Floats64:
    """Return [N, T] how likely each title is to be played in a request, or on previews to be asked for."""
    chance = np.zeros((len(request), len(request.world.catalogue)))
    home = request.canvas == on.HOME
    plain = np.flatnonzero(~home)
    if len(plain):
        chance[plain] = _played(request.take(plain), policy)
    places = np.flatnonzero(home)
    if len(places):
        for reached, row in page_rows(request.take(places)):
            some = np.flatnonzero(reached > 0)
            chance[places[some]] += reached[some, None] * _played(row.take(some), policy)
    return chance


def page_rows(request: PolicyRequest) -> Iterator[tuple[Floats64, PolicyRequest]]:
    """Yield each row that home pages may have, ordered as by `visits.lay_out`, with [N] how likely it is reached."""
    count = len(request)
    absent = lacking(request.member, request.state)
    there = np.ones((count, len(on.ROWS)), np.bool_)
    for row, lacks in absent.items():
        there[lacks, row] = False
    pinned = there[:, list(on.PINNED_ROWS)]
    reach = next_row_of(request.world, request.device)[:, None] ** np.arange(on.MOST_ROWS)
    total = np.concatenate([np.zeros((count, 1)), np.cumsum(reach, axis=1)], axis=1)
    each, first, free = np.arange(count), pinned.sum(axis=1), (there.sum(axis=1) - pinned.sum(axis=1))
    # Pages with fewer rows than fit end sooner.
    last = np.minimum(first + free, on.MOST_ROWS)
    below = (total[each, last] - total[each, first]) / np.maximum(free, 1)
    above = np.zeros(count, np.int64)
    for row in range(len(on.ROWS)):
        reached = below * there[:, row]
        if row in on.PINNED_ROWS:
            reached = reach[each, above] * there[:, row]
            above = above + there[:, row]
        yield from _of_row(request, row, reached)


def _of_row(request: PolicyRequest, row: int, reached: Floats64) -> Iterator[tuple[Floats64, PolicyRequest]]:
    count, state = len(request), request.state
    liked = state.recent[request.member, 0] if row == on.BECAUSE_YOU_WATCHED else np.full(count, -1, np.int32)
    own = replace(
        request,
        row=np.full(count, row, np.int8),
        genre=np.full(count, -1, np.int16),
        source_title=liked.astype(np.int32),
        shown=np.full((count, 1), -1, np.int32),
    )
    if row != on.GENRE_ROWS:
        yield reached, own
        return
    plays = state.genre_plays[request.member].astype(np.float64)
    share = plays / np.maximum(plays.sum(axis=1, keepdims=True), 1e-12)
    order = np.argsort(-share, axis=1, kind="stable")[:, :_GENRES]
    for place in range(order.shape[1]):
        genre = order[:, place]
        yield reached * share[np.arange(count), genre], replace(own, genre=genre.astype(np.int16))


def _played(request: PolicyRequest, policy: Policy) -> Floats64:
    """Return [N, T] the chance that a list is looked at where a title stands, and that the title is then played."""
    leaning = every_leaning(request)
    play = np.where(np.isin(request.canvas, on.PREVIEWS)[:, None], leaning.click, leaning.click * leaning.play)
    if np.isin(request.row, on.RULE_ROWS).all():
        return play * listed(listed_by_rule(request, request.places), play, examination_logit(request))
    if isinstance(policy, ScoredPolicy) and type(policy).answer is ScoredPolicy.answer:
        return play * looked_at(policy.weights(request), play, examination_logit(request), request.size)
    drawn = np.zeros_like(play)
    for number in range(DRAWS):
        titles = policy.answer(request, np.random.default_rng(number)).titles
        drawn += listed(titles, play, examination_logit(request)) / DRAWS
    return play * drawn


def listed(titles: Ints32, play: Floats64, look: Floats64) -> Floats64:
    """Return [N, T] the chance that each title of given lists [N, K] (-1 fills) is looked at.

    `play` [N, T] is the chance of a play of what is looked at, `look` [N] that of looking on after one that was not
    played.
    """
    there, title = titles >= 0, np.maximum(titles, 0).astype(np.int64)
    own = np.take_along_axis(play, title, axis=1) * there
    passed = look[:, None] * (1.0 - own)
    reached = np.cumprod(np.concatenate([np.ones((len(own), 1)), passed[:, :-1]], axis=1), axis=1) * there
    found = np.zeros_like(play)
    np.add.at(found, (np.arange(len(own))[:, None], title), reached)
    return found


def looked_at(weights: AnyFloats, play: Floats64, look: Floats64, size: AnyInts) -> Floats64:
    """Return [N, T] the chance that each title stands on a list drawn by weights, and is looked at.

    Title t arrives at time E_t / w_t; a list of one is the first to arrive. At time s the mean number of others that
    have arrived is m, and that of those after which the member looks on r; with both numbers taken for Poisson, title t
    is looked at with probability e^(r - m) P(Poisson(r) < K). The chance is the mean of that over its arrival.

    `weights` [N, T] are Plackett and Luce's, 0 = no candidate; `play` and `look` as in `listed`; `size` [N] places K.
    """
    share = np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-30), np.float64)
    on_passing = look[:, None] * (1.0 - play)
    found = np.zeros_like(play)
    for arrival in ARRIVALS:
        rate = share * arrival
        arrived = -np.expm1(-rate)
        mean, looking = arrived.sum(axis=1), (arrived * on_passing).sum(axis=1)
        seen = np.exp(looking - mean) * pdtr(np.asarray(size) - 1.0, np.maximum(looking, 1e-12))
        found += _STEP * rate * (1.0 - arrived) * seen[:, None]
    return np.where((np.asarray(size) == 1)[:, None], share, found)
