import pickle

import pytest

from playbill.errors import DataError, DuplicateNameError, Problem, StateError, UnknownNameError


@pytest.mark.parametrize(
    "error",
    [
        UnknownNameError("canvas", "hom", ["home", "search"]),
        DuplicateNameError("trunk", "a", "x:y", "z:w"),
        DataError("titles", [Problem("row 3", "no title_id", "Fill it in.")]),
        StateError("run `playbill ingest` first"),
    ],
)
def test_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_problems_are_reported_together():
    error = DataError("titles", [Problem("row 1", "no name"), Problem("row 2", "no kind")])
    assert str(error).splitlines() == ["titles: 2 problems", "  row 1: no name", "  row 2: no kind"]
