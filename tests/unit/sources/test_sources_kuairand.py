"""KuaiRand files shaped like the publisher's; every row in them is made up."""

import hashlib
import io
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from playbill.errors import DataError, IntegrityError, ServiceError
from playbill.sources import download, ingest
from playbill.sources.download import Archive
from playbill.sources.kuairand import logs as kuairand_logs
from playbill.sources.kuairand import source as kuairand
from playbill.tables import Tables

START = datetime(2022, 4, 8, 2, tzinfo=UTC)
START_MS = 1_649_383_200_000
LOG = "user_id video_id date hourmin time_ms is_click is_like is_follow is_comment is_forward is_hate long_view "
LOG += "play_time_ms duration_ms profile_stay_time comment_stay_time is_profile_enter is_rand tab"
NAMES = LOG.split()


def exposure(user: int, video: int, minute: int, **given: int) -> dict[str, int]:
    """Make an exposure nobody reacted to; keywords replace its columns."""
    row = dict.fromkeys(NAMES, 0) | {"date": 20220408, "hourmin": 1000, "duration_ms": 10_000, "tab": 1}
    return row | {"user_id": user, "video_id": video, "time_ms": START_MS + 60_000 * minute} | given


EARLY = [
    exposure(7, 3, 0, is_click=1, long_view=1, is_like=1, play_time_ms=25_000, comment_stay_time=1_500),
    exposure(7, 12, 1, is_click=1, play_time_ms=4_000, is_hate=1, is_profile_enter=1, profile_stay_time=900),
    exposure(8, 12, 2, play_time_ms=700, tab=0),
]
LATE = [
    exposure(7, 12, 9, tab=4, is_follow=1, is_comment=1, is_forward=1),
    # One member, one moment: the order in the file is not by video, and one row is there twice.
    exposure(8, 12, 10, is_click=1, play_time_ms=5_000, duration_ms=0),
    exposure(8, 3, 10),
    exposure(8, 3, 10),
    exposure(8, 3, 10, is_click=1, play_time_ms=3_000),
]
RANDOM = [exposure(9, 99, 5, is_rand=1, duration_ms=61_000)]
USERS = [
    {"user_id": 7, "user_active_degree": "full_active", "register_days": 100, "onehot_feat4": 1.0},
    {"user_id": 8, "user_active_degree": "UNKNOWN", "register_days": 14, "onehot_feat4": None},
    {"user_id": 10, "user_active_degree": "high_active", "register_days": 400, "onehot_feat4": 2.0},
]
VIDEOS = [
    {"video_id": 3, "author_id": 1, "upload_dt": "2022-04-07", "video_duration": 10_000.0, "tag": "12,65"},
    {"video_id": 12, "author_id": 2, "upload_dt": "2022-04-09", "video_duration": None, "tag": None},
]


def write_csv(folder: Path, suffix: str = "pure") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(EARLY).write_csv(folder / f"log_standard_4_08_to_4_21_{suffix}.csv")
    pl.DataFrame(LATE).write_csv(folder / f"log_standard_4_22_to_5_08_{suffix}.csv")
    pl.DataFrame(RANDOM).write_csv(folder / f"log_random_4_22_to_5_08_{suffix}.csv")
    pl.DataFrame(USERS).write_csv(folder / f"user_features_{suffix}.csv")
    pl.DataFrame(VIDEOS).write_csv(folder / f"video_features_basic_{suffix}.csv")
    (folder / f"video_features_statistic_{suffix}.csv").write_text("not read")
    return folder


def write_parquet(folder: Path) -> Path:
    small = {name: pl.Int8 for name in ("tab", *kuairand_logs.FLAGS)}
    rows = pl.DataFrame([*EARLY, *LATE, *RANDOM]).select(kuairand_logs.LOG_COLUMNS)
    rows.cast(small).write_parquet(folder / "impressions.parquet")
    pl.DataFrame(USERS).write_parquet(folder / "users.parquet")
    pl.DataFrame(VIDEOS).write_parquet(folder / "videos.parquet")
    return folder


def write_tar(folder: Path, name: str = "KuaiRand-Pure.tar.gz", suffix: str = "pure") -> Path:
    data = write_csv(folder / "unpacked", suffix)
    with tarfile.open(folder / name, "w:gz") as archive:
        for path in sorted(data.iterdir()):
            archive.add(path, f"{name.removesuffix('.tar.gz')}/data/{path.name}")
    return folder / name


def test_exposures_become_impressions_and_plays(workspace, folder):
    report = ingest(workspace, "kuairand", {"path": write_csv(folder)})
    assert report.rows == {"titles": 3, "availability": 3, "members": 4, "interactions": 21}
    assert "1 repeated rows left out" in report.route
    assert "CC BY-SA 4.0" in report.terms
    log = Tables(workspace).interactions()
    shown = log.filter(pl.col("member_id") == "7").select("action", "title_id", "canvas", "duration_s", "progress")
    assert shown.rows() == [
        ("impression", "3", "kuairand.tab_1", None, None),
        ("play", "3", "kuairand.tab_1", 25.0, 1.0),
        ("kuairand.long_view", "3", "kuairand.tab_1", None, None),
        ("thumbs_up", "3", "kuairand.tab_1", None, None),
        ("kuairand.comments_view", "3", "kuairand.tab_1", 1.5, None),
        ("impression", "12", "kuairand.tab_1", None, None),
        ("play", "12", "kuairand.tab_1", 4.0, pytest.approx(0.4)),
        ("thumbs_down", "12", "kuairand.tab_1", None, None),
        ("kuairand.profile_enter", "12", "kuairand.tab_1", pytest.approx(0.9), None),
        ("impression", "12", "kuairand.tab_4", None, None),
        ("kuairand.follow", "12", "kuairand.tab_4", None, None),
        ("kuairand.comment", "12", "kuairand.tab_4", None, None),
        ("kuairand.forward", "12", "kuairand.tab_4", None, None),
    ]
    assert log.select("member_id", "seq").is_unique().all()
    assert set(log.get_column("country")) == {"ZZ"}
    assert log.select("position", "session_id").null_count().row(0) == (21, 21)


def test_ties_repeats_and_unknown_lengths(workspace, folder):
    ingest(workspace, "kuairand", {"path": write_csv(folder)})
    log = Tables(workspace).member_events("8", include_journal=False)
    assert log.select("action", "title_id", "duration_s", "progress").rows() == [
        ("impression", "12", None, None),
        ("kuairand.brief_view", "12", pytest.approx(0.7), pytest.approx(0.07)),
        ("impression", "3", None, None),
        ("impression", "3", None, None),
        ("play", "3", 3.0, pytest.approx(0.3)),
        ("impression", "12", None, None),
        ("play", "12", 5.0, None),
    ]
    assert log.get_column("event_id").is_unique().all()


def test_an_exposure_is_one_request(workspace, folder):
    ingest(workspace, "kuairand", {"path": write_csv(folder)})
    log = Tables(workspace).interactions()
    per_request = log.group_by("request_id").agg(
        shown=(pl.col("action") == "impression").sum(), moments=pl.col("event_at").n_unique()
    )
    assert per_request.height == 8
    assert set(per_request.get_column("shown")) == set(per_request.get_column("moments")) == {1}


def test_what_came_of_an_exposure_is_known_when_the_view_is_over(workspace, folder):
    ingest(workspace, "kuairand", {"path": write_csv(folder)})
    log = Tables(workspace).member_events("7", include_journal=False).head(5)
    assert set(log.get_column("event_at")) == {START}
    late = START + timedelta(seconds=25)
    assert log.get_column("recorded_at").to_list() == [START, late, late, late, late]


def test_random_exposures_have_the_pools_propensity(workspace, folder):
    ingest(workspace, "kuairand", {"path": write_csv(folder)})
    log = Tables(workspace).interactions()
    random = log.filter(pl.col("member_id") == "9")
    assert random.get_column("propensity").to_list() == [pytest.approx(1 / 7583)]
    assert log.get_column("propensity").null_count() == log.height - 1


def test_members_and_titles_are_read(workspace, folder):
    ingest(workspace, "kuairand", {"path": write_csv(folder)})
    tables = Tables(workspace)
    members = tables.members().select("member_id", "country", "joined_at", "valid_from", "register_days")
    assert members.rows() == [
        ("10", "ZZ", START - timedelta(days=400), START, 400),
        ("7", "ZZ", START - timedelta(days=100), START, 100),
        ("8", "ZZ", START - timedelta(days=14), START, 14),
        ("9", "ZZ", START + timedelta(minutes=5), START + timedelta(minutes=5), None),
    ]
    assert tables.members().get_column("user_active_degree").to_list()[:2] == ["high_active", "full_active"]
    released = datetime(2022, 4, 6, 16, tzinfo=UTC)
    titles = tables.titles().select("title_id", "name", "kind", "genres", "release_date", "runtime_min")
    assert titles.rows() == [
        ("12", "Video 12", "film", None, released + timedelta(days=2), None),
        ("3", "Video 3", "film", ["kuairand.tag_12", "kuairand.tag_65"], released, 1),
        ("99", "Video 99", "film", None, None, 2),
    ]
    launches = tables.availability().select("title_id", "country", "available_from").rows()
    assert launches[0] == ("12", "*", START + timedelta(minutes=1))


def test_both_layouts_and_every_place_give_the_same_tables(workspace, folder, tmp_path):
    ingest(workspace, "kuairand", {"path": write_csv(folder / "KuaiRand-Pure" / "data")})
    expected = Tables(workspace)
    snapshot = expected.snapshot_id()
    events, members = expected.interactions(), expected.members()
    places = [folder / "KuaiRand-Pure", folder, write_tar(tmp_path), write_parquet(tmp_path)]
    for place in places:
        report = ingest(workspace, "kuairand", {"path": place})
        assert_frame_equal(Tables(workspace).interactions(), events)
        assert_frame_equal(Tables(workspace).members(), members)
        assert report.snapshot_id == snapshot


def test_small_parts_give_the_same_tables(workspace, folder, monkeypatch):
    whole = ingest(workspace, "kuairand", {"path": write_csv(folder)})
    monkeypatch.setattr(kuairand_logs, "ROWS_PER_PART", 2)
    parts = ingest(workspace, "kuairand", {"path": folder})
    assert parts.snapshot_id == whole.snapshot_id
    assert parts.route == whole.route


def test_larger_sets_have_names_of_their_own(workspace, folder):
    data = write_csv(folder, "27k")
    for part in (1, 2):
        name = f"log_standard_4_08_to_4_21_27k_part{part}.csv"
        pl.DataFrame(EARLY[part - 1 :: 2]).write_csv(data / name)
    (data / "log_standard_4_08_to_4_21_27k.csv").unlink()
    assert ingest(workspace, "kuairand_27k", {"path": data}).rows["interactions"] == 21
    assert ingest(workspace, "kuairand_1k", {"path": write_tar(folder, "KuaiRand-1K.tar.gz", "1k")}).rows["titles"] == 3


def test_whole_numbers_written_with_a_point_are_read(workspace, folder):
    data = write_csv(folder)
    rows = pl.DataFrame(RANDOM).with_columns(pl.col("time_ms", "duration_ms").cast(pl.Float64))
    rows.cast({"time_ms": pl.Int64}).cast({"time_ms": pl.String}).with_columns(
        pl.format("{}.0", "time_ms").alias("time_ms")
    ).write_csv(data / "log_random_4_22_to_5_08_pure.csv")
    ingest(workspace, "kuairand", {"path": data})
    random = Tables(workspace).member_events("9", include_journal=False)
    assert random.get_column("event_at").to_list() == [START + timedelta(minutes=5)]


def test_missing_files_are_all_named(workspace, folder):
    data = write_csv(folder)
    (data / "log_random_4_22_to_5_08_pure.csv").unlink()
    (data / "user_features_pure.csv").unlink()
    with pytest.raises(DataError) as caught:
        ingest(workspace, "kuairand", {"path": data})
    text = str(caught.value)
    assert "2 problems" in text
    assert "log_random_*_pure*.csv: the file is missing" in text
    assert "user_features_pure.csv: the file is missing" in text
    with pytest.raises(DataError, match="log_standard"):
        ingest(workspace, "kuairand_1k", {"path": data})
    with pytest.raises(DataError, match="no such file or folder"):
        ingest(workspace, "kuairand", {"path": data / "nothing"})


def test_parquet_layout_misses_its_own_files(workspace, folder):
    (write_parquet(folder) / "users.parquet").unlink()
    with pytest.raises(DataError, match=r"users\.parquet: the file is missing"):
        ingest(workspace, "kuairand", {"path": folder})


def test_missing_columns_are_all_named(workspace, folder):
    data = write_csv(folder)
    pl.DataFrame(EARLY).rename({"tab": "tabs"}).write_csv(data / "log_standard_4_08_to_4_21_pure.csv")
    pl.DataFrame(USERS).drop("register_days").write_csv(data / "user_features_pure.csv")
    with pytest.raises(DataError) as caught:
        ingest(workspace, "kuairand", {"path": data})
    text = str(caught.value)
    assert "log_standard_4_08_to_4_21_pure.csv: column 'tab' is missing. Did you mean 'tabs'?" in text
    assert "user_features_pure.csv: column 'register_days' is missing. It has user_id" in text


def test_bad_values_are_named_with_their_file_and_a_row(workspace, folder):
    data = write_csv(folder)
    path = data / "log_standard_4_08_to_4_21_pure.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace(str(START_MS), "yesterday")
    lines[2] = lines[2].replace("12,20220408,1000", "-12,20220408,1000")
    path.write_text("\n".join(lines) + "\n")
    pl.DataFrame(LATE).with_columns(is_like=2).write_csv(data / "log_standard_4_22_to_5_08_pure.csv")
    videos = pl.DataFrame(VIDEOS).with_columns(upload_dt=pl.lit("last week"))
    videos.write_csv(data / "video_features_basic_pure.csv")
    with pytest.raises(DataError) as caught:
        ingest(workspace, "kuairand", {"path": data})
    text = str(caught.value)
    assert "4_21_pure.csv: column 'time_ms': a value that is no whole number in 1 row. For example 'yesterday'" in text
    assert "4_21_pure.csv: column 'video_id': a negative value in 1 row. For example '-12' where user_id=7" in text
    assert "5_08_pure.csv: column 'is_like': a value that is neither 0 nor 1 in 5 rows. For example '2'" in text
    assert "video_features_basic_pure.csv: column 'upload_dt': a value that is no day such as 2022-04-10" in text
    assert not Tables(workspace).exists()


def test_damaged_files_are_named(workspace, folder):
    archive = write_tar(folder)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no readable tar archive"):
        ingest(workspace, "kuairand", {"path": archive})
    archive.write_bytes(b"PK nothing of the kind")
    with pytest.raises(DataError, match="no readable tar archive"):
        ingest(workspace, "kuairand", {"path": archive})
    data = write_csv(folder / "files")
    path = data / "log_standard_4_08_to_4_21_pure.csv"
    path.write_text(path.read_text()[:-40])  # ends in the middle of a row
    with pytest.raises(DataError, match=r"4_21_pure\.csv: column '\w+': a value that is no whole number in 1 row"):
        ingest(workspace, "kuairand", {"path": data})
    write_parquet(data)
    for found in data.glob("*.csv"):
        found.unlink()
    (data / "users.parquet").write_bytes(b"PAR1 half a file")
    with pytest.raises(DataError, match=r"users\.parquet: the file cannot be read"):
        ingest(workspace, "kuairand", {"path": data})


def test_logs_without_rows_are_refused(workspace, folder):
    data = write_csv(folder)
    for path in data.glob("log_*"):
        path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="there is not a single row"):
        ingest(workspace, "kuairand", {"path": data})


@pytest.fixture
def publisher(folder, tmp_path, monkeypatch):
    """An archive of the publisher's shape, and the folder it is fetched from."""
    archive = write_tar(folder)
    monkeypatch.setattr(kuairand, "PUBLISHER", f"{folder.as_uri()}/")
    monkeypatch.setattr(download.platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(kuairand.KuaiRandPure, "archive", Archive(archive.name, md5, ()))
    return archive


def test_downloads_verifies_and_keeps_the_archive(workspace, publisher, tmp_path):
    stages = []
    report = ingest(workspace, "kuairand", progress=lambda stage, done, total: stages.append(stage))
    assert report.route.startswith("the publisher's KuaiRand-Pure.tar.gz, MD5 verified")
    assert "download KuaiRand-Pure.tar.gz" in stages
    assert (tmp_path / "cache" / "kuairand" / publisher.name).is_file()
    publisher.unlink()
    assert ingest(workspace, "kuairand").snapshot_id == report.snapshot_id


def test_download_that_is_not_what_the_publisher_states(workspace, publisher):
    publisher.write_bytes(io.BytesIO(b"something else").getvalue())
    with pytest.raises(IntegrityError, match="its publisher states"):
        ingest(workspace, "kuairand")


def test_publisher_that_does_not_answer(workspace, publisher):
    publisher.unlink()
    with pytest.raises(ServiceError, match="cannot be reached"):
        ingest(workspace, "kuairand")
