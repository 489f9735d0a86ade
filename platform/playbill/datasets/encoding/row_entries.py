"""Rows of pages as training reads them: which rows a page had, in what order, each with what is known before a look.

A row is known by its name, its genre, the title it is about and the title it begins with. The first title of a row is
looked at by everyone who comes to the row; the later ones only until something is played, so they would tell the label.
Letters: R training rows, P rows of logged pages, A rows above, N rows of a batch, E events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from playbill.arrays import AnyInts, Ints64
from playbill.datasets.encoding.encoder import Encoder, EncoderState
from playbill.datasets.encoding.text import gram_arrays
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.row import RowSpec

MOST_ABOVE = 12  # rows above that a row is given, the nearest ones
FIELDS = ("name", "genre", "about", "head")
_PAGE = ("member_id", "request_id")


@dataclass(frozen=True, slots=True)
class PageRows:
    """P rows of logged pages, page after page, each from the top down."""

    entry: AnyInts
    """[R] which of them each training row is the first title of; -1 none. Empty where no head is about rows."""
    name: AnyInts  # [P] index of its name; 0 unknown
    genre: AnyInts  # [P] index of its genre; 0 none
    about: AnyInts  # [P] title row it is about; 0 none
    head: AnyInts  # [P] title row it begins with
    first: AnyInts  # [P] first row of its page

    @classmethod
    def none(cls) -> PageRows:
        """Return what a model without heads about rows has."""
        return cls(*(np.zeros(0, np.int64) for _ in range(6)))

    def around(self, row: Ints64) -> dict[str, Ints64]:
        """Return field -> [N, 1 + A] of training rows: the row, then those above it, nearest first; 0 fills.

        Empty where no head is about rows.
        """
        if not len(self.entry):
            return {}
        entry = self.entry[row].astype(np.int64)
        known = np.maximum(entry, 0)
        places = known[:, None] - np.arange(1 + MOST_ABOVE)
        there = (entry[:, None] >= 0) & (places >= self.first[known][:, None])
        places = np.maximum(places, 0)
        return {name: np.where(there, getattr(self, name)[places], 0).astype(np.int64) for name in FIELDS}


def row_texts(resolved: ResolvedModel, events: pl.DataFrame) -> dict[str, str]:
    """Return what every row is called, by its name: those of the model and those of the log.

    Empty where no head is about rows.
    """
    if not row_heads(resolved):
        return {}
    found = {name: _text(spec) for name, spec in resolved.rows.items()}
    if "row_id" in events.columns:
        logged = events["row_id"].drop_nulls().unique().str.split(":").list.first().unique()
        found = {name: name.replace("_", " ") for name in logged.to_list()} | found
    return dict(sorted(found.items()))


def row_heads(resolved: ResolvedModel, level: str = "row") -> tuple[str, ...]:
    """Return the heads whose label is about rows, or about whole pages."""
    heads = resolved.model.heads.items()
    return tuple(name for name, head in heads if head.label and resolved.labels[head.label].level == level)


def _text(spec: RowSpec) -> str:
    text = spec.title.get("en") or next(iter(spec.title.values()))
    return text if spec.generator is None else text.replace(spec.generator.placeholder, " ").strip()


def page_rows(encoder: Encoder, events: pl.DataFrame, event: Ints64) -> PageRows:
    """Find the rows of logged pages, and which of them each training row begins.

    Events are sorted by member_id and seq; `event` [R] is the row of the frame of each training row's.
    """
    if not encoder.state.row_texts or "row_id" not in events.columns:
        return PageRows.none()
    numbered = events.with_columns(_event=pl.int_range(pl.len(), dtype=pl.Int64)).filter(
        pl.col("action") == "impression", *(pl.col(name).is_not_null() for name in ("title_id", "row_id", "request_id"))
    )
    rows = numbered.unique([*_PAGE, "row_id"], keep="first", maintain_order=True)
    rows = rows.with_columns(_began=pl.col("_event").min().over(_PAGE)).sort("_began", "_event")
    entry = np.full(events.height, -1, np.int64)
    entry[rows["_event"].to_numpy()] = np.arange(rows.height)
    began = rows["_began"].to_numpy()
    coded = encode_rows(encoder, rows["row_id"].to_list(), rows["source_title_id"].to_list())
    return PageRows(
        entry=entry[event],
        **coded,
        head=encoder.title_rows.encode(rows["title_id"]).astype(np.int64),
        first=np.searchsorted(began, began, side="left"),
    )


def encode_rows(encoder: Encoder, row_ids: list[str], sources: list[str | None]) -> dict[str, Ints64]:
    """Return name, genre and about of rows by their ids, as in `genre_rows:drama`."""
    parts = [row_id.partition(":") for row_id in row_ids]
    stated = pl.Series([rest or None for _, _, rest in parts], dtype=pl.String)
    genre = encoder.vocabulary("genre").encode(stated).astype(np.int64)
    about = encoder.title_rows.encode(pl.Series(sources, dtype=pl.String)).astype(np.int64)
    own = encoder.title_rows.encode(stated).astype(np.int64)
    names = {name: place + 1 for place, name in enumerate(encoder.state.row_texts)}
    return {
        "name": np.array([names.get(name, 0) for name, _, _ in parts], np.int64),
        "genre": genre,
        "about": np.where(own > 0, own, about),
    }


def row_config(state: EncoderState) -> Mapping[str, tuple[tuple[int, ...], ...]] | None:
    """Return the row tower's sizes by the names of `RowConfig`; None where no head is about rows."""
    if not state.row_texts:
        return None
    return {
        "names": _bags(list(state.row_texts.values()), state.text_buckets),
        "genres": _bags(list(state.genres), state.text_buckets),
    }


def _bags(texts: list[str], buckets: int) -> tuple[tuple[int, ...], ...]:
    if not texts:
        return ()
    grams, starts = gram_arrays(texts, buckets)
    return tuple(tuple(int(gram) for gram in bag) for bag in np.split(grams, starts[1:]))
