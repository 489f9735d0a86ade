"""Feature rows in databases: SQLite, and Postgres where `postgres_url` finds one."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
import sqlalchemy as sa
from feast import FeatureView, Field
from feast.types import Float64, String

from fixtures.asof_store import HOUR, START, ask, at, open_store, source, taste, values
from playbill_feast.errors import StoreConfigError, StoreDataError, StoreServiceError, StoreStateError
from playbill_feast.offline.scan_filter import ScanFilter, as_known_on
from playbill_feast.offline.sources import scan_source
from playbill_feast.offline.sql_source import SqlSource

ROWS = (
    ("a", START, START, 1.0, "one"),
    ("a", START + HOUR, START + 5 * HOUR, 2.0, "two"),
    ("a", START + HOUR, START + 4 * HOUR, 9.0, "older belief"),
    ("b", START, START, None, None),
    (None, START, START, 5.0, "nobody"),
)


def table(metadata: sa.MetaData, name: str) -> sa.Table:
    moment = sa.DateTime(timezone=True)
    return sa.Table(
        name,
        metadata,
        sa.Column("member_id", sa.Text),
        sa.Column("event_timestamp", moment, nullable=False),
        sa.Column("created_timestamp", moment),
        sa.Column("x", sa.Double),
        sa.Column("y", sa.Text),
    )


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        found = f"sqlite:///{tmp_path}/features.db"
        (tmp_path / "features.db").touch()
    else:
        found = request.getfixturevalue("postgres_url")
    engine = sa.create_engine(found)
    metadata = sa.MetaData()
    rows = table(metadata, "taste")
    metadata.drop_all(engine)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(rows), [dict(zip(rows.columns.keys(), row, strict=True)) for row in ROWS])
    yield found
    metadata.drop_all(engine)
    engine.dispose()


def sql(url, **options):
    given = {"table": "taste"} if "query" not in options else {}
    return SqlSource(url=url, created_timestamp_column="created_timestamp", **given, **options)


@pytest.fixture(params=["table", "query"])
def store(request, tmp_path, url):
    options = {} if request.param == "table" else {"query": "SELECT * FROM taste WHERE 1 = 1;", "name": "q"}
    return open_store(tmp_path, taste(sql(url, **options)))


def test_retrieval_is_that_of_files(store):
    rows = at(("zz", START), ("a", START + 2 * HOUR), (None, START), ("a", START), ("a", START - HOUR), ("b", START))
    expected = [None, 2.0, None, 1.0, None, None]
    assert ask(store, rows, "taste:x", "taste:y").get_column("x").to_list() == expected
    assert ask(store, rows.to_pandas()).get_column("x").to_list() == expected
    late = ask(store, rows, filter_by_created_timestamp=True).get_column("x").to_list()
    assert late == [None, 1.0, None, 1.0, None, None]
    with as_known_on(START + 4 * HOUR):
        assert ask(store, rows).get_column("x").to_list()[1] == 9.0


def test_the_registry_gives_the_source_back(store, url):
    found = store.get_feature_view("taste").batch_source
    again = SqlSource.from_proto(found.to_proto())
    assert again == found
    assert (found.url, found.timestamp_field, found.created_timestamp_column) == (
        url,
        "event_timestamp",
        "created_timestamp",
    )
    assert hash(again) == hash(found)
    assert found != SqlSource(url=url, table="other")
    assert found.source_datatype_to_feast_value_type()("double").name == "DOUBLE"


def test_pulls_and_date_ranges_hold_to_their_bounds(store):
    offline = store.provider.offline_store
    batch = store.get_feature_view("taste").batch_source
    args = (store.config, batch, ["member_id"], ["x"], "event_timestamp", "created_timestamp")
    newest = offline.pull_latest_from_table_or_query(*args, START, START + HOUR).to_df().sort_values("member_id")
    assert newest["x"].to_list()[0] == 2.0
    assert newest["member_id"].to_list() == ["a", "b"]
    first = offline.pull_all_from_table_or_query(*args, START - HOUR, START + timedelta(minutes=59)).to_arrow()
    assert sorted(first["member_id"].to_pylist(), key=str) == [None, "a", "b"]
    found = ask(store, None, start_date=START + HOUR, end_date=START + HOUR)
    assert found.rows() == [("a", START + HOUR, 2.0)]


def test_only_the_columns_times_and_keys_asked_for_leave_the_database(store, url):
    batch = store.get_feature_view("taste").batch_source
    texts = []
    engine = _engine_of(batch)
    sa.event.listen(engine, "before_cursor_execute", lambda *args: texts.append((args[2], args[3])))
    wanted = ScanFilter("event_timestamp", until=START, keys={"member_id": ["a"]})
    frame = scan_source(store.config, batch, "taste", wanted).select("x").filter(pl.col("x") < 5)
    texts.clear()
    assert frame.collect().get_column("x").to_list() == [1.0]
    statement, parameters = next((text, bound) for text, bound in texts if "member_id" in text and "WHERE" in text)
    assert "taste.y" not in statement.replace("rows.y", "taste.y").split("FROM")[0]
    assert "'a'" not in statement
    assert "a" in (parameters.values() if isinstance(parameters, dict) else parameters)


def _engine_of(batch):
    from playbill_feast.offline.sql_reader import open_engine

    return open_engine(batch.url)


def test_entity_rows_may_be_sql_when_all_views_are_of_one_database(store, url, tmp_path):
    query = "SELECT DISTINCT member_id, event_timestamp FROM taste WHERE member_id = 'a' ORDER BY event_timestamp DESC"
    found = ask(store, query)
    assert found.select("member_id", "x").rows() == [("a", 2.0), ("a", 1.0)]
    values().write_parquet(tmp_path / "mood.parquet")
    mood = FeatureView(name="mood", entities=[], schema=[Field(name="y", dtype=String)], source=source("mood.parquet"))
    store.apply([mood])
    with pytest.raises(StoreDataError, match="is SQL, which is only understood when every view has a SqlSource of one"):
        ask(store, query, "taste:x", "mood:y")


def test_appending_is_one_transaction(tmp_path, url):
    view = taste(sql(url), schema=[Field(name="x", dtype=Float64), Field(name="y", dtype=String)])
    store = open_store(tmp_path, view)
    offline = store.provider.offline_store
    more = values(("b", START, START + HOUR, 7.5, "seven"), ("c", START, START, 8.0, None)).cast({"x": pl.Float64})
    offline.offline_write_batch(store.config, view, more.to_arrow(), None)
    assert ask(store, at(("b", START), ("c", START))).get_column("x").to_list() == [7.5, 8.0]
    broken = more.with_columns(event_timestamp=pl.Series([START, None], dtype=pl.Datetime("us", "UTC")))
    with pytest.raises(StoreServiceError, match=r"(?i)(not.null|null value).*Nothing was written"):
        offline.offline_write_batch(store.config, view, broken.with_columns(x=pl.lit(-1.0)).to_arrow(), None)
    assert ask(store, at(("b", START))).get_column("x").to_list() == [7.5]
    with pytest.raises(StoreDataError, match=r"(?s)y: column is missing.*z: is no column"):
        offline.offline_write_batch(store.config, view, more.rename({"y": "z"}).to_arrow(), None)
    query = taste(sql(url, query="SELECT * FROM taste", name="q"))
    with pytest.raises(StoreDataError, match="q: is a query; only a table is written"):
        offline.offline_write_batch(store.config, query, more.to_arrow(), None)


def test_missing_tables_and_columns_are_named(tmp_path, url):
    store = open_store(tmp_path, taste(sql(url).__class__(url=url, table="nowhere")))
    with pytest.raises(StoreStateError, match="'nowhere' does not exist"):
        ask(store, at(("a", START)))
    refused = SqlSource(url="postgresql+psycopg://nobody:secret@127.0.0.1:9/none", table="taste")
    with pytest.raises(StoreServiceError, match=r"nobody:\*\*\*@127.0.0.1:9/none: ") as caught:
        scan_source(store.config, refused, "taste")
    assert "secret" not in str(caught.value)
    bad = SqlSource(url=url, query="SELECT nothing FROM taste", name="q")
    with pytest.raises(StoreServiceError, match="nothing"):
        scan_source(store.config, bad, "taste")


def test_secrets_come_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "features.db").touch()
    hidden = SqlSource(url="sqlite:///${FEATURES_FOLDER}/features.db", table="taste")
    config = open_store(tmp_path, taste(hidden)).config
    with pytest.raises(StoreConfigError, match="FEATURES_FOLDER"):
        scan_source(config, hidden, "taste")
    monkeypatch.setenv("FEATURES_FOLDER", str(tmp_path))
    with pytest.raises(StoreStateError, match="table 'taste' does not exist"):
        scan_source(config, hidden, "taste")
    assert "${FEATURES_FOLDER}" in str(hidden.to_proto())
    monkeypatch.setenv("FEATURES_FOLDER", f"{tmp_path}/none")
    with pytest.raises(StoreStateError, match=r"none/features.db does not exist"):
        scan_source(config, hidden, "taste")


def test_a_source_that_says_too_little_or_too_much_is_refused():
    for options in ({}, {"table": "t", "query": "SELECT 1"}):
        with pytest.raises(StoreConfigError, match="either a table or a query"):
            SqlSource(url="sqlite:////x.db", **options)
    with pytest.raises(StoreConfigError, match=r"needs an absolute path, as in sqlite:////x.db"):
        SqlSource(url="sqlite:///x.db", table="t")
    with pytest.raises(StoreConfigError, match="cannot use this url"):
        SqlSource(url="no url at all", table="t")


def test_times_that_sqlite_keeps_as_text_are_times(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/text.db")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE taste (member_id TEXT, event_timestamp TEXT, x REAL)"))
        insert = sa.text("INSERT INTO taste VALUES ('a', :at, :x)")
        connection.execute(insert, [{"at": "2024-05-01T12:00:00Z", "x": 1.0}, {"at": "2024-05-01 13:00", "x": 2.0}])
    batch = SqlSource(url=f"sqlite:///{tmp_path}/text.db", table="taste")
    store = open_store(tmp_path, taste(batch, schema=[Field(name="x", dtype=Float64)]))
    assert ask(store, at(("a", START), ("a", START + HOUR))).get_column("x").to_list() == [1.0, 2.0]
    with engine.begin() as connection:
        connection.execute(insert, [{"at": "noon", "x": 3.0}])
    with pytest.raises(StoreDataError, match="event_timestamp: holds what is no time: row 2 is 'noon'"):
        ask(store, at(("a", START)))


def test_types_of_postgres_columns_are_kept(tmp_path, postgres_url):
    columns = (
        "member_id TEXT, event_timestamp TIMESTAMP, n NUMERIC(8, 2), tags TEXT[], w DOUBLE PRECISION[], ok BOOLEAN"
    )
    one = "('a', '2024-05-01 12:00', 12.25, ARRAY['k', NULL], ARRAY[0.5], TRUE)"
    other = "('b', '2024-05-01 13:00', NULL, NULL, NULL, NULL)"
    zone = f"{postgres_url}{'&' if '?' in postgres_url else '?'}options=-c%20timezone%3DAsia/Tokyo"
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS kinds"))
        connection.execute(sa.text(f"CREATE TABLE kinds ({columns})"))
        connection.execute(sa.text(f"INSERT INTO kinds VALUES {one}, {other}"))
    try:
        for given in ({"table": "kinds"}, {"query": "SELECT * FROM kinds", "name": "q"}, {"table": "public.kinds"}):
            batch = SqlSource(url=zone, **given)
            config = open_store(tmp_path).config
            wanted = ScanFilter("event_timestamp", until=START)
            frame = scan_source(config, batch, "kinds", wanted).collect()
            assert frame.select("member_id", pl.col("n").cast(pl.Float64), "tags", "w", "ok").rows() == [
                ("a", 12.25, ["k", None], [0.5], True)
            ]
            everything = scan_source(config, batch, "kinds").select("n", "ok", "member_id").collect()
            assert everything.rows()[1] == (None, None, "b")
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE kinds"))
        engine.dispose()
