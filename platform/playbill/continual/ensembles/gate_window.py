"""The window that a gate is learnt from: its requests, scored by the base and by every member.

The window is the validation fold of the base, that no network has seen. Members that are for different countries, such
as copies of one model tuned for each, are one *slot*: a request has at most one of them, so what the copies of other
countries are worth says what to expect of its own.
Axis letters: n requests, T titles, G countries, A title ages, K members of the ensemble, S slots.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl

from playbill.arrays import Floats32, Floats64, Ints64, Mask
from playbill.continual.ensembles.members import Member, main_head, title_canvases
from playbill.datasets import Split
from playbill.definitions.specs import EnsembleSpec, ResolvedModel
from playbill.errors import StateError
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import build_case, has_log
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import UNKNOWN, EvaluationTables, EventLog
from playbill.evaluation.cases.score_function import AlignedScorer, MemberFeatures, with_features
from playbill.models.ensemble import KNOWN_COUNTRY, EnsembleMembers
from playbill.ranking.blend import blend_rows, head_losses
from playbill.ranking.scoring.scorer import Scorer
from playbill.training.term_fit import NO_CANDIDATE, CanvasSample
from playbill.training.term_weights import PARTS, REQUESTS_AT_ONCE, request_ndcg

CELLS = 40_000_000  # request x title x slot cells that are learnt from: 160 MB. More requests are sampled
NOBODY = -1


@dataclass(frozen=True)
class Slots:
    """What weights are learnt of."""

    members: Ints64  # [G, S] place among the members of who stands there; `NOBODY` where none counts

    @classmethod
    def of(cls, ensemble: EnsembleSpec, members: Sequence[str], countries: Sequence[str]) -> Slots:
        """Let models that are for different countries stand in one slot; `countries` begin with those not known."""
        columns: list[Ints64] = []
        for place, role in enumerate(members):
            spec = ensemble.members[role]
            here = np.array([not spec.countries or name in spec.countries for name in countries])
            here[:KNOWN_COUNTRY] = False
            shared = [one for one in columns if spec.countries and spec.model and (one[here] == NOBODY).all()]
            if not shared:
                columns.append(np.full(len(countries), NOBODY))
            (shared[0] if shared else columns[-1])[here] = place
        return cls(np.stack(columns, axis=1))

    @property
    def count(self) -> int:
        """S."""
        return int(self.members.shape[1])

    def values(self, values_nKT: Floats32, country_n: Ints64) -> Floats32:
        """Return [n, S, T] what is said by who stands in each slot."""
        place_nS = self.members[country_n]
        values_nST = np.take_along_axis(values_nKT, np.maximum(place_nS, 0)[:, :, None], axis=1)
        found: Floats32 = values_nST * (place_nS != NOBODY)[:, :, None]
        return found

    def of_members(self, weights_GUAS: Floats64, members: int) -> Floats64:
        """Return [G, U, A, K] weights of members."""
        found = np.zeros((*weights_GUAS.shape[:3], members))
        for country, slot in zip(*np.nonzero(self.members != NOBODY), strict=True):
            found[country, :, :, self.members[country, slot]] = weights_GUAS[country, :, :, slot]
        return found


@dataclass(frozen=True)
class GateSample:
    """The window's requests of one canvas."""

    sample: CanvasSample  # terms [n, A * S]; `length` is the number of country and tenure
    head: str  # of the base, that members are added to
    country: Ints64  # [n]
    alone: dict[str, Floats64]  # role -> [n] NDCG@10 of a member's own network by itself; nan where it does not count


@dataclass(frozen=True)
class GateWindow:
    """What the gate is learnt from."""

    ensemble: EnsembleSpec
    scorer: Scorer  # its own, all of whose weights are 0
    resolved: ResolvedModel
    members: Mapping[str, Member]
    log: EventLog
    split: Split
    tables: EvaluationTables
    features: MemberFeatures
    seed: int

    @property
    def network(self) -> EnsembleMembers:
        """The members as they are in the scorer's network."""
        found = self.scorer.network.ensemble
        assert found is not None
        return found

    @cached_property
    def countries(self) -> list[str]:
        """Names of the countries by the gate's numbers; those that are not known come first, without one."""
        return ["", *self.scorer.encoder.vocabulary("country").entries]

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

    @cached_property
    def slots(self) -> Slots:
        """What weights are learnt of."""
        return Slots.of(self.ensemble, self.network.config.members, self.countries)

    def samples(self) -> list[GateSample]:
        """Score the requests of each canvas, or a random share of them, by the base and by each member."""
        cases, ages = self.cases(), 2 if "title_age" in self.ensemble.gate else 1
        cells = sum(len(case) * len(case.catalogue) for case in cases) * self.slots.count * ages
        return [self._sample(case, min(1.0, CELLS / max(cells, 1))) for case in cases]

    def _sample(self, case: EvaluationCase, share: float) -> GateSample:
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
        return GateSample(sample, head, countries, self._alone(case, sample))

    def _parts(
        self, case: EvaluationCase, head: str, places: Ints64
    ) -> Iterator[tuple[Floats32, Floats32, Mask, Ints64, Ints64]]:
        """Yield scores of the base, values of members, candidates, and the groups of a few requests at a time."""
        blend, losses = self.resolved.canvas(case.canvas).blend, head_losses(self.resolved)
        known, tenures = places != UNKNOWN, self.network.weights.shape[3]
        for chunk in case.chunks():
            requests = with_features(chunk.requests, self.resolved.model.features, self.features)
            self.scorer.remember([request.at for request in requests])
            for start in range(0, len(requests), REQUESTS_AT_ONCE):
                rows = slice(start, start + REQUESTS_AT_ONCE)
                mask = chunk.candidates[rows] & known
                logits = self.scorer.score(requests[rows], blend)
                written = np.where(mask, blend_rows(logits, losses, blend)[:, places], 0.0).astype(np.float32)
                found = self.scorer.member_values(requests[rows], head)
                values = self.slots.values(found.values, found.context.country)[:, :, places] * mask[:, None]
                if found.new is not None:
                    new = found.new[:, None, places]
                    values = np.concatenate([values * ~new, values * new], axis=1)
                group: Ints64 = found.context.country * tenures + found.context.tenure
                yield written, values, mask, group, found.context.country

    def _alone(self, case: EvaluationCase, sample: CanvasSample) -> dict[str, Floats64]:
        """Return what members reach by their own networks, whole, where they count."""
        found = {}
        for role, member in self.members.items():
            if role == self.ensemble.base:
                continue
            own = member.canvas(case.canvas)
            here = np.ones(len(case), np.bool_)
            if member.spec.countries:
                here = case.frame["country"].is_in(list(member.spec.countries)).fill_null(False).to_numpy()
            found[role] = np.full(len(case), np.nan)
            if here.any():
                function = CanvasScorer(member.model.scorer, member.resolved, own, self.features)
                scorer = AlignedScorer(role, function, case.catalogue)
                found[role][here] = _ndcg_of(case.keep(here[case.rows]), own, scorer, sample.part(here))
        return found


def _ndcg_of(case: EvaluationCase, canvas: str, scorer: AlignedScorer, sample: CanvasSample) -> Floats64:
    """Return [n] NDCG@10 of a case's requests, which a sample has too, asked on another canvas."""
    found = []
    for chunk in case.chunks():
        rows = np.zeros(len(case), np.bool_)
        rows[chunk.start : chunk.start + len(chunk.requests)] = True
        part = sample.part(rows)
        scores, mask = scorer.score([replace(request, canvas=canvas) for request in chunk.requests], part.candidates)
        found.append(request_ndcg(part, np.where(mask, scores, NO_CANDIDATE)))
    return np.concatenate(found)
