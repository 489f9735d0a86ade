"""Extractors: registered by a decorator or an entry point, named in YAML, held to their shape, wrapped in errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from playbill.definitions.specs import EXTRACTORS, LabelSpec, Spec
from playbill.definitions.zoo import load_zoo
from playbill.errors import DataError, DefinitionError, DuplicateNameError, StateError
from playbill.labels import LabelContext, extract, label_events, label_extractor, labeler
from playbill.registry import Registry
from playbill.testing.made_log import made_log, made_tables

END = datetime(2026, 6, 1, tzinfo=UTC)


class MinutesOptions(Spec):
    """Options of the extractor below."""

    cap: float


def minutes(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Return minutes played, at most the cap."""
    watched = (pl.col("duration_s") / 60).clip(upper_bound=context.options.cap)
    return events.select(pl.when(pl.col("action") == "play").then(watched)).to_series()


@pytest.fixture(autouse=True)
def registry(own_plugins: None) -> Registry:
    return EXTRACTORS


def label(name: str, **more: Any) -> LabelSpec:
    return LabelSpec.model_validate({"name": "it", "version": 2, "extractor": name, **more})


def test_a_decorated_function_is_an_extractor_that_yaml_can_name(tmp_path: Path) -> None:
    plugin = label_extractor("minutes", version=3, inputs=("duration_s",), options=MinutesOptions)(minutes)
    (tmp_path / "minutes.yaml").write_text(
        "kind: Label\nname: minutes\nversion: 1\nextractor: minutes\noptions: {cap: 5}\n"
    )
    spec = load_zoo(tmp_path).labels["minutes"]
    found = extract(spec, made_log(), END)
    plays = made_log().filter(pl.col("action") == "play").sort("member_id", "seq")
    expected = (plays["duration_s"] / 60).clip(upper_bound=5.0).cast(pl.Float32)
    assert found["value"].to_list() == pytest.approx(expected.to_list())
    assert labeler(spec) == "minutes:1 (minutes:3)"
    assert plugin(made_log(), LabelContext(spec, MinutesOptions(cap=1), END, None)).max() == 1.0


def test_wrong_options_are_named_with_their_place(tmp_path: Path) -> None:
    label_extractor("minutes", options=MinutesOptions)(minutes)
    (tmp_path / "minutes.yaml").write_text(
        "kind: Label\nname: minutes\nversion: 1\nextractor: minutes\noptions: {cap: long}\n"
    )
    with pytest.raises(DefinitionError, match=r"minutes\.yaml:5:16: options\.cap"):
        load_zoo(tmp_path)


def test_an_entry_point_names_a_decorated_function(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("label extractor", "playbill.labels", {})
    monkeypatch.setattr("playbill.labels.extractors.EXTRACTORS", registry)
    made: list[Any] = []

    def load(self: EntryPoint) -> Any:
        made.append(label_extractor("minutes", options=MinutesOptions)(minutes))
        return made[-1]

    point = EntryPoint("minutes", f"{minutes.__module__}:minutes", "playbill.labels")
    monkeypatch.setattr("playbill.registry.entry_points", lambda group: [point])
    monkeypatch.setattr(EntryPoint, "load", load)
    assert registry.names() == ("minutes",)
    assert registry["minutes"].load() is minutes
    assert registry["minutes"] is made[0]
    assert Registry("label extractor", "playbill.labels", {"minutes": registry["minutes"]}).names() == ("minutes",)


def test_a_name_is_claimed_once() -> None:
    label_extractor("minutes")(minutes)
    label_extractor("minutes")(minutes)
    with pytest.raises(DuplicateNameError, match="label extractor 'minutes' is claimed by both"):
        label_extractor("minutes")(lambda events, context: events["seq"])
    with pytest.raises(DuplicateNameError, match=r"playbill\.labels\.built_in_extractors:played_from"):
        label_extractor("played_from")(minutes)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda events, context: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda events, context: events["nothing"], "ColumnNotFoundError"),
        (lambda events, context: events, "gave a DataFrame instead of a polars Series"),
        (lambda events, context: events["seq"].head(2), "gave 2 values for 360 events"),
        (lambda events, context: events["action"], "gave values of type String instead of numbers"),
    ],
)
def test_what_goes_wrong_in_an_extractor_is_said_with_its_label(function: Any, message: str) -> None:
    label_extractor("wrong")(function)
    with pytest.raises(DataError, match=rf"label it: 1 problem\n  extractor 'wrong': {message}"):
        extract(label("wrong"), made_log(), END)


def test_inputs_and_tables_that_are_not_there_are_named() -> None:
    label_extractor("hungry", inputs=("duration_s", "season"), tables=("titles",))(
        lambda events, context: events["seq"]
    )
    with pytest.raises(DataError) as caught:
        label_events([label("hungry")], made_log().drop("duration_s", "season"), END)
    assert [str(problem) for problem in caught.value.problems] == [
        f"interactions: column '{name}' is missing (read by label 'it')" for name in ("duration_s", "season")
    ]
    with pytest.raises(StateError, match="extractor 'hungry' needs the titles table"):
        label_events([label("hungry")], made_log(), END)
    assert label_events([label("hungry")], made_log(), END, **made_tables()).height == made_log().height


def test_the_extractors_window_counts_where_the_label_says_none() -> None:
    seen: list[timedelta | None] = []

    def look(events: pl.DataFrame, context: LabelContext) -> pl.Series:
        seen.append(context.window)
        return events["seq"]

    label_extractor("look", window=timedelta(hours=6))(look)
    extract(label("look", matures_after="6h"), made_log(), END)
    extract(label("look", matures_after="2d", window="1d"), made_log(), END)
    assert seen == [timedelta(hours=6), timedelta(days=1)]
    with pytest.raises(ValueError, match="5h is shorter than the window 6h"):
        label("look", matures_after="5h")


def test_young_events_are_unlabelled_whatever_an_extractor_says() -> None:
    label_extractor("hasty")(lambda events, context: events["seq"] * 0)
    log = made_log()
    as_of = log["event_at"].median()
    found = extract(label("hasty", matures_after="3d"), log, as_of)
    assert set(found["event_id"]) == set(log.filter(pl.col("event_at") + timedelta(days=3) <= as_of)["event_id"])


def test_nothing_positive_is_said_with_the_reason() -> None:
    label_extractor("never")(lambda events, context: events["seq"] * 0)
    with pytest.raises(DataError, match="its extractor 'never' found no positive event"):
        extract(label("never"), made_log(), END, require_rows=True)
    with pytest.raises(DataError, match=r"the log spans 150.5 days, so no event is old enough \(matures_after: 365d\)"):
        extract(label("never", matures_after="365d", window="300d"), made_log(), END, require_rows=True)


DEFINITION = """kind: Label
name: later
version: 1
from: {{action: play, where: "{where}"}}
{more}
"""


@pytest.mark.parametrize(
    ("where", "more", "message"),
    [
        ("later_plays > 0", "", r"4:29: from\.where: 'later_plays' looks at what comes after.*Add, say, `window: 1d`"),
        ("progress > 0", "window: 7d\nmatures_after: 1d", r"6:16: matures_after: 1d is shorter than the window 7d"),
        ("progress > 0", "window: 7d", r"matures_after: 0s is shorter than the window 7d.*Make it 7d or more"),
        ("later_play > 0", "window: 1d", r"4:30: from\.where: unknown column 'later_play'.*Did you mean 'later_plays'"),
        (
            "progress > 0",
            "matures_after: 9d\nnegatives: {shown_not_played: true, window: 2d, matures_after: 1d}",
            r"6:64: negatives\.matures_after: zeros mature after 1d, before the window 2d has passed",
        ),
        ("progress > 0", "level: shelf", r"5:8: level: unknown value 'shelf'"),
    ],
)
def test_mistakes_in_windows_have_their_place(tmp_path: Path, where: str, more: str, message: str) -> None:
    (tmp_path / "later.yaml").write_text(DEFINITION.format(where=where, more=more))
    with pytest.raises(DefinitionError, match=message):
        load_zoo(tmp_path)
