"""How members look at lists, click, and play: the law applied to slates, and the exact expectation of their outcomes.

Axis letters: N questions, K places, F factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from playbill.arrays import Bools, Floats64, Ints32, Ints64
from playbill.errors import UnknownNameError
from playbill_lab.simulator.policies.policy_request import PolicyRequest, Slates
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.behaviour_model import LAW, logistic
from playbill_lab.simulator.world.effects import examination_logit, taste_of
from playbill_lab.simulator.world.launches import DAY_US, NEVER
from playbill_lab.simulator.world.random_streams import Streams

if TYPE_CHECKING:
    from playbill_lab.simulator.world.world import World


@dataclass(frozen=True, eq=False)
class Leanings:
    """What each title of a slate is to the member asked, [N, K]; where the slate is empty all chances are 0."""

    click: Floats64  # Probability of a click if it is looked at
    play: Floats64  # Probability of a play after a click
    satisfaction_logit: Floats64  # Log odds of playing it to the end, once begun


@dataclass(frozen=True, eq=False)
class Response:
    """What members did with their slates."""

    examined: Ints64  # [N] places looked at, from the first on
    clicked: Bools  # [N, K] places clicked
    played: Ints64  # [N] the place that was played; -1 none
    satisfaction_logit: Floats64  # [N] of the play; 0 where there is none


def leanings(request: PolicyRequest, titles: Ints32) -> Leanings:
    """Work out the law's probabilities for the titles [N, K] of slates; -1 fills."""
    world, state, truth = request.world, request.state, request.world.truth
    there, title = titles >= 0, np.maximum(titles, 0)
    member = request.member[:, None]
    vector = truth.vector[title]
    match = np.einsum("nf,nkf->nk", taste_of(truth, request.member, request.device), vector, dtype=np.float64)
    intent = np.einsum("nf,nkf->nk", request.hidden.intent, vector, dtype=np.float64)
    started = _among(state.continuing[request.member], title)
    wanted = title == request.hidden.wanted[:, None]
    quality = truth.quality[title].astype(np.float64)
    attraction = (
        LAW.click_base
        + LAW.click_taste * match
        + LAW.click_intent * intent
        + LAW.click_appeal * truth.appeal[title]
        + LAW.click_pull * truth.pull[title]
        + buzz(world, title, request.country, request.at_us)
        + LAW.foreign * ~world.people.speaks[member, world.catalogue.language[title]]
        + LAW.seen * ((state.played[member, title] > 0) & ~started)
        + LAW.started * started
        + LAW.reminded * _among(state.reminders[request.member], title)
        + LAW.wanted * wanted
        + on.DRAW[request.canvas][:, None]
        + on.ROW_DRAWS[request.row][:, None]
    )
    if world.effects is not None:
        attraction += world.effects.attraction(request, title)
    play = LAW.play_base + LAW.play_taste * match + LAW.play_intent * intent + LAW.play_started * (started | wanted)
    playable = there & ~np.isin(request.canvas, on.PREVIEWS)[:, None]
    return Leanings(
        click=logistic(attraction) * there,
        play=logistic(play) * playable,
        satisfaction_logit=LAW.glad_base
        + LAW.glad_taste * match
        + LAW.glad_intent * intent
        + LAW.glad_quality * quality,
    )


def every_leaning(request: PolicyRequest) -> Leanings:
    """Return [N, T] leanings to every title."""
    titles = len(request.world.catalogue)
    return leanings(request, np.broadcast_to(np.arange(titles, dtype=np.int32), (len(request), titles)))


def buzz(world: World, title: Ints32, country: NDArray[np.int16], at_us: Ints64) -> Floats64:
    """Return [N, K] the buzz of titles at these moments: highest until launch there, halved every `half_life_days`."""
    opens = world.windows.opens[title, country[:, None]]
    age = np.where(opens == NEVER, 0, at_us[:, None] - opens) / DAY_US
    fading = np.maximum(age, 0.0) / world.truth.half_life_days[title]
    return np.asarray(world.truth.buzz[title] * np.exp2(-fading), np.float64)


def respond(request: PolicyRequest, slates: Slates, streams: Streams) -> Response:
    """Let members look at their slates; `streams` is the luck, a run's own or a replay's."""
    leaning = leanings(request, slates.titles)
    count, size = slates.titles.shape
    luck = streams.uniform("respond", request.member, request.number, 3 * size)
    look, click, play = luck[:, :size], luck[:, size : 2 * size], luck[:, 2 * size :]
    goes_on = look < examination_logit(request)[:, None]
    goes_on[:, 0] = True
    goes_on &= slates.titles >= 0
    clicks = click < leaning.click
    plays = clicks & (play < leaning.play)
    before = np.zeros((count, size), np.bool_)
    before[:, 1:] = np.logical_or.accumulate(plays, axis=1)[:, :-1]
    seen = np.logical_and.accumulate(goes_on, axis=1) & ~before
    plays &= seen
    any_play = plays.any(axis=1)
    played = np.where(any_play, plays.argmax(axis=1), -1)
    satisfaction_logit = np.where(any_play, leaning.satisfaction_logit[np.arange(count), played], 0.0)
    return Response(seen.sum(axis=1), clicks & seen, played, satisfaction_logit)


def _among(listed: Ints32, title: Ints32) -> Bools:
    found: Bools = (listed[:, None, :] == title[:, :, None]).any(axis=2)
    return found


Outcomes = Literal["click", "play", "completion", "satisfaction"]
OUTCOMES: tuple[Outcomes, ...] = ("click", "play", "completion", "satisfaction")


def expected(request: PolicyRequest, slates: Slates, outcome: Outcomes) -> Floats64:
    """Return [N] the expectation of each slate's outcome, given what the member wants at that moment.

    `click`: places clicked. `play`: plays begun (0 or 1). `completion`: plays whose sitting went to its end (the
    film, or the episode). `satisfaction`: change of the member's satisfaction by the play, before it is clipped.

    With p_k and q_k of the law, place k is looked at with probability look^(k-1) prod_{j<k} (1 - p_j q_j).

    Raises:
        UnknownNameError: There is no such outcome.
    """
    if outcome not in OUTCOMES:
        raise UnknownNameError("outcome", outcome, OUTCOMES)
    per_place = expected_by_place(request, slates, outcome)
    total: Floats64 = per_place.sum(axis=1)
    return total


def expected_by_place(request: PolicyRequest, slates: Slates, outcome: Outcomes) -> Floats64:
    """Return [N, K] the part of each place in `expected`."""
    leaning = leanings(request, slates.titles)
    plays = leaning.click * leaning.play
    reached = np.cumprod(np.concatenate([np.ones((len(plays), 1)), 1.0 - plays[:, :-1]], axis=1), axis=1)
    looked = examination_logit(request)[:, None] ** np.arange(plays.shape[1]) * reached
    if outcome == "click":
        worth = leaning.click
    elif outcome == "play":
        worth = plays
    else:
        after = (
            logistic(leaning.satisfaction_logit)
            if outcome == "completion"
            else LAW.satisfying(leaning.satisfaction_logit)
        )
        worth = plays * after
    return looked * worth
