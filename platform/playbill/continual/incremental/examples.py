"""The training set of an update: what is new, what has become known since, and older examples drawn again.

Only the members that any of these are of are read, with the whole of their histories. A label that was too young when
its event was learnt from is taught by the first update that knows it, and for that head alone; so every label of every
event is taught once, apart from what is drawn again.
Letter: E events of the members that are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from playbill.arrays import Bools, Floats32
from playbill.clock import parse_moment
from playbill.continual.incremental.window import LEARNT, UpdateWindow, draw_replay
from playbill.datasets import Split, TrainingSet, request_context
from playbill.datasets.build import Earlier, TrainingFeatureSource, assemble
from playbill.datasets.checks import Boundary
from playbill.datasets.encoding.fit import fit_encoder, grown_encoder
from playbill.datasets.examples.labelled import label_values, train_events, watermark
from playbill.datasets.examples.sampling import event_rewards
from playbill.datasets.examples.selection import Known, known_titles
from playbill.definitions.specs import ResolvedModel
from playbill.tables import Tables
from playbill.training.example_weights import example_weights
from playbill.training.inherit import Parent


@dataclass(frozen=True)
class UpdateExamples:
    """A training set, and what it was made of."""

    data: TrainingSet
    replayed: int  # events that are learnt from again
    matured: int  # events learnt before of which a label has become known


def watermark_of(parent: Parent) -> datetime:
    """Return the moment up to which a version has learnt; labels are those known at it."""
    return parse_moment(str(parent.bundle.extra["watermark"]))


def update_examples(
    tables: Tables,
    resolved: ResolvedModel,
    window: UpdateWindow,
    parent: Parent,
    learnt: Split,
    features: TrainingFeatureSource,
) -> UpdateExamples:
    """Build what an update is trained on.

    Raises:
        StateError: Nothing in the window is labelled.
        DataError: The log has more actions than a token can hold.
        IntegrityError: Something of the held-out part would be read.
    """
    model, before = resolved.model, watermark_of(parent)
    drawn = draw_replay(window, model.update.replay, model.training.seed)
    spans = _spans(resolved)
    matured = [_learnt_between(tables, learnt, before - span, window.cutoff - span) for span in spans]
    members = pl.concat([window.taken["member_id"], drawn["member_id"], *matured]).unique().sort()
    log = tables.interactions(members=members.to_list())
    boundary, events = Boundary.of(window.split, log), train_events(log, window.split, resolved)
    as_of = watermark(window.cutoff, events)
    boundary.as_of("labels", as_of)
    titles, availability = known_titles(tables, boundary), tables.availability()
    values = label_values(resolved, events, events, availability, as_of, titles=titles, require_rows=False)
    taken, again = (events["event_id"].is_in(own["event_id"].implode()).to_numpy() for own in (window.taken, drawn))
    had = window.known.filter(pl.col("member_id").is_in(members.implode()))["event_id"]
    old = events["event_id"].is_in(had.implode()).to_numpy()
    known = events.filter(pl.Series(old))
    earlier_values = label_values(resolved, known, known, availability, before, titles=titles, require_rows=False)
    newly_known = keep_untaught(values, earlier_values, taken | again, old)
    rewards = event_rewards(example_weights(resolved), resolved, events, availability, titles, as_of)
    facts = Known(
        request_context(events, events), titles, availability, as_of, values, rewards, example_weights(resolved)
    )
    schema = features.schema(model.features)
    seen = fit_encoder(resolved, schema, events, titles, tables.vocabulary("title").entries)
    plays = dict(parent.bundle.titles.select("title_id", "plays").iter_rows())
    state = grown_encoder(parent.state, seen)
    data = assemble(tables, resolved, facts, boundary, features, state, Earlier(plays, taken))
    return UpdateExamples(data, drawn.height, newly_known)


def _spans(resolved: ResolvedModel) -> list[timedelta]:
    """Return the ages at which labels of the heads become known, where that is later than at once."""
    names = {head.label for head in resolved.model.heads.values() if head.label is not None}
    found: set[timedelta] = set()
    for label in (resolved.labels[name] for name in names):
        found |= {label.matures_after, label.zeros_mature_after}
    return sorted(found - {timedelta(0)})


def _learnt_between(tables: Tables, learnt: Split, since: datetime, until: datetime) -> pl.Series:
    """Return the members of events that were learnt from, of a time whose labels have become known."""
    later = until + timedelta(microseconds=1)
    events = tables.interactions(since=since, until=later, columns=("event_id", "member_id"))
    known = learnt.frame.filter(pl.col("fold").cast(pl.String) == LEARNT)
    return events.join(known, on="event_id", how="semi")["member_id"]


def keep_untaught(values: dict[str, Floats32], earlier_values: dict[str, Floats32], taught: Bools, old: Bools) -> int:
    """Take away the labels of events that are not to be taught; return how many events have one that is new.

    `earlier_values` are those that the events `old` had when they were learnt from.
    """
    new = np.zeros(len(old), np.bool_)
    for head, value in values.items():
        later = np.zeros(len(old), np.bool_)
        later[old] = np.isnan(earlier_values[head])
        new |= later & ~np.isnan(value) & ~taught
        value[~(taught | later)] = np.nan
    return int(new.sum())
