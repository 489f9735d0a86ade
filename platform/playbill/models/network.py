"""The whole network: histories, requests and titles in; losses or scores of every title out.

Axis letters: B members, L history, D width, T titles, K heads, N prediction rows, M matching space.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from playbill.definitions.specs.network import SHARINGS, TRUNKS, read_sharing
from playbill.models.adaptation import build_adaptation
from playbill.models.batch import ContextBatch, HistoryBatch, TargetBatch, TitleInputs, pad_rows
from playbill.models.batch_titles import Batch, renumbered, some_prepared, some_titles, titles_of
from playbill.models.companions import Companions
from playbill.models.config import NetworkConfig
from playbill.models.context import ContextEncoder, Crossing, Queries, some_requests
from playbill.models.embeddings import EventTokens, GramSpace
from playbill.models.ensemble import EnsembleMembers
from playbill.models.heads import Head, TitleVectors, bias_rows
from playbill.models.history_terms import HistoryTerms
from playbill.models.item_similarity import Likeness
from playbill.models.objectives import KINDS, row_weights
from playbill.models.row_tower import RowReader, RowTower
from playbill.models.scoring_batch import PageStates, ScoringBatch, chosen_rows
from playbill.models.title_tower import PreparedTitles, TitleTower
from playbill.models.trunks.causal import Extends, ReadsAt, TrunkCache

PADDED_ROWS = 256  # prediction rows of a training batch come in multiples of it
OVER_NAMED = ("sampled_softmax", "pairwise", "gbce", "bce", "huber")
"""Losses that read no titles but those that a batch names."""
SMALL_PART = 2  # a batch's titles are taken out where they are less than one in so many


class Network(nn.Module):
    """One consolidated recommender.

    Attributes:
        low_precision: Run products in bfloat16; parameters stay float32. Set by the training loop where the
            processor is good at it; scores are float32 unless it is set.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.low_precision = False
        self.grams = GramSpace(config.text.buckets, config.text.dim)
        self.titles = TitleTower(config)
        self.likeness = Likeness(config.titles.titles, config.titles.neighbours)
        self.companions = Companions(config.titles.titles, config.titles.companions)
        self.title_bias = nn.Embedding(config.titles.titles, len(config.heads))
        crossed = sum(head.ranks for head in config.heads) * config.events.canvases
        own = crossed if config.context.title_crossing else 0
        self.canvas_titles = nn.Embedding(config.titles.titles, own) if own else None
        self.events = EventTokens(config)
        self.trunk: nn.Module = TRUNKS[config.trunk.type].load()(config)
        self.context = ContextEncoder(config)
        self.crossing = Crossing(config.trunk.dim, config.context.crossing)
        own_rows = None if config.rows is None else RowTower(config.rows, config.trunk.dim, config.text.dim)
        self.rows = own_rows
        sharing = read_sharing(config.trunk.sharing)
        self.sharing: nn.Module = SHARINGS[sharing.type].load()(config.trunk.dim, len(config.heads), sharing)
        self.heads = nn.ModuleList(
            KINDS[head.target].module(config, position) for position, head in enumerate(config.heads)
        )
        self.adaptation = build_adaptation(config)
        terms = config.history_terms
        size = (config.titles.titles, config.events.canvases)
        self.history_terms = None if terms is None else HistoryTerms(terms, *size)
        self.ensemble = None if config.ensemble is None else EnsembleMembers(config.ensemble, config)
        nn.init.zeros_(self.title_bias.weight)
        if self.canvas_titles is not None:
            nn.init.zeros_(self.canvas_titles.weight)
        self._prepared: tuple[TitleInputs, PreparedTitles] | None = None
        for part in self._frozen_parts():
            part.requires_grad_(False)

    def _frozen_parts(self) -> tuple[nn.Module, ...]:
        return (self.titles, self.events, self.trunk) if self.config.frozen else ()

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; frozen parts stay in evaluation, where nothing is dropped."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    @torch.no_grad()
    def calibrate(self, numeric: Tensor, titles: TitleInputs) -> None:
        """Set the statistics that are not trained, from numeric features [any, Fm] and titles of training only."""
        self.context.normalise.calibrate(numeric)
        self.titles.static.calibrate(titles.numeric[1:])
        self.titles.dynamic.calibrate(titles.snapshots[:, 1:])
        self.grams.calibrate(titles.name_grams, titles.name_offsets)
        self.forget_titles()

    @torch.no_grad()
    def start_levels(self, levels: Mapping[str, float]) -> None:
        """Initialise head biases to the base-rate log-odds of their labels, or to the mean of numeric labels."""
        for settings, head in zip(self.config.heads, self.heads, strict=True):
            if isinstance(head, Head) and head.level is not None and settings.name in levels:
                head.level.bias.fill_(levels[settings.name])

    @torch.no_grad()
    def start_titles(self, vectors_TD: Tensor) -> None:
        """Start the id table from given vectors, such as those of `svd`; row 0 stays zero."""
        self.titles.id.weight[1:] = vectors_TD[1:].to(self.titles.id.weight)

    @torch.no_grad()
    def start_canvases(self, lift_JCT: Tensor) -> None:
        """Start the biases of titles on canvases, such as from `canvas_lift`, in the order of the heads that rank."""
        assert self.canvas_titles is not None
        self.canvas_titles.weight.copy_(lift_JCT.flatten(0, 1).T)

    def title_vectors(self, titles: TitleInputs, prepared: PreparedTitles | None = None) -> TitleVectors:
        """Compute what scores need of the titles. In evaluation it may be kept as long as the weights are.

        `prepared` is of the same titles, to save preparing them: only categories may be others.
        """
        return self._vectors(titles, self._prepare(titles) if prepared is None else prepared)

    def _prepare(self, titles: TitleInputs) -> PreparedTitles:
        if self._prepared is None or self._prepared[0] is not titles:
            self._prepared = (titles, self.titles.prepare(titles, self.grams))
        return self._prepared[1]

    def _vectors(self, titles: TitleInputs, prepared: PreparedTitles) -> TitleVectors:
        vectors_TD, share_T1 = self.titles(titles, prepared)
        canvas_JCT = None
        if self.canvas_titles is not None:
            own_TX = share_T1 * self.canvas_titles(titles.index)
            canvas_JCT = own_TX.T.unflatten(0, (-1, self.config.events.canvases))
        return TitleVectors(vectors_TD, share_T1 * self.title_bias(titles.index), prepared, canvas_JCT)

    def forget_titles(self) -> None:
        """Drop what was prepared of the last titles; needed when their arrays were changed in place."""
        self._prepared = None

    def states(self, history: HistoryBatch, titles: TitleVectors) -> Tensor:
        """Return states [B, L + 1, D]; state l has read the first l events."""
        states: Tensor = self.trunk(self._tokens(history, titles), **self._gaps(history))
        return states

    def _gaps(self, history: HistoryBatch) -> dict[str, Tensor]:
        """Return what the trunk reads beside tokens."""
        return {"gaps_BL": history.gap} if getattr(self.trunk, "reads_gaps", False) else {}

    def _tokens(self, history: HistoryBatch, titles: TitleVectors) -> Tensor:
        tokens_BLD: Tensor = self.events(history, titles.vectors)
        return tokens_BLD.to(torch.bfloat16) if self.low_precision else tokens_BLD

    def forward(
        self,
        history: HistoryBatch,
        context: ContextBatch,
        targets: TargetBatch,
        titles: TitleInputs,
        totals_K: Tensor | None = None,
        scale_K: Tensor | None = None,
        *,
        pulls: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return the training loss and, for reports, [K, 2] sums of losses and of weights (no gradient).

        Args:
            history: B members.
            context: N requests.
            targets: What happened in them.
            titles: T titles.
            totals_K: Divisor of each head's sum, default the batch's own weight. Several workers that share
                one batch pass that batch's weight divided by their number.
            scale_K: Multiplier of each head's mean loss, default its own weight.
            pulls: Report [K, 3]: beside the sums, the squared norm of the gradient of each head's mean loss with
                respect to the rows' shared state, which adds up over parts of a batch.
        """
        context, targets = pad_rows(context, targets, PADDED_ROWS)
        with self._precision(history.title.device):
            (history, context, targets), vectors = self._batch_titles((history, context, targets), titles)
            scene = self.scene(history, context, vectors, page_rows=self._page_rows(targets))
            losses_K, weights_K = self._sums(scene, targets)
        divisor_K = (weights_K if totals_K is None else totals_K).clamp(min=1e-6)
        if scale_K is None:
            scale_K = torch.tensor([head.weight for head in self.config.heads], device=losses_K.device)
        means_K = losses_K / divisor_K
        loss = (scale_K * means_K).sum()
        columns = [losses_K.detach(), weights_K]
        if pulls:
            columns.append(state_pulls(means_K, scene.state))
        return loss, torch.stack(columns, dim=-1)

    def _sums(self, scene: ScoringBatch, targets: TargetBatch) -> tuple[Tensor, Tensor]:
        """Return [K] the heads' weighted sums of losses, and [K] the weights that they stand for."""
        sums = [
            KINDS[settings.target].total(settings, head, scene, targets)
            for settings, head in zip(self.config.heads, self.heads, strict=True)
        ]
        return torch.stack([loss for loss, _ in sums]), torch.stack([weight for _, weight in sums])

    def loss_from(
        self,
        states_ND: Tensor,
        history: HistoryBatch,
        context: ContextBatch,
        targets: TargetBatch,
        vectors: TitleVectors,
    ) -> Tensor:
        """Return the training loss of N requests whose states in the trunk are known, see `last_states`.

        It is that of `forward` where title vectors and trunk stand still, at the price of the heads alone.
        """
        with self._precision(states_ND.device):
            scene = self.scene(history, context, vectors, states_ND, page_rows=self._page_rows(targets))
            losses_K, weights_K = self._sums(scene, targets)
        scale_K = torch.tensor([head.weight for head in self.config.heads], device=losses_K.device)
        return (scale_K * losses_K / weights_K.clamp(min=1e-6)).sum()

    def _batch_titles(self, batch: Batch, titles: TitleInputs) -> tuple[Batch, TitleVectors]:
        """Return a batch and the vectors of its titles: of all of them where a head ranks against every one."""
        if self.ranks_named_titles(batch[2].negatives):
            title_U = titles_of(*batch)
            if SMALL_PART * title_U.shape[0] < titles.count:
                prepared = some_prepared(self._prepare(titles), title_U)
                return renumbered(batch, title_U), self._vectors(some_titles(titles, title_U), prepared)
        return batch, self.title_vectors(titles)

    def ranks_named_titles(self, drawn: Collection[str]) -> bool:
        """Return whether no head ranks against every title, with titles drawn for some heads."""
        heads = [head for head in self.config.heads if head.target == "title"]
        return all(head.loss in OVER_NAMED or head.name in drawn for head in heads)

    def title_tables(self) -> list[nn.Embedding]:
        """Return the tables with a row for each title, of which a batch reads each row once at most."""
        tables = self.titles.id, self.title_bias, self.canvas_titles
        return [table for table in tables if table is not None]

    def loss(
        self, history: HistoryBatch, context: ContextBatch, targets: TargetBatch, titles: TitleInputs
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the training loss and each head's mean loss."""
        loss, sums_K2 = self(history, context, targets, titles)
        means_K = sums_K2[:, 0] / sums_K2[:, 1].clamp(min=1e-6)
        return loss, {head.name: mean for head, mean in zip(self.config.heads, means_K, strict=True)}

    def head_weights(self, targets: TargetBatch) -> Tensor:
        """Return [K] the weight of the rows that train each head."""
        return torch.stack([row_weights(head, targets).sum() for head in self.config.heads])

    @torch.no_grad()
    def scores(
        self,
        history: HistoryBatch,
        context: ContextBatch,
        titles: TitleInputs,
        vectors: TitleVectors | None = None,
        states: Tensor | None = None,
        heads: Collection[str] | None = None,
        biases: tuple[Tensor, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Score every title in N requests; what is handed in saves computing it.

        `vectors` are `title_vectors(titles)`, `states` [N, D] those of `last_states`, `heads` the wanted ones (None =
        all), and `biases` [P, K, T] are from `pairs.bias_tables` of those heads, with [N] which of them each request
        has.

        Returns:
            Head name -> [N, T] float32 logits; column 0 (padding) is -10,000.
        """
        with self._precision(history.title.device):
            vectors = self.title_vectors(titles) if vectors is None else vectors
            return self.scene_scores(self.scene(history, context, vectors, states), vectors, heads, biases)

    @torch.no_grad()
    def scene_scores(
        self,
        scene: ScoringBatch,
        vectors: TitleVectors,
        heads: Collection[str] | None = None,
        biases: tuple[Tensor, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Score every title in N requests as `scores` does, which are read already."""
        found = {}
        wanted = {name: head for name, head in self.title_heads().items() if heads is None or name in heads}
        for place, (name, head) in enumerate(wanted.items()):
            state = scene.state_of(head)
            q = head.queries(state)
            scores_NT = (q @ vectors.vectors.to(q.dtype).T).float()
            if biases is None:
                scores_NT += head.bias(vectors, scene.rows)[scene.rows.row]
            else:
                scores_NT += biases[0][:, place][biases[1]]
            scores_NT += head.levels(state).unsqueeze(-1)
            if scene.queries is not None:
                requested, typed_mM = scene.queries.requested(torch.arange(len(q), device=q.device))
                typed_mM = (head.match * typed_mM).to(q.dtype)
                scores_NT[requested] += (typed_mM @ vectors.prepared.names.to(q.dtype).T).float()
            found[name] = scores_NT
        return found

    @torch.no_grad()
    def last_states(self, history: HistoryBatch, context: ContextBatch, vectors: TitleVectors) -> Tensor:
        """Return [N, D] the state in which each request is asked: it depends on the history up to `context.state`."""
        with self._precision(history.title.device):
            places_S, row_N = torch.unique(context.state, return_inverse=True)
            members, length = history.title.shape
            if places_S.shape[0] > members or not isinstance(self.trunk, ReadsAt):
                return self.states(history, vectors).flatten(0, 1)[context.state]
            member_S, place_S = places_S // (length + 1), places_S % (length + 1)
            states_SD = self.trunk.at(self._tokens(history, vectors), member_S, place_S, **self._gaps(history))
            return states_SD[row_N]

    @torch.no_grad()
    def extended_state(
        self, history: HistoryBatch, vectors: TitleVectors, cache: TrunkCache | None, read: int
    ) -> tuple[Tensor, TrunkCache]:
        """Return the state [1, D] after one member's whole history, and a cache of all of its tokens but the last.

        Only for a trunk that `Extends`. `cache` is of the first `read` tokens with the same title vectors, the
        begin-of-history counted; they are not read again. It is None and 0 where there is none.
        """
        assert isinstance(self.trunk, Extends)
        with self._precision(history.title.device):
            last = int(history.length[0])
            tokens_BND = self._tokens(history, vectors)[:, read : last + 1]
            return self.trunk.extend(tokens_BND, cache, last - read, **self._gaps(history))

    def _precision(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.low_precision)

    def _in_context(
        self, states_ND: Tensor, context: ContextBatch, vectors: TitleVectors, queries: Queries | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return states in their context [N, D], and as each head sees them [K, N, D] where heads differ in it."""
        source_ND = self.context.source(context, vectors.vectors)
        context_ND = self.context(context, source_ND, queries)
        crossed = self.crossing(states_ND, context_ND)
        state_ND: Tensor = crossed + self.context.pull * source_ND.to(crossed.dtype)
        if self.adaptation is None:
            return state_ND, self.sharing(state_ND)
        state_ND = self.adaptation.state(state_ND, context.country, context_ND)
        return state_ND, self.adaptation.heads(self.sharing(state_ND), state_ND, context.country, context_ND)

    def _page_rows(self, targets: TargetBatch) -> Tensor | None:
        """Return the requests that train heads about rows and pages; None where none says its row."""
        kinds = [head for head in self.config.heads if head.target in ("row", "page")]
        if not kinds or not (self.config.context.rows > 1 or self.config.context.row_positions > 1):
            return None
        weights_JN = torch.stack([row_weights(head, targets) for head in kinds])
        return chosen_rows(weights_JN.amax(dim=0))[0]

    def _page_states(
        self, states_ND: Tensor, context: ContextBatch, vectors: TitleVectors, rows_p: Tensor
    ) -> PageStates:
        requested = some_requests(context, rows_p)
        unsaid = torch.zeros_like(requested.row)
        requested = replace(requested, row=unsaid, row_position=unsaid)
        queries = self.context.queries(requested, self.grams, vectors.prepared)
        state, own = self._in_context(states_ND[rows_p], requested, vectors, queries)
        place = torch.zeros_like(context.state)
        place[rows_p] = torch.arange(rows_p.shape[0], device=place.device)
        return PageStates(state, own, place)

    def title_heads(self) -> dict[str, Head]:
        """Return the heads that score titles by name, in their order."""
        pairs = zip(self.config.heads, self.heads, strict=True)
        return {settings.name: head for settings, head in pairs if isinstance(head, Head)}

    def scene(
        self,
        history: HistoryBatch,
        context: ContextBatch,
        vectors: TitleVectors,
        states_ND: Tensor | None = None,
        page_rows: Tensor | None = None,
    ) -> ScoringBatch:
        """Return N requests as the heads see them.

        `states_ND` are from `last_states`; `page_rows` [p] are the requests that heads about rows and pages read, where
        they may not read the request's row.
        """
        if states_ND is None:
            states_ND = self.states(history, vectors).flatten(0, 1)[context.state]
        queries = self.context.queries(context, self.grams, vectors.prepared)
        state_ND, own_KND = self._in_context(states_ND, context, vectors, queries)
        return ScoringBatch(
            state=state_ND,
            own=own_KND,
            page=None if page_rows is None else self._page_states(states_ND, context, vectors, page_rows),
            embed=None if self.rows is None else RowReader(self.rows, vectors.vectors, self.grams),
            queries=queries,
            context=context,
            rows=bias_rows(context, self.config.titles.snapshot, self.canvas_titles is not None),
            titles=vectors,
            catalogue=self.config.titles.titles - 1,
        )


def state_pulls(losses_K: Tensor, state_ND: Tensor) -> Tensor:
    """Return [K] the squared norm of each loss's gradient with respect to the states; 0 for a loss without one."""
    found = []
    for loss in losses_K:
        if loss.requires_grad:
            (grad_ND,) = torch.autograd.grad(loss, state_ND, retain_graph=True, allow_unused=True)
            found.append(loss.new_zeros(()) if grad_ND is None else grad_ND.float().square().sum())
        else:
            found.append(loss.new_zeros(()))
    return torch.stack(found).detach()
