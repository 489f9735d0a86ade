"""`playbill ledger` on a simulated workspace, from its tables to the line a script reads and the run in MLflow."""

from __future__ import annotations

import json
import shutil

import pytest

from fixtures.small_project import Shell, start
from playbill.definitions.specs.measures import BESIDE

SIZES = (
    "--canvases",
    "home,billboard,search,row_ranking",
    "--seeds",
    "17,18",
    "--epochs",
    1,
    "--min-steps",
    2,
    "--dim",
    16,
    "--minimum-members",
    5,
    "--threads",
    1,
)


@pytest.fixture(scope="module")
def shell(tmp_path_factory, migrated_mlflow):
    """A project whose workspace was simulated, with features."""
    folder = start(tmp_path_factory.mktemp("ledger") / "project").folder
    made = Shell(folder)
    made.json("simulate", "--members", 300, "--days", 21, "--titles", 90, "--seed", 3)
    shutil.copyfile(migrated_mlflow, folder / ".playbill" / "mlflow.db")
    for command in (("apply",), ("features", "build")):
        assert made.type(*command).exit_code == 0
    return made


@pytest.fixture(scope="module")
def found(shell):
    result = shell.type("ledger", "everycanvas", *SIZES, "--plots", shell.folder / "plots", "--json")
    assert result.exit_code == 0, result.output
    assert "separate/home-17" in result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_every_canvas_has_both_models_and_an_interval(found) -> None:
    assert {"home", "billboard", "search", "row_ranking"} <= set(found["canvases"])
    for row in found["canvases"].values():
        assert 0 <= row["consolidated"] <= 1
        assert row["interval"][0] <= row["relative"] <= row["interval"][1]
        assert row["relative"] == pytest.approx(row["consolidated"] / row["separate"] - 1)
        assert row["logged"]
    relatives = {canvas: row["relative"] for canvas, row in found["canvases"].items()}
    assert found["worst_relative"] == min(relatives.values()) == relatives[found["worst_canvas"]]
    assert set(found["parity"]) | set(found["not_at_parity"]) == set(relatives)


def test_baselines_stand_beside_every_canvas_and_say_where_the_one_model_is_behind(found) -> None:
    behind = {}
    for canvas, row in found["canvases"].items():
        expected = {"as_written", "as_logged", "popular_rows"} if canvas == "row_ranking" else set(BESIDE)
        assert set(row["baselines"]) == expected
        for one in row["baselines"].values():
            assert one["lead"] == pytest.approx(row["consolidated"] - one["quality"])
            assert one["interval"][0] <= one["lead"] <= one["interval"][1]
        behind[canvas] = [name for name, one in row["baselines"].items() if one["interval"][0] <= 0]
    assert found["not_ahead"] == {canvas: names for canvas, names in behind.items() if names}
    assert found["not_ahead"], "sixteen numbers wide and one pass over 300 members"


def test_costs_are_those_of_the_models_that_were_trained(found) -> None:
    one, many = found["costs"]["consolidated"], found["costs"]["separate"]
    assert found["parameter_ratio"] == pytest.approx(one["parameters"] / many["parameters"])
    assert found["train_ratio"] == pytest.approx(one["cpu_seconds"] / many["cpu_seconds"])
    tasks = sum(costs["parameters"] for costs in found["tasks"].values())
    assert tasks > 0
    assert many["parameters"] == tasks + sum(row["costs"]["parameters"] for row in found["canvases"].values())
    models = len(found["canvases"]) + len(found["tasks"])
    assert 1 / models <= found["parameter_ratio"] < 1.2 / models


def test_the_result_is_in_mlflow_and_drawn(shell, found) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{shell.folder / '.playbill' / 'mlflow.db'}")
    kept = client.get_run(found["run_id"])
    assert kept.data.metrics["worst_relative"] == pytest.approx(found["worst_relative"])
    assert {path.name for path in (shell.folder / "plots").iterdir()} == {"ledger_canvases.png", "ledger_costs.png"}


def test_what_was_finished_is_not_trained_again(shell, found) -> None:
    result = shell.type("ledger", "everycanvas", *SIZES, "--no-log", "--json")
    again = json.loads(result.stdout.strip().splitlines()[-1])
    assert again["canvases"] == found["canvases"]
    assert "separate/home-17" not in result.output


def test_a_part_by_another_name_is_refused(shell) -> None:
    result = shell.type("ledger", "everycanvas", "--parts", "canvas")
    assert result.exit_code == 1
    assert "'canvas'" in result.output
    assert "canvases" in result.output
