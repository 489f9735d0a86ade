"""What the members of an ensemble add to the scores of its base: `models.ensemble`, read from what requests carry.

Letters: N requests, T titles and the padding row, K members, A ages of titles, M pairs of a request and a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import torch
from torch import Tensor

from playbill.arrays import Bools, Floats32, Floats64, Ints64
from playbill.datasets import Encoder, Request
from playbill.models import Network, TitleInputs
from playbill.models.ensemble import NEW_DAYS, TENURE_DAYS, centred
from playbill.models.heads import TitleVectors
from playbill.models.history_terms import HistoryTerms
from playbill.ranking.scoring.history_terms import RequestTerms, TermGate

TENURE = "__tenure_days"  # ending of the feature that says how long ago a member joined


@dataclass(frozen=True)
class GateContext:
    """What the gate reads of N requests."""

    canvas: Ints64
    country: Ints64  # index of the encoder's countries; 0 = unknown
    tenure: Ints64  # group of the days since the member joined

    def __len__(self) -> int:
        return len(self.canvas)

    def keys(self) -> Ints64:
        """[N] one number for all that decides a request's weights."""
        countries = 1 + int(self.country.max(initial=0))
        found: Ints64 = (self.canvas * countries + self.country) * (len(TENURE_DAYS) + 1) + self.tenure
        return found


@dataclass(frozen=True)
class MemberValues:
    """What members say in N requests, before the gate weighs it."""

    values: Floats32  # [N, K, titles]
    context: GateContext
    new: Bools | None  # [N, titles] those that are new; None where the gate does not ask


class EnsembleReader:
    """Reads the members of one ensemble over one state of the catalogue. Safe to share between threads.

    Args:
        network: One with an ensemble.
        encoder: Of its titles and requests.
        inputs: The titles.
        vectors: What the network makes of them.
        as_of: The moment titles' ages are told at.
    """

    def __init__(
        self, network: Network, encoder: Encoder, inputs: TitleInputs, vectors: TitleVectors, as_of: datetime
    ) -> None:
        assert network.ensemble is not None
        self._network, self._encoder, self._members = network, encoder, network.ensemble
        self._age, self._as_of = inputs.age_days.numpy().astype(np.float64), as_of
        config = self._members.config
        members = self._members
        self._folded = {role: members.folded_member(role).of(inputs.index) for role in members.folded}
        self._local_GT = members.local(inputs.index) if len(members.popularity) else None
        with torch.inference_mode():
            wanted = "content" in config.terms.values()
            self._content = network.titles.metadata(inputs, vectors.prepared) if wanted else None
        terms = network.history_terms
        self._history = () if terms is None else terms.config.terms
        self._places = self._members.places(self._history)
        other = {place for place, _ in self._places}
        self._own = [(place, role) for place, role in enumerate(config.members) if place not in other]

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that members are added to."""
        return self._members.config.heads

    def context(self, requests: Sequence[Request], canvas: Ints64) -> GateContext:
        """Return what the gate reads of some requests, whose canvases have these indices."""
        country = pl.Series("country", [request.country for request in requests], dtype=pl.String)
        known = self._encoder.vocabulary("country").encode(country).astype(np.int64)
        tenure = np.zeros(len(requests), np.int64)
        if self._members.config.tenure:
            tenure = tenure_groups(np.array([days_since_joining(request) for request in requests]))
        return GateContext(canvas, known, tenure)

    def weights(self, head: str, context: GateContext) -> Floats32:
        """Return [N, A, K] the weights of members in a head's scores."""
        own = self._members.weights[self.heads.index(head)].numpy()
        found: Floats32 = own[context.canvas, context.country, context.tenure]
        return found

    def new_titles(self, requests: Sequence[Request]) -> Bools | None:
        """Return [N, T] the titles that are new at each request; None where the gate does not ask."""
        if not self._members.config.title_age:
            return None
        later = np.array([(request.at - self._as_of) / timedelta(days=1) for request in requests])
        found: Bools = self._age[None, :] + later[:, None] < NEW_DAYS
        return found

    def values(
        self, head: str, state_ND: Tensor, base_NT: Tensor, context: GateContext, weights_NAK: Floats32 | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield what each member but terms of histories says of the titles, [N, T], after its place among members.

        With weights only those that weigh anything are asked.
        """
        members, own = self._members, centred(base_NT.float()) / self._members.scale
        canvas_N, country_N = torch.from_numpy(context.canvas), torch.from_numpy(context.country)
        for place, role in self._own:
            if weights_NAK is not None and not weights_NAK[:, :, place].any():
                continue
            if role in members.folded:
                yield place, members.folded_member(role)(state_ND, canvas_N, country_N, self._folded[role], own)
            elif members.config.terms[role] == "content":
                assert self._content is not None
                query_ND = self._network.title_heads()[head].queries(state_ND)
                yield place, centred((query_ND @ self._content.T).float()) / members.content
            elif members.config.terms[role] == "popularity":
                assert self._local_GT is not None
                yield place, self._local_GT[country_N]

    def every_value(
        self,
        head: str,
        state_ND: Tensor,
        base_NT: Tensor,
        requests: Sequence[Request],
        canvas: Ints64,
        terms: RequestTerms | None,
    ) -> MemberValues:
        """Return what every member says in N requests, those of histories included."""
        context, new = self.context(requests, canvas), self.new_titles(requests)
        found = np.zeros((len(requests), len(self._members.config.members), base_NT.shape[1] - 1), np.float32)
        for place, values_NT in self.values(head, state_ND, base_NT, context):
            found[:, place] = values_NT[:, 1:].numpy()
        history = self._network.history_terms
        if terms is not None and history is not None and head in history.config.heads:
            for place, term in self._places:
                found[:, place] = terms.values[terms.row, term, 1:]
        return MemberValues(found, context, None if new is None else new[:, 1:])

    def parts(self, head: str, values: MemberValues) -> dict[str, tuple[float, Floats32]]:
        """Return the weight of each member in one request, and its [titles] values; only of those that weigh.

        Where weights depend on the age of titles they are in the values, and the weight is 1.
        """
        weights, found = self.weights(head, values.context)[0], {}
        for place, role in enumerate(self._members.config.members):
            own = values.values[0, place]
            if values.new is None and weights[0, place]:
                found[f"members.{role}"] = float(weights[0, place]), own
            elif values.new is not None and weights[:, place].any():
                found[f"members.{role}"] = 1.0, own * np.where(values.new[0], weights[1, place], weights[0, place])
        return found

    def added(
        self, scores: dict[str, Tensor], state_ND: Tensor, requests: Sequence[Request], context: GateContext
    ) -> dict[str, Tensor]:
        """Return [N, T] scores of heads with what members add to them; those of histories are added elsewhere."""
        found, new_NT = dict(scores), self.new_titles(requests)
        for head in (head for head in self.heads if head in scores):
            weights_NAK = self.weights(head, context)
            for place, values_NT in self.values(head, state_ND, scores[head], context, weights_NAK):
                found[head] = found[head] + values_NT * _of_titles(torch.from_numpy(weights_NAK[:, :, place]), new_NT)
        return found

    def added_to_pairs(
        self,
        logits: list[Floats32],
        pairs: Sequence[tuple[int, str]],
        state_ND: Tensor,
        requests: Sequence[Request],
        context: GateContext,
    ) -> list[Floats32]:
        """Return the [titles] logits of (request, head) pairs with what members add to them."""
        found = list(logits)
        for head in self.heads:
            places = [place for place, (_, own) in enumerate(pairs) if own == head]
            if not places:
                continue
            rows = [pairs[place][0] for place in places]
            own = torch.from_numpy(np.pad(np.stack([logits[place] for place in places]), ((0, 0), (1, 0))))
            part = GateContext(context.canvas[rows], context.country[rows], context.tenure[rows])
            scores = self.added({head: own}, state_ND[rows], [requests[row] for row in rows], part)
            for place, values in zip(places, scores[head][:, 1:].numpy(), strict=True):
                found[place] = values
        return found

    def term_gates(
        self, terms: HistoryTerms | None, requests: Sequence[Request], context: GateContext
    ) -> dict[str, TermGate]:
        """Return what the gate adds to the weights of terms of histories, by head."""
        if terms is None or not self._places:
            return {}
        new, found = self.new_titles(requests), {}
        for head in (head for head in self.heads if head in terms.config.heads):
            own = self.weights(head, context)
            weights = np.zeros((*own.shape[:2], len(self._history)), np.float32)
            for place, term in self._places:
                weights[:, :, term] = own[:, :, place]
            if weights.any():
                found[head] = TermGate(weights, new)
        return found


def _of_titles(weights_NA: Tensor, new_NT: Bools | None) -> Tensor:
    """Return the weight of a member for each title, [N, T] or [N, 1]."""
    if new_NT is None:
        return weights_NA
    return torch.where(torch.from_numpy(new_NT), weights_NA[:, 1:], weights_NA[:, :1])


def days_since_joining(request: Request) -> float:
    """Return for how long the member of a request has been one, 0 where nothing is known of that.

    A feature says so, and else the first event of the history.
    """
    for name, value in request.features.items():
        if name.endswith(TENURE) and value is not None and np.isfinite(float(value)):
            return float(value)
    if request.history is None or not request.history.height:
        return 0.0
    first = request.history["event_at"].min()
    assert isinstance(first, datetime)
    return (request.at - first) / timedelta(days=1)


def tenure_groups(days: Floats64) -> Ints64:
    """Return the group (axis U) of each number of days."""
    return np.searchsorted(np.array(TENURE_DAYS), days, side="right").astype(np.int64)
