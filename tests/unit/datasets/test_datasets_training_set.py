from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import polars as pl
import pytest

from playbill.datasets import TrainingSet, build_training_set, make_split
from playbill.datasets.batching.batches import CO_PLAY_DISTANCE
from playbill.datasets.batching.windows import bucket_lengths, cut_windows, plan_epoch
from playbill.datasets.examples.labelled import assert_held_out_later, request_rows
from playbill.errors import DataError, IntegrityError, StateError
from playbill.schema import INTERACTIONS


def same(one, other) -> bool:
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        pairs = [(a[name], b[name]) for name in a] if isinstance(a, dict) else [(a, b)]
        if not all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs):
            return False
    return True


def logged(batch, training_set: TrainingSet) -> np.ndarray:
    """Rows that are no made ones."""
    made = [training_set.encoder.vocabulary("canvas").encode([name])[0] for name in ("search", "more_like_this")]
    return ~np.isin(batch.context.canvas, made)


def test_every_train_play_is_a_target_once_an_epoch(training_set, interactions) -> None:
    split = make_split("leave_one_out", interactions)
    plays = split.events(interactions, "train").filter(pl.col("action") == "play")["title_id"]
    rows = training_set.encoder.title_rows
    targets = Counter()
    for batch in training_set.epoch(0):
        targets.update(batch.targets.title[logged(batch, training_set)].tolist())
    assert targets == Counter(rows.encode(plays).tolist())


def test_held_out_titles_reach_neither_inputs_nor_targets(training_set, interactions) -> None:
    split = make_split("leave_one_out", interactions)
    held = split.events(interactions, "validation", "test").select("member_id", "title_id").unique()
    train = split.events(interactions, "train").select("member_id", "title_id").unique()
    only_held = held.join(train, on=["member_id", "title_id"], how="anti")
    members = split.events(interactions, "train")["member_id"].unique(maintain_order=True).to_list()
    titles_of = {
        member: set(training_set.tokens[training_set.token_member == number, 0].tolist())
        for number, member in enumerate(members)
    }
    rows = training_set.encoder.title_rows
    for member, title in only_held.iter_rows():
        assert int(rows.encode([title])[0]) not in titles_of[member]


def test_state_of_each_row_has_read_exactly_the_tokens_before_its_target(training_set) -> None:
    tokens, members = training_set.tokens, training_set.token_member
    where = {(int(m), int(t)): i for i, (m, t) in enumerate(zip(members, tokens[:, 0], strict=True))}
    for batch in training_set.epoch(0):
        width = batch.history.title.shape[1]
        window, position = batch.context.state // (width + 1), batch.context.state % (width + 1)
        for row in np.nonzero(logged(batch, training_set))[0]:
            seen = batch.history.title[window[row], : position[row]]
            assert (seen > 0).all()
            if len(seen):
                owner = next(
                    m
                    for m in range(members.max() + 1)
                    if (m, int(seen[0])) in where
                    and np.array_equal(tokens[where[(m, int(seen[0]))] :][: len(seen), 0], seen)
                    and where.get((m, int(batch.targets.title[row]))) == where[(m, int(seen[0]))] + len(seen)
                )
                assert owner >= 0


def test_labels_belong_to_the_target_title(training_set, interactions) -> None:
    split = make_split("leave_one_out", interactions)
    thumbs = split.events(interactions, "train").filter(pl.col("action").str.starts_with("thumbs"))
    up, down = (thumbs.filter(pl.col("action") == action).height for action in ("thumbs_up", "thumbs_down"))
    values = training_set.labels["thumbs_up"]
    assert (np.nansum(values == 1), np.nansum(values == 0)) == (up, down)
    assert (training_set.labels["discovery_play"] == 1).all()


def test_made_search_rows_have_a_query_and_only_rank(training_set) -> None:
    search = training_set.encoder.vocabulary("canvas").encode(["search"])[0]
    sizes, forgotten, total, logged_rows = [], 0, 0, 0
    for batch in training_set.epoch(0):
        rows = batch.context.canvas == search
        bag = np.diff(batch.context.query_offsets, append=len(batch.context.query_grams))
        sizes += bag[rows].tolist()
        assert (bag[~rows] == 0).all()
        assert np.isnan(batch.targets.labels["thumbs_up"][rows]).all()
        assert (batch.targets.labels["discovery_play"][rows] == 1).all()
        assert (batch.context.hour_of_week[rows] == 0).all(), "search carries no hour here"
        assert (batch.context.source_title[rows] == 0).all()
        width = batch.history.title.shape[1]
        forgotten += int((batch.context.state[rows] % (width + 1) == 0).sum())
        total += int(rows.sum())
        logged_rows += int(logged(batch, training_set).sum())
    assert min(sizes) > 0
    assert 0.2 < total / logged_rows < 0.4
    assert 0 < forgotten < total


def test_queries_and_hidden_fields_are_drawn_anew_each_epoch_and_repeat_by_seed(training_set) -> None:
    first, again, second = ([*training_set.epoch(number)] for number in (0, 0, 1))
    assert len(first) == training_set.steps()
    assert all(same(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    assert not all(
        np.array_equal(x.context.query_grams, y.context.query_grams) for x, y in zip(first, second, strict=True)
    )


def test_more_like_this_rows_name_a_recent_title_as_source(training_set) -> None:
    canvas = training_set.encoder.vocabulary("canvas").encode(["more_like_this"])[0]
    place = {
        (int(m), int(t)): i
        for i, (m, t) in enumerate(zip(training_set.token_member, training_set.tokens[:, 0], strict=True))
    }
    found = 0
    for batch in training_set.epoch(0):
        rows = np.nonzero(batch.context.canvas == canvas)[0]
        for source, target in zip(batch.context.source_title[rows], batch.targets.title[rows], strict=True):
            distances = [
                place[(m, int(target))] - place[(m, int(source))]
                for m in range(training_set.token_member.max() + 1)
                if (m, int(source)) in place and (m, int(target)) in place
            ]
            assert any(0 < distance <= CO_PLAY_DISTANCE for distance in distances)
            found += 1
    assert found > 50


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_every_batch(training_set, world: int) -> None:
    ranks = [[*training_set.epoch(4, rank, world)] for rank in range(world)]
    assert {len(batches) for batches in ranks} == {training_set.steps(world)}
    for whole, *parts in zip(training_set.epoch(4), *ranks, strict=True):
        windows = [part.history.title[row].tobytes() for part in parts for row in range(len(part.history.length))]
        assert sorted(windows) == sorted(row.tobytes() for row in whole.history.title)
        keys = [_row_keys(part) for part in parts]
        assert sorted(key for part in keys for key in part) == sorted(_row_keys(whole))


def _row_keys(batch) -> list[tuple]:
    context, bags = batch.context, np.split(batch.context.query_grams, batch.context.query_offsets[1:])
    columns = (context.canvas, context.hour_of_week, context.source_title, batch.targets.title, context.snapshot)
    return [(*map(int, row), bag.tobytes()) for *row, bag in zip(*columns, bags, strict=True)]


def test_batches_hold_about_their_slots(training_set) -> None:
    slots = [batch.history.title.size for batch in training_set.epoch(0)]
    assert max(slots) <= 90
    assert np.mean(slots) > 35


def test_padding_is_zero_and_on_the_right(training_set) -> None:
    for batch in training_set.epoch(0):
        inside = np.arange(batch.history.title.shape[1]) < batch.history.length[:, None]
        assert (batch.history.title[inside] > 0).all()
        for field in ("title", "actions", "canvas", "gap", "duration"):
            assert (getattr(batch.history, field)[~inside] == 0).all()


def test_snapshots_are_never_later_than_the_row(training_set) -> None:
    step = 24 * 3600 * 1_000_000
    moments = np.unique(training_set.context.moment)
    assert (moments[training_set.snapshot] == training_set.context.moment).all()
    assert (training_set.context.moment % step == 0).all()
    assert training_set.titles.snapshots.shape == (len(moments), 41, 1)
    assert np.isnan(training_set.titles.snapshots[:, 0]).all()


def test_few_snapshots_are_kept_when_memory_is_short(tables, resolved, features, clock, monkeypatch) -> None:
    monkeypatch.setattr("playbill.datasets.build.SNAPSHOT_BYTES", 4 * 41 * 3)
    made = build_training_set(tables, resolved, make_split("leave_one_out", tables.interactions()), features, clock)
    assert made.titles.snapshots.shape[0] <= 3
    assert made.snapshot.min() == 0


def test_fields_known_after_the_request_do_not_reach_its_row(tables, resolved, features, clock, interactions) -> None:
    split = make_split("leave_one_out", interactions)
    rows = interactions.filter(pl.col("action") == "play")
    late = set(INTERACTIONS.names("after"))
    assert not late & set(request_rows(rows).columns)
    build_training_set(tables, resolved, split, features, clock)
    assert not late & set(features.requested[0].columns)


def test_changing_what_is_known_after_leaves_every_request_as_it_was(
    tables, resolved, features, clock, interactions, training_set
) -> None:
    tables.log = interactions.with_columns(
        duration_s=pl.lit(5_000, dtype=pl.Float32), progress=pl.lit(0.4, dtype=pl.Float32), season=pl.lit(3)
    )
    changed = build_training_set(tables, resolved, make_split("leave_one_out", tables.interactions()), features, clock)
    assert same(changed.context, training_set.context)
    assert np.array_equal(changed.tokens[:, :6], training_set.tokens[:, :6])
    assert not np.array_equal(changed.tokens[:, 6], training_set.tokens[:, 6]), "later events do see it"


def test_saved_and_loaded_again_gives_the_same_batches(training_set, tmp_path) -> None:
    training_set.save(tmp_path / "set")
    loaded = TrainingSet.load(tmp_path / "set")
    assert loaded.watermark == training_set.watermark
    assert loaded.encoder.version == training_set.encoder.version
    assert same(loaded.titles, training_set.titles)
    for one, other in zip(training_set.epoch(1), loaded.epoch(1), strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))


def test_a_training_set_pickles_for_workers(training_set) -> None:
    copy = pickle.loads(pickle.dumps(training_set))
    for one, other in zip(training_set.epoch(0), copy.epoch(0), strict=True):
        assert same(one.context, other.context)


def test_a_damaged_folder_is_named(training_set, tmp_path) -> None:
    training_set.save(tmp_path)
    (tmp_path / "tokens.npy").write_bytes(b"nonsense")
    with pytest.raises(IntegrityError, match="cannot be read"):
        TrainingSet.load(tmp_path)


def test_fewer_windows_than_workers(training_set) -> None:
    with pytest.raises(StateError, match="fewer workers"):
        next(training_set.epoch(0, 0, 10_000))


def test_a_label_without_rows_is_named(tables, resolved, features, clock, interactions) -> None:
    without = interactions.filter(~pl.col("action").str.starts_with("thumbs"))
    tables.log = without
    with pytest.raises(DataError, match="thumbs_up"):
        build_training_set(tables, resolved, make_split("leave_one_out", without), features, clock)


def test_a_split_that_trains_on_the_future_is_refused(interactions) -> None:
    split = make_split("leave_one_out", interactions)
    turned = split.frame.with_columns(
        fold=pl.when(pl.col("fold") == "train").then(pl.lit("test")).otherwise(pl.lit("train"))
    )
    with pytest.raises(IntegrityError, match="after held-out"):
        assert_held_out_later(interactions, replace(split, frame=turned))


def test_training_rows_of_a_global_time_split_end_before_the_cutoff(
    tables, resolved, features, clock, interactions
) -> None:
    split = make_split("global_time", interactions)
    made = build_training_set(tables, resolved, split, features, clock)
    assert made.watermark == split.validation_cutoff
    assert features.requested[-1]["event_at"].max() < split.validation_cutoff


def test_windows_cover_every_token_once() -> None:
    counts = np.array([1, 2, 11, 12, 35])
    windows = cut_windows(counts, 10, 10)
    targets = [
        start + state
        for start, length, first in zip(windows.start, windows.length, windows.first, strict=True)
        for state in range(0 if first else 1, length + 1)
    ]
    assert sorted(targets) == list(range(counts.sum()))
    assert windows.length.max() <= 10


def test_overlapping_windows_keep_their_stride() -> None:
    windows = cut_windows(np.array([21]), 10, 4)
    assert (windows.start + windows.length).tolist() == [20, 16, 12, 8]


def test_bucket_lengths_waste_the_least() -> None:
    assert bucket_lengths(np.array([1, 1, 1, 9, 10]), 2).tolist() == [1, 10]
    assert bucket_lengths(np.array([0, 0]), 11).tolist() == [1]


def test_plan_uses_every_window_once() -> None:
    windows = cut_windows(np.random.default_rng(0).integers(1, 300, 500), 50, 50)
    plan = plan_epoch(windows, 400, (1, 2), 4)
    assert sorted(np.concatenate(plan.windows).tolist()) == list(range(len(windows)))
    assert all(len(chosen) >= 4 for chosen in plan.windows)
    assert all(windows.length[chosen].max() <= width for width, chosen in zip(plan.widths, plan.windows, strict=True))
