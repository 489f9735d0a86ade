"""Increments, backfills and whole builds of the same log end in the same values."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fixtures.random_log import ACTIONS, ASKING_ACTIONS, MOMENT, START, TITLES, random_log
from playbill.config import ProjectFolder, ProjectSettings, Workspace
from playbill.errors import DataError, StateError, UnknownNameError
from playbill.features import backfill_features, build_features
from playbill.features.view_folder import ViewFolder, building
from playbill.features.views import EVENT_COLUMNS, EVENT_VIEWS, MEMBER_VIEWS, encode_member
from playbill.tables import Tables, canonical_frame
from playbill_feast.asof_join import ViewValues, as_of_join
from playbill_feast.offline.parquet_files import parts_of, scan_parts

DAYS = timedelta(days=1)
EVERY_ACTION = (*ACTIONS, *ASKING_ACTIONS)
CREATED, AT = "created_timestamp", "event_timestamp"


def workspace_in(folder: Path, name: str = "w") -> Workspace:
    return ProjectFolder(folder, ProjectSettings()).workspace(name)


def ingest(workspace: Workspace, events: pl.DataFrame, titles: pl.DataFrame = TITLES) -> None:
    catalogue = titles.with_columns(
        pl.col("title_id").alias("name"),
        pl.lit("film").alias("kind"),
        *(pl.lit(START - DAYS, dtype=MOMENT).alias(name) for name in ("valid_from", "recorded_at")),
    )
    members = pl.DataFrame({"member_id": [f"m{i}" for i in range(4)], "country": ["C0", "C1"] * 2}).with_columns(
        pl.lit(START - DAYS, dtype=MOMENT).alias(name) for name in ("valid_from", "recorded_at", "joined_at")
    )
    spans = catalogue.select("title_id", "recorded_at", pl.lit("*").alias("country")).with_columns(
        pl.col("recorded_at").alias("available_from")
    )
    with Tables(workspace).replace() as writer:
        writer.write("titles", catalogue)
        writer.write("availability", spans)
        writer.write("members", members)
        writer.write("interactions", events)


def arrive(workspace: Workspace, events: pl.DataFrame) -> None:
    frame, mistakes = canonical_frame("interactions", events)
    assert not mistakes
    Tables(workspace).append_events(frame)


def rows(workspace: Workspace, view: str) -> pl.DataFrame:
    """Every row of a view, as its readers find it: old parts first."""
    path = workspace.features / f"{view}.parquet"
    return scan_parts(parts_of(path), path).collect()


def believed(frame: pl.DataFrame, keys: tuple[str, ...]) -> pl.DataFrame:
    """The row of every key and moment that wins."""
    ordered = frame.sort(*keys, AT, CREATED, maintain_order=True)
    return ordered.unique([*keys, AT], keep="last", maintain_order=True)


def values_at(frame: pl.DataFrame, view: str, questions: pl.DataFrame) -> pl.DataFrame:
    keys = EVENT_VIEWS[view].keys
    features = {name: name for name in frame.columns if name not in (*keys, AT, CREATED)}
    return as_of_join(
        questions, "asked_at", ViewValues(view, frame.lazy(), {key: key for key in keys}, AT, CREATED, features)
    )


def questions(until: pl.Series) -> pl.DataFrame:
    members = pl.DataFrame({"member_id": [f"m{i}" for i in range(4)]})
    titles = pl.DataFrame({"title_id": [f"t{i}" for i in range(6)]})
    countries = pl.DataFrame({"country": ["C0", "C1"]})
    return members.join(titles, how="cross").join(countries, how="cross").join(until.to_frame("asked_at"), how="cross")


def recorded_in_batches(events: pl.DataFrame, batch: list[int]) -> list[pl.DataFrame]:
    """Split a log into batches; what comes with a later one was recorded after everything before."""
    number = pl.Series("batch", batch)
    jitter = pl.col("recorded_at") - pl.col("event_at")
    later = pl.lit(START, dtype=MOMENT) + 510 * DAYS + number * pl.lit(100 * DAYS) + jitter
    late = events.with_columns(number, recorded_at=pl.when(number > 0).then(later).otherwise("recorded_at"))
    return [late.filter(pl.col("batch") == number).drop("batch") for number in range(3)]


@given(
    seed=st.integers(0, 10_000),
    hours=st.sampled_from([5, 60, 900, 12_000]),
    batch=st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=60, max_size=60),
    ends=st.lists(st.integers(1, 45), min_size=3, max_size=3).map(sorted),
    repeated=st.integers(0, 20),
)
@settings(max_examples=12, deadline=None)
def test_increments_end_where_a_whole_build_does_and_old_beliefs_stay(
    seed: int, hours: int, batch: list[int], ends: list[int], repeated: int
) -> None:
    events = random_log(60, seed, timedelta(hours=hours), actions=EVERY_ACTION)
    batches = recorded_in_batches(events, [0, *batch[1:]])
    step = timedelta(hours=hours) / 40
    untils = [START + step * end for end in ends]
    with TemporaryDirectory() as folder:
        grown, whole = workspace_in(Path(folder), "grown"), workspace_in(Path(folder), "whole")
        ingest(grown, batches[0])
        build_features(grown, until=untils[0])
        requested = questions(pl.Series([START + step * share for share in (0.3, 7, 18, 39.5)], dtype=MOMENT))
        requested = requested.filter(pl.col("asked_at") <= untils[0])
        then = {view: values_at(rows(grown, view), view, requested) for view in EVENT_VIEWS}
        for number in (1, 2):
            duplicates = pl.concat(batches[:number]).head(repeated)
            arrive(grown, pl.concat([batches[number], duplicates]))
            report = build_features(grown, until=untils[number])
            assert not {view.view for view in report.views if view.how == "built"}
        ingest(whole, pl.concat(batches))
        build_features(whole, until=untils[2])
        known_by = batches[0].get_column("recorded_at").max()
        for view, spec in EVENT_VIEWS.items():
            found = rows(grown, view)
            assert_frame_equal(believed(found, spec.keys), believed(rows(whole, view), spec.keys))
            assert_frame_equal(values_at(found.filter(pl.col(CREATED) <= known_by), view, requested), then[view])


@pytest.fixture
def small(tmp_path: Path) -> Workspace:
    """A workspace with sixty days of a small log, built to their end."""
    workspace = workspace_in(tmp_path)
    ingest(workspace, random_log(80, 4, 60 * DAYS, actions=EVERY_ACTION))
    build_features(workspace, until=START + 60 * DAYS)
    return workspace


def more_events(seed: int) -> pl.DataFrame:
    """Events that are not in the small log, at the same moments and between them."""
    events = random_log(15, seed, 60 * DAYS, actions=EVERY_ACTION)
    return events.with_columns(event_id=pl.format("{}-{}", "event_id", pl.lit(seed)), seq=pl.col("seq") + 100 * seed)


def contents(workspace: Workspace) -> dict[str, bytes]:
    files = (path for path in workspace.features.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(workspace.features)): path.read_bytes() for path in files}


def test_the_same_build_again_changes_nothing(small: Workspace) -> None:
    before = contents(small)
    report = build_features(small, until=START + 60 * DAYS)
    assert {view.how for view in report.views} == {"unchanged"}
    assert contents(small) == before
    build_features(small, until=START + 30 * DAYS)
    assert contents(small) == before


def test_time_alone_is_an_increment_of_what_left_a_window(small: Workspace) -> None:
    before = rows(small, "member_activity").height
    report = build_features(small, until=START + 62 * DAYS)
    (activity,) = [view for view in report.views if view.view == "member_activity"]
    assert activity.how == "increment"
    assert 0 < activity.written < before / 4
    added = rows(small, "member_activity").slice(before).get_column(AT)
    assert START + 60 * DAYS < added.min() <= added.max() <= START + 62 * DAYS


def test_a_kill_between_part_and_state_is_made_good(small: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive(small, more_events(11))
    expected = workspace_in(small.project.root, "expected")
    ingest(expected, Tables(small).interactions())
    build_features(expected, until=START + 61 * DAYS)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("playbill.features.view_folder.write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            build_features(small, until=START + 61 * DAYS)
    build_features(small, until=START + 61 * DAYS)
    for view, spec in EVENT_VIEWS.items():
        assert_frame_equal(believed(rows(small, view), spec.keys), believed(rows(expected, view), spec.keys))
        numbers = [path.name for path in parts_of(small.features / f"{view}.parquet")]
        assert len(numbers) == len(set(numbers)) <= 2


def test_a_kill_in_a_whole_build_leaves_the_old_values(small: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(small)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("playbill.features.view_folder.write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            build_features(small, full=True)
    assert contents(small) == before


@pytest.mark.parametrize("swap", ["exchange", "two renames"])
def test_a_whole_build_replaces_the_folder_and_an_older_single_file(
    small: Workspace, swap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if swap == "two renames":
        monkeypatch.setattr(sys, "platform", "darwin")
    folder = small.features / "member_session.parquet"
    before = rows(small, "member_session")
    build_features(small, until=START + 60 * DAYS, full=True)
    assert_frame_equal(rows(small, "member_session"), before)
    for path in parts_of(folder):
        path.unlink()
    (folder / "_state.json").unlink()
    folder.rmdir()
    before.head(3).write_parquet(folder)
    report = build_features(small, until=START + 60 * DAYS)
    (session,) = [view for view in report.views if view.view == "member_session"]
    assert (session.how, folder.is_dir()) == ("built", True)
    assert "not known what they were built from" in session.why
    assert_frame_equal(rows(small, "member_session"), before)
    assert not list(small.features.glob(".member_session*"))


def spoil_state(workspace: Workspace, view: str, **changes: object) -> None:
    path = workspace.features / f"{view}.parquet" / "_state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_another_encoder_and_replaced_events_mean_a_whole_build(small: Workspace) -> None:
    spoil_state(small, "title_popularity", version="older")
    spoil_state(small, "member_session", format=0)
    how = {view.view: (view.how, view.why) for view in build_features(small, until=START + 60 * DAYS).views}
    assert how["title_popularity"] == ("built", "its encoder has changed")
    assert how["member_session"][0] == "built"
    assert how["member_activity"] == ("unchanged", "")
    ingest(small, random_log(80, 5, 60 * DAYS))
    how = {view.view: view.why for view in build_features(small, until=START + 60 * DAYS).views}
    assert {how[view] for view in EVENT_VIEWS} == {"events it was built from were replaced"}


def test_a_part_that_is_gone_is_noticed(small: Workspace) -> None:
    parts_of(small.features / "member_genres.parquet")[0].unlink()
    how = {view.view: view.how for view in build_features(small, until=START + 60 * DAYS).views}
    assert how["member_genres"] == "built"
    assert rows(small, "member_genres").height


def test_genres_that_change_mean_a_whole_build_and_a_title_nobody_played_does_not(small: Workspace) -> None:
    events = random_log(80, 4, 60 * DAYS, actions=EVERY_ACTION)
    more = pl.concat([TITLES, pl.DataFrame({"title_id": ["t9"], "genres": [["Z"]]})])
    ingest(small, events, more)
    how = {view.view: view.how for view in build_features(small, until=START + 60 * DAYS).views}
    assert {how[view] for view in EVENT_VIEWS} == {"unchanged"}
    assert how["title_profile"] == "increment"
    ingest(small, events, more.with_columns(genres=pl.lit(["New"])))
    how = {view.view: view.why for view in build_features(small, until=START + 60 * DAYS).views}
    assert {how[view] for view in MEMBER_VIEWS} == {"genres of titles with events have changed"}
    assert how["title_popularity"] == ""


def test_many_parts_are_merged_and_no_belief_is_lost(small: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbill.features.build.MOST_PARTS", 3)
    for day in range(1, 4):
        arrive(small, more_events(20 + day))
        before = {view: rows(small, view) for view in EVENT_VIEWS}
        build_features(small, until=START + (60 + day) * DAYS)
        for view in EVENT_VIEWS:
            assert_frame_equal(rows(small, view).head(before[view].height), before[view])
    folder = ViewFolder(small.features / "member_activity.parquet")
    assert len(parts_of(folder.path)) == 1
    assert folder.state().rows == rows(small, "member_activity").height


@pytest.mark.parametrize("weeks", [1, 3, 30])
def test_a_backfill_has_the_values_of_a_whole_build_in_its_weeks(small: Workspace, weeks: int) -> None:
    until = START + 60 * DAYS
    since = until - timedelta(weeks=weeks)
    moments = [since, since + timedelta(days=2, hours=3), until - DAYS, until]
    requested = questions(pl.Series(moments, dtype=MOMENT))
    expected = {view: values_at(rows(small, view), view, requested) for view in EVENT_VIEWS}
    whole = {view: rows(small, view).height for view in EVENT_VIEWS}
    report = backfill_features(small, weeks, list(EVENT_VIEWS), until=until)
    assert {view.how for view in report.views} == {"backfilled"}
    for view in EVENT_VIEWS:
        found = rows(small, view)
        assert found.height <= whole[view]
        assert_frame_equal(values_at(found, view, requested), expected[view])
    assert {view.how for view in build_features(small, until=until).views} == {"unchanged"}


def test_a_view_without_events_is_there_and_grows_when_the_first_come(tmp_path: Path) -> None:
    grown, whole = workspace_in(tmp_path, "grown"), workspace_in(tmp_path, "whole")
    before = random_log(60, 4, 60 * DAYS)
    ingest(grown, before)
    build_features(grown, until=START + 60 * DAYS)
    assert rows(grown, "title_anticipation").is_empty()
    requested = more_events(9).with_columns(pl.lit("remind_me").alias("action"), pl.lit("t1").alias("title_id"))
    arrive(grown, requested)
    how = {view.view: view.how for view in build_features(grown, until=START + 61 * DAYS).views}
    assert how["title_anticipation"] == "increment"
    ingest(whole, Tables(grown).interactions())
    build_features(whole, until=START + 61 * DAYS)
    found, expected = (believed(rows(one, "title_anticipation"), ("title_id",)) for one in (grown, whole))
    assert found.height
    assert_frame_equal(found, expected)


def test_a_backfill_takes_up_new_and_changed_views_only(small: Workspace) -> None:
    assert backfill_features(small, 2).views == ()
    spoil_state(small, "member_genres", version="older")
    (done,) = backfill_features(small, 2, until=START + 60 * DAYS).views
    assert (done.view, done.why) == ("member_genres", "from 2024-04-16")
    with pytest.raises(UnknownNameError, match=r"member_genrs.*Did you mean 'member_genres'"):
        backfill_features(small, 2, ["member_genrs"])
    with pytest.raises(DataError, match="needs at least 1, got 0"):
        backfill_features(small, 0)
    with pytest.raises(DataError, match="has no time zone"):
        build_features(small, until=START.replace(tzinfo=None))


def test_a_second_build_at_the_same_time_is_refused(small: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbill.files.LOCK_WAIT_S", 0.1)
    with building(small.features), pytest.raises(StateError, match="another process is building"):
        build_features(small)


def test_a_changed_member_profile_is_appended(small: Workspace) -> None:
    tables = Tables(small)
    moved = tables.members().filter(pl.col("member_id") == "m1")
    later = moved.with_columns(
        pl.lit("C9").alias("country"),
        *(pl.lit(START + 9 * DAYS, dtype=MOMENT).alias(name) for name in ("valid_from", "recorded_at")),
    )
    before = rows(small, "member_profile")
    tables.append_rows("members", later)
    how = {view.view: (view.how, view.written) for view in build_features(small, until=START + 60 * DAYS).views}
    assert how["member_profile"] == ("increment", 1)
    after = rows(small, "member_profile")
    assert_frame_equal(after.head(before.height), before)
    assert after.row(-1, named=True)["country"] == "C9"


def test_one_members_state_is_what_the_files_have(small: Workspace) -> None:
    tables = Tables(small)
    titles = tables.titles()
    moments = [START + timedelta(days=day, hours=hour) for day, hour in ((0, 1), (9, 0), (31, 5), (45, 0), (60, 0))]
    moments += tables.interactions().get_column("event_at").sample(12, seed=1).to_list()
    for at in moments:
        for member in [f"m{i}" for i in range(4)]:
            events = tables.member_events(member).select(EVENT_COLUMNS)
            for view, state in encode_member(events, titles, at).items():
                stored = rows(small, view).filter((pl.col("member_id") == member) & (pl.col(AT) <= at))
                assert_frame_equal(state, believed(stored, ("member_id",)).tail(1))
