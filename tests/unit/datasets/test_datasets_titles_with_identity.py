"""A title nobody could play yet has an identity as soon as a ranking head learns about it."""

from __future__ import annotations

import polars as pl

from fixtures import context_service as service
from fixtures import shown_service
from playbill.definitions.specs import LabelSpec

COMING = shown_service.TITLES[0]


def log() -> pl.DataFrame:
    """The service's log in which one title is asked for and never played."""
    requested = (pl.col("title_id") == COMING) & (pl.col("action") == "play")
    return service.log().with_columns(action=pl.when(requested).then(pl.lit("remind_me")).otherwise("action"))


def test_a_title_that_was_only_asked_for_has_an_id() -> None:
    plain = service.model()
    remind = LabelSpec.model_validate({"name": "remind", "version": 1, "from": {"action": "remind_me"}})
    heads = {"play": {"label": "play", "loss": "softmax"}, "remind": {"label": "remind", "loss": "softmax"}}
    both = service.model(heads=heads).model_copy(update={"labels": {**plain.labels, "remind": remind}})

    data, without = service.training_set(both, log()), service.training_set(plain, log())

    place = int(data.encoder.title_rows.encode(pl.Series([COMING]))[0])
    requested = log().filter((pl.col("title_id") == COMING) & (pl.col("action") == "remind_me")).height
    assert not without.titles.has_id[place]
    assert data.titles.has_id[place]
    assert 0 < data.plays[place] <= requested
    others = [row for row in range(1, len(data.plays)) if row != place]
    assert (data.plays[others] == without.plays[others]).all()


def test_titles_without_an_example_are_no_negatives_where_the_definition_says_so() -> None:
    heads = {"play": {"label": "play", "loss": "softmax"}}
    dropped = shown_service.log().filter(~((pl.col("title_id") == COMING) & (pl.col("action") == "play")))
    plain = shown_service.training_set(shown_service.model(heads), dropped)
    seen = shown_service.training_set(shown_service.model(heads, titles={"negatives": "seen"}), dropped)
    place = int(plain.encoder.title_rows.encode(pl.Series([COMING]))[0])
    assert not plain.titles.has_id[place]
    for one, other in zip(plain.epoch(0), seen.epoch(0), strict=True):
        assert one.targets.available[:, place].any()
        assert not other.targets.available[:, ~played(seen)].any()
        assert (one.targets.available[:, played(seen)] == other.targets.available[:, played(seen)]).all()


def played(data):
    """Return [T] which titles have a play."""
    return data.plays > 0
