"""Strata: every group has its floor of an epoch, and the weights restore the log."""

from __future__ import annotations

import re
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import shown_service as service
from playbill.datasets import TrainingSet
from playbill.datasets.batching.windows import cut_windows, drawn_windows, row_ranges
from playbill.datasets.examples.sampling import MOST_DRAWS, draw_copies, stratum_names
from playbill.definitions.specs import SamplingSpec
from playbill.errors import ConfigError

HEADS = {"play": {"label": "play", "loss": "bce"}}
SAMPLING = {"strata": ["country", "tenure"], "floor": 0.05}


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 4_000), min_size=1, max_size=12), share=st.floats(0.01, 0.99))
def test_every_stratum_has_its_floor_and_no_row_is_left_out(sizes: list[int], share: float) -> None:
    floor = share / len(sizes)
    names = pl.Series([f"s{place}" for place, size in enumerate(sizes) for _ in range(size)])
    try:
        copies, strata = draw_copies(names, floor)
    except ConfigError:
        assert floor * sum(sizes) / (1 - share) > 0.99 * MOST_DRAWS * min(sizes)
        return
    assert 1 <= copies.min() <= copies.max() <= MOST_DRAWS
    drawn = np.bincount(names.str.slice(1).cast(pl.Int64).to_numpy(), weights=copies)
    assert (drawn / drawn.sum() >= floor - 1e-12).all()
    assert {one.name: one.drawn for one in strata} == {f"s{place}": int(count) for place, count in enumerate(drawn)}
    assert sum(one.share for one in strata) == pytest.approx(1)
    assert sum(one.sampled_share for one in strata) == pytest.approx(1)
    for one in strata:
        assert one.drawn * one.weight == pytest.approx(one.rows)
        assert one.drawn == one.rows or one.sampled_share < floor + 1.01 / drawn.sum() + 0.02 * floor


def test_too_many_strata_for_the_floor() -> None:
    names = pl.Series([f"s{number}" for number in range(60)])
    with pytest.raises(
        ConfigError, match=r"60 strata cannot each have 0.02 of an epoch, together that is 120%.*0.0167"
    ):
        draw_copies(names, 0.02)


def test_too_few_examples_for_the_floor() -> None:
    sizes = {"US · over_365d": 30_000, "ZZ · under_1d": 1, "BR · 1-7d": 3, "FR · 1-7d": 20}
    names = pl.Series([name for name, size in sizes.items() for _ in range(size)])
    with pytest.raises(
        ConfigError, match=r"too few examples in 'ZZ · under_1d' \(1\): for 0\.05 of an epoch"
    ) as progress:
        draw_copies(names, 0.05)
    assert "drawn 1,765 times, and at most 1,000 are allowed" in str(progress.value)
    largest = float(re.search(r"a floor of ([0-9.]+) can be kept", str(progress.value))[1])
    assert 0.02 < largest < 0.05
    copies, _ = draw_copies(names, largest)
    assert 600 < copies.max() <= MOST_DRAWS


def test_bands_of_tenure_count_from_joining_or_from_the_first_event() -> None:
    days = [0.5, 1, 6.9, 7, 30, 89, 90, 365, 4000]
    rows = pl.DataFrame(
        {
            "member_id": ["a"] * len(days) + ["b"],
            "country": ["US"] * len(days) + ["FR"],
            "event_at": [service.START + timedelta(days=day) for day in days] + [service.START + timedelta(days=3)],
            "first_at": [service.START] * (len(days) + 1),
        }
    ).cast({"event_at": pl.Datetime("us", "UTC"), "first_at": pl.Datetime("us", "UTC")})
    members = pl.DataFrame({"member_id": ["b"], "joined_at": [service.START - timedelta(days=100)]})
    members = members.cast({"joined_at": pl.Datetime("us", "UTC")})
    tenure = SamplingSpec(strata=("tenure",), floor=0.1)
    bands = ["under_1d", "1-7d", "1-7d", "7-30d", "30-90d", "30-90d", "90-365d", "over_365d", "over_365d"]
    assert stratum_names(rows, members, tenure).to_list() == [*bands, "90-365d"]
    no_members = pl.DataFrame(schema={"member_id": pl.String, "joined_at": pl.Datetime("us", "UTC")})
    assert stratum_names(rows, no_members, tenure).to_list()[-1] == "1-7d"
    both = SamplingSpec(strata=("country", "tenure"), floor=0.1)
    assert stratum_names(rows, members, both).to_list()[-1] == "FR · 90-365d"


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return service.log(members=30)


@pytest.fixture(scope="module")
def plain(log) -> TrainingSet:
    return service.training_set(service.model(HEADS), log)


@pytest.fixture(scope="module")
def sampled(log) -> TrainingSet:
    return service.training_set(service.model(HEADS, sampling=SAMPLING), log)


def totals(training_set: TrainingSet) -> dict[tuple[int, float], float]:
    """Weight of every (title, label) in an epoch."""
    found: dict[tuple[int, float], float] = {}
    for batch in training_set.epoch(0):
        rows = zip(batch.targets.title, batch.targets.labels["play"], batch.targets.weight, strict=True)
        for title, label, weight in rows:
            key = int(title), float(label)
            found[key] = found.get(key, 0.0) + float(weight)
    return found


def test_weighted_totals_of_an_epoch_are_those_of_the_log(plain, sampled) -> None:
    assert sampled.rows.copies.max() > 1
    once, drawn = totals(plain), totals(sampled)
    assert drawn.keys() == once.keys()
    for key, total in once.items():
        assert drawn[key] == pytest.approx(total, rel=1e-5)


def test_a_batch_tells_the_log_on_average(sampled) -> None:
    """One batch of each of many epochs: the share of small strata is that of the log if weighted, not otherwise."""
    small = sampled.rows.copies > 1
    weighted, unweighted = [], []
    for epoch in range(200):
        batch, (row, _) = next(zip(sampled.epoch(epoch), sampled.rows_read(epoch), strict=False))
        weighted.append(float(batch.targets.weight @ small[row]) / sampled.batch_weights["play"])
        unweighted.append(float(small[row].mean()))
    scores = [(np.mean(one) - small.mean()) / (np.std(one) / np.sqrt(len(one))) for one in (weighted, unweighted)]
    assert abs(scores[0]) < 4
    assert scores[1] > 4


def test_an_epoch_reads_every_stratum_as_often_as_the_record_says(sampled) -> None:
    counts = np.zeros(len(sampled.rows))
    for rows, _ in sampled.rows_read(0):
        np.add.at(counts, rows, 1)
    np.testing.assert_array_equal(counts, sampled.rows.copies)
    assert sum(one.drawn for one in sampled.strata) == counts.sum()
    assert min(one.sampled_share for one in sampled.strata) >= SAMPLING["floor"] - 1e-12
    assert min(one.share for one in sampled.strata) < SAMPLING["floor"] / 1.5


def test_repeats_read_no_further_than_their_rows(sampled) -> None:
    windows = sampled.windows_of(0)
    repeats = windows.draw > 0
    assert repeats.any()
    first, last = row_ranges(windows, sampled.rows.slot)
    for place in np.nonzero(repeats)[0]:
        rows = np.arange(first[place], last[place])
        rows = rows[sampled.rows.copies[rows] > windows.draw[place]]
        reach = sampled.rows.slot[rows].max() - windows.start[place] - windows.member[place]
        assert windows.length[place] == reach


def test_every_epoch_has_as_many_batches(sampled) -> None:
    assert {len([*sampled.epoch(number)]) for number in range(3)} == {sampled.steps()}
    assert {len([*sampled.epoch(0, rank, 2)]) for rank in range(2)} == {sampled.steps(2)}


def test_the_record_outlives_saving(sampled, tmp_path) -> None:
    sampled.save(tmp_path)
    loaded = TrainingSet.load(tmp_path)
    assert loaded.strata == sampled.strata
    assert totals(loaded) == totals(sampled)


def test_windows_are_repeated_only_for_rows_that_are() -> None:
    windows = cut_windows(np.array([6, 3]), 10, 10)
    slot, copies = np.array([0, 1, 2, 3, 4, 5, 7, 8, 9]), np.array([1, 1, 3, 1, 1, 1, 1, 2, 1])
    drawn = drawn_windows(windows, slot, copies)
    assert drawn.draw.tolist() == [0, 0, 1, 1, 2]
    assert drawn.length.tolist() == [5, 2, 2, 1, 2]
    assert drawn.member.tolist() == [0, 1, 0, 1, 0]
