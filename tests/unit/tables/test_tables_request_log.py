from datetime import UTC, datetime

import pytest

from playbill.errors import DataError
from playbill.tables import RequestLog, polars_schema

REQUEST = {
    "request_id": "r1",
    "at": datetime(2020, 1, 1, 12, tzinfo=UTC),
    "member_id": "a",
    "canvas": "home",
    "context": "{}",
    "policy": "model",
}
SLATE = [{"row_position": 0, "position": index, "title_id": str(index), "score": 1.0 - index} for index in (1, 0)]


def test_a_request_and_its_slate_are_written_together(workspace):
    log = RequestLog(workspace.database_url)
    log.write(REQUEST, SLATE)
    log.write(REQUEST, SLATE)
    assert log.requests().schema == polars_schema("requests")
    assert log.slates().schema == polars_schema("slates")
    assert log.requests().get_column("at").to_list() == [REQUEST["at"]]
    assert log.slates("r1").get_column("title_id").to_list() == ["0", "1"]
    assert log.slates("r2").is_empty()


def test_a_refused_request_leaves_nothing(workspace):
    log = RequestLog(workspace.database_url)
    with pytest.raises(DataError) as caught:
        log.write(
            {**REQUEST, "policy": None, "at": REQUEST["at"].replace(tzinfo=None), "colour": 1},
            [{**SLATE[0], "score": "high"}, {**SLATE[1], "request_id": "r2"}],
        )
    text = str(caught.value)
    for expected in (
        "request.policy: missing",
        "request.at: the timestamp has no time zone",
        "request.colour: unknown column",
        "slates[0].score: expected float64, got str",
        "slates[1].request_id: differs",
    ):
        assert expected in text
    assert log.requests().is_empty()
