"""Published vectors: moments of members, files that appear whole, records, and definitions in feature_repo."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.errors import DefinitionError, IntegrityError, StateError, StorageError
from playbill.features.vectors import (
    PublishedVectors,
    declare_vectors,
    pins_of,
    published_vectors,
    read_vectors,
    require_pinned,
    vectors_folder,
    write_vectors,
)
from playbill.foundation.vectors import PastEvents, member_moments

START = datetime(2024, 3, 1, tzinfo=UTC)
RECORD = PublishedVectors(
    model="taste",
    version=3,
    bundle="b" * 64,
    head="play",
    width=2,
    digest="d" * 64,
    lineage=1,
    watermark=START.isoformat(),
    until=START.isoformat(),
    snapshot_id="s",
    members=1,
    member_rows=1,
    titles=1,
)
MOMENT = pl.Datetime("us", "UTC")


def events_at(hours):
    rows = {"member_id": [member for member, _ in hours], "event_at": [START + timedelta(hours=at) for _, at in hours]}
    return pl.DataFrame(rows, schema={"member_id": pl.String, "event_at": MOMENT})


def write(features, record=RECORD):
    members = pl.DataFrame({"member_id": ["m"], "vector": [[0.0, 1.0]], "event_timestamp": [START]})
    titles = pl.DataFrame({"title_id": ["t"], "vector": [[1.0, 0.0]], "bias": [0.5]})
    split = features / "own_split"
    split.parent.mkdir(exist_ok=True)
    split.write_bytes(b"split")
    members = members.cast({"event_timestamp": MOMENT, "vector": pl.List(pl.Float32)})
    write_vectors(features, record, members, titles, split, np.zeros((2, 2, 2)))


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 100)), min_size=1, max_size=30),
    st.sampled_from([1, 24]),
    st.floats(101, 140),
)
def test_every_event_is_before_the_first_moment_that_knows_it(hours, cadence, now_hours):
    now, cadence = START + timedelta(hours=now_hours), timedelta(hours=cadence)
    events = events_at(hours).filter(pl.col("event_at") < now)
    moments = member_moments(events, cadence, now)
    assert moments.select("member_id", "event_timestamp").is_unique().all()
    assert (moments["last_event_at"] < moments["event_timestamp"]).all()
    assert moments["event_timestamp"].max() <= now
    for member, at in events.select("member_id", "event_at").iter_rows():
        own = moments.filter(pl.col("member_id") == member, pl.col("event_timestamp") > at)["event_timestamp"]
        assert own.min() - at <= cadence


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.sampled_from(["SE", "BR", None])), min_size=1),
    st.booleans(),
)
def test_events_before_a_moment_are_found_by_search_as_by_a_filter(rows, by_seq):
    events = events_at([(member, hour) for member, hour, _ in rows]).with_columns(
        pl.Series("country", [country for *_, country in rows], pl.String), seq=pl.int_range(len(rows))
    )
    # By `seq` alone, moments of a member go back and forth.
    events = events.sort("member_id", "seq") if by_seq else events.sort("member_id", "event_at", "seq")
    moments = member_moments(events, timedelta(hours=24), START + timedelta(hours=50))
    for moment, (history, country) in zip(
        moments.iter_rows(), PastEvents.of(events, moments).before(moments), strict=True
    ):
        plain = events.filter(pl.col("member_id") == moment[0], pl.col("event_at") < moment[1])
        assert history.equals(plain)
        named = plain.sort("event_at", maintain_order=True)["country"].drop_nulls()
        assert country == (named[-1] if len(named) else None)


def test_an_event_at_midnight_is_of_the_next_day():
    found = member_moments(events_at([("a", 0), ("a", 24)]), timedelta(days=1), START + timedelta(days=9))
    assert found["event_timestamp"].to_list() == [START + timedelta(days=1), START + timedelta(days=2)]


def test_the_members_that_were_active_last_are_kept():
    hours = [("old", 1), ("middle", 30), ("new", 50), ("old", 2), ("new", 3)]
    found = member_moments(events_at(hours), timedelta(days=1), START + timedelta(days=9), members=2)
    assert found["member_id"].to_list() == ["middle", "new", "new"]


def test_a_publication_that_is_killed_leaves_what_was_there(tmp_path, monkeypatch):
    write(tmp_path)
    before = {path: path.read_bytes() for path in vectors_folder(tmp_path, "taste", 3).iterdir()}

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", full)
    for version in (3, 4):
        with pytest.raises(StorageError, match="the vectors"):
            write(tmp_path, RECORD.model_copy(update={"version": version, "digest": "e" * 64}))
    assert {path: path.read_bytes() for path in vectors_folder(tmp_path, "taste", 3).iterdir()} == before
    assert [one.reference for one in published_vectors(tmp_path)] == ["taste:3"]
    assert [path.name for path in (tmp_path / "vectors").iterdir()] == ["taste_v3"]


def test_rows_say_when_they_count_and_when_they_came_to_be_known(tmp_path):
    write(tmp_path, RECORD.model_copy(update={"watermark": (START + timedelta(days=1)).isoformat()}))
    folder = vectors_folder(tmp_path, "taste", 3)
    members, titles = (pl.read_parquet(folder / f"{kind}.parquet") for kind in ("members", "titles"))
    assert (members["event_timestamp"][0], titles["event_timestamp"][0].year) == (START, 1900)
    assert {members["created_timestamp"][0], titles["created_timestamp"][0]} == {START + timedelta(days=1)}


def test_pins_say_which_vectors_a_view_holds(tmp_path):
    write(tmp_path)
    views = ("member_activity", "taste_title_vectors_v3")
    pins = pins_of(tmp_path, views)
    assert pins == {"taste_title_vectors_v3": {"version": "taste:3", "digest": "d" * 64}}
    require_pinned(tmp_path, pins, "guest:1")
    with pytest.raises(StateError, match=r"taste_title_vectors_v4 \(`playbill vectors publish taste:4`\)"):
        pins_of(tmp_path, ("taste_title_vectors_v4",))


def test_other_vectors_and_missing_ones_are_named_together(tmp_path):
    write(tmp_path)
    pins = {
        "taste_title_vectors_v3": {"version": "taste:3", "digest": "e" * 64},
        "taste_member_vectors_v2": {"version": "taste:2", "digest": "f" * 64},
    }
    with pytest.raises(IntegrityError) as refused:
        require_pinned(tmp_path, pins, "guest:1")
    assert "guest:1 was trained with other vectors" in str(refused.value)
    assert "holds vectors dddddddddddd of taste:3, and was vectors eeeeeeeeeeee of taste:3" in str(refused.value)
    assert "taste_member_vectors_v2 holds nothing, and was vectors ffffffffffff of taste:2" in str(refused.value)


def test_a_damaged_record_is_said_with_what_to_do(tmp_path):
    write(tmp_path)
    path = vectors_folder(tmp_path, "taste", 3) / "_state.json"
    for text in ("{", "[]", json.dumps({"digests": {}, "model": "taste"})):
        path.write_text(text)
        with pytest.raises(IntegrityError, match="playbill vectors publish taste:3"):
            read_vectors(tmp_path, "taste", 3)


def test_views_are_declared_once_beside_the_entities_of_the_project(tmp_path):
    (tmp_path / "people.py").write_text('who = Entity(name="who", join_keys=["member_id"])\n')
    (tmp_path / "films.py").write_text('film = Entity(name="film", join_keys=["title_id"])\n')
    path = declare_vectors(tmp_path, RECORD)
    assert path is not None
    assert declare_vectors(tmp_path, RECORD) is None
    declare_vectors(tmp_path, RECORD.model_copy(update={"version": 4, "width": 5}))
    text = path.read_text()
    assert text.count("import") == 3
    assert "from films import film\nfrom people import who\n" in text
    assert (
        text.count('taste_title_vectors_v3 = title_vectors(name="taste_title_vectors_v3", entity=film, length=2)') == 1
    )
    assert 'taste_member_vectors_v4 = member_vectors(name="taste_member_vectors_v4", entity=who, length=5)' in text


def test_a_project_without_such_entities_is_refused(tmp_path):
    (tmp_path / "people.py").write_text('who = Entity(name="who", join_keys=["member_id"])\n')
    with pytest.raises(DefinitionError, match="an entity with the join key title_id"):
        declare_vectors(tmp_path, RECORD)
    assert [path.name for path in tmp_path.iterdir()] == ["people.py"]


def test_names_of_views_say_model_and_version():
    from feast import Entity, ValueType

    from playbill.features.own import member_vectors, title_vectors

    member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)
    view = member_vectors("taste_member_vectors_v3", entity=member, length=7)
    assert (view.tags, view.schema[0].vector_length) == ({"playbill.vectors": "taste:3"}, 7)
    for name in ("taste_vectors", "taste_title_vectors_v3", "taste_member_vectors_v0"):
        with pytest.raises(DefinitionError, match="write MODEL_member_vectors_vN"):
            member_vectors(name, entity=member, length=7)
    with pytest.raises(DefinitionError, match="write MODEL_title_vectors_vN"):
        title_vectors("taste_member_vectors_v3", entity=member, length=7)
