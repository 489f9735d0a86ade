"""A training set built from ranges of members is that of the whole log, number for number."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fixtures import shown_service as service
from playbill.datasets import build_training_set, make_split
from playbill.datasets.availability import StatesInParts, availability_states
from playbill.datasets.candidate_masks import Audience, Described
from playbill.datasets.parts import build_in_parts
from playbill.definitions.specs import CanvasSpec
from playbill.errors import ConfigError, DataError
from playbill.tables import Vocabulary

FEW = 150
"""Events in memory at a time: a log of the fixtures has some eight such ranges."""
ROWS = {"row_play": {"level": "row", "extractor": "played_from", "window": "1d", "matures_after": "30h"}}
SHOWN: dict[str, dict[str, Any]] = {
    "sampled impressions, slates and strata": {
        "heads": {
            "play": {"label": "play", "loss": "bce", "negatives": {"policy": "shown_not_played", "count": 2}},
            "rank": {
                "label": "play",
                "loss": "sampled_softmax",
                "negatives": {"policy": "mixed", "count": 9, "shares": {"uniform": 0.5, "shown_not_played": 0.5}},
            },
            "thumbs_up": {"label": "thumbs_up", "loss": "bce", "optional": True},
        },
        "sampling": {"strata": ["country", "tenure"], "floor": 0.05},
    },
    "a horizon, last windows and titles that were seen": {
        "heads": {"play": {"label": "play", "loss": "softmax", "horizon": {"within": "30d", "most": 4}}},
        "training": {"stride": 4, "batch_slots": 60, "seed": 3, "windows": "last"},
        "titles": {"negatives": "seen"},
    },
}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_same(folder: Path, tables: Any, resolved: Any, protocol: str, features: Any, clock: Any) -> None:
    """Build both ways, and compare what `save` writes of them: every array, the encoder, and all else there is."""
    split = make_split(protocol, tables.interactions())
    (folder / "raw").mkdir()
    whole = build_training_set(tables, resolved, split, features, clock)
    whole.save(folder / "whole")
    parts = build_in_parts(service.InRanges(tables), resolved, split, features, clock, folder / "raw", FEW)
    parts.save(folder / "parts")
    expected, found = files(folder / "whole"), files(folder / "parts")
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert len(whole.rows)


@pytest.mark.parametrize("protocol", ["leave_one_out", "global_time"])
def test_a_log_of_plays_and_ratings(protocol: str, tmp_path, tables, resolved, features, clock) -> None:
    assert len(service.InRanges(tables).member_ranges(FEW)) > 5
    assert_same(tmp_path, tables, resolved, protocol, features, clock)


def with_rows(log: pl.DataFrame) -> pl.DataFrame:
    """The log with the rows its titles were shown in, what was typed for some, and another canvas."""
    name = pl.col("position").replace_strict(
        {0: "popular", 1: "genre_rows:Drama", 2: "genre_rows:Comedy"}, default=None
    )
    return log.with_columns(
        row_id=name,
        query=pl.when(pl.col("seq") % 7 == 0).then(pl.lit("na")),
        canvas=pl.when(pl.col("seq") % 11 < 4).then(pl.lit("search")).otherwise("canvas"),
    )


@pytest.mark.parametrize("protocol", ["leave_one_out", "global_time"])
@pytest.mark.parametrize("changes", SHOWN.values(), ids=SHOWN)
def test_a_log_of_impressions(protocol: str, changes: dict[str, Any], tmp_path) -> None:
    kids = ("m02", "m03")
    tables = service.Tables(with_rows(service.log(kids=kids)), kids_titles=service.KIDS_TITLES, kids_members=kids)
    resolved = service.model(**changes)
    assert_same(tmp_path, tables, resolved, protocol, service.NoFeatures(), service.CLOCK)


def test_heads_about_rows_and_rules_by_the_hour(tmp_path) -> None:
    heads = {"play": {"label": "play", "loss": "softmax"}, "row": {"label": "row_play", "loss": "bce"}}
    resolved = service.model(heads, labels=ROWS)
    canvas = resolved.canvases["home"].model_validate(
        resolved.canvases["home"].model_dump(exclude_unset=True) | {"candidates": {"hours": [LATE, EARLY]}}
    )
    resolved = resolved.model_copy(update={"canvases": {"home": canvas}})
    tables = service.Tables(with_rows(service.log()), kids_titles=service.KIDS_TITLES)
    assert_same(tmp_path, tables, resolved, "global_time", service.NoFeatures(), service.CLOCK)


LATE = {"from": 22, "to": 5, "kids": True}
EARLY = {"from": 6, "to": 9, "kids": False}


@pytest.mark.parametrize("seed", range(12))
def test_states_of_parts_are_those_of_the_whole(seed: int) -> None:
    """Parts of a few requests each, so that the moments by which rules are numbered lie in any of them."""
    draw = np.random.default_rng(seed)
    resolved = service.model({"play": {"label": "play", "loss": "softmax"}})
    home = resolved.canvases["home"].model_dump(exclude_unset=True)
    rules = {"home": {}, "both": {"hours": [LATE, EARLY]}, "late": {"hours": [LATE]}}
    canvases = {
        name: CanvasSpec.model_validate(home | {"name": name, "candidates": own}) for name, own in rules.items()
    }
    resolved = resolved.model_copy(update={"canvases": canvases})
    titles = service.Tables(service.log(members=1), kids_titles=service.KIDS_TITLES).titles()
    described = Described.of(("", *service.TITLES), titles)
    spans = service.availability()
    # With few changes of the catalogue a state has many requests, of which few can stand for it.
    spans = spans.filter(pl.col("country") == "*") if seed % 2 else spans
    given = (Vocabulary("title", service.TITLES), spans, resolved, described)
    found, parts = StatesInParts(*given), []
    for _ in range(4):
        size, own = 30, int(draw.integers(0, 31))
        moments = [service.START + timedelta(hours=float(hours)) for hours in draw.uniform(0, 60, size)]
        part = pl.DataFrame(
            {
                "event_at": pl.Series(moments, dtype=pl.Datetime("us", "UTC")),
                "country": draw.choice(["US", "FR", "ZZ"], size),
                "canvas": draw.choice([*rules, "elsewhere"], size),
                "kids": draw.random(size) < 0.3,
            }
        )
        parts.append((part, own, found.of(part, own, part["kids"].to_numpy())))
    ordered = [part[:own] for part, own, _ in parts] + [part[own:] for part, own, _ in parts]
    whole = pl.concat(ordered)
    audience = Audience(described, whole["kids"].to_numpy())
    states, state = availability_states(given[0], given[1], whole, resolved, audience)
    joined, numbers = found.joined(None)
    for name in (own.name for own in fields(states)):
        np.testing.assert_array_equal(getattr(joined, name), getattr(states, name))
    each = [number[local] for number, (_, _, local) in zip(numbers, parts, strict=True)]
    first = [number[:own] for number, (_, own, _) in zip(each, parts, strict=True)]
    second = [number[own:] for number, (_, own, _) in zip(each, parts, strict=True)]
    np.testing.assert_array_equal(np.concatenate(first + second), state)


def test_a_head_that_nothing_teaches_is_left_out_or_refused(tmp_path) -> None:
    log = service.log().filter(pl.col("action") != "thumbs_up")
    heads = {"play": {"label": "play", "loss": "softmax"}, "thumbs_up": {"label": "thumbs_up", "loss": "bce"}}
    optional = heads | {"thumbs_up": heads["thumbs_up"] | {"optional": True}}
    tables = service.Tables(log)
    assert_same(tmp_path, tables, service.model(optional), "global_time", service.NoFeatures(), service.CLOCK)
    split = make_split("global_time", log)
    given = (service.model(heads), split, service.NoFeatures(), service.CLOCK)
    with pytest.raises(DataError) as whole:
        build_training_set(tables, *given)
    with pytest.raises(DataError) as parts:
        build_in_parts(service.InRanges(tables), *given, tmp_path / "raw", FEW)
    assert str(parts.value) == str(whole.value)


def test_a_head_with_a_reward_is_refused(tmp_path) -> None:
    rewards = {"worth": {"terms": {"thumbs_up": 1.0}}}
    resolved = service.model({"play": {"label": "play", "loss": "softmax", "reward": "worth"}}, rewards=rewards)
    tables = service.Tables(service.log())
    split = make_split("global_time", tables.interactions())
    with pytest.raises(ConfigError, match="head 'play' has a reward, which is learnt from all plays together"):
        build_in_parts(service.InRanges(tables), resolved, split, service.NoFeatures(), service.CLOCK, tmp_path, FEW)
