"""Training sets on disk: which rows, what they know, the same bytes again, and what is never replaced."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.clock import FixedClock
from playbill.datasets import build_training_set, make_split
from playbill.datasets.export.manifest import rows_digest, write_rows
from playbill.datasets.export.rows import assert_in_order, slices
from playbill.datasets.export.stored import StoredDataset
from playbill.datasets.export.write import Export
from playbill.errors import ConfigError, DataError, IntegrityError, StateError, UnknownNameError
from playbill.features.reports import FeatureProvenance, ViewProvenance
from playbill.schema import INTERACTIONS
from playbill.tables import Vocabulary

DAY = datetime(2024, 1, 1, tzinfo=UTC)
PROTOCOLS = ("leave_one_out", "global_time")


class DiskTables:
    """A made service as `playbill.tables.Tables` shows it."""

    def __init__(self, interactions, titles, availability, snapshot="s1"):
        self.log, self._titles, self.snapshot = interactions, titles, snapshot
        self._availability = availability.with_columns(recorded_at=pl.col("available_from"))

    def interactions(self):
        return self.log

    def titles(self):
        return self._titles

    def members(self):
        return self.log.select("member_id").unique().sort("member_id")

    def member_versions(self):
        return self.members()

    def availability(self):
        return self._availability

    def vocabulary(self, kind):
        return Vocabulary(kind, self._titles["title_id"].to_list() if kind == "title" else ())

    def snapshot_id(self):
        return self.snapshot

    def data_end(self):
        return self.log["event_at"].max() + timedelta(seconds=1)


class PlaysBefore:
    """Features that say how many plays there were strictly before the moment, of the member and of the title."""

    def __init__(self, fake, interactions):
        self.schema, self.title_snapshots = fake.schema, fake.title_snapshots
        self.plays = interactions.filter(pl.col("action") == "play")
        self.files = "f1"

    def _count(self, frame, key):
        rows = frame.select(key, "event_at").with_row_index("row")
        played = self.plays.select(key, pl.col("event_at").alias("at"))
        counts = rows.join(played, on=key).filter(pl.col("at") < pl.col("event_at")).group_by("row").len()
        joined = rows.join(counts, on="row", how="left", maintain_order="left")
        return joined["len"].fill_null(0).cast(pl.Float32)

    def member_features(self, service, frame):
        even = pl.col("member_id").str.slice(1).cast(pl.Int64) % 2 == 0
        return frame.with_columns(
            self._count(frame, "member_id").alias("activity__plays"),
            pl.when(even).then(pl.lit("F")).alias("profile__gender"),
        )

    def title_features(self, service, frame):
        maturity = pl.when(pl.col("title_id").cast(pl.Int64) % 2 == 1).then(pl.lit("PG")).otherwise(pl.lit("R"))
        return frame.with_columns(
            self._count(frame, "title_id").alias("popularity__plays"), maturity.alias("title__maturity")
        )

    def provenance(self, service):
        views = (ViewProvenance("activity", "stored", "d1", None, rows=9, files=self.files),)
        return FeatureProvenance(service, "v1", "small", None, datetime(2024, 1, 1, tzinfo=UTC), views)


@pytest.fixture
def disk(interactions, titles, availability):
    return DiskTables(interactions, titles, availability)


@pytest.fixture
def plays_before(features, interactions):
    return PlaysBefore(features, interactions)


@pytest.fixture
def export(disk, resolved, plays_before, clock):
    """Return a maker of exports that are prepared and not written."""

    def make(tables=disk, features=plays_before, resolved=resolved, clock=clock, **options):
        return Export.prepare("small", tables, resolved, features, clock, **options)

    return make


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_train_rows_are_those_that_training_reads(
    disk, resolved, plays_before, clock, export, tmp_path, protocol
) -> None:
    data = build_training_set(disk, resolved, make_split(protocol, disk.interactions()), plays_before, clock)
    stored = StoredDataset.open(export(protocol=protocol).write(tmp_path / "set").folder)
    rows = stored.scan("train").collect().sort("member_id", "seq")
    assert stored.manifest.folds["train"].labels_as_of == min(data.watermark, disk.data_end())
    for head, values in data.labels.items():
        np.testing.assert_array_equal(rows[f"label__{head}"].fill_null(np.nan).to_numpy(), values)
    np.testing.assert_array_equal(rows["activity__plays"].to_numpy(), data.context.numeric[:, 0])
    titles = data.encoder.title_rows.encode(rows["title_id"])
    np.testing.assert_array_equal(titles, data.tokens[data.token_row >= 0, 0])
    own = data.titles.snapshots[data.snapshot, titles, 0]
    np.testing.assert_array_equal(rows["title__popularity__plays"].to_numpy(), own)
    assert rows["canvas"].to_list() == ["home"] * len(own)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_builds_are_the_same_bytes(export, tmp_path, protocol) -> None:
    first = export(protocol=protocol).write(tmp_path / "one").folder
    second = export(protocol=protocol).write(tmp_path / "other" / "two").folder
    assert tree(first) == tree(second)
    assert len(tree(first)) > 10


def test_where_slices_are_cut_does_not_matter_unless_a_day_is_cut(export, tmp_path, monkeypatch) -> None:
    whole = export().write(tmp_path / "whole").folder
    monkeypatch.setattr("playbill.datasets.export.write.SLICE_ROWS", 200)
    assert tree(export().write(tmp_path / "small").folder) == tree(whole)
    monkeypatch.setattr("playbill.datasets.export.write.SLICE_ROWS", 7)
    cut = StoredDataset.open(export().write(tmp_path / "cut").folder)
    assert any(part.path.endswith("part-0001.parquet") for part in cut.manifest.parts)
    assert cut.scan().collect().equals(StoredDataset.open(whole).scan().collect())


def test_nothing_known_only_after_a_request_is_in_a_row_but_its_title_and_labels(export, tmp_path) -> None:
    stored = StoredDataset.open(export().write(tmp_path / "set").folder)
    late = set(INTERACTIONS.names("after")) - {"title_id"}
    assert not late & set(stored.scan().collect_schema().names())
    roles = {column.name: column.role for column in stored.manifest.columns}
    assert {"event_id", "member_id", "title_id", "event_at"} == {name for name, role in roles.items() if role == "key"}
    assert (roles["label__thumbs_up"], roles["canvas"]) == ("label", "context")
    assert (roles["activity__plays"], roles["title__popularity__plays"]) == ("request_feature", "title_feature")


def test_features_hold_neither_the_event_nor_its_moment(export, tmp_path, interactions) -> None:
    rows = StoredDataset.open(export().write(tmp_path / "set").folder).scan().collect()
    played = interactions.filter(pl.col("action") == "play")
    for row in rows.sample(40, seed=1).iter_rows(named=True):
        before = played.filter((pl.col("member_id") == row["member_id"]) & (pl.col("event_at") < row["event_at"]))
        assert row["activity__plays"] == before.height
        of_title = played.filter((pl.col("title_id") == row["title_id"]) & (pl.col("event_at") < row["snapshot_at"]))
        assert row["title__popularity__plays"] == of_title.height
        assert row["snapshot_at"] <= row["event_at"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_happens_in_a_later_fold_changes_no_row_of_an_earlier_one(
    disk, titles, availability, export, tmp_path, interactions, protocol
) -> None:
    split = make_split(protocol, interactions)
    held = pl.col("event_id").is_in(split.events(interactions, "test")["event_id"].to_list())
    other = interactions.with_columns(
        title_id=pl.when(held).then(pl.lit("5")).otherwise("title_id"),
        action=pl.when(held & (pl.col("action") == "thumbs_up")).then(pl.lit("thumbs_down")).otherwise("action"),
        progress=pl.when(held).then(0.0).otherwise("progress"),
    ).cast(interactions.schema)
    mine = StoredDataset.open(export(protocol=protocol).write(tmp_path / "one").folder)
    changed = export(tables=DiskTables(other, titles, availability), protocol=protocol).write(tmp_path / "two").folder
    theirs = StoredDataset.open(changed)
    for fold in ("train", "validation"):
        assert theirs.scan(fold).collect().equals(mine.scan(fold).collect())
    assert not theirs.scan("test").collect().equals(mine.scan("test").collect())


def test_a_row_too_young_for_a_label_has_none_and_never_a_zero(export, resolved, interactions, tmp_path) -> None:
    slow = resolved.labels["thumbs_up"].model_copy(update={"matures_after": timedelta(days=5)})
    patient = resolved.model_copy(update={"labels": {**resolved.labels, "thumbs_up": slow}})
    stored = StoredDataset.open(export(resolved=patient, protocol="global_time").write(tmp_path / "set").folder)
    ends = {fold: record.labels_as_of for fold, record in stored.manifest.folds.items()}
    rows = stored.scan().collect().with_columns(end=pl.col("fold").cast(pl.String).replace_strict(ends))
    young = rows.filter(pl.col("event_at") + timedelta(days=5) > pl.col("end"))
    assert young["label__thumbs_up"].null_count() == young.height > 0
    assert rows.filter(pl.col("event_at") + timedelta(days=5) <= pl.col("end"))["label__thumbs_up"].count() > 0


def test_a_fold_without_a_labelled_row_is_empty_and_has_the_columns(export, resolved, tmp_path) -> None:
    slow = resolved.labels["thumbs_up"].model_copy(update={"matures_after": timedelta(days=5)})
    heads = {"thumbs_up": resolved.model.heads["thumbs_up"]}
    model = resolved.model.model_copy(update={"heads": heads})
    young = resolved.model_copy(update={"labels": {"thumbs_up": slow}, "model": model})
    stored = StoredDataset.open(export(resolved=young, protocol="global_time").write(tmp_path / "set").folder)
    record = stored.manifest.folds["validation"]
    assert (record.rows, record.first, record.last) == (0, None, None)
    assert stored.scan("validation").collect().schema == stored.scan("train").collect().schema
    assert stored.scan().collect().height == stored.manifest.rows > 0


def test_built_as_at_a_moment_later_events_do_not_exist(
    disk, titles, availability, export, tmp_path, interactions
) -> None:
    moment = interactions["event_at"].sort()[interactions.height // 2]
    before = DiskTables(interactions.filter(pl.col("event_at") < moment), titles, availability)
    replayed = export(until=moment, protocol="global_time").write(tmp_path / "replayed").manifest
    then = export(tables=before, clock=FixedClock(moment), protocol="global_time").write(tmp_path / "then").manifest
    assert replayed.rows_digest == then.rows_digest
    assert replayed.folds["test"].last < moment
    assert replayed.rows < export(protocol="global_time").write(tmp_path / "now").manifest.rows


def test_an_event_recorded_later_than_the_moment_does_not_exist(
    disk, titles, availability, export, tmp_path, interactions
) -> None:
    moment = interactions["event_at"].sort()[interactions.height // 2]
    played = interactions.filter((pl.col("event_at") < moment) & (pl.col("action") == "play"))
    late = pl.col("event_id").is_in(played.group_by("member_id").last()["event_id"].sort()[:5].to_list())
    recorded = pl.when(late).then(pl.lit(moment + timedelta(hours=1))).otherwise("recorded_at")
    kind = interactions.schema["recorded_at"]
    disk.log = interactions.with_columns(recorded.cast(kind).alias("recorded_at"))
    stored = StoredDataset.open(export(until=moment).write(tmp_path / "set").folder)
    without = DiskTables(interactions.filter(~late), titles, availability)
    never = export(tables=without, until=moment).write(tmp_path / "never").manifest
    assert (stored.manifest.rows_digest, stored.manifest.inputs.split) == (never.rows_digest, never.inputs.split)
    assert stored.manifest.rows == stored.entities().height == stored.scan().collect().height


def test_a_moment_must_have_a_zone_and_have_come(export, clock) -> None:
    with pytest.raises(ConfigError, match="time zone"):
        export(until=clock.now().replace(tzinfo=None))
    with pytest.raises(ConfigError, match="the workspace's clock says"):
        export(until=clock.now() + timedelta(days=1))


def test_the_time_of_building_is_nowhere(disk, export, tmp_path, clock) -> None:
    later = FixedClock(clock.now() + timedelta(days=1000))
    assert tree(export(clock=later).write(tmp_path / "b").folder) == tree(export().write(tmp_path / "a").folder)


def test_an_unknown_protocol_is_named(export) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'global_time'"):
        export(protocol="global_tme")


def test_a_label_without_a_positive_row_is_named(export, interactions, disk) -> None:
    disk.log = interactions.filter(pl.col("action") != "thumbs_up")
    with pytest.raises(DataError, match="label thumbs_up: the log has no 'thumbs_up' event"):
        export().write(Path("nowhere"))


def test_a_split_that_lets_a_held_out_row_come_first_is_refused(interactions) -> None:
    split = make_split("global_time", interactions)
    rows = interactions.join(split.frame, on="event_id")
    assert_in_order(rows, split)
    swapped = rows.with_columns(fold=pl.col("fold").cast(pl.String).replace({"train": "test", "test": "train"}))
    with pytest.raises(IntegrityError, match="a train row is not before the"):
        assert_in_order(swapped, split)
    by_member = make_split("leave_one_out", interactions)
    rows = interactions.join(by_member.frame, on="event_id")
    assert_in_order(rows, by_member)
    swapped = rows.with_columns(
        fold=pl.col("fold").cast(pl.String).replace({"validation": "test", "test": "validation"})
    )
    with pytest.raises(IntegrityError, match="a validation row of member 'm"):
        assert_in_order(swapped, by_member)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_slices_hold_every_row_once_in_order_and_cut_no_day_that_fits(days: list[int], limit: int) -> None:
    day = [DAY + timedelta(days=number) for number, count in enumerate(days) for _ in range(count)]
    rows = pl.DataFrame({"fold": "train", "day": day, "row": range(len(day))})
    found = list(slices(rows, limit))
    assert pl.concat(found).equals(rows)
    assert all(0 < piece.height <= limit for piece in found)
    if max(days) <= limit:
        assert sum(piece["day"].n_unique() for piece in found) == len(days)


ROWS = pl.DataFrame(
    {
        "event_id": ["a", "b", "c", "d"],
        "text": ["x", None, "", "yz"],
        "number": pl.Series([1.5, 0.0, None, -2.0], dtype=pl.Float32),
        "whole": pl.Series([1, None, 3, 4], dtype=pl.Int32),
        "at": pl.Series([DAY, None, DAY + timedelta(days=1), DAY + timedelta(days=2)]),
    }
)


def test_the_hash_of_rows_depends_on_neither_order_nor_columns_order() -> None:
    draw = random.Random(3)
    for _ in range(5):
        columns = draw.sample(ROWS.columns, ROWS.width)
        assert rows_digest(
            ROWS.sample(fraction=1, shuffle=True, seed=draw.randrange(99)).select(columns)
        ) == rows_digest(ROWS)
    assert rows_digest(pl.concat([ROWS[:2], ROWS[2:]])) == rows_digest(ROWS)
    assert rows_digest(ROWS.with_columns(pl.col("number").replace(0.0, -0.0))) == rows_digest(ROWS)


@pytest.mark.parametrize(
    "change",
    [
        pl.col("text").fill_null(""),
        pl.Series("text", ["xy", None, "", "z"]),
        pl.col("number").fill_null(0.0),
        pl.col("number").cast(pl.Float64),
        pl.col("number") + 1e-6,
        pl.col("whole").shift(1),
        pl.col("at") + timedelta(microseconds=1),
        pl.col("event_id").reverse(),
    ],
)
def test_the_hash_of_rows_sees_every_change(change) -> None:
    assert rows_digest(ROWS.with_columns(change)) != rows_digest(ROWS)


def test_a_file_is_the_same_bytes_however_its_rows_were_put_together(tmp_path: Path) -> None:
    whole = write_rows(ROWS, tmp_path, "whole.parquet")
    parts = write_rows(pl.concat([ROWS[:1], ROWS[1:3], ROWS[3:]], rechunk=False), tmp_path, "parts.parquet")
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "parts.parquet").read_bytes()
    assert (whole.sha256, whole.rows_sha256, whole.bytes) == (parts.sha256, parts.rows_sha256, parts.bytes)


def test_a_sound_one_from_the_same_inputs_is_left(export, tmp_path) -> None:
    first = export().write(tmp_path / "set")
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    again = export().write(tmp_path / "set")
    assert (first.written, again.written) == (True, False)
    assert again.manifest == first.manifest
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == stamps


def test_one_from_other_inputs_is_refused_with_what_differs_and_replaced_when_told_to(
    export, plays_before, tmp_path
) -> None:
    before = tree(export().write(tmp_path / "set").folder)
    plays_before.files = "f2"
    with pytest.raises(StateError, match=r"other inputs: features\.views\.activity\.files.*--overwrite"):
        export().write(tmp_path / "set")
    assert tree(tmp_path / "set") == before
    assert export().write(tmp_path / "set", overwrite=True).written
    assert tree(tmp_path / "set") != before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_is_no_training_set_is_never_replaced(export, tmp_path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(StateError, match="no training set; choose another --out"):
            export().write(tmp_path / "set", overwrite=overwrite)
    assert tree(tmp_path) == {"set/thesis.txt": b"years of work"}


def test_features_that_change_meanwhile_are_noticed(export, plays_before, tmp_path) -> None:
    prepared = export()
    plays_before.files = "f2"
    with pytest.raises(StateError, match="changed while the training set was built"):
        prepared.write(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_differences_name_the_inputs(export, disk, resolved, plays_before, tmp_path) -> None:
    mine = StoredDataset.open(export().write(tmp_path / "one").folder)
    newer = resolved.labels["thumbs_up"].model_copy(update={"version": 2})
    changed = resolved.model_copy(update={"labels": {**resolved.labels, "thumbs_up": newer}})
    disk.snapshot, plays_before.files = "s2", "f2"
    theirs = StoredDataset.open(export(resolved=changed).write(tmp_path / "two").folder)
    assert [difference.name for difference in mine.diff(theirs)] == [
        "features.views.activity.files",
        "labels.thumbs_up.definition",
        "labels.thumbs_up.version",
        "model.spec_hash",
        "tables",
    ]
    assert str(mine.diff(theirs)[2]) == "labels.thumbs_up.version: 1 here, 2 there"
    assert mine.diff(mine) == ()
    assert mine.same_rows(theirs)


def test_folds_and_days_are_columns_and_the_folder_may_have_any_name(export, tmp_path) -> None:
    folder = export(protocol="global_time").write(tmp_path / "day=what" / "a [set]").folder
    stored = StoredDataset.open(folder)
    rows = stored.scan().collect()
    assert rows["fold"].cast(pl.String).unique(maintain_order=True).to_list() == ["train", "validation", "test"]
    assert (rows["day"] == rows["event_at"].dt.date()).all()
    assert rows.sort("fold", "event_at", "member_id", "seq").equals(rows)
    assert stored.entities().equals(rows.select("event_id", "member_id", "title_id", "event_at"))
    assert {fold: record.rows for fold, record in stored.manifest.folds.items()} == dict(
        rows.group_by(pl.col("fold").cast(pl.String)).len().iter_rows()
    )
    with pytest.raises(UnknownNameError, match="Did you mean 'validation'"):
        stored.scan("validaton")


def test_any_reader_of_hive_partitions_reads_it(export, tmp_path) -> None:
    folder = export().write(tmp_path / "set").folder
    rows = pl.read_parquet(folder / "rows", hive_partitioning=True)
    mine = StoredDataset.open(folder).scan().collect()
    assert (
        rows.select("event_id", pl.col("fold").cast(pl.String))
        .sort("event_id")
        .equals(mine.select("event_id", pl.col("fold").cast(pl.String)).sort("event_id"))
    )


def test_the_manifest_holds_the_digests_of_what_it_says(export, tmp_path) -> None:
    made = export().write(tmp_path / "set")
    content = json.loads((made.folder / "manifest.json").read_text())
    assert (content["digest"], content["rows_digest"]) == (made.manifest.digest, made.manifest.rows_digest)
    assert content["inputs_digest"] == made.manifest.inputs.digest
    assert content["inputs"]["tables"] == "s1"
    assert content["entities"]["rows_sha256"] == rows_digest(StoredDataset.open(made.folder).entities())
    path = made.folder / "manifest.json"
    path.write_text(path.read_text().replace('"tables": "s1"', '"tables": "s2"'))
    with pytest.raises(IntegrityError, match=r"manifest\.json was changed"):
        StoredDataset.open(made.folder)
