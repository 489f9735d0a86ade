"""`check --data`: values that definitions name are those of the workspace's data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from playbill.cli.check import known_values
from playbill.cli.main import main
from playbill.definitions.zoo import load_zoo
from playbill.definitions.zoo.value_checks import canvas_data, canvas_lines, check_values

Edit = Callable[[str, str, str], None]
KNOWN = {
    "kind": {"film"},
    "genres": {"Comedy", "Drama"},
    "origin": {"US", "JP"},
    "action": {"play", "thumbs_up", "thumbs_down"},
    "canvas": {"home", "search"},
}


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "rows/again.yaml",
            "{watched: true}",
            "{genres: [Drama, Comdy]}",
            "again.yaml:6:30: candidates.genres.1: the data has no genres 'Comdy'. Did you mean 'Comedy'?",
        ),
        (
            "canvases/home.yaml",
            "metric: play",
            "metric: play\ncandidates: {hours: [{from: 20, to: 22, genres: [drama]}]}",
            "candidates.hours.0.genres.0: the data has no genres 'drama'. Did you mean 'Drama'?",
        ),
        (
            "labels/play.yaml",
            "prior_plays_of_title = 0",
            "not (canvas in ('hom', 'search'))",
            "labels/play.yaml:4:29: from.where: the data has no canvas 'hom'. Did you mean 'home'?",
        ),
    ],
)
def test_a_value_that_is_nearly_one_of_the_data_is_a_mistake(
    zoo_folder: Path, edit: Edit, file: str, old: str, new: str, expected: str
) -> None:
    edit(file, old, new)
    mistakes, *notes = check_values(load_zoo(zoo_folder).index, KNOWN)
    assert next(str(one) for one in mistakes).endswith(expected)
    assert (len(mistakes), notes) == (1, [[], []])


def test_a_value_that_the_data_does_not_have_is_a_note(zoo_folder: Path, edit: Edit) -> None:
    edit("rows/again.yaml", "{watched: true}", "{kind: [game], origin: [XX], original_language: [xx]}")
    mistakes, notes, of_labels = check_values(load_zoo(zoo_folder).index, KNOWN)
    assert (mistakes, of_labels) == ([], [])
    assert [str(note).rpartition(": ")[2] for note in notes] == [
        "the data has no kind 'game'.",
        "the data has no origin 'XX'.",
    ], "nothing is known of languages"


PLAIN = {**KNOWN, "action": {"play"}, "unfilled": {"progress", "device"}}
OPTIONAL = ("models/every.yaml", "weight: 0.3", "weight: 0.3, optional: true")


def lines(zoo_folder: Path) -> list[str]:
    return canvas_lines(canvas_data(load_zoo(zoo_folder).model("every"), PLAIN))


def test_a_canvas_says_which_labels_have_no_events_and_what_ranks_it_without_them(zoo_folder: Path, edit: Edit) -> None:
    edit(*OPTIONAL)
    home, search = canvas_data(load_zoo(zoo_folder).model("every"), PLAIN)
    assert (home.labels, home.without_events, home.ranked_by) == (("play", "up"), ("up",), ("play",))
    assert (search.without_events, search.ranked_by) == ((), ("play",))
    assert canvas_lines([home, search]) == ["home: 1 label has no events (up); every ranks by play"]
    assert canvas_lines(canvas_data(load_zoo(zoo_folder).model("every"), KNOWN)) == []


def test_canvases_of_which_the_same_is_to_say_share_a_line(zoo_folder: Path, edit: Edit) -> None:
    edit(*OPTIONAL)
    edit("canvases/search.yaml", "blend: {play: 1.0}", "blend: {play: 0.5, up: 0.5}")
    assert lines(zoo_folder) == ["home, search: 1 label has no events (up); every ranks by play"]


def test_a_canvas_that_nothing_is_left_to_rank_is_said_to_go(zoo_folder: Path, edit: Edit) -> None:
    edit(*OPTIONAL)
    edit("canvases/search.yaml", "blend: {play: 1.0}", "blend: {up: 1.0}")
    assert lines(zoo_folder)[1] == "search: 1 label has no events (up); every is trained without this canvas"


def test_a_model_that_cannot_do_without_a_label_is_said_to_be_untrainable(zoo_folder: Path) -> None:
    assert lines(zoo_folder) == [
        "home: 1 label has no events (up); every cannot be trained",
        "every cannot be trained on this log: its head 'up' is not optional, and the data has no action 'thumbs_up'",
    ]


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("progress >= 0.1", "no event has a value of 'progress'"),
        ("not progress >= 0.1 and canvas = 'home'", ""),
        ("progress >= 0.1 or prior_plays_of_title = 0", ""),
        ("canvas = 'kids'", "no event matches `canvas = 'kids'`"),
        ("canvas in ('kids', 'home')", ""),
        ("canvas in ('kids', 'tv')", "no event matches `canvas in ('kids', 'tv')`"),
        ("canvas not in ('kids', 'tv')", ""),
        ("canvas != 'kids'", ""),
        ("device in ('tv', 'phone')", "no event has a value of 'device'"),
    ],
)
def test_a_condition_that_no_event_can_meet_leaves_a_label_without_events(
    zoo_folder: Path, edit: Edit, where: str, reason: str
) -> None:
    edit(*OPTIONAL)
    edit("labels/play.yaml", "prior_plays_of_title = 0", where)
    found = lines(zoo_folder)
    assert found[-1].endswith(f"its head 'play' is not optional, and {reason}" if reason else "every ranks by play")


def test_a_column_without_a_value_is_noted_where_a_label_reads_it(zoo_folder: Path, edit: Edit) -> None:
    edit("labels/play.yaml", "prior_plays_of_title = 0", "progress >= 0.1")
    _, notes, of_labels = check_values(load_zoo(zoo_folder).index, PLAIN)
    assert notes == []
    assert "labels/play.yaml:4:29: from.where: no event has a value of 'progress'." in str(of_labels[0])


def test_values_are_those_of_the_tables() -> None:
    titles = pl.DataFrame({"kind": ["film"], "genres": [["Drama", "War"]], "countries": [["US"]], "characters": [None]})
    log = pl.LazyFrame({"action": ["play", "play"], "canvas": ["home", "tab"], "country": ["US", None]})
    found = known_values(titles, log)
    assert found["genres"] == {"Drama", "War"}
    assert (found["origin"], found["canvas"], found["country"]) == ({"US"}, {"home", "tab"}, {"US"})
    assert "device" not in found
    assert {"device", "progress"} <= found["unfilled"]
    assert not {"action", "canvas", "country"} & found["unfilled"]
    assert "characters" not in found, "of what no title has, nothing is known"


def test_without_data_the_remedy_is_named(zoo_folder: Path) -> None:
    folder = zoo_folder.parent
    (folder / "playbill.toml").write_text("")
    (folder / "feature_repo").mkdir()
    (folder / "feature_repo" / "services.py").write_text("every = FeatureService(name='every_v1', features=[])\n")
    result = CliRunner().invoke(main, ["--project", str(folder), "check", "--data"])
    assert (result.exit_code, "ingest" in result.output) == (1, True), result.output
