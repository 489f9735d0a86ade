"""What the guide to rewards shows is what is shipped, and what a model may say."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from playbill.definitions.specs import GateSpec, HeadSpec, RewardSpec
from playbill.definitions.zoo import load_zoo

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/guide/rewards.md").read_text(), re.DOTALL)


def test_the_guide_shows_the_shipped_reward() -> None:
    shown = RewardSpec.model_validate(yaml.safe_load(BLOCKS[0]))
    assert shown == load_zoo(ROOT / "model_zoo", ROOT / "feature_repo").rewards["long_term"]


def test_the_guides_model_is_accepted() -> None:
    model = yaml.safe_load(BLOCKS[1])
    assert HeadSpec.model_validate(model["heads"]["play"]).reward == model["evaluate"]["reward"] == "long_term"
    assert GateSpec.model_validate(model["gates"][0]).metric == "reward_ndcg@10"
