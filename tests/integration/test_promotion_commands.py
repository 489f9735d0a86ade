from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from playbill.cli.main import main
from playbill.config import Workspace
from playbill.versions.tracking import Tracking

Bundle = Callable[..., Path]
GATES = '{"metric": "ndcg@10", "canvas": "home", "tolerance": "-1%"}'


@pytest.fixture
def tracking(
    mlflow_workspace: Workspace,
    tracking_of: Callable[[Workspace], Tracking],
    tiny_digest: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Tracking:
    """Commands make their own Tracking and read the gates from the bundle; stand-in bundles need both replaced."""
    from playbill.definitions.specs import GateSpec
    from playbill.versions.promotion import controller

    monkeypatch.setitem(Tracking.__init__.__kwdefaults__, "verify", tiny_digest)
    gates = (GateSpec.model_validate_json(GATES),)
    monkeypatch.setitem(controller.Controller.__init__.__kwdefaults__, "gates_of", lambda _: gates)
    return tracking_of(mlflow_workspace)


def train(tracking: Tracking, bundle: Bundle, ndcg: float) -> int:
    tags = {"playbill.protocol": "leave_one_out", "playbill.split_digest": "s"}
    with tracking.start_run("everycanvas", "fit") as run:
        return tracking.register(run, bundle(str(ndcg)), "everycanvas", tags, {"home/ndcg@10": ndcg})


def playbill(tracking: Tracking, *words: str) -> Result:
    root = str(tracking.workspace.project.root)
    return CliRunner().invoke(main, ["--project", root, "-w", "ml", *words])


def last(result: Result) -> dict[str, object]:
    found: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_promote_rollback_and_controller_from_the_shell(tracking: Tracking, tiny_bundle: Bundle) -> None:
    for ndcg in (0.2, 0.3, 0.1):
        train(tracking, tiny_bundle, ndcg)
    first = playbill(tracking, "promote", "everycanvas:1")
    assert first.exit_code == 0, first.output
    assert "everycanvas:1 approved: first promotion" in first.output

    better = playbill(tracking, "promote", "everycanvas:2", "--json")
    assert (better.exit_code, last(better)["verdict"]) == (0, "approved")
    again = playbill(tracking, "promote", "everycanvas@champion")
    assert "unchanged" in again.output

    worse = playbill(tracking, "promote", "everycanvas")
    assert worse.exit_code == 1
    assert "everycanvas:3 rejected" in worse.output
    assert "0.2970" in worse.output
    assert tracking.aliases("everycanvas") == {"champion": 2, "previous": 1}

    back = playbill(tracking, "rollback", "everycanvas", "--json")
    assert (back.exit_code, last(back)["version"], last(back)["kind"]) == (0, 1, "rollback")

    assert playbill(tracking, "controller", "--once").output.strip() == "nothing to decide"
    tracking.set_alias("everycanvas", "champion", 3)
    once = playbill(tracking, "controller", "--once", "--json")
    (row,) = last(once)["decisions"]  # type: ignore[misc]
    assert (row["version"], row["verdict"]) == (3, "rejected")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("promote", "everycanvs"), "Did you mean 'everycanvas'"),
        (("promote", "everycanvas:9"), "unknown version"),
        (("promote", "everycanvas@chalenger"), "unknown alias"),
        (("rollback", "everycanvas"), "no earlier champion"),
        (("rollback", "everycanvs"), "Did you mean 'everycanvas'"),
    ],
)
def test_mistakes_are_one_line_and_exit_status_1(
    tracking: Tracking, tiny_bundle: Bundle, words: tuple[str, ...], message: str
) -> None:
    train(tracking, tiny_bundle, 0.2)
    result = playbill(tracking, *words)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("words", [("promote", "everycanvas"), ("rollback", "everycanvas"), ("controller", "--once")])
def test_an_unreachable_mlflow_is_one_line(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "playbill.toml").write_text('[services]\nmlflow = "http://127.0.0.1:9"\n')
    result = CliRunner().invoke(main, ["--project", str(tmp_path), *words])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: MLflow at http://127.0.0.1:9 cannot be reached")
    assert len(result.stderr.splitlines()) == 1
