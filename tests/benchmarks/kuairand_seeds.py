"""One seed of the study: both arms trained and asked, kept in a folder so that a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from kuairand_heads import Exposures, Values
from kuairand_lists import ARMS, reports_of
from kuairand_models import COSTS, Service, Trained, train_model
from rich.console import Console

from playbill.definitions.specs.resolved import content_hash
from playbill.evaluation import EvaluationReport
from playbill.evaluation.cases.case import EvaluationCase

_COSTS = (*COSTS, "parameters")


@dataclass(frozen=True)
class Seed:
    """What one seed found.

    Args:
        logits: Arm -> head -> [N] of the held-out exposures.
        costs: Arm -> heads -> what it cost.
        lists: Surface -> report.
        off_policy: What policies would have earned; of the first seed only.
    """

    logits: dict[str, dict[str, Values]]
    costs: dict[str, dict[str, dict[str, float]]]
    lists: dict[str, EvaluationReport]
    off_policy: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Keep it; `costs.json` is written last and says that all is there."""
        folder.mkdir(parents=True, exist_ok=True)
        columns = {f"{arm}/{head}": values for arm, heads in self.logits.items() for head, values in heads.items()}
        pl.DataFrame(columns).write_parquet(folder / "logits.parquet")
        lists = {surface: report.to_json() for surface, report in self.lists.items()}
        (folder / "lists.json").write_text(json.dumps(lists), encoding="utf-8")
        (folder / "off_policy.json").write_text(json.dumps(self.off_policy), encoding="utf-8")
        (folder / "costs.json").write_text(json.dumps(self.costs), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Seed | None:
        """Read what was kept, None where there is nothing or not all."""
        if not (folder / "costs.json").is_file():
            return None
        logits: dict[str, dict[str, Values]] = {arm: {} for arm in ARMS}
        for column in pl.read_parquet(folder / "logits.parquet").iter_columns():
            arm, _, head = column.name.partition("/")
            logits[arm][head] = column.to_numpy()
        lists = json.loads((folder / "lists.json").read_text(encoding="utf-8"))
        reports = {surface: EvaluationReport.from_json(text) for surface, text in lists.items()}
        costs, off_policy = (json.loads((folder / f"{name}.json").read_text()) for name in ("costs", "off_policy"))
        return cls(logits, costs, reports, off_policy)


def train_arms(service: Service, seed: int, epochs: int, folder: Path) -> dict[str, list[Trained]]:
    """Train one model of every head, and one for each; those that are kept in the folder are not trained again."""
    heads, log = list(service.resolved.model.heads), Console(stderr=True, soft_wrap=True)
    found: dict[str, list[Trained]] = {arm: [] for arm in ARMS}
    for arm, groups in zip(ARMS, ([heads], [[head] for head in heads]), strict=True):
        for group in groups:
            file = folder / f"{arm}-{'+'.join(group)}.pt"
            model = train_model(service, group, seed, epochs, torch.load(file) if file.is_file() else None)
            found[arm].append(model)
            if not file.is_file():
                folder.mkdir(parents=True, exist_ok=True)
                torch.save(model.kept(), file)
            log.print(f"seed {seed}, {arm}, {', '.join(group)}: {model.cpu_seconds:.1f} CPU s", highlight=False)
    return found


def ask(
    service: Service,
    models: Mapping[str, Sequence[Trained]],
    shown: Exposures,
    cases: Mapping[str, EvaluationCase | str],
    off_policy: dict[str, Any] | None,
    *,
    baselines: bool,
) -> Seed:
    """Ask both arms about the held-out exposures and for lists."""
    logits = {
        arm: {head: values for model in own for head, values in shown.logits(model).items()}
        for arm, own in models.items()
    }
    costs = {
        arm: {"+".join(model.heads): {cost: float(getattr(model, cost)) for cost in _COSTS} for model in own}
        for arm, own in models.items()
    }
    return Seed(logits, costs, reports_of(service, models, cases, baselines=baselines), off_policy)


def kept_folder(root: Path, service: Service, seed: int, **choices: Any) -> Path:
    """Return the folder of a seed, named by everything that decides what is found in it."""
    about = {**choices, "spec": service.resolved.spec_hash, "split": service.split.digest, "seed": seed}
    return root / f"seed-{seed}-{content_hash(about)[:12]}"
