from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.datasets.splits import REQUESTS
from playbill.definitions.specs import GateSpec
from playbill.errors import ServiceError, StateError, UnknownNameError
from playbill.versions.promotion import Controller, approved, promote, rollback
from playbill.versions.tracking import Tracking

Bundle = Callable[..., Path]
MODEL = "everycanvas"
GATE = GateSpec(metric="ndcg@10", canvas="home", tolerance="-1%")  # type: ignore[arg-type]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Shop:
    """A workspace with a real MLflow, versions of stand-in bundles, and a plain MLflow client beside ours."""

    def __init__(self, tracking: Tracking, bundle: Bundle) -> None:
        self.workspace, self.tracking, self.bundle = tracking.workspace, tracking, bundle
        self.controller = self.make_controller()

    def make_controller(self, gates: Sequence[GateSpec] = (GATE,), **options: Any) -> Controller:
        return Controller(self.workspace, self.tracking, gates_of=lambda _: gates, **options)

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.workspace.mlflow_uri, registry_uri=self.workspace.mlflow_uri)

    def train(self, ndcg: float, split: str = "s1", protocol: str = "leave_one_out") -> int:
        tags = {"playbill.protocol": protocol, "playbill.split_digest": split, "playbill.requests": REQUESTS}
        with self.tracking.start_run(MODEL, "fit") as run:
            folder = self.bundle(f"{ndcg} {split} {protocol}")
            return self.tracking.register(run, folder, MODEL, tags, {"home/ndcg@10": ndcg})

    def click(self, version: int, alias: str = "champion") -> None:
        """What the MLflow UI does."""
        self.client.set_registered_model_alias(f"ml.{MODEL}", alias, str(version))

    def aliases(self) -> dict[str, int]:
        return self.tracking.aliases(MODEL)

    def approved(self) -> int | None:
        found = approved(self.workspace, MODEL)
        return found.version if found else None

    def verdicts(self) -> list[str]:
        return [row.verdict for row in reversed(self.controller.log.history(MODEL))]

    def champion_of(self, ndcg: float = 0.2) -> int:
        version = self.train(ndcg)
        self.click(version)
        self.controller.poll_once()
        return version


@pytest.fixture
def shop(mlflow_workspace: Workspace, tracking_of: Callable[[Workspace], Tracking], tiny_bundle: Bundle) -> Shop:
    return Shop(tracking_of(mlflow_workspace), tiny_bundle)


def test_the_first_promotion_has_nothing_to_compare_with(shop: Shop) -> None:
    shop.click(shop.train(0.2))
    (decision,) = shop.controller.poll_once()
    assert (decision.verdict, decision.version) == ("approved", 1)
    assert "nothing to compare" in decision.reason
    pair = approved(shop.workspace, MODEL)
    assert pair is not None
    assert pair.digest == shop.tracking.version(MODEL, 1).digest
    assert shop.aliases() == {"champion": 1}
    assert shop.tracking.version(MODEL, 1).tags["playbill.promotion"].startswith("approved ")


def test_a_server_beside_it_hears_of_a_decision(shop: Shop) -> None:
    heard, stop = threading.Event(), threading.Event()
    controller = shop.make_controller(decided=heard.set)
    thread = threading.Thread(target=controller.run, args=(stop, 0.05))
    thread.start()
    try:
        time.sleep(0.2)
        assert not heard.is_set(), "nothing was decided yet"
        shop.click(shop.train(0.2))
        assert heard.wait(10)
        assert shop.approved() == 1
    finally:
        stop.set()
        thread.join()


def test_nothing_is_approved_before_an_alias_is_set(shop: Shop) -> None:
    shop.train(0.2)
    assert shop.controller.poll_once() == ()
    assert shop.approved() is None


def test_a_better_version_passes_and_the_old_champion_becomes_previous(shop: Shop) -> None:
    shop.champion_of(0.2)
    shop.click(shop.train(0.199))
    (decision,) = shop.controller.poll_once()
    assert decision.verdict == "approved"
    (gate,) = decision.gates
    assert (gate.metric, gate.value, gate.reference) == ("home/ndcg@10", 0.199, 0.2)
    assert gate.limit == pytest.approx(0.198)
    assert shop.aliases() == {"champion": 2, "previous": 1}
    assert shop.controller.poll_once() == ()


def test_a_worse_version_is_put_back_with_the_reason_on_it(shop: Shop) -> None:
    shop.champion_of(0.2)
    worse = shop.train(0.1)
    shop.client.update_model_version(f"ml.{MODEL}", str(worse), description="My own words.")
    shop.click(worse)
    (decision,) = shop.controller.poll_once()
    assert decision.verdict == "rejected"
    assert shop.aliases() == {"champion": 1}
    assert shop.approved() == 1
    row = shop.client.get_model_version(f"ml.{MODEL}", str(worse))
    assert row.tags["playbill.promotion"].startswith("rejected ")
    assert "0.1000 is below 0.1980" in row.tags["playbill.promotion_reason"]
    why = "ndcg@10 on home is 0.1000 against 0.2000 of the champion (version 1): -50.0 %; the gate allows -1%."
    assert row.description.startswith(f"Not promoted: {why}")
    assert row.description.endswith("My own words.")
    page = shop.client.get_registered_model(f"ml.{MODEL}").description
    assert page.startswith("Version 2 was refused, ")
    assert f"{why} Version 1 stays champion." in page
    assert shop.controller.poll_once() == ()


def test_a_rejected_version_may_be_tried_again_and_its_reason_goes(shop: Shop) -> None:
    shop.champion_of(0.2)
    worse = shop.train(0.1)
    for _ in range(2):
        shop.click(worse)
        shop.controller.poll_once()
    assert shop.verdicts() == ["approved", "rejected", "rejected"]
    shop.controller.lease.release()
    shop.controller = shop.make_controller(gates=())
    shop.click(worse)
    (decision,) = shop.controller.poll_once()
    assert decision.verdict == "approved"
    version = shop.tracking.version(MODEL, worse)
    assert "playbill.promotion_reason" not in version.tags
    assert version.description == ""
    assert shop.tracking.description(MODEL).startswith("Version 2 is champion since ")


def test_what_users_write_on_pages_stays_whatever_is_decided(shop: Shop) -> None:
    shop.train(0.2)
    shop.client.update_registered_model(f"ml.{MODEL}", description="Ask Ana before you promote.")
    shop.champion_of(0.2)
    for ndcg in (0.1, 0.3):
        shop.click(shop.train(ndcg))
        shop.controller.poll_once()
        page = shop.tracking.description(MODEL)
        assert page.endswith("\n\nAsk Ana before you promote.")
        assert page.count("Ask Ana") == 1
        assert page.count("Version ") <= 2
    assert page.startswith("Version 4 is champion since ")


def test_a_first_version_that_fails_leaves_no_champion(shop: Shop) -> None:
    version = shop.train(0.2)
    shop.tracking.delete_version_tag(MODEL, version, "playbill.digest")
    shop.click(version)
    (decision,) = shop.controller.poll_once()
    assert decision.verdict == "rejected"
    assert "integrity" in decision.reason
    assert shop.aliases() == {}
    page = shop.tracking.description(MODEL)
    assert "was refused" in page
    assert "was not registered by Playbill" in page
    assert page.split("\n")[0].endswith("There is no champion.")
    assert shop.controller.poll_once() == ()


@pytest.mark.parametrize(("split", "protocol"), [("s2", "leave_one_out"), ("s1", "global_time")])
def test_numbers_of_another_protocol_or_split_are_not_compared(shop: Shop, split: str, protocol: str) -> None:
    shop.champion_of(0.2)
    shop.click(shop.train(0.9, split, protocol))
    (decision,) = shop.controller.poll_once()
    assert decision.verdict == "rejected"
    assert "not comparable" in decision.reason
    assert shop.aliases() == {"champion": 1}


def test_a_champion_measured_again_on_the_new_split_is_compared(shop: Shop) -> None:
    shop.champion_of(0.2)
    champion = shop.tracking.version(MODEL, 1)
    with shop.tracking.log_evaluation(champion, "leave_one_out", "s2", {"home/ndcg@10": 0.15}):
        pass
    shop.click(shop.train(0.16, "s2"))
    (decision,) = shop.controller.poll_once()
    assert decision.verdict == "approved"
    assert decision.gates[0].reference == pytest.approx(0.15)


def test_a_tampered_artifact_is_rejected(shop: Shop) -> None:
    shop.champion_of(0.2)
    better = shop.train(0.3)
    for stored in Path(shop.workspace.artifacts).rglob("artifacts/bundle/weights.safetensors"):
        if "0.3" in stored.read_text():
            stored.write_text("tampered")
    shop.click(better)
    (decision,) = shop.controller.poll_once()
    assert decision.verdict == "rejected"
    assert decision.reason.startswith("integrity: ")
    assert shop.aliases() == {"champion": 1}


def table_of(shop: Shop, ndcg: float) -> tuple[int, Path]:
    """Train a version whose numbers stand in a table, and return it with that table's file."""
    import polars as pl

    tags = {"playbill.protocol": "leave_one_out", "playbill.split_digest": "s1", "playbill.requests": REQUESTS}
    rows = {"request_id": ["a", "b"], "member": [0, 1], "ndcg@10": [ndcg, ndcg]}
    with shop.tracking.start_run(MODEL, "fit") as run:
        run.log_metrics({"home/ndcg@10": ndcg})
        run.log_numbers({"home/ndcg@10": ndcg, "search/ndcg@10": ndcg}, {"home": pl.DataFrame(rows)})
        version = shop.tracking.register(run, shop.bundle(f"table {ndcg}"), MODEL, tags)
    found = [path for path in Path(shop.workspace.artifacts).rglob("gates/numbers.json") if run.run_id in str(path)]
    return version, found[0]


def test_gates_read_every_number_from_the_table_of_a_run(shop: Shop) -> None:
    shop.controller = shop.make_controller((GateSpec(metric="ndcg@10", tolerance="-1%"),))  # type: ignore[arg-type]
    for ndcg in (0.2, 0.1):
        shop.click(table_of(shop, ndcg)[0])
        (decision,) = shop.controller.poll_once()
    assert decision.verdict == "rejected"
    assert {gate.metric for gate in decision.gates} == {"home/ndcg@10", "search/ndcg@10"}
    page = shop.tracking.description(MODEL)
    assert "ndcg@10 on home is 0.1000 against 0.2000 of the champion (version 1): -50.0 % [-50.0, -50.0] on 2" in page
    (home,) = [gate for gate in shop.controller.log.history(MODEL, 1)[0].gates if gate.metric == "home/ndcg@10"]
    assert home.change == pytest.approx((-0.5, -0.5, -0.5)), "paired by request, and the audit keeps it"
    assert home.members == 2


@pytest.mark.parametrize("damage", ["missing", "changed", "requests"])
@pytest.mark.parametrize("whose", ["champion", "candidate"])
def test_a_table_that_is_gone_or_changed_never_lets_a_version_pass(shop: Shop, damage: str, whose: str) -> None:
    champion, first = table_of(shop, 0.1)
    shop.click(champion)
    shop.controller.poll_once()
    better, second = table_of(shop, 0.2)
    table = first if whose == "champion" else second
    if damage == "missing":
        table.unlink()
    elif damage == "changed":
        table.write_text(table.read_text().replace("search/ndcg@10", "search/ndcg@20"))
    else:
        table.with_name("home.parquet").unlink()
    shop.click(better)
    (decision,) = shop.controller.poll_once()
    assert decision.verdict == "rejected"
    assert "integrity" in decision.reason
    assert ("was changed" if damage == "changed" else "is missing") in decision.reason
    assert shop.aliases() == {"champion": champion}


def test_a_champion_whose_numbers_are_metrics_of_its_run_is_compared_as_ever(shop: Shop) -> None:
    old = shop.champion_of(0.2)
    shop.click(table_of(shop, 0.1)[0])
    (decision,) = shop.controller.poll_once()
    assert (decision.verdict, decision.gates[0].reference) == ("rejected", 0.2)
    assert shop.aliases() == {"champion": old}


def test_a_roll_back_skips_gates_but_not_integrity(shop: Shop) -> None:
    shop.champion_of(0.1)
    shop.champion_of(0.2)
    version, decision = rollback(shop.workspace, MODEL, controller=shop.controller)
    assert decision is not None
    assert (version.version, decision.verdict, decision.kind) == (1, "approved", "rollback")
    assert shop.aliases() == {"champion": 1}
    assert shop.approved() == 1


def test_a_roll_back_to_a_tampered_version_is_refused(shop: Shop) -> None:
    import shutil

    shop.champion_of(0.1)
    shop.champion_of(0.2)
    shutil.rmtree(shop.workspace.serving)
    for stored in Path(shop.workspace.artifacts).rglob("artifacts/bundle/weights.safetensors"):
        stored.write_text("tampered")
    version, decision = rollback(shop.workspace, MODEL, controller=shop.controller)
    assert decision is not None
    assert (version.version, decision.verdict) == (1, "rejected")
    assert shop.aliases()["champion"] == 2


def test_two_roll_backs_go_two_champions_back(shop: Shop) -> None:
    for ndcg in (0.1, 0.2, 0.3):
        shop.champion_of(ndcg)
    rollback(shop.workspace, MODEL, controller=shop.controller)
    assert shop.aliases() == {"champion": 2, "previous": 1}
    rollback(shop.workspace, MODEL, controller=shop.controller)
    assert shop.aliases() == {"champion": 1}
    with pytest.raises(StateError, match="no earlier champion"):
        rollback(shop.workspace, MODEL, controller=shop.controller)


def test_a_roll_back_passes_over_a_deleted_version(shop: Shop) -> None:
    for ndcg in (0.1, 0.2, 0.3):
        shop.champion_of(ndcg)
    shop.client.delete_model_version(f"ml.{MODEL}", "2")
    version, decision = rollback(shop.workspace, MODEL, controller=shop.controller)
    assert decision is not None
    assert (version.version, decision.verdict) == (1, "approved")


def test_a_roll_back_by_alias_in_the_ui_counts_as_one(shop: Shop) -> None:
    shop.champion_of(0.1)
    shop.champion_of(0.2)
    shop.click(1)
    (decision,) = shop.controller.poll_once()
    assert (decision.verdict, decision.kind) == ("approved", "rollback")


def test_a_deleted_champion_stays_served_and_raises_one_alarm(shop: Shop) -> None:
    version = shop.champion_of(0.2)
    shop.client.delete_model_version(f"ml.{MODEL}", str(version))
    (alarm,) = shop.controller.poll_once()
    assert alarm.verdict == "alarm"
    assert shop.controller.poll_once() == ()
    assert shop.approved() == version


def test_a_deleted_alias_raises_an_alarm_and_its_return_ends_it(shop: Shop) -> None:
    version = shop.champion_of(0.2)
    shop.client.delete_registered_model_alias(f"ml.{MODEL}", "champion")
    shop.controller.poll_once()
    shop.click(version)
    shop.controller.poll_once()
    shop.client.delete_registered_model_alias(f"ml.{MODEL}", "champion")
    shop.controller.poll_once()
    assert shop.verdicts() == ["approved", "alarm", "recovered", "alarm"]
    assert shop.approved() == version


def test_a_deleted_registered_model_raises_an_alarm(shop: Shop) -> None:
    shop.champion_of(0.2)
    shop.client.delete_registered_model(f"ml.{MODEL}")
    (alarm,) = shop.controller.poll_once()
    assert alarm.verdict == "alarm"
    assert shop.approved() == 1


def test_after_the_champion_was_deleted_another_is_still_measured_against_it(shop: Shop) -> None:
    shop.champion_of(0.2)
    shop.client.delete_model_version(f"ml.{MODEL}", "1")
    shop.controller.poll_once()
    shop.click(shop.train(0.1))
    (worse,) = shop.controller.poll_once()
    assert worse.verdict == "rejected"
    shop.click(shop.train(0.3))
    (better,) = shop.controller.poll_once()
    assert better.verdict == "approved"
    assert shop.aliases() == {"champion": 3}


def test_of_two_controllers_one_acts_until_its_lease_ends(shop: Shop) -> None:
    first = shop.make_controller(clock=FixedClock(NOON), holder="first")
    second = shop.make_controller(clock=FixedClock(NOON), holder="second")
    shop.click(shop.train(0.2))
    assert len(first.poll_once()) == 1
    shop.click(shop.train(0.3))
    assert second.poll_once() == ()
    assert shop.approved() == 1
    second.clock = second.lease.clock = FixedClock(NOON + timedelta(seconds=31))
    (decision,) = second.poll_once()
    assert (decision.version, decision.decided_by) == (2, "second")
    assert first.poll_once() == ()


def test_two_controllers_at_once_decide_once(shop: Shop) -> None:
    shop.click(shop.train(0.2))
    found: list[Any] = []
    controllers = [shop.make_controller() for _ in range(3)]
    threads = [
        threading.Thread(target=lambda one=one: found.extend(one.poll_once()))  # type: ignore[misc]
        for one in controllers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert shop.verdicts() == ["approved"]


def test_promote_waits_for_the_controller_that_holds_the_lease(shop: Shop) -> None:
    running = shop.make_controller(holder="running")
    assert running.lease.acquire()
    stop = threading.Event()
    thread = threading.Thread(target=running.run, args=(stop, 0.05))
    version = shop.train(0.2)
    thread.start()
    try:
        found, decision = promote(shop.workspace, MODEL, controller=shop.make_controller())
    finally:
        stop.set()
        thread.join()
    assert decision is not None
    assert (found.version, decision.verdict, decision.decided_by) == (version, "approved", "running")
    assert running.lease.current() is None


def test_promote_says_who_does_not_decide(shop: Shop) -> None:
    assert shop.make_controller(holder="asleep").lease.acquire()
    shop.train(0.2)
    with pytest.raises(StateError, match="asleep"):
        promote(shop.workspace, MODEL, controller=shop.controller, wait_seconds=0.3)


def test_promoting_the_champion_again_changes_nothing(shop: Shop) -> None:
    shop.train(0.2)
    assert promote(shop.workspace, MODEL, controller=shop.controller)[1] is not None
    version, decision = promote(shop.workspace, "everycanvas:1", controller=shop.controller)
    assert (version.version, decision) == (1, None)


def test_promoting_what_does_not_exist_changes_nothing(shop: Shop) -> None:
    shop.champion_of(0.2)
    with pytest.raises(UnknownNameError):
        promote(shop.workspace, "everycanvas:9", controller=shop.controller)
    assert shop.aliases() == {"champion": 1}


def test_run_picks_up_an_alias_set_by_a_plain_client(shop: Shop) -> None:
    version = shop.train(0.2)
    stop = threading.Event()
    thread = threading.Thread(target=shop.controller.run, args=(stop, 0.05))
    thread.start()
    try:
        shop.click(version)
        deadline = time.perf_counter() + 10
        while shop.approved() is None and time.perf_counter() < deadline:
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join()
    assert shop.approved() == version


def cut_short(shop: Shop, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Let the controller die at one of its calls to MLflow after the decision was written."""

    def die(*_: Any) -> None:
        raise ServiceError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(shop.tracking, step, die)
        with pytest.raises(ServiceError):
            shop.controller.look(MODEL)


@pytest.mark.parametrize("step", ["set_alias", "set_version_tag", "delete_version_tag"])
def test_an_approval_cut_short_is_finished_at_the_next_poll(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    shop.champion_of(0.2)
    shop.click(shop.train(0.3))
    cut_short(shop, monkeypatch, step)
    assert shop.approved() == 2
    assert shop.controller.poll_once() == ()
    assert shop.aliases() == {"champion": 2, "previous": 1}
    assert shop.tracking.version(MODEL, 2).tags["playbill.promotion"].startswith("approved")
    assert shop.verdicts() == ["approved", "approved"]


@pytest.mark.parametrize("step", ["set_version_tag", "describe", "set_alias"])
def test_a_rejection_cut_short_is_finished_at_the_next_poll(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    shop.champion_of(0.2)
    shop.click(shop.train(0.1))
    cut_short(shop, monkeypatch, step)
    assert shop.controller.poll_once() == ()
    assert shop.aliases() == {"champion": 1}
    assert "below" in shop.tracking.version(MODEL, 2).tags["playbill.promotion_reason"]
    assert shop.verdicts() == ["approved", "rejected"]


def test_one_model_that_cannot_be_looked_at_does_not_stop_the_others(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    shop.click(shop.train(0.2))
    with shop.tracking.start_run("another", "fit") as run:
        shop.tracking.register(run, tiny_bundle("another"), "another", {})
    shop.tracking.set_alias("another", "champion", 1)
    download = shop.tracking.download

    def fails_for_one(model: str, version: int) -> Path:
        if model == "another":
            raise ServiceError("artifact store is down")
        return download(model, version)

    monkeypatch.setattr(shop.tracking, "download", fails_for_one)
    (decision,) = shop.controller.poll_once()
    assert decision.model == MODEL
    assert "another stays as it is: artifact store is down" in caplog.text
    assert shop.aliases() == {"champion": 1}


def test_mlflow_down_is_logged_and_everything_is_kept(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop.champion_of(0.2)
    stop = threading.Event()

    def down() -> tuple[str, ...]:
        stop.set()
        raise ServiceError("MLflow cannot be reached")

    monkeypatch.setattr(shop.tracking, "models", down)
    with pytest.raises(ServiceError):
        shop.controller.poll_once()
    shop.controller.run(stop, 0.01)
    stop.clear()
    shop.controller.run(stop, 0.01)
    assert "nothing was changed: MLflow cannot be reached" in caplog.text
    assert shop.approved() == 1
