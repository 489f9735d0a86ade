"""The titles that a batch names, so that a step over drawn titles costs nothing for the others.

Letters: T titles, U those of a batch, ascending, the padding title first.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from playbill.models.batch import ContextBatch, HistoryBatch, TargetBatch, TitleInputs
from playbill.models.embeddings import bag_sizes
from playbill.models.title_tower import PreparedTitles, TextKind

ABOUT_TITLES = ("about", "head")  # fields of a page's rows that are titles, see `rows.FIELDS`
BAGS = {"genres": "genre_offsets", "name_grams": "name_offsets", "synopsis_grams": "synopsis_offsets"}

Batch = tuple[HistoryBatch, ContextBatch, TargetBatch]


def titles_of(history: HistoryBatch, context: ContextBatch, targets: TargetBatch) -> Tensor:
    """Return [U] the titles of histories, sources, targets, further ones, negatives and rows of pages."""
    named = [history.title, context.source_title, targets.title]
    named += [titles for own in targets.negatives.values() for titles in (own.title, own.shown)]
    named += [own.title for own in targets.further.values()]
    named += [targets.rows[name] for name in ABOUT_TITLES if name in targets.rows]
    flat = torch.cat([titles.flatten() for titles in named])
    found: Tensor = torch.unique(torch.cat([flat.new_zeros(1), flat]))
    return found


def renumbered(batch: Batch, title_U: Tensor) -> Batch:
    """Return a batch with places among its titles instead of their numbers in the catalogue."""
    history, context, targets = batch

    def place(titles: Tensor) -> Tensor:
        return torch.searchsorted(title_U, titles.contiguous())

    negatives = {
        head: replace(own, title=place(own.title), shown=place(own.shown)) for head, own in targets.negatives.items()
    }
    further = {head: replace(own, title=place(own.title)) for head, own in targets.further.items()}
    rows = {name: place(own) if name in ABOUT_TITLES else own for name, own in targets.rows.items()}
    return (
        replace(history, title=place(history.title)),
        replace(context, source_title=place(context.source_title)),
        replace(targets, title=place(targets.title), negatives=negatives, further=further, rows=rows),
    )


def some_titles(titles: TitleInputs, title_U: Tensor) -> TitleInputs:
    """Return the inputs of some titles; their snapshots stay with what was prepared of them."""
    flat = {*BAGS, *BAGS.values(), "snapshots"}
    found = {name: values[title_U] for name, values in titles.named().items() if name not in flat}
    for ids, offsets in BAGS.items():
        found[ids], found[offsets] = _some_bags(getattr(titles, ids), getattr(titles, offsets), title_U)
    return TitleInputs(**found, snapshots=titles.snapshots[:, :0])


def some_prepared(prepared: PreparedTitles, title_U: Tensor) -> PreparedTitles:
    """Return what was prepared of some titles."""
    snapshots = replace(prepared.snapshots, values=prepared.snapshots.values[:, title_U])
    return PreparedTitles(
        text=partial(_some_text, prepared, title_U),
        numeric=prepared.numeric[title_U],
        snapshots=snapshots,
        experience=prepared.experience[title_U],
    )


def _some_text(prepared: PreparedTitles, title_U: Tensor, kind: TextKind) -> Tensor:
    vectors: Tensor = getattr(prepared, kind)
    return vectors[title_U]


def _some_bags(ids: Tensor, offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    sizes = bag_sizes(ids, offsets)[rows]
    starts = sizes.cumsum(0) - sizes
    shift = torch.repeat_interleave(offsets[rows] - starts, sizes)
    return ids[torch.arange(shift.shape[0], device=ids.device) + shift], starts
