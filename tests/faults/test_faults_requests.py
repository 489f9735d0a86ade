"""Requests that name what does not exist, from the shell."""

import pytest


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        (["--canvas", "homr"], r"unknown canvas 'homr'. Did you mean 'home'"),
        (["--canvas", "more_like_this"], r"canvas 'more_like_this' needs a source title"),
        (
            ["--canvas", "more_like_this", "--source-title", "Amber Harbo"],
            r"unknown title.*mean 'Amber Harbor'",
        ),
        (["--canvas", "search"], r"canvas 'search' needs a query"),
        (["--at", "2024-01-01"], r"'2024-01-01' has no time zone"),
        (["--model", "everycanva"], r"unknown model 'everycanva'"),
        (["--version", "7"], r"unknown version of model 'everycanvas' '7'. Known: 1"),
    ],
)
def test_an_unknown_name_in_a_request_suggests_the_nearest(served, requested, message):
    served.refused("recommend", *requested, match=message)


def test_unknown_members_and_countries_are_answered_with_a_note(served):
    answer = served.json("recommend", "--member", "nobody", "--country", "QQ", "-k", "3")
    assert (answer["policy"], len(answer["items"])) == ("model", 3)
    assert answer["notes"] == [
        "member 'nobody' is unknown: answered without a history",
        "country 'QQ' was never seen: it counts as unknown (ZZ)",
        "row new_releases: 0 titles after filtering, fewer than 5: filled up by newest",
    ]


def test_without_an_approved_version_the_fallback_answers(project):
    answer = project.json("recommend", "--member", "m1", "-k", "3")
    assert (answer["policy"], answer["version"], len(answer["items"])) == ("popular_7d", None, 3)
    assert "answered by the fallback popular_7d: no approved model" in answer["notes"]
