"""The loop learns, reports, stops and goes on, and refuses what is damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fixtures import environment
from fixtures import ring_problem as ring
from playbill.errors import IntegrityError, StateError, UnknownNameError
from playbill.models import ContextBatch, HistoryBatch, Network, TitleInputs
from playbill.models.weights import load_tensors
from playbill.training import FitResult, LoopSettings, Progress, fit
from playbill.training.checkpoint import checkpoints, load_checkpoint
from playbill.training.optimizer import (
    LITTLE,
    Average,
    build_optimizer,
    clip_gradients,
    one_cycle,
    set_learning_rate,
)


def same_weights(first: Network, second: Network) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


@pytest.fixture
def uninterrupted() -> FitResult:
    return fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS)


def test_the_loop_learns_the_ring_problem() -> None:
    settings = ring.SETTINGS.model_copy(update={"epochs": 20})
    result = fit(ring.ring_network(), ring.RingBatches(), settings)
    history, context, targets = ring.ring_batch(torch.tensor([0, 3]).numpy())
    scores = result.network.scores(
        HistoryBatch.from_arrays(history),
        ContextBatch.from_arrays(context),
        TitleInputs.from_arrays(ring.ring_titles()),
    )["play"]
    known = context.state % (ring.LENGTH + 1) > 0
    assert (scores.argmax(dim=1).numpy() == targets.title)[known].all()
    assert not result.network.training


def test_reports_and_progress_tell_what_happened(tmp_path: Path) -> None:
    progress: list[tuple[dict[str, float], Path | None]] = []
    steps: list[Progress] = []
    result = fit(
        ring.ring_network(),
        ring.RingBatches(),
        ring.SETTINGS,
        folder=tmp_path,
        report=lambda numbers, path: progress.append((dict(numbers), path)),
        progress=steps.append,
        validate=lambda network: {"ndcg@10": 0.5 if network.training else 0.25},
    )
    assert [numbers["epoch"] for numbers, _ in progress] == [1, 2, 3, 4]
    assert all(path is not None and path.parent == tmp_path for _, path in progress)
    assert {"loss", "loss/play", "loss/thumb", "seconds", "tokens_per_second", "ndcg@10"} <= progress[0][0].keys()
    assert progress[0][0]["ndcg@10"] == 0.25, "validation sees the network in evaluation mode"
    assert progress[-1][0]["loss"] < progress[0][0]["loss"]
    assert progress[0][0]["loss"] == pytest.approx(progress[0][0]["loss/play"] + 0.3 * progress[0][0]["loss/thumb"])
    assert [step.step for step in steps] == list(range(1, 25))
    assert steps[-1].steps == 24
    assert steps[-1].epoch == steps[-1].epochs == 4
    assert result.reports == [numbers for numbers, _ in progress]


def test_the_same_seed_gives_the_same_weights(uninterrupted: FitResult) -> None:
    again = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS)
    assert same_weights(again.network, uninterrupted.network)
    assert again.resumed_from is None


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_stopped_run_ends_like_one_that_never_stopped(uninterrupted: FitResult, tmp_path: Path, epochs: int) -> None:
    def stop(numbers: dict[str, float], path: Path | None) -> None:
        if numbers["epoch"] == epochs:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path, report=stop)
    resumed = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path)
    assert resumed.resumed_from == epochs
    assert same_weights(resumed.network, uninterrupted.network)
    assert [report["loss"] for report in resumed.reports] == [report["loss"] for report in uninterrupted.reports]


def test_a_killed_process_is_resumed(uninterrupted: FitResult, tmp_path: Path) -> None:
    command = [sys.executable, str(ring.__file__), str(tmp_path), "2"]
    # Another number of threads would add in another order.
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(command, env=threads, check=False, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch-0001", "epoch-0002"]
    resumed = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path)
    assert resumed.resumed_from == 2
    # Another process may round sums in another order, so here the weights are close and not the same to the bit.
    torch.testing.assert_close(dict(resumed.network.state_dict()), dict(uninterrupted.network.state_dict()))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path)
    steps: list[Progress] = []
    second = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path, progress=steps.append)
    assert not steps
    assert same_weights(first.network, second.network)


@pytest.mark.parametrize("name", ["weights.safetensors", "average.safetensors", "optimizer.pt"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path)
    file = checkpoints(tmp_path)[-1] / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match=name):
        fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path)
    file.unlink()
    with pytest.raises(IntegrityError, match=name):
        fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path)


def test_an_unreadable_state_is_refused(tmp_path: Path) -> None:
    fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path)
    (checkpoints(tmp_path)[-1] / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"state\.json.*remove this folder"):
        load_checkpoint(checkpoints(tmp_path)[-1], "")


def test_half_written_checkpoints_are_ignored_and_old_ones_dropped(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-epoch-0009").mkdir()
    result = fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path)
    assert result.resumed_from is None
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch-0003", "epoch-0004"]
    state = json.loads((checkpoints(tmp_path)[-1] / "state.json").read_text(encoding="utf-8"))
    assert set(state["sha256"]) == {"weights.safetensors", "average.safetensors", "optimizer.pt"}


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS, folder=tmp_path)
    other = ring.SETTINGS.model_copy(update={"learning_rate": 0.01})
    with pytest.raises(StateError, match="other settings"):
        fit(ring.ring_network(), ring.RingBatches(), other, folder=tmp_path)


def test_the_best_epoch_is_kept_and_survives_a_resume(tmp_path: Path) -> None:
    settings = ring.SETTINGS.model_copy(update={"keep": "best", "metric": "ndcg@10"})
    measured = iter([0.1, 0.4, 0.3, 0.2])
    seen: list[dict[str, torch.Tensor]] = []

    def validate(network: Network) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return {"ndcg@10": next(measured)}

    result = fit(ring.ring_network(), ring.RingBatches(), settings, folder=tmp_path, validate=validate)
    assert result.best_epoch == 2
    assert all(torch.equal(value, seen[1][name]) for name, value in result.network.state_dict().items())
    again = fit(ring.ring_network(), ring.RingBatches(), settings, folder=tmp_path, validate=validate)
    assert again.best_epoch == 2
    assert same_weights(again.network, result.network)


def test_an_unknown_metric_is_named() -> None:
    settings = ring.SETTINGS.model_copy(update={"keep": "best", "metric": "ndgc@10"})
    with pytest.raises(UnknownNameError, match=r"Did you mean 'ndcg@10'"):
        fit(ring.ring_network(), ring.RingBatches(), settings, validate=lambda _: {"ndcg@10": 1.0})
    with pytest.raises(ValueError, match="needs a metric"):
        LoopSettings(keep="best")


def test_a_run_that_diverges_says_so() -> None:
    network = ring.ring_network()
    with torch.no_grad():
        network.titles.id.weight.fill_(float("nan"))
    with pytest.raises(StateError, match="diverged in epoch 1, step 1"):
        fit(network, ring.RingBatches(), ring.SETTINGS)


def test_a_run_that_diverges_keeps_its_last_checkpoint_and_the_batch(tmp_path: Path) -> None:
    def poison(numbers: dict[str, float], _saved: Path | None) -> None:
        if numbers["epoch"] == 2:
            with torch.no_grad():
                network.titles.id.weight.fill_(float("nan"))

    network = ring.ring_network()
    with pytest.raises(StateError, match="diverged in epoch 3") as error:
        fit(network, ring.RingBatches(), ring.SETTINGS, folder=tmp_path, report=poison)
    last, batch = checkpoints(tmp_path)[-1], load_tensors(tmp_path / "diverged-0.safetensors")
    assert str(last) in str(error.value)
    saved = load_checkpoint(last, ring.SETTINGS.digest(network.config))
    assert saved.epoch == 2
    assert all(torch.isfinite(value).all() for value in saved.weights.values())
    first = next(iter(ring.RingBatches().epoch(2, 0, 1)))
    assert torch.equal(batch["history.title"], torch.as_tensor(first[0].title))
    assert {"context.state", "targets.title"} <= batch.keys()


def test_nothing_to_train_on_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring.RingBatches, "steps", lambda self, world: 0)
    with pytest.raises(StateError, match="nothing to train on"):
        fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS)


def test_small_data_gets_more_passes() -> None:
    settings = LoopSettings(epochs=6, min_steps=1000)
    assert settings.total_epochs(steps_per_epoch=330) == 6
    assert settings.total_epochs(steps_per_epoch=30) == 34


def test_max_epochs_bounds_the_passes_that_min_steps_brings() -> None:
    settings = LoopSettings(epochs=6, min_steps=1000, max_epochs=15)
    assert settings.total_epochs(steps_per_epoch=30) == 15
    assert settings.total_epochs(steps_per_epoch=100) == 10
    assert settings.model_copy(update={"epochs": 20}).total_epochs(steps_per_epoch=30) == 20


def test_the_learning_rate_of_one_cycle_rises_and_falls() -> None:
    rates = [one_cycle(step, 100, 0.002, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.002 / 25)
    assert max(rates) == rates[10] == pytest.approx(0.002)
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)
    assert rates[-1] < 1e-5
    assert one_cycle(0, 1, 0.002, 0.0) == pytest.approx(0.002 / 25)


def test_only_matrices_of_linear_maps_decay() -> None:
    network = ring.ring_network()
    decayed, free = build_optimizer(network, 0.1).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0
    chosen = {names[id(parameter)] for parameter in decayed["params"]}
    assert "trunk.blocks.0.up.weight" in chosen
    assert not any(name.endswith("bias") or "norm" in name or name.startswith("titles.id") for name in chosen)
    assert len(decayed["params"]) + len(free["params"]) == len(names)


def test_the_average_forgets_its_start_and_swaps_back() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    average = Average([parameter], 0.99)
    with torch.no_grad():
        for step in range(1, 200):
            parameter.fill_(1.0)
            average.update(step)
    assert average.values[0].min() > 0.9
    kept = average.values[0].clone()
    with torch.no_grad():
        parameter.fill_(7.0)
    average.swap()
    assert torch.equal(parameter.detach(), kept)
    average.swap()
    assert parameter.detach().eq(7).all()


def test_heads_may_learn_faster_than_what_they_share() -> None:
    network = ring.ring_network()
    optimizer = build_optimizer(network, 0.1, head_rate=5.0)
    set_learning_rate(optimizer, 0.002)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in network.named_parameters()}
    assert found["heads.0.query.weight"] == pytest.approx((0.01, 0.02))
    assert found["title_bias.weight"] == pytest.approx((0.01, 0))
    assert found["trunk.blocks.0.up.weight"] == pytest.approx((0.002, 0.1))
    assert found["titles.id.weight"] == pytest.approx((0.002, 0))


def test_one_head_may_have_a_learning_rate_of_its_own() -> None:
    network = ring.ring_network()
    optimizer = build_optimizer(network, 0.1, head_rate=5.0, rates={"heads.0.": 0.5})
    set_learning_rate(optimizer, 0.002)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in network.named_parameters()}
    assert found["heads.0.query.weight"] == pytest.approx((0.001, 0.2))
    assert found["title_bias.weight"] == pytest.approx((0.01, 0))
    assert found["trunk.blocks.0.up.weight"] == pytest.approx((0.002, 0.1))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_title_moves_as_far_as_a_step_has_something_to_say_of_it(sparse: bool) -> None:
    network = torch.nn.Module()
    network.title_bias = torch.nn.Embedding(4, 1, sparse=sparse)
    network.rest = torch.nn.Linear(1, 1)
    optimizer = build_optimizer(network, 0.1, by_rows=[network.title_bias.weight] if sparse else [], title_rate=30.0)
    set_learning_rate(optimizer, 0.001)
    gradient_3 = torch.tensor([1.0, 99.0, -99.0]) * LITTLE
    for _ in range(500):  # until the moments know the gradient
        start = network.title_bias.weight.detach().clone()
        optimizer.zero_grad()
        own = network.title_bias(torch.tensor([1, 2, 3])).squeeze(1) @ gradient_3
        (own + network.rest(torch.ones(1)).sum() * LITTLE).backward()
        optimizer.step()
    moved = (start - network.title_bias.weight.detach()).squeeze(1)
    assert moved.tolist() == pytest.approx([0, 0.015, 0.0297, -0.0297], rel=1e-3, abs=1e-6)
    rest = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}[id(network.rest.weight)]
    assert rest == 0.001


def test_biases_learn_no_faster_than_the_heads_that_they_are_of_where_these_are_faster_still() -> None:
    weights = []
    for rate in (1.0, 5.0):
        settings = ring.SETTINGS.model_copy(update={"epochs": 1, "head_rate": 5.0, "title_rate": rate})
        weights.append(fit(ring.ring_network(), ring.RingBatches(), settings).network)
    assert same_weights(*weights)


def test_a_checkpoint_from_before_rates_of_titles_is_gone_on_from() -> None:
    assert "title_rate" not in ring.SETTINGS.model_dump_json()


BITS = """
import hashlib
import numpy as np, torch
from fixtures import ring_problem as ring
from playbill.models import ContextConfig, Network, TitleInputs
from playbill.training import LoopSettings, fit

class Wide(ring.RingBatches):
    # So many rows that threads share the gradient of one indexed bias.
    def steps(self, world):
        return 3

    def epoch(self, epoch, rank, world):
        generator = np.random.default_rng(epoch)
        for _ in range(3):
            yield ring.ring_batch(generator.integers(0, ring.RING, 6_000))

torch.set_num_threads(2)
torch.manual_seed(1)
network = Network(ring.CONFIG.model_copy(update={"context": ContextConfig(title_crossing=True)}))
network.calibrate(torch.zeros(0, 0), TitleInputs.from_arrays(ring.ring_titles()))
settings = LoopSettings(epochs=2, learning_rate=0.02, ema=0.9, low_precision=False, seed=7)
weights = fit(network, Wide(), settings).network.state_dict()
found = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in weights.values()))
print(found.hexdigest(), torch.are_deterministic_algorithms_enabled())
"""


def test_a_run_repeats_to_the_bit_in_another_process_whatever_its_hash_seed() -> None:
    found = [
        subprocess.run(
            [sys.executable, "-c", BITS],
            env=environment(PYTHONHASHSEED=seed),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2", "3")
    ]
    assert len({digest for digest, _ in found}) == 1
    assert {left for _, left in found} == {"False"}


def rows_of(table: torch.nn.Embedding, rows: list[int], size: float) -> None:
    """Give a table the gradient of some of its rows."""
    table.weight.grad = None
    (table(torch.tensor(rows)).sum() * size).backward()


def test_an_average_by_rows_is_the_plain_one() -> None:
    draw = torch.Generator().manual_seed(3)
    plain, sparse = torch.nn.Embedding(6, 2), torch.nn.Embedding(6, 2, sparse=True)
    sparse.load_state_dict(plain.state_dict())
    averages = Average([plain.weight], 0.9), Average([sparse.weight], 0.9, [sparse.weight])
    for step in range(1, 40):
        rows = torch.randperm(6, generator=draw)[:2].tolist()
        rows_of(sparse, rows, 1.0)
        averages[1].before_step()
        with torch.no_grad():
            change = torch.rand(2, 2, generator=draw)
            plain.weight[rows] += change
            sparse.weight[rows] += change
        for average in averages:
            average.update(step)
        if step == 20:
            torch.testing.assert_close(averages[1].values[0], averages[0].values[0])
    torch.testing.assert_close(averages[1].values[0], averages[0].values[0])


@pytest.mark.parametrize("largest", [1.0, 1e6])
def test_gradients_of_rows_are_clipped_with_all_others(largest: float) -> None:
    norms, grads = [], []
    for sparse in (False, True):
        table, other = torch.nn.Embedding(5, 3, sparse=sparse), torch.nn.Parameter(torch.ones(2))
        rows_of(table, [1, 3], 2.0)
        (other * 7.0).sum().backward()
        norms.append(clip_gradients([table.weight, other], largest))
        own = table.weight.grad
        grads.append(torch.cat([(own.to_dense() if sparse else own).flatten(), other.grad]))
    torch.testing.assert_close(norms[1], norms[0])
    torch.testing.assert_close(grads[1], grads[0])


@pytest.fixture
def by_rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Make the ring a problem whose steps read no titles but those of the batch."""
    heads = tuple(head.model_copy(update={"loss": "bce"}) for head in ring.CONFIG.heads)
    monkeypatch.setattr(ring, "CONFIG", ring.CONFIG.model_copy(update={"heads": heads}))
    monkeypatch.setattr("playbill.training.loop.ROWS_FROM", 0)
    return ring


def test_titles_that_no_batch_names_stay_as_they_are(by_rows: ModuleType) -> None:
    network, batches = by_rows.ring_network(), by_rows.RingBatches()
    start = network.titles.id.weight.detach().clone()
    batches.epoch = lambda *_: iter([by_rows.ring_batch(torch.tensor([0, 0]).numpy())] * 6)
    found = fit(network, batches, by_rows.SETTINGS).network
    assert found.titles.id.sparse
    moved = (found.titles.id.weight != start).any(dim=1)
    assert moved[1 : by_rows.RING].all()
    assert not moved[0]
    assert not moved[by_rows.RING]


def test_a_killed_run_by_rows_goes_on_to_the_same_weights(by_rows: ModuleType, tmp_path: Path) -> None:
    whole = fit(by_rows.ring_network(), by_rows.RingBatches(), by_rows.SETTINGS)

    def stop(numbers: dict[str, float], _path: Path | None) -> None:
        if numbers["epoch"] == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(by_rows.ring_network(), by_rows.RingBatches(), by_rows.SETTINGS, folder=tmp_path, report=stop)
    again = fit(by_rows.ring_network(), by_rows.RingBatches(), by_rows.SETTINGS, folder=tmp_path)
    assert again.resumed_from == 2
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], value)


def test_learning_by_rows_ends_near_learning_with_dense_gradients(
    by_rows: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse = fit(by_rows.ring_network(), by_rows.RingBatches(), by_rows.SETTINGS)
    monkeypatch.setattr("playbill.training.loop.ROWS_FROM", 100)
    dense = fit(by_rows.ring_network(), by_rows.RingBatches(), by_rows.SETTINGS)
    assert not dense.network.titles.id.sparse
    assert sparse.reports[0]["loss"] > sparse.reports[-1]["loss"]
    assert sparse.reports[-1]["loss"] == pytest.approx(dense.reports[-1]["loss"], rel=0.05)
