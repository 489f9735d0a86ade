"""`playbill features build`, `apply` and `materialize` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from playbill.cli.main import main
from playbill.config import Workspace


def run(workspace: Workspace, *words: str, status: int = 0) -> str:
    project = str(workspace.project.root)
    result = CliRunner().invoke(main, ["--project", project, "-w", workspace.name, *words])
    assert result.exit_code == status, result.output
    return result.output


def last_object(output: str) -> dict:
    return json.loads(output.strip().splitlines()[-1])


def test_build_apply_materialize_in_a_row(own: Workspace) -> None:
    built = last_object(run(own, "features", "build", "--json"))
    assert {view["view"] for view in built["views"]} >= {"member_activity", "title_popularity"}
    applied = last_object(run(own, "apply", "--json"))
    assert applied["services"] == [
        "everycanvas_v1",
        "everycanvas_v2",
        "everycanvas_v3",
        "everycanvas_v4",
        "title_country_v1",
    ]
    assert Path(applied["feature_store"]).is_file()
    done = last_object(run(own, "materialize", "--json", "--until", "2024-02-01T00:00:00Z"))
    assert done["until"] == "2024-02-01T00:00:00+00:00"
    empty = {view["view"] for view in done["views"] if not view["rows"]}
    assert empty == {"title_anticipation"}, "the log has nothing of what it counts"


def test_tables_name_every_view(own: Workspace) -> None:
    assert "title_popularity" in run(own, "features", "build")
    assert "everycanvas_v1" in run(own, "apply")
    assert "member_profile" in run(own, "materialize")


def test_builds_say_what_was_done_and_why(own: Workspace) -> None:
    again = last_object(run(own, "features", "build", "--json"))
    assert {(view["how"], view["written"]) for view in again["views"]} == {("unchanged", 0)}
    full = last_object(run(own, "features", "build", "--json", "--full"))
    assert {(view["how"], view["why"]) for view in full["views"]} == {("built", "as asked")}
    assert full["seconds"] > 0
    later = last_object(run(own, "features", "build", "--json", "--until", "2024-03-09T00:00:00Z"))
    how = {view["view"]: view["how"] for view in later["views"]}
    assert (how["member_activity"], how["member_profile"]) == ("increment", "unchanged")
    assert later["until"] == "2024-03-09T00:00:00+00:00"
    assert "built: as asked" in run(own, "features", "build", "--full")


def test_a_backfill_is_of_weeks_and_of_the_views_named(own: Workspace) -> None:
    words = ("features", "backfill", "--weeks", "2")
    assert last_object(run(own, *words, "--json"))["views"] == []
    requested = last_object(run(own, *words, "--views", "member_genres", "--views", "title_popularity", "--json"))
    assert [(view["view"], view["how"]) for view in requested["views"]] == [
        ("member_genres", "backfilled"),
        ("title_popularity", "backfilled"),
    ]
    assert "Did you mean 'member_genres'" in run(own, *words, "--views", "member_genre", status=1)
    assert "0 is not in the range" in run(own, "features", "backfill", "--weeks", "0", status=2)


def test_an_empty_workspace_names_the_command(own: Workspace) -> None:
    empty = own.project.workspace("empty")
    assert "playbill -w empty ingest" in run(empty, "features", "build", status=1)
    assert "playbill -w empty ingest" in run(empty, "materialize", status=1)
    assert "playbill -w own apply" in run(own, "materialize", status=1)


def test_a_moment_without_a_zone_is_refused(own: Workspace) -> None:
    assert "has no time zone" in run(own, "materialize", "--until", "2024-02-01", status=1)


@pytest.mark.parametrize(
    "command",
    [["apply"], ["features"], *(["features", name] for name in ("build", "backfill", "push")), ["materialize"]],
)
def test_help_shows_an_example(command: list[str]) -> None:
    assert "Example: playbill" in CliRunner().invoke(main, [*command, "--help"]).output
