"""The one training loop: in this process, on every worker of a Ray run, and inside a trial alike.

It knows nothing of Ray or MLflow. Whoever calls it hands in `report`, which gets each epoch's numbers together
with that epoch's checkpoint, and may hand in a validation callback and a progress callback.
Letter: K heads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from playbill.definitions.specs.network import read_balance
from playbill.errors import StateError, UnknownNameError
from playbill.models import ContextBatch, HistoryBatch, Network, TargetBatch, TitleInputs
from playbill.models.batch import Arrays, flat_tensors
from playbill.models.weights import bfloat16_is_fast, save_tensors
from playbill.training.balancers import make_balancer
from playbill.training.checkpoint import Checkpoint, checkpoints, load_checkpoint, save_checkpoint
from playbill.training.contract import (
    Batch,
    BatchSource,
    FitResult,
    LoopSettings,
    Progress,
    Report,
    Validate,
    WorkerPlace,
)
from playbill.training.optimizer import (
    Average,
    Optimizer,
    build_optimizer,
    one_cycle,
    set_learning_rate,
)
from playbill.training.replicas import WholeNetwork

if TYPE_CHECKING:
    from playbill.training.shards import ShardedNetwork

ROWS_FROM = 20_000  # titles from which on a step that reads the titles of its batch alone moves their rows alone

__all__ = ["Batch", "BatchSource", "FitResult", "Progress", "Report", "Validate", "WorkerPlace", "fit"]


def fit(
    network: Network,
    batches: BatchSource,
    settings: LoopSettings,
    *,
    folder: Path | None = None,
    report: Report | None = None,
    progress: Callable[[Progress], None] | None = None,
    validate: Validate | None = None,
    place: WorkerPlace | None = None,
) -> FitResult:
    """Train `network`, or go on where the newest checkpoint in `folder` stopped.

    Args:
        network: Started and calibrated; trained in place.
        batches: Training batches.
        settings: How long and how fast.
        folder: Of this run's checkpoints; None writes none. Workers of one run share it.
        report: Called after every epoch with numbers and (rank 0) the checkpoint's folder.
        progress: Called after every step on rank 0.
        validate: Called after every epoch on rank 0 with the network in evaluation mode carrying the average
            weights; its numbers join the report under their own names.
        place: Which worker this is.

    Raises:
        IntegrityError: The newest checkpoint is damaged.
        StateError: The checkpoint has other settings, there is nothing to train on, or training diverged.
    """
    return _LoopRun(network, batches, settings, place or WorkerPlace(), folder, report, progress, validate).fit()


def tables_by_rows(network: Network, batches: BatchSource, world: int) -> list[Tensor]:
    """Return the tables of titles of which a step moves the rows of its batch alone.

    Workers add up whole gradients, so theirs are not among them.
    """
    if world > 1 or network.config.titles.titles <= ROWS_FROM:
        return []
    targets = next(iter(batches.epoch(0, 0, 1)))[2]
    if not network.ranks_named_titles(TargetBatch.from_arrays(targets).negatives):
        return []
    return [table.weight for table in network.title_tables() if table.weight.requires_grad]


def optimizer_of(
    network: Network, settings: LoopSettings, by_rows: list[Tensor], parts: Mapping[str, nn.Parameter] | None = None
) -> Optimizer:
    """Return the optimizer that a run of these settings moves a network with; see `build_optimizer`."""
    given = settings.head_rates  # it may name heads that the data left out
    heads = enumerate(head.name for head in network.config.heads)
    rates = {f"heads.{place}.": given[name] for place, name in heads if name in given}
    return build_optimizer(
        network, settings.weight_decay, settings.head_rate, by_rows, parts, rates, settings.title_rate
    )


def _held(network: Network, place: WorkerPlace) -> WholeNetwork | ShardedNetwork:
    """Return the network as a worker holds it."""
    if not place.sharded:
        return WholeNetwork(network, place)
    from playbill.training.shards import ShardedNetwork  # torch's own part of it takes most of a second

    return ShardedNetwork(network, place)


class _LoopRun:
    def __init__(
        self,
        network: Network,
        batches: BatchSource,
        settings: LoopSettings,
        place: WorkerPlace,
        folder: Path | None,
        report: Report | None,
        progress: Callable[[Progress], None] | None,
        validate: Validate | None,
    ) -> None:
        self.batches, self.settings, self.place, self.folder = batches, settings, place, folder
        self.report, self.progress, self.validate = report, progress, validate
        self.network = network
        self.held = _held(network, place)
        self.titles = TitleInputs.from_arrays(batches.titles, place.device)
        self.heads = [head.name for head in network.config.heads]
        self.head_scale = torch.tensor([head.weight for head in network.config.heads])
        self.balancer = make_balancer(read_balance(settings.balance), self.head_scale)
        self.batch_weights = dict(batches.batch_weights)
        self.digest = settings.digest(network.config)
        self.steps = batches.steps(place.world)
        if not self.steps:
            raise StateError("there is nothing to train on: the training set has no batch")
        self.epochs = settings.total_epochs(self.steps)
        by_rows = tables_by_rows(network, batches, self.place.world)
        for table in (table for table in network.title_tables() if table.weight.requires_grad):
            table.sparse = bool(by_rows)
        own = self.held.parameters
        self.optimizer = optimizer_of(network, settings, by_rows, own)
        self.average = Average(own.values(), settings.ema, by_rows)
        self.step = 0
        self.reports: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None
        self.best_epoch: int | None = None

    def fit(self) -> FitResult:
        """Train every epoch that is left."""
        begun = time.perf_counter()
        first = self._resume()
        self.network.low_precision = self._low_precision()
        with reproducible(self.place.device):
            for epoch in range(first, self.epochs):
                self._epoch(epoch)
        self.network.low_precision = False
        # Only the first worker has validated; the others must know that it has what it needs.
        best = {} if self.best is None and self.settings.keep == "best" else self.best
        return FitResult(
            network=self.held.result(self.average, best).eval(),
            reports=self.reports,
            best_epoch=self.best_epoch or self.epochs,
            resumed_from=first or None,
            seconds=time.perf_counter() - begun,
        )

    def _low_precision(self) -> bool:
        wanted = self.settings.low_precision
        return bfloat16_is_fast(self.place.device) if wanted is None else wanted

    def _resume(self) -> int:
        found = checkpoints(self.folder) if self.folder else []
        if not found:
            return 0
        saved = load_checkpoint(found[-1], self.digest)
        self.held.load(saved.weights, self.optimizer, saved.optimizer)
        self.average.load(self.held.part(name, saved.average[name]) for name in self.held.parameters)
        self.balancer.load(saved.balance)
        self.step, self.reports = saved.step, saved.reports
        self.best, self.best_epoch = saved.best, saved.best_epoch
        return saved.epoch

    def _epoch(self, epoch: int) -> None:
        begun = time.perf_counter()
        # Python salts the hashes of texts only; those of numbers are the same in every process.
        torch.manual_seed(hash((self.settings.seed, epoch, self.place.rank)) % 2**63)
        self.network.train()
        self.network.forget_titles()
        sums_K2 = torch.zeros(len(self.heads), 2, dtype=torch.float64)
        tokens = 0
        for batch in self.batches.epoch(epoch, self.place.rank, self.place.world):
            sums_K2 += self._step(batch, epoch)
            tokens += int(batch[0].length.sum())
        sums = self._sum_over_workers(torch.cat([sums_K2.flatten(), torch.tensor([float(tokens)]).double()]))
        seconds = time.perf_counter() - begun
        numbers = self._numbers(epoch, sums, seconds)
        numbers.update(self._validated(epoch))
        self.reports.append(numbers)
        saved = self._save(epoch)
        if self.report is not None:
            self.report(numbers, saved)

    def _step(self, batch: Batch, epoch: int) -> Tensor:
        """Take one optimizer step and return [K, 2] sums of losses and weights of this worker."""
        device = self.place.device
        history = HistoryBatch.from_arrays(batch[0], device)
        context = ContextBatch.from_arrays(batch[1], device)
        targets = TargetBatch.from_arrays(batch[2], device)
        total = self.epochs * self.steps
        rate = one_cycle(self.step, total, self.settings.learning_rate, self.settings.warm_up)
        set_learning_rate(self.optimizer, rate)
        totals_K, scale_K = self._totals(targets), self.balancer.weights().to(device)
        pulls = self.balancer.pulls
        loss, sums = self.held.model(history, context, targets, self.titles, totals_K, scale_K, pulls=pulls)
        self.optimizer.zero_grad()
        loss.backward()
        self.held.take_gradients()
        norm = self.held.clip(self.settings.clip)
        if not torch.isfinite(norm):
            raise StateError(self._diverged(epoch, {"history": history, "context": context, "targets": targets}))
        self.average.before_step()
        self.optimizer.step()
        self.step += 1
        self.average.update(self.step)
        if self.progress is not None and self.place.rank == 0:
            self.progress(Progress(self.step, total, epoch + 1, self.epochs, float(loss.detach())))
        self._balance(sums, totals_K)
        taken: Tensor = sums[:, :2].cpu().double()
        return taken

    def _diverged(self, epoch: int, batch: Mapping[str, Arrays]) -> str:
        """Save the batch whose gradient is not finite, and say where it and the last good checkpoint are."""
        text = (
            f"training diverged in epoch {epoch + 1}, step {self.step + 1}: the gradient is not finite; "
            f"lower learning_rate ({self.settings.learning_rate})"
        )
        if self.folder is None:
            return text
        path = self.folder / f"diverged-{self.place.rank}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        save_tensors({name: values for kind, part in batch.items() for name, values in flat_tensors(kind, part)}, path)
        kept = checkpoints(self.folder)
        last = f"the last good checkpoint is {kept[-1]}" if kept else "no epoch was finished, so there is no checkpoint"
        return f"{text}. The batch is in {path}, and {last}"

    def _balance(self, sums: Tensor, totals_K: Tensor | None) -> None:
        """Tell the balance what the step measured, the same numbers on every worker.

        Workers' sums are divided by the whole batch's weight over their number, so their mean is that of the batch, and
        a squared gradient of the mean is the sum of theirs over the number squared.
        """
        if self.settings.balance["type"] == "static":
            return
        world, divisor_K = self.place.world, sums[:, 1] if totals_K is None else totals_K
        pulls_K = sums[:, 2] if self.balancer.pulls else torch.zeros_like(divisor_K)
        sums_of_all = torch.stack([sums[:, 0] / divisor_K.clamp(min=1e-6) / world, sums[:, 1], pulls_K / world**2])
        losses_K, weights_K, squares_K = self._sum_over_workers(sums_of_all)
        self.balancer.update(losses_K, squares_K.sqrt(), weights_K > 0)

    def _totals(self, targets: TargetBatch) -> Tensor | None:
        """Return [K] divisors of the heads' sums, None where this worker's own weights are right.

        A head's rows that weigh differently are divided by what a batch weighs on average, others by what the whole
        shared batch does. Workers' gradients are averaged, so over the number of workers: the result is then the
        gradient of the whole batch.
        """
        if self.place.world == 1 and not self.batch_weights:
            return None
        weights_K = self.network.head_weights(targets)
        if self.place.world > 1:
            dist.all_reduce(weights_K)
        for place, head in enumerate(self.heads):
            if head in self.batch_weights:
                weights_K[place] = self.batch_weights[head]
        return weights_K / self.place.world

    def _sum_over_workers(self, values: Tensor) -> Tensor:
        if self.place.world > 1:
            values = values.to(self.place.device)
            dist.all_reduce(values)
        return values.cpu()

    def _numbers(self, epoch: int, sums: Tensor, seconds: float) -> dict[str, float]:
        sums_K2, tokens = sums[:-1].view(-1, 2), float(sums[-1])
        means_K = sums_K2[:, 0] / sums_K2[:, 1].clamp(min=1e-9)
        numbers = {
            "epoch": float(epoch + 1),
            "loss": float((means_K * self.head_scale).sum()),
            "seconds": seconds,
            "tokens": tokens,
            "tokens_per_second": tokens / seconds,
        }
        numbers.update({f"loss/{name}": float(mean) for name, mean in zip(self.heads, means_K, strict=True)})
        if self.settings.balance["type"] != "static":
            weights = zip(self.heads, self.balancer.weights().tolist(), strict=True)
            numbers.update({f"weight/{name}": weight for name, weight in weights})
        return numbers

    def _validated(self, epoch: int) -> dict[str, float]:
        """Measure the average weights, and remember them when they are the best so far."""
        if self.validate is None:
            return {}
        measured: dict[str, float] = {}
        with self.held.averaged(self.average) as network:
            if self.place.rank == 0:
                network.eval().low_precision = False
                network.forget_titles()
                measured.update(self.validate(network))
                if self.settings.keep == "best" and self._is_best(measured):
                    self.best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
                    self.best_epoch = epoch + 1
        self.network.low_precision = self._low_precision()
        return measured

    def _is_best(self, measured: Mapping[str, float]) -> bool:
        metric = cast(str, self.settings.metric)
        if metric not in measured:
            raise UnknownNameError("validation metric", metric, measured)
        earlier = [report[metric] for report in self.reports]
        return not earlier or measured[metric] > max(earlier)

    def _save(self, epoch: int) -> Path | None:
        """Write a checkpoint on the first worker, of what all of them hold."""
        if self.folder is None:
            return None
        average = self.held.whole(dict(zip(self.held.parameters, self.average.values, strict=True)))
        weights, optimizer = self.held.weights(), self.held.moments(self.optimizer)
        if self.place.rank != 0:
            return None
        return save_checkpoint(
            self.folder,
            Checkpoint(
                epoch=epoch + 1,
                step=self.step,
                settings=self.digest,
                weights=weights,
                average=average,
                optimizer=optimizer,
                reports=self.reports,
                best=self.best,
                best_epoch=self.best_epoch,
                balance=self.balancer.state(),
            ),
        )


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Give equal runs equal bits on a processor, whatever its threads do; on a GPU leave everything as it is.

    Without it, threads add up the gradients of indexed rows in the order in which they come, and float sums differ by
    it. New memory is not filled with nan, as torch else does in this mode: everything here is written before it is
    read, and filling costs a tenth of a step. The mode is set by its number: `use_deterministic_algorithms` does the
    same, but tells torch's compiler too, whose import takes a second.
    """
    memory: Any = torch.utils.deterministic
    before, filled = torch.get_deterministic_debug_mode(), memory.fill_uninitialized_memory
    if device.type == "cpu":
        torch.set_deterministic_debug_mode("error")
        memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        memory.fill_uninitialized_memory = filled
