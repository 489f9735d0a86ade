"""Plain SASRec: what comes next, by causal self-attention over the member's plays.

Source: Kang and McAuley, "Self-attentive sequential recommendation", ICDM 2018 (arXiv 1808.09781): binary loss, one
uniform negative per place. SASRec+ (`loss="softmax"`; Klenitskiy and Vasilev, RecSys 2023, arXiv 2309.07602) has a full
softmax instead and ranks far better, so a gain over the binary loss proves little about that.
Axis letters: N requests, D width, T titles.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import torch

from playbill.arrays import Floats64
from playbill.datasets import Request
from playbill.errors import ConfigError
from playbill.evaluation.baselines.ease import check_size, played
from playbill.evaluation.baselines.popularity import popular
from playbill.evaluation.baselines.sasrec_network import (
    Codes,
    Negatives,
    SasRecNetwork,
    Sequences,
    batches,
    binary_loss,
    full_loss,
    in_pieces,
    last_states,
)
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import UNKNOWN, TitleOrder
from playbill.evaluation.cases.score_function import Scores

LARGEST_CATALOGUE = 200_000
"""Titles. Their vectors and Adam's moments are small (150 MB there at D = 64), but one negative per place teaches a
large catalogue slowly, long before memory ends."""
HELD_BACK = 2_000  # Members, at most, whose last fitted play says when to stop
SCORED_AT_ONCE = 256
CUT_OFF = 10
RISING = 0.05  # share of the steps in which a rate that falls rises first


@dataclass(frozen=True)
class SasRecOptions:
    """What SASRec is trained with; the defaults are the paper's for MovieLens-1M, with D = 64 for 50."""

    dim: int = 64  # D
    blocks: int = 2  # attention blocks
    length: int = 200  # newest plays that are read
    dropout: float = 0.2  # share of numbers dropped in training
    batch: int = 128  # members in a step
    learning_rate: float = 1e-3  # Adam's, with betas 0.9 and 0.98, of SASRec+ 0.999
    epochs: int = 200  # at most
    check_every: int = 4  # epochs between looks at the plays held back
    patience: int = 5  # looks without a better one after which training stops
    seed: int = 0  # of everything drawn
    # `binary` against one title that was not played, or `softmax` over all of them, with the network of SASRec+
    loss: Literal["binary", "softmax"] = "binary"
    # let the rate rise over the first 5 % of all steps and fall to 0 along a cosine, which takes a fraction of the
    # epochs that a rate as it is needs
    falling: bool = False

    def __post_init__(self) -> None:
        counted = ("dim", "blocks", "length", "batch", "learning_rate", "epochs", "check_every", "patience")
        wrong = [f"{name} {getattr(self, name)} is not above zero" for name in counted if not getattr(self, name) > 0]
        if not 0 <= self.dropout < 1:
            wrong.append(f"dropout {self.dropout} is not in [0, 1)")
        if wrong:
            raise ConfigError(f"sasrec: {'; '.join(wrong)}")


Watch = Callable[[int, float, float], None]
"""Told epoch, mean loss since the last look, and NDCG@10 of the plays held back."""


def sasrec(case: EvaluationCase) -> SasRec:
    """Train SASRec on the plays a baseline may know; it reads each request's own history."""
    return SasRec.fit(case.catalogue, case.log.fitted_plays(), backoff=popular(case).shares)


class SasRec:
    """Scores are h e_t, h [D] the state after the newest play. A request without a known past gets the backoff [T]."""

    def __init__(self, catalogue: TitleOrder, network: SasRecNetwork, length: int, backoff: Floats64) -> None:
        self.title_ids: Sequence[str] = catalogue.title_ids
        self.network, self.length = network, length
        self._catalogue, self._backoff = catalogue, backoff.astype(np.float32)

    @classmethod
    def fit(
        cls,
        catalogue: TitleOrder,
        plays: pl.DataFrame,
        options: SasRecOptions | None = None,
        *,
        backoff: Floats64,
        watch: Watch | None = None,
    ) -> SasRec:
        """Train until the last plays of some members, which are held back, are ranked no better.

        On two cores an epoch of MovieLens-1M takes some 20 s, of MovieLens-100K some 2 s. The same seed gives the
        same network on the same machine.

        Plays are rows of member_id and title_id, each member's oldest first.

        Raises:
            ConfigError: The catalogue exceeds `LARGEST_CATALOGUE`.
        """
        check_size("sasrec", catalogue, LARGEST_CATALOGUE, "learns a vector of every title with one negative at a time")
        options = options or SasRecOptions()
        known = sequences_of(catalogue, plays)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            sizes = (options.length, options.dim, options.blocks, options.dropout)
            network = SasRecNetwork(len(catalogue), *sizes, plus=options.loss == "softmax")
            _train(network, known, options, watch)
        return cls(catalogue, network, options.length, backoff)

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, T] from the order in which each request's history played titles."""
        rows, columns = played(requests, self._catalogue)
        past = Sequences(columns, _offsets(np.bincount(rows, minlength=len(requests))))
        scores: Scores = np.tile(self._backoff, (len(requests), 1))
        requested = np.nonzero(past.lengths)[0]
        vectors = self.network.titles.weight.detach()
        for piece in in_pieces(requested, past.lengths, SCORED_AT_ONCE):
            scores[piece] = (last_states(self.network, past, piece, self.length) @ vectors.T).numpy()
        return scores


def sequences_of(catalogue: TitleOrder, plays: pl.DataFrame) -> Sequences:
    """Return each member's plays of the catalogue's titles, in the order they stand in."""
    columns = catalogue.codes(plays["title_id"])
    members = plays["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    kept = columns != UNKNOWN
    columns, members = columns[kept], members[kept]
    order = np.argsort(members, kind="stable")
    return Sequences(columns[order], _offsets(np.bincount(members, minlength=1)))


def _offsets(lengths: Codes) -> Codes:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def _train(network: SasRecNetwork, known: Sequences, options: SasRecOptions, watch: Watch | None) -> None:
    generator = np.random.default_rng(options.seed)
    shown, judged, answers = _hold_back(known, generator)
    negatives = Negatives(known, network.titles.num_embeddings)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=options.learning_rate, betas=(0.9, 0.999 if network.plus else 0.98)
    )
    best, kept, worse, losses = -1.0, copy.deepcopy(network.state_dict()), 0, list[float]()
    for epoch in range(1, options.epochs + 1):
        network.train()
        steps = list(batches(shown.lengths, options.batch, generator))
        for step, members in enumerate(steps):
            if options.falling:
                share = (epoch - 1 + (step + 1) / len(steps)) / options.epochs
                optimizer.param_groups[0]["lr"] = options.learning_rate * rate_at(share)
            losses.append(_step(network, optimizer, shown, members, negatives, options, generator))
        if epoch % options.check_every and epoch != options.epochs:
            continue
        quality = _ndcg(network, shown, judged, answers, options.length)
        if watch is not None:
            watch(epoch, float(np.mean(losses)) if losses else float("nan"), quality)
        losses.clear()
        better = quality > best
        worse = 0 if better else worse + 1
        if better:
            best, kept = quality, copy.deepcopy(network.state_dict())
        if worse >= options.patience:
            break
    network.load_state_dict(kept)
    network.eval()


def rate_at(share: float) -> float:
    """Return the rate, over its peak, after a share of all steps."""
    rising = min(1.0, share / RISING)
    return rising * (1 + math.cos(math.pi * max(0.0, share - RISING) / (1 - RISING))) / 2


def usual_places(lengths: Codes, options: SasRecOptions) -> float:
    """Return the mean over batches of the places that a title follows."""
    places = np.clip(lengths - 1, 0, options.length)
    return float(places.sum()) / max(1, math.ceil(np.count_nonzero(places) / options.batch))


def _step(
    network: SasRecNetwork,
    optimizer: torch.optim.Optimizer,
    shown: Sequences,
    members: Codes,
    negatives: Negatives,
    options: SasRecOptions,
    generator: np.random.Generator,
) -> float:
    titles, counts = shown.newest(members, options.length + 1)
    if options.loss == "softmax":
        loss = full_loss(network, titles, counts, usual_places(shown.lengths, options))
    else:
        loss = binary_loss(network, titles, counts, negatives.draw(members, titles.shape[1] - 1, generator))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def _hold_back(known: Sequences, generator: np.random.Generator) -> tuple[Sequences, Codes, Codes]:
    """Take the last play from some members with three or more; return what is left, those members, and their plays."""
    enough = np.nonzero(known.lengths >= 3)[0]
    judged = np.sort(generator.permutation(enough)[:HELD_BACK])
    last = known.offsets[judged + 1] - 1
    kept = np.ones(known.codes.size, dtype=np.bool_)
    kept[last] = False
    lengths = known.lengths.copy()
    lengths[judged] -= 1
    return Sequences(known.codes[kept], _offsets(lengths)), judged, known.codes[last]


def _ndcg(network: SasRecNetwork, shown: Sequences, judged: Codes, answers: Codes, length: int) -> float:
    """Return mean NDCG@10 of the plays held back among all titles that the member has not played before."""
    vectors = network.titles.weight.detach()
    gained = 0.0
    answer_of = dict(zip(judged.tolist(), answers.tolist(), strict=True))
    for piece in in_pieces(judged, shown.lengths, SCORED_AT_ONCE):
        scores = (last_states(network, shown, piece, length) @ vectors.T).numpy()
        wanted = np.array([answer_of[member] for member in piece.tolist()])
        target = scores[np.arange(piece.size), wanted]
        lengths = shown.lengths[piece]
        rows = np.repeat(np.arange(piece.size), lengths)
        columns = np.concatenate([shown.codes[shown.offsets[m] : shown.offsets[m + 1]] for m in piece.tolist()])
        scores[rows, columns] = -np.inf
        above = (scores > target[:, None]).sum(axis=1)
        gained += float((1.0 / np.log2(above[above < CUT_OFF] + 2.0)).sum())
    return gained / max(1, judged.size)
