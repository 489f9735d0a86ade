"""Vectors of a version, published as views, read as features by another model, and refused where they are others."""

import json
import re

import numpy as np
import polars as pl
import pytest
from feast import FeatureStore

from fixtures.vectors_project import BLOCKS, vectors_project, write_service
from playbill.features import FeatureDoor
from playbill.features.vectors import read_vectors, title_vectors_of, vectors_folder
from playbill.ranking.scoring.bundle import read_bundle
from playbill.tables import Tables, workspace_clock
from playbill.versions.tracking import Tracking

VIEWS = ("taste_member_vectors_v1", "taste_title_vectors_v1")


@pytest.fixture(scope="module")
def shell(filled, tmp_path_factory, migrated_mlflow):
    return vectors_project(filled, tmp_path_factory.mktemp("vectors") / "project", migrated_mlflow)


@pytest.fixture(scope="module")
def trained_guest(shell):
    """The project with a model that reads the vectors, trained."""
    write_service(shell)
    assert shell.type("apply").exit_code == 0
    return shell, shell.json("train", "guest")


@pytest.fixture(scope="module")
def guest(trained_guest):
    return trained_guest[0]


def values(shell, kind):
    return pl.read_parquet(vectors_folder(shell.workspace.features, "taste", 1) / f"{kind}.parquet")


def matrix(frame):
    return np.array(frame["vector"].to_list(), np.float32)


def test_every_member_has_a_vector_for_each_day_with_events(shell):
    rows, events = values(shell, "members"), Tables(shell.workspace).interactions()
    days = events.select("member_id", pl.col("event_at").dt.truncate("1d")).unique()
    assert rows.height == days.height
    now = workspace_clock(shell.workspace).now()
    expected = days.select(
        "member_id", pl.min_horizontal(pl.col("event_at") + pl.duration(days=1), pl.lit(now)).alias("event_timestamp")
    )
    assert rows.select("member_id", "event_timestamp").sort(pl.all()).equals(expected.sort(pl.all()))


def test_the_views_say_which_vectors_they_hold(shell):
    found = shell.json("vectors", "list")["vectors"]
    assert [(one["version"], one["views"], one["lineage"], one["head"]) for one in found] == [
        (1, list(VIEWS), 1, "discovery_play")
    ]
    store = FeatureStore(fs_yaml_file=shell.workspace.feature_store_yaml)
    assert {store.get_feature_view(name).tags["playbill.vectors"] for name in VIEWS} == {"taste:1"}


def test_publishing_again_changes_nothing(shell):
    before = shell.tree()
    again = shell.json("vectors", "publish", "taste:1")
    assert (again["how"], again["rows"]) == ("there already", 0)
    folder = str(vectors_folder(shell.workspace.features, "taste", 1).relative_to(shell.home))
    own = {name: size for name, size in before.items() if name.startswith(folder)}
    assert own == {name: size for name, size in shell.tree().items() if name.startswith(folder)}


def test_nearest_titles_are_found_by_feast(shell):
    titles = values(shell, "titles")
    member = matrix(values(shell, "members"))[-1]
    names = {"workspace": shell.workspace, "member_vector": member.tolist()}
    exec(BLOCKS[1].replace("foundation", "taste").replace("top_k=10", "top_k=3"), names)
    found = names["found"].to_dict()
    products = matrix(titles) @ member
    best = titles.with_columns(product=products).sort("product", descending=True).head(3)
    assert set(found["title_id"]) == set(best["title_id"])
    assert sorted(found["distance"]) == pytest.approx((-best["product"]).to_list(), rel=1e-5)
    biases = dict(best.select("title_id", "bias").iter_rows())
    assert dict(zip(found["title_id"], found["bias"], strict=True)) == pytest.approx(biases)


def test_training_and_serving_read_the_same_vectors(guest):
    door, now = FeatureDoor(guest.workspace), workspace_clock(guest.workspace).now()
    members = values(guest, "members")["member_id"].unique().sort().to_list()
    served = door.online("with_taste", [*members, "nobody"], now)
    rows = served.select("member_id", pl.lit(now).alias("event_at"))
    trained = door.member_features("with_taste", rows)
    columns = [name for name in trained.columns if name.startswith(VIEWS[0])]
    assert len(columns) == 16
    assert served.select(columns).equals(trained.select(columns))
    assert served.select(columns)[-1].null_count().row(0) == (1,) * 16
    last = values(guest, "members").group_by("member_id").agg(pl.col("vector").last()).sort("member_id")
    np.testing.assert_array_equal(served.select(columns)[:-1].to_numpy(), matrix(last))


def test_logged_requests_were_answered_with_the_vectors_that_training_sees(guest):
    for member in ("m1", "m2", "nobody"):
        answer = guest.json("recommend", "--model", "guest", "--version", "1", "--member", member)
        assert answer["policy"] == "model"
    found = guest.json("parity")
    assert (found["requests"], found["different"]) == (3, 0)
    compared = {view["view"]: view["compared"] for view in found["views"]}
    assert compared[VIEWS[0]] == 3 * 16


def test_a_request_of_the_past_reads_the_vector_of_its_own_time(guest):
    rows = values(guest, "members").sort("member_id", "event_timestamp")
    member = rows.group_by("member_id").len().filter(pl.col("len") > 1)["member_id"].sort()[0]
    own = rows.filter(pl.col("member_id") == member)
    moments = own["event_timestamp"].to_list()
    asked = pl.DataFrame(
        {"member_id": [member] * 3, "event_at": [moments[0] - (moments[1] - moments[0]), moments[0], moments[1]]},
        schema_overrides={"event_at": pl.Datetime("us", "UTC")},
    )
    found = FeatureDoor(guest.workspace).member_features("with_taste", asked)
    vectors = found.select(f"{VIEWS[0]}__vector[{number}]" for number in range(16)).to_numpy()
    assert np.isnan(vectors[0]).all()
    np.testing.assert_array_equal(vectors[1:], matrix(own)[:2])


def test_the_version_records_the_vectors_and_reads_all_of_their_numbers(guest):
    tracking = Tracking(guest.workspace)
    version = tracking.resolve("guest")
    bundle = read_bundle(tracking.download("guest", version.version))
    record = read_vectors(guest.workspace.features, "taste", 1)
    assert bundle.extra["vectors"] == {view: {"version": "taste:1", "digest": record.digest} for view in VIEWS}
    assert version.tags["playbill.vectors"] == "taste:1"
    assert set(VIEWS) < set(bundle.extra["feature_views"])
    state = bundle.encoder.state
    assert len(state.title_vectors) == bundle.config.titles.numeric == 16
    assert sum(name.startswith(VIEWS[0]) for name in state.numeric) == 16
    assert f"{VIEWS[1]}__bias" in state.title_snapshot
    assert {f"{view}__vector" for view in VIEWS} < set(tracking.record(version).columns)


def test_the_report_has_each_vector_as_one_feature(trained_guest):
    uses = {row["feature"]: row for row in trained_guest[1]["features"]}
    assert not [name for name in uses if "[" in name]
    for view in VIEWS:
        assert uses[f"{view}__vector"]["coverage"] > 0.4
        assert uses[f"{view}__vector"]["importance (rise of ln rank)"] != 0.0


def test_a_version_is_refused_where_the_store_holds_other_vectors(guest):
    path = vectors_folder(guest.workspace.features, "taste", 1) / "_state.json"
    text, record = path.read_text(), read_vectors(guest.workspace.features, "taste", 1)
    path.write_text(json.dumps(json.loads(text) | {"digest": "f" * 64}))
    both = rf"holds vectors ffffffffffff of taste:1, and was vectors {record.digest[:12]} of taste:1"
    try:
        guest.refused("recommend", "--model", "guest", "--version", "1", "--member", "m1", match=both)
        guest.refused("evaluate", "guest:1", match=both)
        promoted = guest.type("promote", "guest:1")
        assert promoted.exit_code == 1
        assert re.search(
            f"integrity: guest:1 was trained with other vectors.*{both}", " ".join(promoted.output.split())
        )
    finally:
        path.write_text(text)


def test_a_version_is_refused_where_its_vectors_are_gone(guest):
    folder = vectors_folder(guest.workspace.features, "taste", 1)
    away = folder.with_name("away")
    folder.rename(away)
    try:
        guest.refused("evaluate", "guest:1", match=f"{VIEWS[0]} holds nothing.*playbill vectors publish taste:1")
        guest.refused("train", "guest", match="no vectors are published here for.*playbill vectors publish taste:1")
        assert not {view["view"] for view in guest.json("materialize")["views"]} & set(VIEWS)
    finally:
        away.rename(folder)


def test_vectors_that_learnt_what_would_be_held_out_are_refused(guest):
    guest.refused(
        "train", "guest", "--protocol", "global_time", match="taste was trained under protocol 'leave_one_out'"
    )


def test_the_next_version_is_turned_onto_the_one_before(guest):
    assert guest.type("train", "taste", "--seed", 18).exit_code == 0
    found = guest.json("vectors", "publish", "taste:2")
    assert (found["before"], found["lineage"], found["note"]) == ("taste:1", 1, "")
    assert found["common"] >= 16
    features = guest.workspace.features
    before, now = (title_vectors_of(features, read_vectors(features, "taste", number)) for number in (1, 2))
    assert before["title_id"].to_list() == now["title_id"].to_list()
    own, other = matrix(before), matrix(now)
    cosines = (own * other).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(other, axis=1)
    assert cosines.mean() > 0.5
    assert guest.type("vectors", "list").exit_code == 0


def test_what_is_published_cannot_be_published_otherwise(guest):
    guest.refused("vectors", "publish", "taste:1", "--every", 12, match="cadence: is 24 in what is published, not 12")
    guest.refused("vectors", "publish", "taste:1", "--head", "discovery_play", "--members", 3, match="members: is None")
    guest.refused("vectors", "publish", "taste:3", match="unknown version of model 'taste' '3'")


def test_what_comes_later_is_added_and_what_is_there_stays(guest):
    before, record = {kind: values(guest, kind) for kind in ("members", "titles")}, guest.json("vectors", "list")
    tables = Tables(guest.workspace)
    last = tables.interactions().sort("event_at").tail(1)
    later = last.with_columns(event_id=pl.lit("later"), event_at=pl.col("event_at") + pl.duration(days=3))
    tables.append_events(later.with_columns(recorded_at=pl.col("event_at"), seq=pl.col("seq") + 1))
    title = tables.title_versions().tail(1).with_columns(title_id=pl.lit("brand-new"))
    tables.append_rows("titles", title)
    found = guest.json("vectors", "publish", "taste:1")
    assert (found["how"], found["rows"]) == ("brought up to date", 1)
    assert found["digest"] == record["vectors"][0]["digest"]
    members, titles = values(guest, "members"), values(guest, "titles")
    assert members.head(before["members"].height).equals(before["members"])
    assert members["member_id"][-1] == last["member_id"][0]
    assert titles.head(before["titles"].height).equals(before["titles"])
    assert titles["title_id"].to_list()[before["titles"].height :] == ["brand-new"]
    assert guest.json("vectors", "publish", "taste:1")["how"] == "there already"
    assert guest.type("evaluate", "guest:1").exit_code == 0  # the vectors it was trained with
