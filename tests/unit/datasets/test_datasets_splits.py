from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from playbill.datasets import Split, make_split
from playbill.errors import DataError, IntegrityError, StateError, UnknownNameError


@pytest.fixture
def start(interactions):
    return interactions["event_at"].min()


def folds(split: Split) -> dict[str, str]:
    return dict(split.frame.with_columns(pl.col("fold").cast(pl.String)).iter_rows())


def test_ties_in_time_are_broken_by_seq(make_interactions, start) -> None:
    rows = [
        {"event_id": name, "member_id": "m", "seq": seq, "event_at": start, "action": "play", "title_id": str(seq)}
        for name, seq in (("c", 30), ("a", 10), ("d", 40), ("b", 20))
    ]
    split = make_split("leave_one_out", make_interactions(rows))
    assert folds(split) == {"a": "train", "b": "train", "c": "validation", "d": "test"}


def test_events_after_a_held_out_play_are_held_out_with_it(make_interactions, start) -> None:
    events = [("p1", "play"), ("t1", "thumbs_up"), ("p2", "play"), ("p3", "play"), ("t3", "thumbs_down")]
    events += [("p4", "play"), ("t4", "thumbs_up"), ("t2", "thumbs_up")]
    rows = [
        {
            "event_id": name,
            "member_id": "m",
            "seq": seq,
            "event_at": start,
            "action": action,
            "title_id": name[1:],
        }
        for seq, (name, action) in enumerate(events)
    ]
    assert folds(make_split("leave_one_out", make_interactions(rows))) == {
        "p1": "train",
        "t1": "train",
        "p2": "train",
        "p3": "validation",
        "t3": "validation",
        "p4": "test",
        "t4": "test",
        "t2": "test",
    }


def test_members_with_few_plays_are_train_only(make_interactions, start) -> None:
    def plays(member: str, count: int) -> list[dict]:
        return [
            {
                "event_id": f"{member}{seq}",
                "member_id": member,
                "seq": seq,
                "event_at": start,
                "action": "play",
                "title_id": str(seq + 1),
            }
            for seq in range(count)
        ]

    split = make_split("leave_one_out", make_interactions(plays("few", 2) + plays("more", 3)))
    assert folds(split) == {
        "few0": "train",
        "few1": "train",
        "more0": "train",
        "more1": "validation",
        "more2": "test",
    }


def test_each_member_has_one_target(interactions) -> None:
    split = make_split("leave_one_out", interactions)
    last = interactions.filter(pl.col("action") == "play").group_by("member_id").agg(pl.col("event_id").last())
    targets = split.targets(interactions, "test")
    assert set(targets["event_id"]) == set(last["event_id"])
    assert split.counts()["test"] >= targets.height


def test_global_time_folds_do_not_overlap(interactions) -> None:
    split = make_split("global_time", interactions)
    at = {fold: split.events(interactions, fold)["event_at"] for fold in ("train", "validation", "test")}
    assert at["train"].max() < split.validation_cutoff <= at["validation"].min()
    assert at["validation"].max() < split.cutoff <= at["test"].min()
    plays = interactions.filter(pl.col("action") == "play")
    share = plays.filter(pl.col("event_at") >= split.cutoff).height / plays.height
    assert 0.08 < share < 0.15


def test_global_time_keeps_equal_moments_together(make_interactions, start) -> None:
    rows = [
        {
            "event_id": str(place),
            "member_id": f"m{place}",
            "seq": 0,
            "event_at": start + timedelta(hours=place // 4),
            "action": "play",
            "title_id": "1",
        }
        for place in range(40)
    ]
    split = make_split("global_time", make_interactions(rows))
    counts = split.counts()
    assert all(count % 4 == 0 for count in counts.values())


@pytest.mark.parametrize("protocol", ["leave_one_out", "global_time"])
def test_nothing_to_hold_out(make_interactions, start, protocol: str) -> None:
    rows = [
        {"event_id": m, "member_id": m, "seq": 0, "event_at": start, "action": "play", "title_id": "1"} for m in "ab"
    ]
    with pytest.raises(DataError, match=protocol):
        make_split(protocol, make_interactions(rows))


def test_unknown_protocol_suggests_the_near_one(interactions) -> None:
    with pytest.raises(UnknownNameError, match="leave_one_out"):
        make_split("leave_one_outt", interactions)


@pytest.mark.parametrize("protocol", ["leave_one_out", "global_time"])
def test_a_split_is_saved_and_loaded(tmp_path, interactions, protocol: str) -> None:
    split = make_split(protocol, interactions)
    split.save(tmp_path / "deep" / "split.parquet")
    loaded = Split.load(tmp_path / "deep" / "split.parquet")
    assert loaded.frame.equals(split.frame)
    assert (loaded.protocol, loaded.cutoff, loaded.validation_cutoff, loaded.digest) == (
        split.protocol,
        split.cutoff,
        split.validation_cutoff,
        split.digest,
    )
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["split.parquet"]


def test_digest_depends_on_what_is_held_out_not_on_row_order(interactions) -> None:
    split = make_split("leave_one_out", interactions)
    assert make_split("leave_one_out", interactions.sample(fraction=1, shuffle=True, seed=1)).digest == split.digest
    assert make_split("leave_one_out", interactions.slice(0, 400)).digest != split.digest
    assert make_split("global_time", interactions).digest != split.digest


def test_changed_rows_are_noticed(tmp_path, interactions) -> None:
    split = make_split("leave_one_out", interactions)
    path = tmp_path / "split.parquet"
    split.save(path)
    about = pl.read_parquet_metadata(path)["playbill.split"]
    changed = split.frame.with_columns(fold=pl.lit("test").cast(split.frame.schema["fold"]))
    changed.write_parquet(path, metadata={"playbill.split": about})
    with pytest.raises(IntegrityError, match="digest"):
        Split.load(path)
    path.write_bytes(b"PAR1 no parquet")
    with pytest.raises(IntegrityError, match="no split"):
        Split.load(path)
    with pytest.raises(StateError, match="does not exist"):
        Split.load(tmp_path / "none.parquet")
