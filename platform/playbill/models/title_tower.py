"""The title tower: `e_TD = g(age) * id_TD + (1 - g(age)) * meta_TD + W given_T`.

A title with a long past is mostly its id vector; one that has just arrived, or is still to come, is its
metadata. In training, ids are hidden at random, so the metadata vector must work alone. Where a title's id is hidden or
was never trained, a vector of its kind may stand beside the metadata: it is trained on the hidden ones. Numbers given
of a title, such as the vector that another model published, count whatever its age.
Axis letters: T titles, D width, M matching space, S snapshots, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.models.batch import TitleInputs
from playbill.models.config import NetworkConfig
from playbill.models.embeddings import DistinctFeatures, Fields, GramSpace, Normaliser

VECTOR_STD = 0.05

TextKind = Literal["names", "synopses", "texts"]


@dataclass(frozen=True)
class PreparedTitles:
    """What does not change while weights do, computed once per `TitleInputs`: what is read of text when it first is.

    Without metadata and queries nothing reads it, and of a large catalogue it is most of what there is to compute.
    """

    text: Callable[[TextKind], Tensor]
    numeric: Tensor  # [T, 2Fs] normalised static features
    snapshots: DistinctFeatures  # normalised time-dependent features at S moments
    experience: Tensor  # [T, 3] age, whether the age is known, and plays, compressed: what the gate reads

    @cached_property
    def names(self) -> Tensor:
        """[T, M] unit vectors of names."""
        return self.text("names")

    @cached_property
    def synopses(self) -> Tensor:
        """[T, M] unit vectors of synopses."""
        return self.text("synopses")

    @cached_property
    def texts(self) -> Tensor:
        """[T, E] unit vectors of synopses by a text encoder; E = 0 without one."""
        return self.text("texts")


class TitleTower(nn.Module):
    """Titles -> vectors."""

    texts: Tensor  # [buckets, E] what each gram of a synopsis says; set once by `start_texts`

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        titles, dim = config.titles, config.trunk.dim
        self.config = titles
        self.id = nn.Embedding(titles.titles, dim, padding_idx=0)
        nn.init.normal_(self.id.weight, std=VECTOR_STD)
        zeros = torch.zeros(titles.kinds, dim)
        self.fallback = nn.Embedding(titles.kinds, dim, _weight=zeros) if titles.fallback else None
        self.static = Normaliser(titles.numeric)
        self.dynamic = Normaliser(titles.snapshot)
        self.gate = nn.Linear(3, 1)
        if titles.text_width:
            self.register_buffer("texts", torch.zeros(config.text.buckets, titles.text_width))
        if titles.metadata:
            self.metadata = Metadata(config)
        self.given = nn.Linear(self.static.width, dim, bias=False) if self.static.width else None
        if self.given is not None:
            nn.init.normal_(self.given.weight, std=VECTOR_STD / self.static.width**0.5)
        self._start_gate()

    def _start_gate(self) -> None:
        """Start at half for three plays and 0.95 for eighty, whatever the age."""
        with torch.no_grad():
            self.gate.weight.copy_(torch.tensor([[0.0, 0.0, 1.0]]))
            self.gate.bias.fill_(-1.4)
            self.id.weight[0] = 0

    @torch.no_grad()
    def start_texts(self, table: Tensor) -> None:
        """Set what each gram says, from a text encoder's [buckets, E]."""
        self.texts.copy_(table)

    def prepare(self, titles: TitleInputs, grams: GramSpace) -> PreparedTitles:
        """Compute what the weights do not change."""
        with torch.no_grad():
            known = ~torch.isnan(titles.age_days)
            age = torch.where(known, titles.age_days, 0.0).clamp(min=0).log1p()
            return PreparedTitles(
                text=partial(self._text, titles, grams),
                numeric=self.static(titles.numeric),
                snapshots=self.dynamic.distinct(titles.snapshots),
                experience=torch.stack([age, known.to(age.dtype), titles.plays.log1p()], dim=-1),
            )

    def _text(self, titles: TitleInputs, grams: GramSpace, kind: TextKind) -> Tensor:
        # A tensor that was made in inference mode could not be read by a later training step.
        with torch.inference_mode(False), torch.no_grad():
            if kind == "names":
                return grams.names(titles.name_grams, titles.name_offsets)
            if kind == "synopses":
                return grams.names(titles.synopsis_grams, titles.synopsis_offsets)
            if not self.config.text_width:
                return torch.zeros(titles.index.shape[0], 0, device=titles.index.device)
            total = F.embedding_bag(titles.synopsis_grams, self.texts, titles.synopsis_offsets, mode="sum")
            return F.normalize(total, dim=-1)

    def forward(self, titles: TitleInputs, prepared: PreparedTitles) -> tuple[Tensor, Tensor]:
        """Return title vectors [T, D] and the share [T, 1] of each title's id in its vector."""
        usable_T1 = self._usable(titles)
        share_T1 = self._id_share(usable_T1, prepared)
        vectors_TD = share_T1 * self.id(titles.index)
        if self.config.metadata:
            vectors_TD = vectors_TD + (1 - share_T1) * self.metadata(titles, prepared)
        if self.fallback is not None:
            vectors_TD = vectors_TD + ~usable_T1 * self.fallback(titles.kind)
        if self.given is not None:
            vectors_TD = vectors_TD + self.given(prepared.numeric)
        return vectors_TD, share_T1

    def _usable(self, titles: TitleInputs) -> Tensor:
        """Return [T, 1] whether a title's id may be read: it was trained, and is not hidden now."""
        usable_T1 = (titles.has_id & (titles.index > 0)).unsqueeze(-1)
        stands_in = self.config.metadata or self.config.fallback
        if self.training and self.config.id_mask and self.config.id_embedding and stands_in:
            usable_T1 = usable_T1 & (torch.rand(usable_T1.shape, device=usable_T1.device) >= self.config.id_mask)
        return usable_T1

    def _id_share(self, usable_T1: Tensor, prepared: PreparedTitles) -> Tensor:
        if not self.config.id_embedding:
            return torch.zeros_like(usable_T1, dtype=torch.float32)
        if not (self.config.metadata and self.config.age_gate):
            return usable_T1.float()
        return torch.sigmoid(self.gate(prepared.experience).float()) * usable_T1


class Metadata(nn.Module):
    """What is known of a title before anyone has seen it -> [T, D]."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        titles, dim = config.titles, config.trunk.dim
        self.genres = nn.EmbeddingBag(titles.genres, dim, mode="mean", padding_idx=0)
        self.fields = Fields((titles.kinds, titles.languages, titles.release_years, *titles.categorical), dim)
        self.name = nn.Linear(config.text.dim, dim, bias=False)
        self.synopsis = nn.Linear(config.text.dim, dim, bias=False)
        self.text = nn.Linear(titles.text_width, dim, bias=False) if titles.text_width else None
        self.out = nn.Linear(dim, dim)
        for table in (self.genres, self.fields.table):
            nn.init.normal_(table.weight, std=0.5)
        nn.init.normal_(self.out.weight, std=VECTOR_STD / dim**0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, titles: TitleInputs, prepared: PreparedTitles) -> Tensor:
        """Return metadata vectors [T, D]."""
        fields = (titles.kind, titles.language, titles.release_year, *titles.categorical.unbind(dim=1))
        total = self.genres(titles.genres, titles.genre_offsets) + self.fields(fields)
        total = total + self.name(prepared.names)
        if titles.synopsis_grams.numel():
            total = total + self.synopsis(prepared.synopses)
        if self.text is not None:
            total = total + self.text(prepared.texts)
        vectors: Tensor = self.out(F.gelu(total))
        return vectors
