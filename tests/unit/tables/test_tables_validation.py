"""Every kind of bad data is refused as a whole, with every mistake named."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from playbill.clock import FixedClock
from playbill.errors import DataError, UnknownNameError
from playbill.tables import TIMESTAMP, Tables, canonical_frame

CLOCK = FixedClock(datetime(2020, 2, 1, tzinfo=UTC))


@pytest.fixture
def offered(workspace, load):
    """Offer data that must be refused, and return where -> message of every problem."""

    def offer(titles: pl.DataFrame, *batches: pl.DataFrame) -> dict[str, str]:
        tables = Tables(workspace)
        with pytest.raises(DataError) as caught:
            load(tables, titles, *batches, clock=CLOCK)
        assert not tables.exists()
        return {problem.where: str(problem) for problem in caught.value.problems}

    return offer


def test_missing_column_names_the_nearest_stray(offered, titles, events):
    problems = offered(titles.rename({"name": "nmae"}), events.drop("seq"))
    assert "missing" in problems["titles.name"]
    assert "Did you mean 'nmae'?" in problems["titles.name"]
    assert "Did you mean 'name'?" in problems["titles.nmae"]
    assert "missing" in problems["interactions.seq"]


@pytest.mark.parametrize("column", ["event_id", "member_id", "event_at", "canvas"])
def test_a_null_in_a_required_column_is_named(offered, titles, events, column):
    broken = events.with_columns(pl.when(pl.col("seq") == 0).then(None).otherwise(pl.col(column)).alias(column))
    problems = offered(titles, broken)
    assert "null in 3 rows" in problems[f"interactions.{column}"]
    assert "For example" in problems[f"interactions.{column}"]


def test_null_country_says_how_to_write_unknown(offered, titles, events):
    problems = offered(titles, events.with_columns(country=pl.lit(None, dtype=pl.String)))
    assert "'ZZ'" in problems["interactions.country"]


def test_an_empty_id_is_refused(offered, titles, events):
    problems = offered(titles, events.with_columns(member_id=pl.lit("")))
    assert "empty string in 6 rows" in problems["interactions.member_id"]


def test_duplicate_event_ids_within_a_batch_are_refused(offered, titles, events):
    problems = offered(titles, events.with_columns(event_id=pl.lit("same")))
    assert "used more than once in 6 rows" in problems["interactions.event_id"]
    assert "event_id=same" in problems["interactions.event_id"]


def test_duplicate_event_ids_across_batches_are_refused(offered, titles, events):
    again = events.head(1).with_columns(seq=pl.lit(7, dtype=pl.Int64))
    problems = offered(titles, events, again)
    assert "used more than once in 2 rows" in problems["interactions.event_id"]
    assert "event_id=e0" in problems["interactions.event_id"]


def test_two_events_of_a_member_with_one_seq_are_refused(offered, titles, events):
    problems = offered(titles, events.with_columns(seq=pl.lit(0, dtype=pl.Int64)))
    assert "(member_id, seq)" in problems["interactions.seq"]


def test_a_duplicate_title_is_refused(load, workspace, titles, events):
    with pytest.raises(DataError, match="used more than once in 2 rows"):
        load(Tables(workspace), pl.concat([titles, titles.head(1)]), events)


def test_timestamps_without_a_zone_are_refused(offered, titles, events):
    problems = offered(titles, events.with_columns(pl.col("event_at").dt.replace_time_zone(None)))
    assert "no time zone" in problems["interactions.event_at"]


def test_timestamps_after_the_clock_are_refused(offered, titles, events):
    late = events.with_columns(pl.col("event_at").dt.offset_by("1y"))
    problems = offered(titles, late)
    assert "after the clock (2020-02-01" in problems["interactions.event_at"]
    assert "6 rows" in problems["interactions.event_at"]


def test_launches_may_lie_after_the_clock(workspace, titles, events):
    tables = Tables(workspace)
    soon = datetime(2021, 1, 1, tzinfo=UTC)
    span = pl.DataFrame(
        {"title_id": ["1"], "country": ["*"], "available_from": [soon], "recorded_at": [CLOCK.at]},
        schema_overrides={"available_from": TIMESTAMP, "recorded_at": TIMESTAMP},
    )
    with tables.replace(CLOCK) as writer:
        writer.write("titles", titles)
        writer.write("interactions", events)
        writer.write("availability", span)
    assert tables.availability().get_column("available_from").to_list() == [soon]


def test_an_unknown_action_is_refused_and_a_namespaced_one_accepted(offered, workspace, titles, events):
    problems = offered(titles, events.with_columns(action=pl.lit("plya")))
    assert "Did you mean 'play'?" in problems["interactions.action"]
    tables = Tables(workspace)
    with tables.replace(CLOCK) as writer:
        writer.write("titles", titles)
        writer.write("interactions", events.with_columns(action=pl.lit("shop.buy")))
    assert tables.vocabulary("action").entries == ("shop.buy",)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_progress_outside_its_range_is_refused(offered, titles, events, value):
    problems = offered(titles, events.with_columns(progress=pl.lit(value)))
    assert "outside 0 to 1 in 6 rows" in problems["interactions.progress"]


def test_a_play_without_a_title_is_refused(offered, titles, events):
    problems = offered(titles, events.with_columns(title_id=pl.lit(None, dtype=pl.String)))
    assert "no title for an action that needs one" in problems["interactions.title_id"]


def test_an_event_of_an_unknown_title_is_refused(offered, titles, events):
    problems = offered(titles.head(1), events)
    assert "not in titles in 4 rows" in problems["interactions.title_id"]


def test_an_unknown_kind_and_a_wrong_type_are_refused(offered, titles, events):
    wrong = titles.with_columns(kind=pl.lit("movie"), genres=pl.lit("Drama"))
    problems = offered(wrong, events.with_columns(seq=pl.lit("first")))
    assert "expected List(String), got String" in problems["titles.genres"]
    assert "none of film, series, game" in problems["titles.kind"]
    assert "expected Int64, got String" in problems["interactions.seq"]


def test_a_source_without_rows_is_refused(offered, titles, events):
    problems = offered(titles, events.head(0))
    assert "empty" in problems["interactions"]


def test_all_mistakes_come_together_with_total_counts(offered, titles, events):
    broken = events.with_columns(country=pl.lit(None, dtype=pl.String), progress=pl.lit(2.0))
    more = broken.with_columns(event_id=pl.col("event_id") + "x")
    problems = offered(titles.drop("name"), broken, more)
    assert set(problems) == {"titles.name", "interactions.country", "interactions.progress"}
    assert "12 rows" in problems["interactions.country"]


def test_unknown_table_names_the_nearest(workspace):
    with (
        pytest.raises(UnknownNameError, match="Did you mean 'interactions'"),
        Tables(workspace).rehearse() as writer,
    ):
        writer.write("interaction", pl.DataFrame())


def test_lossless_conversions_are_made_and_lossy_ones_refused():
    moment = (
        pl.Series([datetime(2020, 1, 1, 2, tzinfo=UTC)])
        .dt.convert_time_zone("Europe/Paris")
        .cast(pl.Datetime("ms", "Europe/Paris"))
    )
    frame, mistakes = canonical_frame(
        "slates",
        pl.DataFrame({"request_id": ["r"], "row_position": [1.0], "position": [2**40], "title_id": ["1"]}),
    )
    assert frame.get_column("row_position").dtype == pl.Int32
    assert [mistake.column for mistake in mistakes] == ["position"]
    frame, mistakes = canonical_frame("titles", pl.DataFrame({"valid_from": moment}))
    assert frame.get_column("valid_from").to_list() == [datetime(2020, 1, 1, 2, tzinfo=UTC)]
    assert frame.get_column("valid_from").dtype == TIMESTAMP
    assert "valid_from" not in [mistake.column for mistake in mistakes]


def test_rehearsal_checks_and_writes_nothing(workspace, titles, events):
    tables = Tables(workspace)
    with tables.rehearse() as writer:
        writer.write("titles", titles)
        writer.write("interactions", events)

    def rehearse_repeats() -> None:
        with tables.rehearse() as writer:
            writer.write("titles", titles)
            writer.write("interactions", pl.concat([events, events]))

    with pytest.raises(DataError, match="more than once"):
        rehearse_repeats()
    assert not tables.exists()
    assert not workspace.tables.exists()
    assert not workspace.vocabularies.exists()


def test_the_clock_is_the_wall_clock_unless_given(load, workspace, titles, events):
    tomorrow = events.with_columns(pl.col("event_at") + timedelta(days=365 * 300))
    with pytest.raises(DataError, match="after the clock"):
        load(Tables(workspace), titles, tomorrow)
