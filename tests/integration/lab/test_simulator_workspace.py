"""A simulated workspace goes the way of any other: features, a training set, a model, its measures, its answers."""

import json
import shlex
import shutil
import sqlite3

import polars as pl
import pytest

from fixtures.docs_commands import command_lines
from fixtures.small_project import Shell, start
from playbill.tables import Tables
from playbill_lab.simulator import simulate
from playbill_lab.simulator.world.checkpoint import read_world

SIMULATE = ("simulate", "--members", 640, "--days", 28, "--titles", 90, "--seed", 3)


@pytest.fixture(scope="module")
def shell(tmp_path_factory, migrated_mlflow):
    """A project whose workspace was simulated, with features."""
    folder = start(tmp_path_factory.mktemp("simulated") / "project").folder
    made = Shell(folder)
    made.edit("model_zoo/models/everycanvas/model.yaml", "min_steps: 80", "min_steps: 20")
    made.edit("model_zoo/models/everycanvas/model.yaml", "epochs: 6", "epochs: 1")
    made.json(*SIMULATE)
    shutil.copyfile(migrated_mlflow, folder / ".playbill" / "mlflow.db")
    for command in (("apply",), ("features", "build"), ("materialize",)):
        assert made.type(*command).exit_code == 0
    return made


@pytest.fixture(scope="module")
def trained(shell):
    return shell.json("train", "everycanvas")


@pytest.fixture(scope="module")
def later(shell, trained):
    """A second version, of which the last days were held out."""
    return shell.json("train", "everycanvas", "--protocol", "global_time")


def test_the_tables_are_the_log_of_the_world_beside_them(shell):
    world = read_world(shell.home)
    again = simulate(world, keep_log=True).interactions
    stored = Tables(shell.workspace).interactions().select(again.columns).sort("member_id", "seq")
    assert stored.height > 5_000
    assert stored.equals(again.cast(dict(stored.schema)))


def test_a_training_set_has_examples_of_the_models_canvases(shell):
    built = shell.json("dataset", "build", "everycanvas")
    assert built["rows"] > 300
    used = pl.read_parquet(f"{built['folder']}/entities.parquet").select("event_id").unique()
    canvases = Tables(shell.workspace).interactions().join(used, on="event_id")["canvas"]
    assert {"home", "billboard", "search", "more_like_this"} <= set(canvases)


def test_a_model_is_trained_and_measured(shell, trained):
    result = shell.type("evaluate", f"everycanvas:{trained['version']}", "--no-log", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert found["n"] > 15
    assert found["hr@10"] > found["baselines"]["popular"]["hr@10"]


def test_a_trained_model_answers_members_of_the_world(shell, trained):
    shell.json("promote", f"everycanvas:{trained['version']}")
    world = read_world(shell.home)
    member = Tables(shell.workspace).interactions()["member_id"][0]
    found = shell.json("recommend", "--member", member, "--canvas", "home", "-k", 5)
    titles = [item["title_id"] for item in found["items"]]
    assert len(set(titles)) == 5
    assert set(titles) <= set(world.title_ids)


def test_commands_of_the_docs_about_off_policy_estimates_run(shell, later, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [words for _, words in command_lines() if words[:3] == ["-w", "simulated", "offpolicy"]]
    lines = {shlex.join(words[2:]) for words in found if "NAME" not in words}
    assert len(lines) > 2
    for line in sorted(lines):
        # The log of 640 members is too short for the number of lists that an estimate is trusted from.
        words = [
            f"everycanvas:{later['version']}" if word.startswith("everycanvas") else word for word in shlex.split(line)
        ]
        result = shell.type(*words, "--floor", 1, "--coverage", 0, "--no-log")
        assert result.exit_code == 0, f"{line}\n{result.output}"
        assert "estimate" in result.output or "snips" in result.output, result.output


def test_rows_are_ranked_measured_and_explained(shell, later):
    """The canvas `row_ranking` needs nothing of its own but its file."""
    reference = f"everycanvas:{later['version']}"
    result = shell.type("evaluate", reference, "--canvas", "row_ranking", "--no-log", "--json")
    assert result.exit_code == 0, result.output
    assert "row_play" in result.output
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert set(found["baselines"]) == {"as_written", "popular_rows", "as_logged"}
    assert found["n"] > 10
    assert 0 < found["baselines"]["popular_rows"]["ndcg@10"] < 1
    member = Tables(shell.workspace).interactions()["member_id"][0]
    ranked = shell.json(
        "recommend", "--member", member, "--canvas", "row_ranking", "--version", later["version"], "-k", 3
    )
    assert (ranked["policy"], ranked["items"]) == ("model", [])
    scores = [row["score"] for row in ranked["rows"]]
    assert len(scores) > 4
    assert scores == sorted(scores, reverse=True)
    names = {row["row_id"].partition(":")[0] for row in ranked["rows"]}
    assert {"top_picks", "popular"} <= names


def test_one_row_is_measured_over_its_own_candidates(shell, trained):
    """Nothing of it is recorded, so that no gate can read it; unknown rows are refused with the nearest name."""

    def measured(*arguments):
        result = shell.type("evaluate", f"everycanvas:{trained['version']}", *arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.strip().splitlines()[-1])

    runs = mlflow_runs(shell)
    row = measured("--row", "top_picks")
    assert (row["canvas"], row["row"], row["label"], row["run_id"]) == ("home", "top_picks", "discovery_play", None)
    assert row["n"] > 0
    assert {"popular", "popular_7d", "item_knn", "ease"} <= set(row["baselines"])
    weekly = measured("--row", "popular", "--baselines", "popular_7d")
    assert "row 'popular': ranked by the policy popular_7d" in weekly["notes"][0]
    assert mlflow_runs(shell) == runs
    shell.refused(
        "evaluate", "everycanvas", "--row", "top_pick", match="unknown row 'top_pick'. Did you mean 'top_picks'"
    )


def mlflow_runs(shell) -> int:
    """Return how many runs MLflow has."""
    with sqlite3.connect(shell.folder / ".playbill" / "mlflow.db") as database:
        return database.execute("select count(*) from runs").fetchone()[0]
