"""Off-policy estimates in a real MLflow: what is kept, and that gates read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fixtures.bandit_problem import Bandit
from playbill.cli.off_policy import record
from playbill.config import Workspace
from playbill.definitions.specs import GateSpec
from playbill.evaluation.off_policy.estimate import estimate
from playbill.evaluation.off_policy.evaluate import OffPolicyReport
from playbill.evaluation.off_policy.report import Estimated
from playbill.metrics import Interval
from playbill.versions.promotion.gates import judge
from playbill.versions.tracking import Tracking

Bundle = Callable[..., Path]


def report() -> OffPolicyReport:
    log = Bandit.make().log(3000, 1)
    found, against = estimate("snips", log), estimate("snips", log, against_logged=True)
    difference = Interval(against.value, against.low, against.high)
    estimates = (
        Estimated("snips", found, difference, found.effective_sample_size),
        Estimated("ips", None, None, 3.0, "'ips' is refused: it was tried on purpose."),
    )
    return OffPolicyReport(
        model="everycanvas", policy="softmax(1)", canvases=("billboard",), outcome="long_term",
        version="long_term:1:aabbccddeeff", unit="title shown", main="snips", slates=3000, rows=3000, members=3000,
        immature=0, without_propensity=0, outside=0, direct_fit=None, floor=100.0,
        logged=Interval(float(log.reward.mean()), 0.0, 1.0), estimates=estimates, groups=(),
    )  # fmt: skip


def test_estimates_are_kept_and_gates_read_them(
    mlflow_workspace: Workspace, tracking_of: Callable[[Workspace], Tracking], tiny_bundle: Bundle, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    tracking = tracking_of(mlflow_workspace)
    with tracking.start_run("everycanvas", "fit") as run:
        tracking.register(
            run, tiny_bundle(), "everycanvas", {"playbill.split_digest": "s1"}, {"billboard/ndcg@10": 0.2}
        )
    version = tracking.resolve("everycanvas:1")
    found = report()
    run_id = record(tracking, version, found)

    client = MlflowClient(tracking_uri=mlflow_workspace.mlflow_uri)
    kept = client.get_run(run_id)
    assert kept.data.tags["playbill.reward"] == "long_term:1:aabbccddeeff"
    assert kept.data.tags["playbill.estimator"] == "snips"
    assert kept.data.tags["playbill.refused"] == "ips"
    assert kept.data.tags["playbill.protocol"] == "off_policy"
    assert {item.path for item in client.list_artifacts(run_id)} == {"off_policy", "tables", "figures"}
    whole = Path(client.download_artifacts(run_id, "off_policy/report.json", str(tmp_path))).read_text()
    assert OffPolicyReport.from_json(whole) == found

    evaluations = tracking.evaluations(version)
    gates = [
        GateSpec(metric=metric, reward="long_term", canvas="billboard", against="logged", tolerance=tolerance)
        for metric, tolerance in (("snips", "0%"), ("snips", "+500%"), ("ips", "-50%"))
    ] + [GateSpec(metric="ndcg@10", canvas="billboard", tolerance="0%")]
    better, impossible, refused, ranked = judge(gates, evaluations, evaluations)
    assert (better.passed, impossible.passed, refused.passed, ranked.passed) == (True, False, False, True)
    assert better.value == found.estimates[0].estimate.value
    assert "refused" in refused.reason
