"""What terms are worth: weights learnt on the validation fold, that network and tables have not seen.

For every canvas that the fold has requests of, weights are fitted to all of them: those of terms of histories, and
those of the terms that the canvas blends beside its heads. Whether they help is asked out of sample: the members are
divided into parts, each scored by weights of the others (see `weights_hold`). A canvas whose weights do not hold keeps
its blend as it is written. Canvases without requests of their own have what the others share.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from playbill import metrics
from playbill.arrays import Floats64, Ints64
from playbill.datasets import Encoder, Split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.canvas import TERMS
from playbill.definitions.specs.head import HISTORY_TERMS
from playbill.errors import StateError
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.boundaries import assert_fitted_before
from playbill.evaluation.cases.build import build_case, has_log
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import UNKNOWN, EvaluationTables, EventLog, TitleOrder
from playbill.evaluation.cases.score_function import MemberFeatures
from playbill.metrics.bootstrap import Interval, MemberBootstrap
from playbill.models import Network
from playbill.models.config import HistoryTermsConfig
from playbill.models.history_terms import LENGTHS, HistoryTerms, length_group
from playbill.ranking.blend import blend_rows, head_losses
from playbill.ranking.scoring.history_terms import played_by_members
from playbill.ranking.scoring.scorer import Scorer
from playbill.training.term_fit import NO_CANDIDATE, CanvasSample, TermWeights, fit_weights, log_likelihood, scored

PARTS = 4  # of the members, to ask whether weights help
ENOUGH, FEW = 100, 20
"""Requests from which on the mean of a canvas speaks beside the interval of all, and its likelihood for itself."""
CUT = 10
REQUESTS_AT_ONCE = 32
"""Requests whose terms are worked out at a time: some copies of [requests, terms, titles] are held then."""
CELLS = 8_000_000
"""Request x title cells that are learnt from, over all canvases: 200 MB with five terms. More requests are sampled."""
DIGITS = 4  # of a weight: a run that is killed here and goes on comes to the same bundle
WEEK = "log_plays_7d"  # column of title popularity that `popular_7d` reads


@dataclass(frozen=True)
class CanvasGain:
    """What terms do for one canvas, on members that did not choose their weights."""

    canvas: str  # its name; `all` for every canvas together
    requests: int  # of the validation fold
    written: float  # mean NDCG@10 of the blend as it is written
    gain: Interval  # what learnt weights add to it
    # what they add to the log probability of what was chosen, in nats a request, over the written blend at its own best
    # scale
    likelihood: Interval
    kept: bool  # whether they are used


@dataclass(frozen=True)
class LearntTerms:
    """The outcome for one head."""

    head: str  # the head
    gains: tuple[CanvasGain, ...]  # one for each canvas, and for all together
    weights: pl.DataFrame  # canvas, plays (from how many on), term, weight; of the canvases that keep theirs
    # canvas -> its blend with the weights that were learnt for its terms; of the same canvases
    blends: dict[str, dict[str, float]] = field(default_factory=dict)


def terms_config(resolved: ResolvedModel, encoder: Encoder) -> HistoryTermsConfig | None:
    """Return the terms that a definition asks for and that can be had, None where there are none.

    Heads that have terms share them: a head that does not name one has a weight of 0 for it.
    """
    heads = {name: head.terms for name, head in resolved.model.heads.items() if head.terms}
    snapshot = encoder.state.title_snapshot
    week = [place for place, name in enumerate(snapshot) if name.endswith(f"__{WEEK}")]
    wanted = {term for terms in heads.values() for term in terms}
    terms = tuple(term for term in HISTORY_TERMS if term in wanted and (term != "popular_7d" or week))
    if not terms:
        return None
    return HistoryTermsConfig(terms=terms, heads=tuple(heads), popularity=week[0] if week else None)


def log_of(split: Split, tables: EvaluationTables) -> EventLog:
    """Return the events with their folds, for the two functions below."""
    return EventLog.of(tables.interactions, split, TitleOrder.of(tables.titles["title_id"].to_list()))


def add_terms(network: Network, terms: HistoryTermsConfig, log: EventLog, encoder: Encoder) -> Network:
    """Return a trained network with terms whose tables are fitted on the train fold; their weights are 0."""
    found = Network(network.config.model_copy(update={"history_terms": terms}))
    assert found.history_terms is not None
    found.load_state_dict({**found.state_dict(), **network.state_dict()})
    found.history_terms.fit(played_by_members(log.fitted_plays(), encoder))
    return found.eval()


@dataclass(frozen=True)
class ValidationFold:
    """What weights are learnt from."""

    scorer: Scorer
    log: EventLog
    split: Split
    tables: EvaluationTables
    features: MemberFeatures | None
    seed: int

    def cases(self, head: str, resolved: ResolvedModel) -> list[EvaluationCase]:
        """Return the canvases that blend a head and that the fold has requests of.

        Raises:
            IntegrityError: Tables were fitted on plays at or after a request.
        """
        found = []
        for name, canvas in resolved.canvases.items():
            if canvas.target != "title" or canvas.blend.get(head, 0.0) <= 0:
                continue
            if not has_log(self.tables, self.split, resolved, name, "validation", self.log):
                continue
            try:
                case = build_case(self.tables, self.split, resolved, name, fold="validation", log=self.log)
            except StateError:
                continue  # None of its held-out titles was a candidate, so there is nothing to learn from.
            assert_fitted_before(case)
            found.append(case)
        return found

    def sample(self, case: EvaluationCase, resolved: ResolvedModel, share: float) -> CanvasSample:
        """Score a canvas's requests, or a random share of them, by its blend and by each term."""
        generator = np.random.default_rng(self.seed)
        drawn = generator.permutation(len(case))[: max(1, round(share * len(case)))]
        chosen = np.zeros(len(case), np.bool_)
        chosen[drawn] = True
        case = case.keep(chosen[case.rows])
        function = CanvasScorer(self.scorer, resolved, case.canvas, self.features)
        places = case.catalogue.places_in(self.scorer.title_ids)
        known = places != UNKNOWN
        blend, losses = function.canvas.blend, head_losses(resolved)
        beside = _terms_of(blend)
        of_heads = {name: weight for name, weight in blend.items() if name not in beside}
        size, titles = len(case), len(case.catalogue)
        assert self.scorer.network.history_terms is not None
        count = len(self.scorer.network.history_terms.config.terms)
        heads, masks = np.empty((size, titles), np.float32), np.empty((size, titles), np.bool_)
        blended, terms = (np.empty((size, own, titles), np.float32) for own in (len(beside), count))
        length = np.empty(size, np.int64)
        for chunk in case.chunks():
            mask, rows = chunk.candidates & known, slice(chunk.start, chunk.start + len(chunk.requests))
            masks[rows] = mask
            # A title that came after training may be a target: it stays a candidate, with what the model makes of it.
            logits = function.heads(chunk.requests, blend)
            heads[rows] = np.where(mask, blend_rows(logits, losses, of_heads)[:, places], 0.0)
            for place, name in enumerate(beside):
                blended[rows, place] = np.where(mask, blend[name] * logits[name][:, places], 0.0)
            for start in range(0, len(mask), REQUESTS_AT_ONCE):
                part = slice(start, min(start + REQUESTS_AT_ONCE, len(mask)))
                found = self.scorer.history_terms(chunk.requests[part])
                assert found is not None
                own = slice(chunk.start + part.start, chunk.start + part.stop)
                terms[own] = found.values[found.row][:, :, 1 + places] * mask[part, None, :]
                length[own] = length_group(found.lengths)
        members = case.frame["member_id"].cast(pl.String)
        return CanvasSample(
            canvas=case.canvas,
            heads=heads,
            blended=blended,
            terms=terms,
            candidates=masks,
            rows=case.rows,
            columns=case.columns,
            length=length,
            fold=np.array([zlib.crc32(member.encode()) % PARTS for member in members], np.int64),
            member=members.rank("dense").to_numpy().astype(np.int64) - 1,
        )


def learn_weights(fold: ValidationFold, resolved: ResolvedModel) -> tuple[list[LearntTerms], ResolvedModel]:
    """Learn the weights of every head's terms, put them into the scorer's network, and return the learnt blends too.

    Raises:
        IntegrityError: Tables were fitted on plays at or after a request of the validation fold.
    """
    terms = fold.scorer.network.history_terms
    assert terms is not None
    found = []
    for head in terms.config.heads:
        found.append(_learn(head, terms, fold, resolved))
        resolved = resolved.with_blends(found[-1].blends)
    return found, resolved


def _learn(head: str, terms: HistoryTerms, fold: ValidationFold, resolved: ResolvedModel) -> LearntTerms:
    cases = fold.cases(head, resolved)
    share = min(1.0, CELLS / max(sum(len(case) * len(case.catalogue) for case in cases), 1))
    own = np.array([term in resolved.model.heads[head].terms for term in terms.config.terms])
    samples = [fold.sample(case, resolved, share) for case in cases]
    if not own.all():
        samples = [replace(sample, terms=sample.terms * own[None, :, None]) for sample in samples]
    if not samples:
        return LearntTerms(head, (), _no_weights())
    weights = fit_weights(samples)
    gains = _gains(samples, weights, fold.seed)
    found = torch.zeros_like(terms.weights[0])
    multipliers = np.round(weights.multipliers(), DIGITS)
    rows, blends = [], {}
    for place, (sample, gain) in enumerate(zip(samples, gains, strict=False)):
        if gain.kept:
            blend = resolved.canvas(sample.canvas).blend
            index = int(fold.scorer.encoder.canvas_index(pl.Series([sample.canvas]))[0])
            found[index] = torch.from_numpy(multipliers[place] / blend[head]).float()
            rows += _rows(sample, terms.config.terms, multipliers[place])
            learnt = zip(_terms_of(blend), weights.blended_multipliers()[place], strict=True)
            blends[sample.canvas] = blend | {term: round(blend[term] * float(times), DIGITS) for term, times in learnt}
    if gains[-1].kept:
        found[0] = torch.from_numpy(np.round(weights.shared_multipliers(), DIGITS)).float()
    terms.weights[terms.config.heads.index(head)] = found
    table = pl.DataFrame(rows, schema=_no_weights().schema, orient="row")
    return LearntTerms(head, tuple(gains), table, blends)


def _terms_of(blend: Mapping[str, float]) -> list[str]:
    return [name for name in blend if name in TERMS]


def _gains(samples: Sequence[CanvasSample], weights: TermWeights, seed: int) -> list[CanvasGain]:
    """Return what weights of other members add on each canvas, and on all of them together, last."""
    gained = [np.zeros(len(sample)) for sample in samples]
    likelier = [np.zeros(len(sample)) for sample in samples]
    written = [request_ndcg(sample, sample.written) for sample in samples]
    for part in range(PARTS):
        rest = [sample.part(sample.fold != part) for sample in samples]
        others, as_written = fit_weights(rest, weights), fit_weights([sample.as_written() for sample in rest])
        for number, sample in enumerate(samples):
            kept = sample.fold == part
            own = sample.part(kept)
            scores = scored(own, others.scale[number], others.blended[number], others.own[number][own.length])
            gained[number][kept] = request_ndcg(own, scores) - written[number][kept]
            plain = np.where(own.candidates, np.float32(as_written.scale[number]) * own.written, NO_CANDIDATE)
            likelier[number][kept] = log_likelihood(own, scores) - log_likelihood(own, plain)
    # Members are coded by canvas, and a member who asked on several stands for several
    everyone = np.concatenate([sample.member + number * 10**9 for number, sample in enumerate(samples)])
    together, likely = (member_interval(everyone, np.concatenate(values), seed) for values in (gained, likelier))
    found = []
    for number, sample in enumerate(samples):
        gain, own_likely = (member_interval(sample.member, values[number], seed) for values in (gained, likelier))
        kept = weights_hold(len(sample), gain, own_likely, together)
        found.append(CanvasGain(sample.canvas, len(sample), float(written[number].mean()), gain, own_likely, kept))
    mean = float(np.concatenate(written).mean())
    return [*found, CanvasGain("all", len(everyone), mean, together, likely, bool(together.low > 0))]


def weights_hold(requests: int, gain: Interval, likelihood: Interval, together: Interval) -> bool:
    """Say whether a canvas uses its learnt weights.

    It does where they rank better beyond the interval; where they rank no worse and make what was chosen likelier
    beyond the interval, which fewer requests can show; and, once weights hold over all canvases, where they rank no
    worse on many requests, or not clearly worse on few, which have little but what canvases share.
    """
    if gain.low > 0:
        return True
    if gain.value >= 0 and requests >= FEW and likelihood.low > 0:
        return True
    return bool(together.low > 0 and (gain.value >= 0 if requests >= ENOUGH else gain.high > 0))


def member_interval(member: Ints64, gain: Floats64, seed: int) -> Interval:
    """Return the mean of [n] values with its interval over members ([n] any codes)."""
    codes = np.unique(member, return_inverse=True)[1].astype(np.int64)
    return MemberBootstrap(codes, seed=seed).intervals(gain[:, None])[0]


def request_ndcg(sample: CanvasSample, scores: npt.NDArray[np.floating[Any]]) -> Floats64:
    """Return [n] NDCG@10 of the requests of a sample under [n, T] scores."""
    ranks = metrics.target_ranks(scores, sample.rows, sample.columns, sample.candidates)
    relevance = metrics.relevance_from_ranks(ranks, sample.rows, len(sample), CUT)
    found: Floats64 = metrics.ndcg(relevance, np.bincount(sample.rows, minlength=len(sample)), CUT)
    return found


def _rows(sample: CanvasSample, terms: Sequence[str], multipliers: Floats64) -> list[tuple[str, int, int, str, float]]:
    requests = np.bincount(sample.length, minlength=len(LENGTHS) + 1)
    return [
        (sample.canvas, plays, int(requests[group]), term, float(multipliers[group, place]))
        for group, plays in enumerate((0, *LENGTHS))
        for place, term in enumerate(terms)
    ]


def _no_weights() -> pl.DataFrame:
    schema = {"canvas": pl.String, "plays_from": pl.Int64, "requests": pl.Int64, "term": pl.String}
    return pl.DataFrame(schema=schema | {"weight": pl.Float64})
