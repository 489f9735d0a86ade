"""One small simulated service, its log, and a model that learnt from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from playbill.config import shipped_folder
from playbill.datasets import make_split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import Zoo, load_zoo
from playbill_lab.bridge.live_features import NoFeatures
from playbill_lab.bridge.model_policy import ModelPolicy
from playbill_lab.bridge.simulated_log import Fitted, SimulatedLog, fit_model, going_on
from playbill_lab.simulator import World
from playbill_lab.studies.objective.arms import StudyOptions, StudyRecipe, study_model
from playbill_lab.studies.objective.study import write_log

TEST_DAYS = 2


@dataclass(frozen=True)
class Small:
    """A log, a model of it, and the service of the days after."""

    log: SimulatedLog
    fitted: Fitted
    world: World

    @property
    def from_day(self) -> int:
        return self.world.spec.days - TEST_DAYS

    def policy(self, changed: Callable[[ResolvedModel], ResolvedModel] = lambda model: model) -> ModelPolicy:
        scorer = self.fitted.scorer(self.world, NoFeatures())
        return ModelPolicy("model", scorer, changed(self.fitted.bundle.resolved), self.world, NoFeatures())


@pytest.fixture(scope="session")
def zoo() -> Zoo:
    return load_zoo(shipped_folder("model_zoo"))


@pytest.fixture(scope="session")
def small(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Small:
    log = write_log(StudyOptions(members=120, titles=50, log_days=14), seed=5)
    resolved = study_model(zoo, "click_like", "small", StudyRecipe(epochs=1, min_steps=4, history=20))
    split = make_split("global_time_successive", log.interactions())
    fitted = fit_model(log, resolved, split, NoFeatures(), tmp_path_factory.mktemp("small") / "bundle")
    return Small(log, fitted, going_on(log.world, TEST_DAYS))
