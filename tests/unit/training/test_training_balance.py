"""Balances of heads: each does what it says, the same on every machine, and a stopped run goes on with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import ring_problem as ring
from playbill.definitions.specs import BALANCERS
from playbill.definitions.specs.network import read_balance
from playbill.models import TitleInputs
from playbill.models.batch import ContextBatch, HistoryBatch, TargetBatch
from playbill.models.network import state_pulls
from playbill.training import fit
from playbill.training.balancers import Balancer, make_balancer

OWN = torch.tensor([1.0, 1.0, 2.0])
SEEN = torch.tensor([True, True, True])
LEARNED = [name for name in BALANCERS.names() if name != "static"]


def made(name: str, own: torch.Tensor = OWN, **options: float) -> Balancer:
    return make_balancer(read_balance({"type": name, **options}), own)


def after(balancer: Balancer, steps: int, losses: list[float], pulls: list[float] | None = None) -> torch.Tensor:
    for _ in range(steps):
        balancer.update(torch.tensor(losses), torch.tensor(pulls or [0.0] * len(losses)), SEEN[: len(losses)])
    return balancer.weights()


@pytest.mark.parametrize("name", BALANCERS.names())
def test_the_first_step_has_the_heads_own_weights(name: str) -> None:
    torch.testing.assert_close(made(name).weights(), OWN)


@pytest.mark.parametrize("name", LEARNED)
@settings(max_examples=15, deadline=None)
@given(
    losses=st.lists(st.floats(1e-3, 50), min_size=3, max_size=3),
    pulls=st.lists(st.floats(1e-4, 50), min_size=3, max_size=3),
    steps=st.integers(1, 40),
)
def test_weights_stay_above_zero_and_keep_their_sum(
    name: str, losses: list[float], pulls: list[float], steps: int
) -> None:
    weights = after(made(name), steps, losses, pulls)
    assert (weights > 0).all()
    assert float(weights.sum()) == pytest.approx(float(OWN.sum()), rel=1e-4)


def test_static_weights_never_move() -> None:
    torch.testing.assert_close(after(made("static"), 50, [9.0, 0.1, 1.0], [3.0, 1.0, 2.0]), OWN)


def test_scale_divides_by_the_running_mean() -> None:
    weights = after(made("scale", torch.ones(2)), 3, [8.0, 0.5])
    assert float(weights[1] / weights[0]) == pytest.approx(16.0, rel=1e-4)
    halfway = after(made("scale", torch.ones(2), power=0.5), 3, [8.0, 0.5])
    assert float(halfway[1] / halfway[0]) == pytest.approx(4.0, rel=1e-4)


def test_uncertainty_comes_to_rest_where_the_paper_says() -> None:
    weights = after(made("uncertainty", torch.ones(2), learning_rate=0.05), 2_000, [2.0, 0.25])
    assert float(weights[1] / weights[0]) == pytest.approx(8.0, rel=0.05)


def test_gradnorm_makes_heads_pull_alike_and_those_behind_harder() -> None:
    even = after(made("gradnorm", torch.ones(2), alpha=0.0), 400, [1.0, 1.0], [4.0, 1.0])
    pull = even * torch.tensor([4.0, 1.0])
    assert float(pull[1] / pull[0]) == pytest.approx(1.0, abs=0.1)
    behind = made("gradnorm", torch.ones(2), alpha=1.0)
    after(behind, 1, [1.0, 1.0], [1.0, 1.0])
    # The first has learned half of what there was to learn, the second nothing.
    ahead, late = after(behind, 400, [0.5, 1.0], [1.0, 1.0])
    assert float(late / ahead) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("name", LEARNED)
def test_a_head_without_rows_is_left_as_it_was(name: str) -> None:
    balancer = made(name, torch.ones(3))
    after(balancer, 5, [4.0, 1.0, 0.3], [2.0, 1.0, 0.5])
    before = balancer.weights()
    balancer.update(torch.tensor([0.0, 0.0, 0.0]), torch.zeros(3), torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(balancer.weights(), before)


@pytest.mark.parametrize("name", LEARNED)
def test_a_stopped_run_goes_on_with_its_balance(tmp_path: Path, name: str) -> None:
    wanted = ring.SETTINGS.model_copy(update={"balance": read_balance(name).model_dump()})
    whole = fit(ring.ring_network(), ring.RingBatches(), wanted)

    def stop(numbers: dict[str, float], path: Path | None) -> None:
        if numbers["epoch"] == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(ring.ring_network(), ring.RingBatches(), wanted, folder=tmp_path, report=stop)
    resumed = fit(ring.ring_network(), ring.RingBatches(), wanted, folder=tmp_path)
    assert resumed.resumed_from == 2
    for key in ("weight/play", "weight/thumb", "loss"):
        assert [report[key] for report in resumed.reports] == [report[key] for report in whole.reports]
    assert whole.reports[-1]["weight/thumb"] != whole.reports[0]["weight/thumb"]


def test_a_balance_changes_what_is_learnt_and_static_reports_no_weight() -> None:
    plain = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS)
    scaled = ring.SETTINGS.model_copy(update={"balance": read_balance("scale").model_dump()})
    other = fit(ring.ring_network(), ring.RingBatches(), scaled)
    assert other.reports[-1]["loss/thumb"] < plain.reports[-1]["loss/thumb"]
    assert not any(key.startswith("weight/") for key in plain.reports[-1])


def test_pulls_are_the_gradients_of_mean_losses_and_add_up_over_parts() -> None:
    network = ring.ring_network().eval()
    titles = TitleInputs.from_arrays(ring.ring_titles())
    parts = [next(ring.RingBatches().epoch(0, rank, 2)) for rank in (0, 1)]
    whole = next(ring.RingBatches().epoch(0, 0, 1))
    kinds = (HistoryBatch, ContextBatch, TargetBatch)

    def progress(batch: tuple, totals: torch.Tensor | None) -> torch.Tensor:
        arrays = [kind.from_arrays(own) for kind, own in zip(kinds, batch, strict=True)]
        return network(*arrays, titles, totals, pulls=True)[1]

    expected = progress(whole, None)
    found = sum(progress(part, expected[:, 1]) for part in parts)
    torch.testing.assert_close(found, expected)
    assert (expected[:, 2] > 0).all()


def test_a_pull_is_a_squared_norm_and_0_for_a_loss_that_reads_no_state() -> None:
    state = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    other = torch.ones(1, requires_grad=True)
    losses = torch.stack([(3 * state).sum(), (state**2).sum(), other.sum(), torch.tensor(5.0)])
    found = state_pulls(losses, state)
    assert found.tolist() == pytest.approx([4 * 9.0, 4 * 30.0, 0.0, 0.0])
