"""The suite of label extractors, on what is shipped; and that it finds what is wrong."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl
import pytest

from playbill.definitions.specs import LabelSpec
from playbill.errors import DataError
from playbill.labels import LabelContext, label_extractor
from playbill.testing import LabelExtractorConformance


class TestRowPlay(LabelExtractorConformance):
    label: ClassVar = {"extractor": "played_from", "level": "row", "window": "1d", "matures_after": "2d"}


class TestPagePlay(LabelExtractorConformance):
    label: ClassVar = {"extractor": "played_from", "level": "page", "window": "1d", "matures_after": "2d"}


class TestActedOn(LabelExtractorConformance):
    label: ClassVar = {
        "extractor": "acted_on",
        "options": {"actions": ["thumbs_up", "play"]},
        "window": "6h",
        "matures_after": "6h",
    }


class TestARule(LabelExtractorConformance):
    label: ClassVar = {
        "from": {"action": "play", "where": "later_visits > 0 and prior_plays_of_rarest_genre < 3"},
        "window": "7d",
        "matures_after": "8d",
        "negatives": {"actions": ["play"], "shown_not_played": True},
    }


def future(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Look at everything a member does later, whatever the window."""
    return events.select(pl.len().over("member_id").cast(pl.Float32)).to_series()


def others(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Look at other members."""
    return events.select(pl.len().over("title_id").cast(pl.Float32)).to_series()


def fragile(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Fail where something is null."""
    if events["title_id"].null_count():
        raise ValueError("a title is null")
    return events.select(pl.lit(1.0).repeat_by(pl.len()).explode()).to_series().head(events.height)


@pytest.mark.usefixtures("own_plugins")
@pytest.mark.parametrize(
    ("wrong", "test", "error"),
    [
        (future, "test_what_is_told_stays", AssertionError),
        (others, "test_members_do_not_depend_on_one_another", AssertionError),
        (fragile, "test_nulls_are_no_mistake", DataError),
    ],
)
def test_the_suite_fails_a_wrong_extractor(wrong: Any, test: str, error: type[Exception]) -> None:
    label_extractor("wrong")(wrong)
    suite = LabelExtractorConformance()
    spec = LabelSpec.model_validate({"name": "tried", "version": 1, "extractor": "wrong"})
    events = suite.log().sort("member_id", "seq")
    words = {"days": 10} if test == "test_what_is_told_stays" else {}
    with pytest.raises(error):
        getattr(suite, test)(spec, events, **words)
