"""One registered version answers every canvas, by the commands of the shell."""

import json

import pytest

from fixtures.small_project import Shell


@pytest.fixture(scope="module")
def shell(trained):
    """The commands without a process for each; `test_quickstart.py` has processes."""
    return Shell(trained.folder)


def test_training_reports_every_canvas_and_beats_popularity(shell):
    progress = shell.type("evaluate", "everycanvas@champion", "--protocol", "leave_one_out", "--json")
    result = json.loads(progress.stdout.strip().splitlines()[-1])
    assert result["canvas"] == "home"
    assert set(result["baselines"]) == {"popular", "popular_7d", "item_knn", "ease"}
    assert result["ndcg@10"] > result["baselines"]["popular"]["ndcg@10"]


@pytest.mark.parametrize(
    ("canvas", "options"),
    [
        ("home", []),
        ("billboard", []),
        ("search", ["--query", "gold"]),
        ("more_like_this", ["--source-title", "t3"]),
        ("coming_soon", []),
    ],
)
def test_every_canvas_is_answered_by_the_model(shell, canvas, options):
    answer = shell.json("recommend", "--member", "m5", "--canvas", canvas, *options, "-k", "5")
    assert answer["policy"] == "model", answer["notes"]
    assert len(answer["items"]) == 5
    assert len({item["title_id"] for item in answer["items"]}) == 5


def test_search_finds_by_prefix_and_typo(shell):
    for query in ("golden h", "goldne harbor", "harbor gold"):
        answer = shell.json("recommend", "--member", "m5", "--canvas", "search", "--query", query, "-k", "5")
        assert "Golden Harbor" in {item["name"] for item in answer["items"]}, query


def test_coming_soon_shows_only_titles_still_to_come(shell):
    answer = shell.json("recommend", "--member", "m5", "--canvas", "coming_soon", "-k", "5")
    assert all(int(item["title_id"][1:]) >= 110 for item in answer["items"])


def test_home_is_a_page_of_rows_without_repeats(shell):
    answer = shell.json("recommend", "--member", "m5", "--canvas", "home", "-k", "6")
    # A chart shows its titles whatever other rows show.
    titles = [item["title_id"] for row in answer["rows"] if row["row_id"] != "top_10" for item in row["items"]]
    assert len(answer["rows"]) >= 4
    assert len(titles) == len(set(titles))


def test_an_unknown_member_is_answered_and_an_unknown_canvas_is_not(shell):
    answer = shell.json("recommend", "--member", "nobody", "--canvas", "home", "-k", "5")
    assert len(answer["items"]) == 5
    assert answer["notes"]
    shell.refused("recommend", "--member", "m5", "--canvas", "serach", match="Did you mean 'search'")


def test_another_protocol_than_the_trained_one_is_refused(shell):
    evaluate = ("evaluate", "everycanvas@champion", "--protocol", "global_time")
    shell.refused(*evaluate, match="--protocol global_time")


def test_status_and_doctor_say_what_is_there(shell):
    status = shell.json("status")
    assert status["rows"]["titles"] == 120
    assert [model["approved"] for model in status["models"]] == [True]
    assert shell.json("doctor")["healthy"]
