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
from playbill.definitions.zoo.value_checks import check_values

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
    mistakes, notes = check_values(load_zoo(zoo_folder).index, KNOWN)
    assert next(str(one) for one in mistakes).endswith(expected)
    assert (len(mistakes), notes) == (1, [])


def test_a_value_that_the_data_does_not_have_is_a_note(zoo_folder: Path, edit: Edit) -> None:
    edit("rows/again.yaml", "{watched: true}", "{kind: [game], origin: [XX], original_language: [xx]}")
    mistakes, notes = check_values(load_zoo(zoo_folder).index, KNOWN)
    assert mistakes == []
    assert [str(note).rpartition(": ")[2] for note in notes] == [
        "the data has no kind 'game'.",
        "the data has no origin 'XX'.",
    ], "nothing is known of languages"


def test_values_are_those_of_the_tables() -> None:
    titles = pl.DataFrame({"kind": ["film"], "genres": [["Drama", "War"]], "countries": [["US"]], "characters": [None]})
    log = pl.LazyFrame({"action": ["play", "play"], "canvas": ["home", "tab"], "country": ["US", None]})
    found = known_values(titles, log)
    assert found["genres"] == {"Drama", "War"}
    assert (found["origin"], found["canvas"], found["country"]) == ({"US"}, {"home", "tab"}, {"US"})
    assert "device" not in found
    assert "characters" not in found, "of what no title has, nothing is known"


def test_without_data_the_remedy_is_named(zoo_folder: Path) -> None:
    folder = zoo_folder.parent
    (folder / "playbill.toml").write_text("")
    (folder / "feature_repo").mkdir()
    (folder / "feature_repo" / "services.py").write_text("every = FeatureService(name='every_v1', features=[])\n")
    result = CliRunner().invoke(main, ["--project", str(folder), "check", "--data"])
    assert (result.exit_code, "ingest" in result.output) == (1, True), result.output
