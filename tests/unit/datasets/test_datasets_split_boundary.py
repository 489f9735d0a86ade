"""The line between training and what is held out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from fixtures import shown_service as service
from playbill.datasets import build_training_set, make_split
from playbill.datasets.checks import Boundary
from playbill.errors import IntegrityError

HEADS = {"play": {"label": "play", "loss": "bce"}}


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return service.log()


def test_by_time_everything_that_is_known_lies_before_the_first_held_out_event(log) -> None:
    split = make_split("global_time", log)
    boundary = Boundary.of(split, log)
    assert boundary.end == split.validation_cutoff
    boundary.events("this", split.events(log, "train"))
    boundary.moments("this", boundary.end - timedelta(microseconds=1))
    boundary.as_of("this", boundary.end)
    for late in (boundary.end, pl.Series([boundary.end])):
        with pytest.raises(IntegrityError, match=r"'global_time': popularity would know .* held out begins at"):
            boundary.moments("popularity", late)
    with pytest.raises(IntegrityError, match="labels would know"):
        boundary.as_of("labels", boundary.end + timedelta(microseconds=1))
    with pytest.raises(IntegrityError, match="rows would know"):
        boundary.events("rows", log)


def test_by_member_everything_lies_before_the_members_first_held_out_event(log) -> None:
    split = make_split("leave_one_out", log)
    boundary = Boundary.of(split, log)
    assert boundary.end is None
    boundary.events("this", split.events(log, "train"))
    boundary.moments("this", log["event_at"].max())
    with pytest.raises(IntegrityError, match=r"vocabulary would read events after held-out ones, first for member 'm"):
        boundary.events("vocabulary", log)


def test_a_split_whose_folds_overlap_trains_nothing(log) -> None:
    for protocol in ("leave_one_out", "global_time"):
        split = make_split(protocol, log)
        turned = pl.when(pl.col("fold") == "train").then(pl.lit("test")).otherwise(pl.lit("train"))
        wrong = replace(split, frame=split.frame.with_columns(fold=turned))
        with pytest.raises(IntegrityError, match="training would"):
            build_training_set(service.Tables(log), service.model(HEADS), wrong, service.NoFeatures(), service.CLOCK)


def test_snapshots_of_titles_from_later_are_refused(log, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the moments of snapshots were rounded up instead of down."""
    up = "playbill.datasets.encoding.context_columns.floor_moments"
    monkeypatch.setattr(up, lambda at, hours: at // 3_600_000_000 * 3_600_000_000 + 10**13)
    split = make_split("global_time", log)
    with pytest.raises(IntegrityError, match="title snapshots would know"):
        build_training_set(service.Tables(log), service.model(HEADS), split, service.NoFeatures(), service.CLOCK)


class Changing(service.Tables):
    """Titles of which one came, and one was renamed, after the held-out part began."""

    def __init__(self, interactions: pl.DataFrame, change) -> None:
        super().__init__(interactions)
        self.change = change

    def titles(self, as_of=None):
        before = service.START - timedelta(days=50)
        own = super().titles().with_columns(valid_from=pl.lit(before), recorded_at=pl.lit(before))
        late = pl.col("title_id").is_in(["t01", "t02"])
        if as_of is not None and as_of <= self.change:
            return own.filter(pl.col("title_id") != "t02")
        moved = {
            name: pl.when(late).then(pl.lit(self.change)).otherwise(name) for name in ("valid_from", "recorded_at")
        }
        return own.with_columns(**moved, name=pl.when(late).then(pl.lit("Renamed")).otherwise("name"))


def test_metadata_is_what_was_known_when_the_held_out_part_began(log) -> None:
    split = make_split("global_time", log)
    tables = Changing(log, split.validation_cutoff + timedelta(days=1))
    training_set = build_training_set(tables, service.model(HEADS), split, service.NoFeatures(), service.CLOCK)
    assert training_set.names[1:4] == ("Name t01", "", "Name t03")
    later = make_split("leave_one_out", log)
    training_set = build_training_set(tables, service.model(HEADS), later, service.NoFeatures(), service.CLOCK)
    assert training_set.names[1:4] == ("Renamed", "Renamed", "Name t03"), "there is no moment to ask for"
