"""Logs of every shape that somebody may bring on the first day: each is served, or refused in one sentence."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures import plain_logs as logs
from fixtures.plain_logs import PlainLog
from fixtures.small_project import Playbill, Shell, start

TINY = {"trunk": {"dim": 16, "layers": 1}, "training": {"epochs": 1, "min_steps": 10, "max_epochs": 1}}
CANVASES = ["home", "more_like_this", "search"]
K = 5
RETURNS = r"^{} of {} plays \(\d+%\) are of a title that the member had played before: canvases with `watched: false`"
TIED = r"^{} of {} plays .* share their moment with another play of the member"
NO_PROGRESS = r"^no play says how much of the title was watched: .* map it, or `progress: \{constant: 1.0\}`"


@dataclass(frozen=True)
class Case:
    """A log, and what becomes of it."""

    log: Callable[[], PlainLog]
    notes: tuple[str, ...] = ()
    """What the ingest says of it, a pattern for each sentence; it says no more."""
    refused: tuple[str, str] | None = None
    """Command that refuses it, and the pattern of its sentence."""
    said: str = ""
    """What the report of the model's first canvas has to say."""
    set_aside: int = 0
    """Rows of the log that are set aside."""
    model: str = "everycanvas"
    protocol: str = "leave_one_out"
    home: str = ""
    """Pattern of the note where the first member has no title left for home."""


ALL_RETURNS = (
    "each of its 30 plays is of a title that the member had played before; measure such a log on a canvas that shows "
    "watched titles and whose metric counts every play, such as next_play"
)
CASES = {
    "plain": Case(logs.plain),
    "some members return": Case(logs.ratings, said=r"10 of 30 held-out plays are of titles that the member had played"),
    "all members return": Case(
        logs.returning, notes=(RETURNS.format(150, 240),), refused=("train", f"leave_one_out.*{ALL_RETURNS}")
    ),
    "all members return, every play counts": Case(
        logs.returning, notes=(RETURNS.format(150, 240),), model="foundation"
    ),
    "everything watched": Case(
        logs.everything_watched, home=r"no candidates after filtering \(rule `watched: false`\)"
    ),
    "one country": Case(logs.one_country),
    "no countries": Case(logs.no_countries),
    "one kind": Case(logs.one_kind),
    "no genres": Case(logs.no_genres),
    "no names": Case(logs.no_names),
    "only plays": Case(logs.only_plays),
    "no progress": Case(
        logs.no_progress,
        notes=(NO_PROGRESS,),
        refused=("train", "label discovery_play: column 'progress' of the log is empty.* Map 'progress' at the ingest"),
    ),
    "three members": Case(lambda: logs.plain(members=3)),
    "one member": Case(lambda: logs.plain(members=1), said="not ahead of popular"),
    "one play a member": Case(
        lambda: logs.plain(plays=1),
        refused=("train", "nothing to hold out; a member needs three plays.* Train with --protocol global_time_period"),
    ),
    "one play a member, by time": Case(lambda: logs.plain(plays=1), protocol="global_time_period"),
    "one moment": Case(
        logs.one_moment, notes=(TIED.format(240, 240),), said="30 of 30 held-out plays .* share their moment"
    ),
    "one moment, by time": Case(
        logs.one_moment,
        notes=(TIED.format(240, 240),),
        protocol="global_time_period",
        refused=("train", "share one moment.* so there is no time to cut at"),
    ),
    "days only": Case(logs.days_only, notes=(TIED.format(164, 240),), said="17 of 30 held-out plays"),
    "beyond ascii": Case(logs.beyond_ascii),
    "large numbers": Case(logs.large_numbers),
    "title not listed": Case(
        logs.title_not_listed, refused=("ingest", r"title_id: a title that is not in titles in 11 rows\. Add it there")
    ),
    "title never played": Case(logs.never_played),
    "1970": Case(logs.of_1970, notes=("^all events are in or before 1970, as where seconds are read as milliseconds",)),
    "future": Case(logs.of_the_future, refused=("ingest", r"event_at: a moment after the clock \(.*\) in 240 rows")),
    "milliseconds": Case(
        logs.milliseconds, refused=("ingest", r"whose year would be 56,315.* Did you mean as: epoch_milliseconds\?")
    ),
    "null ids": Case(
        logs.null_ids, refused=("ingest", r"member_id: null in 5 rows.*title_id: no title for an action .* in 5 rows")
    ),
    "null ids, set aside": Case(logs.set_aside, set_aside=20),
    "every row twice": Case(
        logs.doubled,
        notes=(r"^240 events .* where they are copies, leave them out of the file", TIED.format(480, 480)),
        refused=("train", ALL_RETURNS),
    ),
    "every row twice, by time": Case(
        logs.doubled,
        notes=("^240 events with the member, title, action and moment", TIED.format(480, 480)),
        protocol="global_time_period",
    ),
}


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path) -> Playbill:
    """A project with small models and everything that no log changes: features registered, MLflow migrated."""
    folder = tmp_path_factory.mktemp("plain") / "project"
    project = start(folder)
    for model in ("everycanvas", "foundation"):
        path = folder / "model_zoo" / "models" / model / "model.yaml"
        definition = yaml.safe_load(path.read_text())
        for block, keys in TINY.items():
            definition[block] |= keys
        definition["evaluate"] |= {"slices": ["country"], "protocol": "leave_one_out"}
        if model == "everycanvas":
            definition["canvases"] = CANVASES
        path.write_text(yaml.safe_dump(definition))
    assert Shell(folder).type("apply").exit_code == 0
    shutil.copyfile(migrated_mlflow, project.home.parent / "mlflow.db")
    return project


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_plain_log_is_served_or_refused_in_one_sentence(case: Case, registered: Playbill, tmp_path: Path) -> None:
    registered.copy_with_models(tmp_path / "project")
    shell, log = Shell(tmp_path / "project"), case.log()
    mapping = log.write(tmp_path / "data")
    ingest = ("ingest", "parquet", tmp_path / "data", "--mapping", mapping)
    train = ("train", case.model, "--protocol", case.protocol)
    command, sentence = case.refused or ("", "")
    if command == "ingest":
        assert_refused(shell, ingest, sentence)
        return
    assert_ingested(read(shell, *ingest), log, case)
    read(shell, "features", "build")
    read(shell, "materialize")
    assert read(shell, "check", "--data")["ok"]
    if command == "train":
        assert_refused(shell, train, sentence)
        return
    assert_trained(shell, read(shell, *train), case)
    assert "approved" in str(read(shell, "promote", f"{case.model}:1"))
    assert_answers(shell, log, case)


def read(shell: Shell, *command: Any) -> dict[str, Any]:
    """Run a command without a warning, and return its JSON, in which nothing is NaN."""
    result = shell.type(*command, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "Traceback" not in result.output
    assert "Warning" not in result.stderr

    def refuse(constant: str) -> None:
        raise AssertionError(f"{command[0]} prints {constant}")

    found: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1], parse_constant=refuse)
    return found


def assert_refused(shell: Shell, command: tuple[Any, ...], sentence: str) -> None:
    """Check that a command ends with one error of that sentence, and writes nothing."""
    before = files(shell)
    shell.refused(*command, match=f"(?s){sentence}")
    assert files(shell) == before
    assert not (shell.home.parent / "mlflow_artifacts").exists()


def files(shell: Shell) -> set[str]:
    """Return what lies in the workspace, without locks."""
    return {name for name in shell.tree() if not name.endswith(".lock")}


def assert_ingested(report: dict[str, Any], log: PlainLog, case: Case) -> None:
    """Check that all plays came in but those set aside, and that what is odd about them was said, and no more."""
    assert report["actions"]["play"] == log.plays.height - case.set_aside
    assert sum(table["rows"] for table in report["set_aside"].values()) == case.set_aside
    assert len(report["notes"]) == len(case.notes), report["notes"]
    for note, pattern in zip(report["notes"], case.notes, strict=True):
        assert re.search(pattern, note), note


def assert_trained(shell: Shell, outcome: dict[str, Any], case: Case) -> None:
    """Check that every canvas that can be has been measured, with a report that says what it has to."""
    artifacts = shell.home.parent / "mlflow_artifacts" / "small" / case.model / outcome["run_id"] / "artifacts"
    assert outcome["protocol"] == case.protocol
    assert (artifacts / "evaluation" / "report.html").stat().st_size > 0
    first, metrics = next(iter(outcome["canvases"].items()))
    assert first == ("home" if case.model == "everycanvas" else "next_play")
    assert 0 <= metrics["ndcg@10"] <= metrics["hr@10"] <= 1
    assert outcome["features"], "no feature was tried"
    report = json.loads((artifacts / "evaluation" / first / "report.json").read_text())
    notes = [*report["notes"], f"not ahead of {', '.join(outcome['beside'][first]['not_ahead_of'])}"]
    assert re.search(case.said, "\n".join(notes)), notes


def assert_answers(shell: Shell, log: PlainLog, case: Case) -> None:
    """Check the lists and the page of a member with a history and of somebody unknown."""
    member = str(log.plays["member"].drop_nulls()[0])
    titles = [str(title) for title in log.plays.filter(log.plays["member"].cast(str) == member)["title"].drop_nulls()]
    if case.model == "foundation":
        for who in (member, "nobody"):
            assert_list(read(shell, "recommend", "--model", case.model, "--member", who, "-k", K))
        return
    name = read(shell, "recommend", "--canvas", "search", "--query", titles[0], "-k", 1)["items"][0]["name"]
    for who, watched in ((member, titles), ("nobody", [])):
        asked = ("recommend", "--member", who, "-k", K)
        home = read(shell, *asked, "--no-rows")
        if watched and case.home:
            assert home["items"] == []
            assert any(re.search(case.home, note) for note in home["notes"])
        else:
            assert not {item["title_id"] for item in assert_list(home)} & set(watched)
        found = assert_list(read(shell, *asked, "--canvas", "search", "--query", name))
        assert found[0]["name"] == name
        alike = assert_list(read(shell, *asked, "--canvas", "more_like_this", "--source-title", titles[0]))
        assert titles[0] not in {item["title_id"] for item in alike}
        page = read(shell, *asked, "--rows")
        assert len(page["rows"]) > 1
        assert all(row["title"] and row["items"] for row in page["rows"])
        assert any("nobody" in note for note in page["notes"]) == (who == "nobody")


def assert_list(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Check that the model ranked as many titles as were asked for, each once, and return them."""
    items: list[dict[str, Any]] = response["items"]
    assert response["policy"] == "model"
    assert len({item["title_id"] for item in items}) == len(items) == K
    assert all(item["name"] and math.isfinite(item["score"]) for item in items)
    return items
