"""The gate of an ensemble: which members are worth how much on each canvas, in each country, learnt on a later window.

Weights are those of `training.term_fit`, at least 0 and shrunk: those of a country towards what countries share, those
of all towards the base alone. A country leans on the base the more, the fewer requests of it there are; one without
any, or an unknown one, has the base as it is.

Whether the ensemble is ahead is asked on a second held-back part: members of the service are divided, and each part is
scored by weights of the others. Canvases and countries where it is not ahead there have the base as it is. What is
measured of a small country says little, so gains of countries are drawn towards each other before that is decided.
Axis letters: n requests, B groups (a country and a tenure), C canvases, G countries, U tenures, A title ages,
K members of the ensemble, S slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch

from playbill.arrays import Floats64, Ints64, Mask
from playbill.continual.ensembles.gate_window import NOBODY, GateSample, GateWindow, Slots
from playbill.continual.pooling import country_gains, pooled
from playbill.metrics import Interval
from playbill.models.ensemble import KNOWN_COUNTRY
from playbill.training.term_fit import NO_CANDIDATE, CanvasSample, Groups, fit_weights, log_likelihood, scored
from playbill.training.term_weights import FEW, PARTS, member_interval, request_ndcg, weights_hold

LEAN = 20.0  # requests of a country at which its weights count half
DIGITS = 4


@dataclass(frozen=True)
class GateGain:
    """What the ensemble adds to its base, on members of the service that did not choose its weights."""

    slice: str  # `canvas` or `country`
    group: str  # its name; `all` for every canvas together
    requests: int  # of the window
    base: float  # mean NDCG@10 of the base
    gain: Interval  # what the ensemble adds to it
    likelihood: Interval  # what it adds to the log probability of what was chosen, in nats a request
    kept: bool  # whether the ensemble answers there; else the base does
    best: str  # the member that is best by itself there
    best_value: float  # its NDCG@10
    behind: bool  # whether that member is ahead of the ensemble beyond the interval


@dataclass(frozen=True)
class LearntGate:
    """What was learnt."""

    gains: tuple[GateGain, ...]
    weights: pl.DataFrame  # canvas, country, requests, member, weight and share; of the canvases that are kept


def gate_groups(countries: int, tenures: int) -> Groups:
    """Return a group for each country and tenure, with effects of the one and of the other."""
    code = np.arange(countries * tenures)
    effects: Floats64 = np.zeros((len(code), countries + (tenures if tenures > 1 else 0)))
    effects[code, code // tenures] = 1.0
    if tenures > 1:
        effects[code, countries + code % tenures] = 1.0
    return Groups(effects)


def learn_gate(window: GateWindow) -> LearntGate:
    """Learn the weights, put them into the scorer's network, and return what they are worth.

    Raises:
        StateError: The window has no requests.
    """
    members, slots, names = window.network, window.slots, window.countries
    samples = window.samples()
    countries, tenures, ages, _ = members.weights.shape[2:]
    limits, plain = _limits(samples, slots, tenures, ages), [one.sample for one in samples]
    outcome, multipliers = likeliest_weights(plain, limits, countries, tenures)
    gains = _gains(samples, outcome, window)
    kept = {(one.slice, one.group) for one in gains if one.kept}
    answered = np.array([("country", name) in kept for name in names], np.float64)
    rows: list[tuple[str, str, int, str, float, float]] = []
    members.weights.zero_()
    for place, one in enumerate(samples):
        if ("canvas", one.sample.canvas) not in kept:
            continue
        of_slots = multipliers[place].reshape(countries, tenures, ages, slots.count)
        own = slots.of_members(np.round(of_slots * answered[:, None, None, None], DIGITS), len(members.config.members))
        blend = window.resolved.canvas(one.sample.canvas).blend[one.head]
        index = int(window.scorer.encoder.canvas_index(pl.Series([one.sample.canvas]))[0])
        members.weights[members.config.heads.index(one.head), index] = torch.from_numpy(own / blend).float()
        rows += _rows(one, own, names, members.config.members)
    return LearntGate(tuple(gains), pl.DataFrame(rows, schema=_SCHEMA, orient="row"))


def _limits(samples: Sequence[GateSample], slots: Slots, tenures: int, ages: int) -> Floats64:
    """Return [B, A * S] how far weights count: by the requests of a country, and 0 where no member counts."""
    countries = len(slots.members)
    requests = np.bincount(np.concatenate([one.country for one in samples]), minlength=countries).astype(np.float64)
    counted_GS = (requests / (requests + LEAN))[:, None] * (slots.members != NOBODY)
    limits: Floats64 = np.repeat(np.tile(counted_GS, (1, ages)), tenures, axis=0)
    return limits


@dataclass(frozen=True)
class OutOfSample:
    """Of each request of a canvas, by weights that other members of the service chose."""

    base: Floats64  # [n] NDCG@10 of the base
    gain: Floats64  # [n] what the ensemble adds
    likelihood: Floats64  # [n] what it adds to the log probability of what was chosen


def likeliest_weights(
    samples: Sequence[CanvasSample], limits: Floats64, countries: int, tenures: int
) -> tuple[list[OutOfSample], Floats64]:
    """Learn weights of each country, and weights that countries share; return what is likelier on held-back members.

    Of many small countries, what they share says more than each alone. The weights are [C, B, A * S].
    """
    code = np.arange(countries * tenures)
    alone, shared = (samples, code), ([replace(one, length=one.length % tenures) for one in samples], code % tenures)
    found = []
    for (own, of_group), groups in ((alone, gate_groups(countries, tenures)), (shared, gate_groups(1, tenures))):
        outcome = out_of_sample(own, groups, limits, [one.length for one in samples], of_group)
        found.append((sum(float(one.likelihood.sum()) for one in outcome), outcome, own, groups, of_group))
    _, outcome, own, groups, of_group = max(found, key=lambda one: one[0])
    return outcome, fit_weights(own, groups=groups).multipliers()[:, of_group] * limits


def out_of_sample(
    samples: Sequence[CanvasSample],
    groups: Groups,
    limits: Floats64,
    codes: Sequence[Ints64],
    of_group: Ints64,
) -> list[OutOfSample]:
    """Score each part of the service's members by weights of the others, limited by [B, A * S]; one result a canvas.

    `codes` [n] number the country and tenure of a canvas's requests, `of_group` [B] is the group of each such number.
    """
    found = [OutOfSample(request_ndcg(one, one.heads), np.zeros(len(one)), np.zeros(len(one))) for one in samples]
    for part in range(PARTS):
        rest = [one.part(one.fold != part) for one in samples]
        others = fit_weights(rest, groups=groups)
        plain = fit_weights([one.as_written() for one in rest], groups=groups)
        for number, one in enumerate(samples):
            kept = one.fold == part
            own = one.part(kept)
            weights = (others.own[number][of_group] * limits)[codes[number][kept]]
            scores = scored(own, others.scale[number], others.blended[number], weights)
            found[number].gain[kept] = request_ndcg(own, scores) - found[number].base[kept]
            alone = np.where(own.candidates, np.float32(plain.scale[number]) * own.heads, NO_CANDIDATE)
            found[number].likelihood[kept] = log_likelihood(own, scores) - log_likelihood(own, alone)
    return found


def _gains(samples: Sequence[GateSample], outcome: Sequence[OutOfSample], window: GateWindow) -> list[GateGain]:
    """Return what the ensemble adds on each canvas, on all of them, and in each country on those that are kept."""
    # Members are coded by canvas, and a member who asked on several stands for several.
    member = [one.sample.member + number * 10**9 for number, one in enumerate(samples)]
    everything = _Group(samples, outcome, member, window.seed)
    together = everything.gain("canvas", "all", range(len(samples)))
    together = replace(together, kept=bool(together.gain.low > 0))
    canvases = []
    for number, one in enumerate(samples):
        own = everything.gain("canvas", one.sample.canvas, [number])
        kept = weights_hold(own.requests, own.gain, own.likelihood, together.gain)
        canvases.append(replace(own, kept=kept))
    used = [number for number, own in enumerate(canvases) if own.kept]
    return [*canvases, together, *_country_gains(everything, used, window.countries)]


def _country_gains(everything: _Group, used: Sequence[int], names: Sequence[str]) -> list[GateGain]:
    """Return what the ensemble adds in each country on the canvases that are kept, and whether it answers there."""
    if not used:
        return []
    country, member = (
        np.concatenate([values[number] for number in used])
        for values in ([one.country for one in everything.samples], everything.member)
    )
    seen = [int(code) for code in np.unique(country) if code >= KNOWN_COUNTRY]
    if not seen:
        return []
    added = [np.concatenate([everything.outcome[number].gain for number in used])]
    added.append(np.concatenate([everything.outcome[number].likelihood for number in used]))
    measured = country_gains(
        pl.DataFrame({"member_id": member, "country": country}), np.stack([np.zeros(len(country)), *added]), seen
    )
    drawn = [pooled(measured.means[:, column], measured.errors[:, column])[0] for column in range(len(added))]
    ahead: Mask = np.logical_and(*(gains >= 0 for gains in drawn))
    found = [everything.gain("country", names[code], used, code) for code in seen]
    return [replace(own, kept=bool(here)) for own, here in zip(found, ahead, strict=True)]


@dataclass(frozen=True)
class _Group:
    samples: Sequence[GateSample]
    outcome: Sequence[OutOfSample]
    member: Sequence[Ints64]
    seed: int

    def gain(self, name: str, group: str, numbers: Sequence[int] | range, country: int | None = None) -> GateGain:
        """Return what the ensemble adds on some canvases, in one country or in all."""
        rows = [
            np.ones(len(self.samples[number].sample), np.bool_)
            if country is None
            else self.samples[number].country == country
            for number in numbers
        ]
        member, base, gain, likelihood = (
            np.concatenate([values[number][kept] for number, kept in zip(numbers, rows, strict=True)])
            for values in (
                self.member,
                [one.base for one in self.outcome],
                [one.gain for one in self.outcome],
                [one.likelihood for one in self.outcome],
            )
        )
        best, value, behind = "base", float(base.mean()), False
        for role in self.samples[0].alone:
            alone = np.concatenate(
                [self.samples[number].alone[role][kept] for number, kept in zip(numbers, rows, strict=True)]
            )
            counted = ~np.isnan(alone)
            if counted.all() and alone.mean() > value:
                best, value = role, float(alone.mean())
                lead = member_interval(member, alone - base - gain, self.seed)
                behind = bool(lead.low > 0) and len(alone) >= FEW
        return GateGain(
            slice=name,
            group=group,
            requests=len(base),
            base=float(base.mean()),
            gain=member_interval(member, gain, self.seed),
            likelihood=member_interval(member, likelihood, self.seed),
            kept=False,
            best=best,
            best_value=value,
            behind=behind,
        )


_SCHEMA = {
    "canvas": pl.String,
    "country": pl.String,
    "requests": pl.Int64,
    "member": pl.String,
    "weight": pl.Float64,
    "share": pl.Float64,
}


def _rows(
    one: GateSample, own_GUAK: Floats64, names: Sequence[str], roles: Sequence[str]
) -> Iterator[tuple[str, str, int, str, float, float]]:
    """Yield what members weigh in each country, over its tenures and ages of titles, and their share of the score.

    The base's part is the deviation of its scores over the candidates of a request; that of a member is its weight.
    """
    mask = one.sample.candidates
    count = np.maximum(mask.sum(axis=1), 1)
    mean = (one.sample.heads * mask).sum(axis=1) / count
    spread = np.sqrt((((one.sample.heads - mean[:, None]) ** 2) * mask).sum(axis=1) / count)
    for code, name in enumerate(names):
        rows = one.country == code
        if code < KNOWN_COUNTRY or not rows.any():
            continue
        tenures = np.bincount(one.sample.length[rows] % own_GUAK.shape[1], minlength=own_GUAK.shape[1])
        weights = np.average(own_GUAK[code], axis=0, weights=tenures)[0]
        base = float(spread[rows].mean())
        total = max(base + float(weights.sum()), 1e-9)
        requests = int(rows.sum())
        yield one.sample.canvas, name, requests, "base", 1.0, base / total
        for role, weight in zip(roles, weights.tolist(), strict=True):
            yield one.sample.canvas, name, requests, role, weight, weight / total
