"""Windows of labels and splits: refused where outcomes are held out, unlabelled where they are too young."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from playbill.datasets import make_split
from playbill.datasets.checks import assert_heads_fit
from playbill.datasets.examples.labelled import label_values, train_events
from playbill.definitions.specs import LabelSpec, ResolvedModel
from playbill.errors import DataError
from playbill.labels import LabelContext, label_extractor


def finished(window: str, matures: str, name: str = "finished") -> LabelSpec:
    rule = {"action": "play", "where": "later_plays > 0"}
    body = {"from": rule, "window": window, "matures_after": matures, "negatives": {"actions": ["play"]}}
    return LabelSpec.model_validate({"name": name, "version": 1, **body})


def with_head(resolved: ResolvedModel, label: LabelSpec) -> ResolvedModel:
    head = resolved.model.heads["thumbs_up"].model_copy(update={"label": label.name})
    model = resolved.model.model_copy(update={"heads": resolved.model.heads | {label.name: head}})
    return resolved.model_copy(update={"model": model, "labels": resolved.labels | {label.name: label}})


def test_a_window_that_reaches_past_held_out_events_is_refused(
    interactions: pl.DataFrame, resolved: ResolvedModel
) -> None:
    split = make_split("leave_one_out", interactions)
    for label in (finished("7d", "8d"), finished("30d", "30d", "later"), finished("1h", "1h", "soon")):
        resolved = with_head(resolved, label)
    with pytest.raises(DataError) as caught:
        assert_heads_fit(resolved, [(interactions, split)])
    assert [problem.where for problem in caught.value.problems] == ["label finished", "label later"]
    assert "its window 7d reaches past the held-out events of 30 members, first of 'm00'" in str(caught.value)
    assert "Train with --protocol global_time_period, or give the label a shorter window." in str(caught.value)


def test_labels_without_windows_and_splits_by_time_always_fit(
    interactions: pl.DataFrame, resolved: ResolvedModel
) -> None:
    assert_heads_fit(resolved, [(interactions, make_split("leave_one_out", interactions))])
    slow = with_head(resolved, finished("30d", "30d"))
    assert_heads_fit(slow, [(interactions, make_split("global_time", interactions))])


def test_by_time_rows_too_young_at_the_cutoff_are_unlabelled(
    interactions: pl.DataFrame, availability: pl.DataFrame, resolved: ResolvedModel
) -> None:
    split = make_split("global_time", interactions)
    events = train_events(interactions, split)
    slow = with_head(resolved, finished("2d", "3d"))
    cutoff = split.validation_cutoff
    assert cutoff is not None
    values = label_values(slow, events, events, availability, cutoff, require_rows=False)["finished"]
    old = (events["event_at"] + timedelta(days=3) <= cutoff).to_numpy()
    plays = (events["action"] == "play").to_numpy()
    assert (~np.isnan(values) == (old & plays)).all()
    assert (~old & plays).any()


@pytest.mark.usefixtures("own_plugins")
def test_an_extractor_of_ones_own_reaches_the_training_rows(
    interactions: pl.DataFrame, availability: pl.DataFrame, resolved: ResolvedModel
) -> None:
    @label_extractor("evening", version=3, inputs=("duration_s",))
    def evening(events: pl.DataFrame, context: LabelContext) -> pl.Series:
        """Label plays by whether they began in the evening."""
        late = (pl.col("event_at").dt.hour() >= 18).cast(pl.Float32)
        return events.select(pl.when(pl.col("action") == "play").then(late)).to_series()

    label = LabelSpec.model_validate({"name": "evening", "version": 1, "extractor": "evening"})
    events = train_events(interactions, make_split("leave_one_out", interactions))
    values = label_values(with_head(resolved, label), events, events, availability, events["event_at"].max())
    plays = (events["action"] == "play") & (events["event_at"] < events["event_at"].max())
    expected = (events["event_at"].dt.hour() >= 18).cast(pl.Float32)
    assert np.array_equal(values["evening"][plays.to_numpy()], expected.filter(plays).to_numpy())
    assert np.isnan(values["evening"][(events["action"] != "play").to_numpy()]).all()
