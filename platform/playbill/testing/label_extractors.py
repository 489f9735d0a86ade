"""The conformance suite of label extractors, and of any label: subclass it, set `label`, inherit its tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest

from playbill.definitions.specs import LabelSpec
from playbill.labels import label_columns
from playbill.testing.made_log import DAYS, START, made_log, made_tables

REQUIRED = ("event_id", "member_id", "seq", "event_at", "recorded_at", "action", "canvas", "country")


class LabelExtractorConformance:
    """What every label must keep, asked through `label_columns` of a seeded log with every kind of event.

    Attributes:
        label: The label as YAML would say it, without `kind`, `name` and `version`. Registering its extractor is up
            to the test module, which imports it.
    """

    label: ClassVar[Mapping[str, Any]]

    def log(self) -> pl.DataFrame:
        """Return the events to label; override it where the extractor needs others to say anything."""
        return made_log()

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return `titles` and `availability`."""
        return made_tables()

    @pytest.fixture
    def spec(self) -> LabelSpec:
        """The label as checked."""
        return LabelSpec.model_validate({"name": "tried", "version": 1, **self.label})

    @pytest.fixture
    def events(self) -> pl.DataFrame:
        """The log, sorted."""
        return self.log().sort("member_id", "seq")

    def extract(self, spec: LabelSpec, events: pl.DataFrame, as_of: datetime | None = None) -> pl.Series:
        """Return a value or null for each event."""
        moment = as_of or START + timedelta(days=2 * DAYS) + spec.matures_after
        tables = self.tables()
        return label_columns([spec], events, moment, tables["availability"], tables["titles"])[spec.name]

    def test_it_says_something(self, spec: LabelSpec, events: pl.DataFrame) -> None:
        """Some event of the log gets a value, or nothing else here is tried."""
        assert self.extract(spec, events).count() > 0, "no event of the suite's log gets a value; override `log`"

    def test_there_is_a_number_or_nothing_for_each_event(self, spec: LabelSpec, events: pl.DataFrame) -> None:
        """Values are finite numbers, one for each event at most."""
        found = self.extract(spec, events)
        assert found.dtype == pl.Float32
        assert len(found) == events.height
        assert found.drop_nulls().is_finite().all()

    def test_the_same_log_gives_the_same_values(self, spec: LabelSpec, events: pl.DataFrame) -> None:
        """Nothing is drawn at random, and the order in which rows are given does not matter."""
        first = self.extract(spec, events)
        assert first.equals(self.extract(spec, events))
        order = np.random.default_rng(0).permutation(events.height)
        assert self.extract(spec, events[order]).equals(first.gather(order))

    def test_members_do_not_depend_on_one_another(self, spec: LabelSpec, events: pl.DataFrame) -> None:
        """Members come in blocks: alone, a member's events get the values they get among others."""
        whole = events.select("event_id").with_columns(value=self.extract(spec, events))
        for own in events.partition_by("member_id"):
            alone = own.select("event_id").with_columns(value=self.extract(spec, own))
            assert alone.equals(own.select("event_id").join(whole, on="event_id", maintain_order="left"))

    @pytest.mark.parametrize("days", [1, DAYS // 4, DAYS // 2, DAYS])
    def test_what_is_told_stays(self, spec: LabelSpec, events: pl.DataFrame, days: int) -> None:
        """A value told at one moment is the value told later: it rests on no event that was still to come."""
        early = self.extract(spec, events, START + timedelta(days=days))
        assert early.count() <= self.extract(spec, events).count()
        assert early.drop_nulls().equals(self.extract(spec, events).filter(early.is_not_null()))

    @pytest.mark.parametrize("days", [DAYS // 4, DAYS])
    def test_the_young_are_unlabelled(self, spec: LabelSpec, events: pl.DataFrame, days: int) -> None:
        """An event younger than `matures_after` has no value, and none is a zero."""
        as_of = START + timedelta(days=days)
        young = events["event_at"] + spec.matures_after > as_of
        assert self.extract(spec, events, as_of).filter(young).count() == 0

    def test_nulls_are_no_mistake(self, spec: LabelSpec, events: pl.DataFrame) -> None:
        """A log in which everything that may be null is null can be labelled, and so can one without events."""
        nulls = events.with_columns(
            pl.lit(None, dtype=dtype).alias(name) for name, dtype in events.schema.items() if name not in REQUIRED
        )
        assert len(self.extract(spec, nulls)) == events.height
        assert len(self.extract(spec, events.clear())) == 0

    def test_the_log_is_left_as_it_was(self, spec: LabelSpec, events: pl.DataFrame) -> None:
        """Labelling changes nothing of the frame it is given."""
        before = events.clone()
        self.extract(spec, events)
        assert events.equals(before)
