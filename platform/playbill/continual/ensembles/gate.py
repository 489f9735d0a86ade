"""The gate of an ensemble: which members are worth how much on each canvas, in each country, learnt on a later window.

The window is the validation fold, that no network has seen. Weights are those of `training.term_fit`, at least 0 and
shrunk: those of a country towards what countries share, those of all towards the base alone. A country leans on the
base the more, the fewer requests of it there are; one without any, or an unknown one, has the base as it is.

Whether the ensemble is ahead is asked on a second held-back part: members of the service are divided, and each part is
scored by weights of the others. Canvases and countries where it is not ahead there have the base as it is.
Axis letters: n requests, T titles, C canvases, G countries, U tenures, A title ages, K members of the ensemble.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch

from playbill.arrays import Floats32, Floats64, Ints64, Mask
from playbill.continual.ensembles.members import Member, main_head, title_canvases
from playbill.datasets import Request, Split
from playbill.definitions.specs import EnsembleSpec, ResolvedModel
from playbill.errors import StateError
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import build_case, has_log
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import UNKNOWN, EvaluationTables, EventLog
from playbill.evaluation.cases.score_function import AlignedScorer, MemberFeatures, with_features
from playbill.metrics import Interval
from playbill.models.ensemble import KNOWN_COUNTRY
from playbill.ranking.blend import blend_rows, head_losses
from playbill.ranking.scoring.scorer import Scorer
from playbill.training.term_fit import NO_CANDIDATE, CanvasSample, Groups, fit_weights, log_likelihood, scored
from playbill.training.term_weights import (
    FEW,
    PARTS,
    REQUESTS_AT_ONCE,
    member_interval,
    request_ndcg,
    weights_hold,
)

LEAN = 20.0  # requests of a country at which its weights count half
CELLS = 40_000_000  # request x title x member cells that are learnt from: 160 MB. More requests are sampled
DIGITS = 4


@dataclass(frozen=True)
class GateSample:
    """The window's requests of one canvas."""

    sample: CanvasSample  # terms [n, A * K]; `length` is the number of country and tenure
    head: str  # of the base, that members are added to
    country: Ints64  # [n]
    alone: dict[str, Floats64]  # role -> [n] NDCG@10 of a member's own network by itself; nan where it does not count


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


@dataclass(frozen=True)
class GateWindow:
    """What the gate is learnt from."""

    scorer: Scorer  # of the ensemble, all of whose weights are 0
    resolved: ResolvedModel
    members: Mapping[str, Member]
    log: EventLog
    split: Split
    tables: EvaluationTables
    features: MemberFeatures
    seed: int

    def cases(self) -> list[EvaluationCase]:
        """Return the canvases that the window has requests of.

        Raises:
            StateError: It has none.
        """
        found = []
        for name in title_canvases(self.resolved):
            if has_log(self.tables, self.split, self.resolved, name, "validation", self.log):
                try:
                    found.append(
                        build_case(self.tables, self.split, self.resolved, name, fold="validation", log=self.log)
                    )
                except StateError:
                    continue  # none of its held-out titles was a candidate
        if not found:
            raise StateError(
                "no canvas has requests in the window after the members' training, so there is nothing to learn the "
                "gate from; train the members on more data"
            )
        return found

    def samples(self, ensemble: EnsembleSpec) -> list[GateSample]:
        """Score the requests of each canvas, or a random share of them, by the base and by each member."""
        cases, ages = self.cases(), 2 if "title_age" in ensemble.gate else 1
        cells = sum(len(case) * len(case.catalogue) for case in cases) * (len(ensemble.members) - 1) * ages
        return [self._sample(case, min(1.0, CELLS / max(cells, 1)), ensemble) for case in cases]

    def _sample(self, case: EvaluationCase, share: float, ensemble: EnsembleSpec) -> GateSample:
        chosen = np.zeros(len(case), np.bool_)
        chosen[np.random.default_rng(self.seed).permutation(len(case))[: max(1, round(share * len(case)))]] = True
        case = case.keep(chosen[case.rows])
        head = str(main_head(self.resolved, case.canvas))
        places = case.catalogue.places_in(self.scorer.title_ids)
        parts = list(self._parts(case, head, places))
        heads, terms, masks, groups, countries = (np.concatenate(values) for values in zip(*parts, strict=True))
        members = case.frame["member_id"].cast(pl.String)
        sample = CanvasSample(
            canvas=case.canvas,
            heads=heads,
            blended=np.zeros((len(case), 0, len(case.catalogue)), np.float32),
            terms=terms,
            candidates=masks,
            rows=case.rows,
            columns=case.columns,
            length=groups,
            fold=np.array([zlib.crc32(member.encode()) % PARTS for member in members], np.int64),
            member=members.rank("dense").to_numpy().astype(np.int64) - 1,
        )
        return GateSample(sample, head, countries, self._alone(case, sample, ensemble))

    def _parts(
        self, case: EvaluationCase, head: str, places: Ints64
    ) -> Iterator[tuple[Floats32, Floats32, Mask, Ints64, Ints64]]:
        """Yield scores of the base, values of members, candidates, and the groups of a few requests at a time."""
        blend, losses = self.resolved.canvas(case.canvas).blend, head_losses(self.resolved)
        known, network = places != UNKNOWN, self.scorer.network
        assert network.ensemble is not None
        tenures = network.ensemble.weights.shape[3]
        for chunk in case.chunks():
            requests = with_features(chunk.requests, self.resolved.model.features, self.features)
            self.scorer.remember([request.at for request in requests])
            for start in range(0, len(requests), REQUESTS_AT_ONCE):
                rows = slice(start, start + REQUESTS_AT_ONCE)
                mask = chunk.candidates[rows] & known
                logits = self.scorer.score(requests[rows], blend)
                written = np.where(mask, blend_rows(logits, losses, blend)[:, places], 0.0).astype(np.float32)
                found = self.scorer.member_values(requests[rows], head)
                values = found.values[:, :, places] * mask[:, None]
                if found.new is not None:
                    new = found.new[:, None, places]
                    values = np.concatenate([values * ~new, values * new], axis=1)
                group: Ints64 = found.context.country * tenures + found.context.tenure
                yield written, values, mask, group, found.context.country

    def _alone(self, case: EvaluationCase, sample: CanvasSample, ensemble: EnsembleSpec) -> dict[str, Floats64]:
        """Return what members reach by their own networks, whole."""
        found = {}
        for role, member in self.members.items():
            if role != ensemble.base:
                own = member.canvas(case.canvas)
                function = CanvasScorer(member.model.scorer, member.resolved, own, self.features)
                scorer = AlignedScorer(role, function, case.catalogue)
                values = np.concatenate(
                    [_ndcg_of(case, chunk.start, chunk.requests, own, scorer, sample) for chunk in case.chunks()]
                )
                if member.spec.countries:
                    values[~case.frame["country"].is_in(list(member.spec.countries)).to_numpy()] = np.nan
                found[role] = values
        return found


def _ndcg_of(
    case: EvaluationCase,
    start: int,
    requests: Sequence[Request],
    canvas: str,
    scorer: AlignedScorer,
    sample: CanvasSample,
) -> Floats64:
    rows = np.zeros(len(case), np.bool_)
    rows[start : start + len(requests)] = True
    part = sample.part(rows)
    scores, mask = scorer.score([replace(request, canvas=canvas) for request in requests], part.candidates)
    return request_ndcg(part, np.where(mask, scores, NO_CANDIDATE))


def gate_groups(countries: int, tenures: int) -> Groups:
    """Return a group for each country and tenure, with effects of the one and of the other."""
    code = np.arange(countries * tenures)
    effects: Floats64 = np.zeros((len(code), countries + (tenures if tenures > 1 else 0)))
    effects[code, code // tenures] = 1.0
    if tenures > 1:
        effects[code, countries + code % tenures] = 1.0
    return Groups(effects)


def learn_gate(window: GateWindow, ensemble: EnsembleSpec) -> LearntGate:
    """Learn the weights, put them into the scorer's network, and return what they are worth.

    Raises:
        StateError: The window has no requests.
    """
    members = window.scorer.network.ensemble
    assert members is not None
    samples = window.samples(ensemble)
    shape = members.weights.shape[2:]
    limits, plain = _limits(samples, window, ensemble), [one.sample for one in samples]
    outcome, multipliers = likeliest_weights(plain, limits, shape[0], shape[1])
    gains = _gains(samples, outcome, window)
    kept = {(one.slice, one.group) for one in gains if one.kept}
    names = ["", *window.scorer.encoder.vocabulary("country").entries]
    countries = np.array([("country", name) in kept for name in names], np.float64)
    rows: list[tuple[str, str, int, str, float, float]] = []
    members.weights.zero_()
    for place, one in enumerate(samples):
        if ("canvas", one.sample.canvas) not in kept:
            continue
        own = np.round(multipliers[place].reshape(shape) * countries[:, None, None, None], DIGITS)
        blend = window.resolved.canvas(one.sample.canvas).blend[one.head]
        index = int(window.scorer.encoder.canvas_index(pl.Series([one.sample.canvas]))[0])
        members.weights[members.config.heads.index(one.head), index] = torch.from_numpy(own / blend).float()
        rows += _rows(one, own, names, members.config.members)
    return LearntGate(tuple(gains), pl.DataFrame(rows, schema=_SCHEMA, orient="row"))


def _limits(samples: Sequence[GateSample], window: GateWindow, ensemble: EnsembleSpec) -> Floats64:
    """Return [B, A * K] how far weights count: by the requests of a country, and 0 where a member does not count."""
    members = window.scorer.network.ensemble
    assert members is not None
    countries, tenures, ages, _ = members.weights.shape[2:]
    requests = np.bincount(np.concatenate([one.country for one in samples]), minlength=countries).astype(np.float64)
    trust_G = requests / (requests + LEAN)
    trust_G[:KNOWN_COUNTRY] = 0.0
    vocabulary = window.scorer.encoder.vocabulary("country")
    allowed = np.ones((countries, len(members.config.members)))
    for place, role in enumerate(members.config.members):
        if own := ensemble.members[role].countries:
            allowed[:, place] = 0.0
            allowed[vocabulary.encode(pl.Series(list(own), dtype=pl.String)).astype(np.int64), place] = 1.0
    limits: Floats64 = np.repeat(np.tile(trust_G[:, None] * allowed, (1, ages)), tenures, axis=0)
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

    Of many small countries, what they share says more than each alone. The weights are [C, B, A * K].
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
    """Score each part of the service's members by weights of the others, limited by [B, A * K]; one result a canvas.

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
    names = ["", *window.scorer.encoder.vocabulary("country").entries]
    seen = sorted({int(code) for number in used for code in samples[number].country if code >= KNOWN_COUNTRY})
    countries = [everything.gain("country", names[code], used, code) for code in seen]
    ahead = [replace(own, kept=own.gain.value >= 0 and own.likelihood.value >= 0) for own in countries]
    return [*canvases, together, *ahead]


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
