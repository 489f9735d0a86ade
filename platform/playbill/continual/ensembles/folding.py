"""Fold networks into the one that reads requests: their titles stay as vectors, their queries become linear maps.

The map is fitted on requests of the training part, where both networks are asked the same, by ridge regression: on the
base's state in its context, with a shift of its own for each country. It is closed form, takes seconds, and needs no
second training of any network. How much of a member's scores the map explains is measured on members of the service
that it was not fitted on. Axis letters: n requests, D width of the base, E width of a member, G countries, J heads of
a member, T titles, C canvases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch

from playbill.arrays import Floats32, Floats64, Ints64
from playbill.continual.ensembles.members import Member, main_head, title_canvases
from playbill.datasets import Request
from playbill.datasets.encoding.requests import encode_requests
from playbill.definitions.specs import EnsembleSpec
from playbill.evaluation.cases.event_log import UNKNOWN, EventLog, TitleOrder
from playbill.evaluation.cases.score_function import MemberFeatures, with_features
from playbill.models import ContextBatch, Network, NetworkConfig
from playbill.models.config import EnsembleConfig, FoldedConfig
from playbill.models.ensemble import FoldedMember
from playbill.ranking.scoring.scorer import Scorer
from playbill.training.watch import ProgressListener, Silent

REQUESTS = 4_000  # of the training part that maps are fitted on
TRIED = 4  # one part of so many of the members is held back, to choose the ridge and to say how good a map is
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)  # penalties of the map, in shares of the mean square of a state's numbers
COUNTRY_REQUESTS = 20.0  # requests at which half of a country's own shift is believed
SCALED_BY = 500  # requests that deviations are told by
SMOOTHING = 100.0  # plays of all countries that stand beside those of each, in `popularity`


@dataclass(frozen=True)
class Folded:
    """How well a member could be folded."""

    role: str
    version: str
    requests: int  # that its map was fitted on
    explained: float  # share of the variance of its scores that the map has, on other members of the service


def ensemble_config(ensemble: EnsembleSpec, members: Mapping[str, Member]) -> NetworkConfig:
    """Return the base's network with room for the other members."""
    base = members[ensemble.base]
    scorer, canvases = base.model.scorer, title_canvases(base.resolved)
    folded = {
        role: FoldedConfig(width=member.model.scorer.network.config.trunk.dim, heads=len(_heads(member, canvases)))
        for role, member in members.items()
        if role != ensemble.base
    }
    config = EnsembleConfig(
        members=tuple(role for role in ensemble.members if role != ensemble.base),
        heads=tuple(dict.fromkeys(str(main_head(base.resolved, canvas)) for canvas in canvases)),
        countries=scorer.encoder.vocabulary("country").size,
        folded=folded,
        terms={role: spec.term for role, spec in ensemble.terms.items() if spec.term is not None},
        tenure="tenure" in ensemble.gate,
        title_age="title_age" in ensemble.gate,
    )
    return scorer.network.config.model_copy(update={"ensemble": config})


def folded_network(
    ensemble: EnsembleSpec,
    members: Mapping[str, Member],
    log: EventLog,
    features: MemberFeatures,
    seed: int,
    watcher: ProgressListener | None = None,
) -> tuple[Network, list[Folded]]:
    """Return the base's network with the others in it, whose weights are 0, and how well they were folded."""
    base, watcher = members[ensemble.base], watcher or Silent()
    network = Network(ensemble_config(ensemble, members)).eval()
    network.load_state_dict({**network.state_dict(), **base.model.scorer.network.state_dict()})
    assert network.ensemble is not None
    past: dict[tuple[str, ...], PastRequests] = {(): PastRequests.of(base, log, features, seed)}
    prepare_terms(network, base, past[()], log)
    folded: list[Folded] = []
    for role, member in members.items():
        if role != ensemble.base:
            countries = member.spec.countries
            if countries not in past:
                past[countries] = PastRequests.of(base, log, features, seed, countries)
            target = network.ensemble.folded_member(role)
            folded.append(fold_member(member, target, past[countries], features))
            watcher.advance(len(folded), len(members) - 1, role)
    return network, folded


def _heads(member: Member, canvases: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(str(main_head(member.resolved, member.canvas(canvas))) for canvas in canvases))


@dataclass(frozen=True)
class PastRequests:
    """Requests of the training part, and what the base makes of them."""

    base: Scorer
    canvases: list[str]
    requests: list[Request]
    states: Floats32  # [n, D]
    country: Ints64  # [n]
    held_back: Floats64  # [n] 1 for those of members that maps are not fitted on

    @classmethod
    def of(
        cls, base: Member, log: EventLog, features: MemberFeatures, seed: int, countries: Sequence[str] = ()
    ) -> PastRequests:
        """Draw requests at plays of the training part, half of them on any canvas; of some countries where named."""
        canvases, scorer = title_canvases(base.resolved), base.model.scorer
        requests, members = past_requests(log, canvases, base.resolved.main_canvas, seed, countries)
        read = with_features(requests, base.resolved.model.features, features)
        known = pl.Series([request.country for request in requests], dtype=pl.String)
        country = scorer.encoder.vocabulary("country").encode(known).astype(np.int64)
        held_back = (members % TRIED == 0).astype(np.float64)
        return cls(scorer, canvases, requests, scorer.request_vectors(read, None), country, held_back)


def past_requests(
    log: EventLog, canvases: Sequence[str], otherwise: str, seed: int, countries: Sequence[str] = ()
) -> tuple[list[Request], Ints64]:
    """Return requests at plays of the training part with the history before each, and the code of each one's member."""
    generator = np.random.default_rng(seed)
    chosen = log.trained() & log.plays
    if countries:
        chosen &= log.frame["country"].is_in(list(countries)).to_numpy()
    places = np.flatnonzero(chosen)
    places = np.sort(generator.permutation(places)[:REQUESTS])
    frame = log.frame[places].with_columns(pl.col("canvas").cast(pl.String))
    drawn = generator.choice(list(canvases), len(places))
    own = np.where(frame["canvas"].is_in(list(canvases)).to_numpy(), frame["canvas"].to_numpy(), otherwise)
    requested = np.where(generator.random(len(places)) < 0.5, own, drawn)
    columns = frame.select("event_at", "member_id", "country", "device", "language").iter_rows()
    requests = [
        Request(
            str(canvas),
            at,
            member_id=member,
            country=country,
            device=device,
            language=language,
            history=log.past(place),
        )
        for canvas, place, (at, member, country, device, language) in zip(
            requested, places.tolist(), columns, strict=True
        )
    ]
    members = frame["member_id"].cast(pl.String).rank("dense").to_numpy().astype(np.int64)
    return requests, members


def fold_member(member: Member, target: FoldedMember, past: PastRequests, features: MemberFeatures) -> Folded:
    """Fill in what is kept of a member's network.

    Args:
        member: The member.
        target: Its place in the ensemble's network.
        past: Requests to fit the map on.
        features: Of members and requests.
    """
    scorer, heads = member.model.scorer, _heads(member, past.canvases)
    titles, places = _titles(past.base, scorer)
    vectors_TE = scorer.head_titles(heads[0])[0][places] * titles[1:, None]
    target.titles[1:] = torch.from_numpy(vectors_TE)
    target.known.copy_(torch.from_numpy(titles))
    for canvas in past.canvases:
        index = int(past.base.encoder.canvas_index(pl.Series([canvas]))[0])
        head = str(main_head(member.resolved, member.canvas(canvas)))
        target.head[index] = heads.index(head)
        target.bias[index, 1:] = torch.from_numpy(_bias(scorer, member.canvas(canvas), head)[places] * titles[1:])
    requests = [replace(request, canvas=member.canvas(request.canvas)) for request in past.requests]
    read = with_features(requests, member.resolved.model.features, features)
    moment_EE = (vectors_TE - vectors_TE.mean(axis=0)).T.astype(np.float64) @ vectors_TE
    explained = []
    for number, head in enumerate(heads):
        query_DE, shift_GE, share = fit_map(past, scorer.request_vectors(read, head), moment_EE, target.shift.shape[1])
        target.query[number] = torch.from_numpy(query_DE).float()
        target.shift[number] = torch.from_numpy(shift_GE).float()
        explained.append(share)
    target.scale.fill_(_deviation(target, past))
    return Folded(member.role, member.version.reference, len(requests), float(np.mean(explained)))


def fit_map(
    past: PastRequests, queries_nE: Floats32, moment_EE: Floats64, countries: int
) -> tuple[Floats64, Floats64, float]:
    """Return [D, E] and [G, E] from states and countries to queries, and the share of scores' variance they explain.

    `moment_EE` is the second moment of title vectors about their mean: `q M q'` is the variance of scores over titles.
    """
    tried = past.held_back > 0
    if tried.all() or not tried.any():
        tried = np.zeros(len(tried), np.bool_)
        tried[::TRIED] = True
    states, queries = past.states.astype(np.float64), queries_nE.astype(np.float64)
    found = []
    for ridge in RIDGES:
        query, shift = solve_map(states[~tried], queries[~tried], past.country[~tried], ridge, countries)
        lost = queries[tried] - states[tried] @ query - shift[past.country[tried]]
        found.append(_variance(lost, moment_EE) / max(_variance(queries[tried], moment_EE), 1e-12))
    best = int(np.argmin(found))
    query, shift = solve_map(states, queries, past.country, RIDGES[best], countries)
    return query, shift, 1.0 - found[best]


def solve_map(
    states: Floats64, queries: Floats64, country: Ints64, ridge: float, countries: int
) -> tuple[Floats64, Floats64]:
    """Solve for the map and the shifts together; the mean is fitted freely."""
    centre_D, mean_E = states.mean(axis=0), queries.mean(axis=0)
    own_nG = np.zeros((len(states), countries))
    own_nG[np.arange(len(states)), country] = 1.0
    design = np.concatenate([states - centre_D, own_nG], axis=1)
    size = states.shape[1]
    penalty = np.full(design.shape[1], COUNTRY_REQUESTS)
    penalty[:size] = ridge * max(float(((states - centre_D) ** 2).sum()) / size, 1e-9)
    solved = np.linalg.solve(design.T @ design + np.diag(penalty), design.T @ (queries - mean_E))
    query_DE: Floats64 = solved[:size]
    shift_GE: Floats64 = solved[size:] + mean_E - centre_D @ query_DE
    return query_DE, shift_GE


def _variance(queries_nE: Floats64, moment_EE: Floats64) -> float:
    return float(np.einsum("ne,ef,nf->", queries_nE, moment_EE, queries_nE))


def _titles(base: Scorer, other: Scorer) -> tuple[np.ndarray, Ints64]:
    """Return which of the base's trained titles another knows, padding row included, and the column of each there."""
    order = TitleOrder(base.bundle.encoder.state.titles)
    places = order.places_in(other.title_ids)
    known = np.append(False, places != UNKNOWN)
    return known, np.where(places != UNKNOWN, places, 0)


@torch.inference_mode()
def _bias(scorer: Scorer, canvas: str, head: str) -> Floats32:
    """Return [titles] what a head adds to titles on a canvas at the moment its catalogue is told at."""
    encoded = encode_requests(scorer.encoder, [Request(canvas, scorer.as_of)])
    table, _ = scorer.moments.biases(encoded.moments, ContextBatch.from_arrays(encoded.context), (head,))
    found: Floats32 = table[0, 0, 1:].numpy()
    return found


@torch.inference_mode()
def _deviation(member: FoldedMember, past: PastRequests) -> float:
    """Return the mean deviation of a member's scores over the titles that it knows."""
    some = slice(None, None, max(1, len(past.requests) // SCALED_BY))
    canvas = past.base.encoder.canvas_index(pl.Series([request.canvas for request in past.requests[some]]))
    state = torch.from_numpy(past.states[some])
    index = torch.arange(len(member.titles))
    given = torch.from_numpy(canvas.astype(np.int64)), torch.from_numpy(past.country[some])
    scores = member(state, *given, member.of(index), torch.zeros(len(state), len(index)))
    return max(float(scores[:, member.known].std(dim=1).mean()), 1e-6)


@torch.inference_mode()
def prepare_terms(network: Network, base: Member, past: PastRequests, log: EventLog) -> None:
    """Fill in what terms need: deviations of the base and of `content`, and `popularity` by country."""
    members, scorer = network.ensemble, base.model.scorer
    assert members is not None
    head, some = members.config.heads[0], slice(None, None, max(1, len(past.requests) // SCALED_BY))
    vectors, bias = scorer.head_titles(head)
    read = past.requests[some]
    queries = scorer.request_vectors(read, head)
    members.scale.fill_(max(float((queries @ vectors.T + bias).std(axis=1).mean()), 1e-6))
    if "content" in members.config.terms.values():
        content = network.titles.metadata(scorer.inputs, network.title_vectors(scorer.inputs).prepared)[1:]
        members.content.fill_(max(float((torch.from_numpy(queries) @ content.T).std(dim=1).mean()), 1e-6))
    if len(members.popularity):
        members.popularity[:, 1:] = torch.from_numpy(popularity_by_country(log, scorer)).float()


def popularity_by_country(log: EventLog, scorer: Scorer) -> Floats64:
    """Return [G, titles] log plays of the training part in each country, centred and of deviation 1.

    A country's plays stand beside `SMOOTHING` plays that fall to titles as those of all countries do.
    """
    order = TitleOrder(scorer.bundle.encoder.state.titles)
    plays = log.frame.filter(pl.Series(log.trained() & log.plays)).select("title_id", "country")
    vocabulary = scorer.encoder.vocabulary("country")
    country, title = vocabulary.encode(plays["country"].cast(pl.String)), order.codes(plays["title_id"])
    known = title != UNKNOWN
    counts_GT = np.zeros((vocabulary.size, len(order)))
    np.add.at(counts_GT, (country.astype(np.int64)[known], title[known]), 1.0)
    every_T = counts_GT.sum(axis=0) + 1.0
    logs_GT = np.log1p(counts_GT + SMOOTHING * every_T / every_T.sum())
    centred = logs_GT - logs_GT.mean(axis=1, keepdims=True)
    found: Floats64 = centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-9)
    return found
