"""What the guide of heads says in YAML is accepted, and its tables name what there is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from playbill.config import shipped_folder
from playbill.definitions.specs import BALANCERS, LOSSES, SHARINGS
from playbill.definitions.specs.head import HISTORY_TERMS
from playbill.definitions.zoo import load_zoo

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "heads.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]
LABELS = [block for block in BLOCKS if block.get("kind") == "Label"]
MODELS = [block for block in BLOCKS if "heads" in block]
MODEL = {
    "kind": "Model",
    "name": "guide",
    "version": 1,
    "features": "everycanvas_v1",
    "canvases": ["guided"],
    "evaluate": {"protocol": "global_time"},
}
CANVAS = {
    "kind": "Canvas",
    "name": "guided",
    "version": 1,
    "blend": {"play": 1.0},
    "metric": "discovery_play",
}


@pytest.mark.parametrize("block", MODELS, ids=range(len(MODELS)))
def test_a_model_with_what_the_guide_shows_is_accepted_without_a_note(block: dict, tmp_path: Path) -> None:
    zoo = tmp_path / "model_zoo"
    shutil.copytree(shipped_folder("model_zoo"), zoo)
    before = {str(note) for note in load_zoo(zoo).notes}
    for label in LABELS:
        (zoo / "labels" / f"{label['name']}.yaml").write_text(yaml.safe_dump(label), encoding="utf-8")
    (zoo / "models" / "guide.yaml").write_text(yaml.safe_dump(MODEL | block), encoding="utf-8")
    (zoo / "canvases" / "guided.yaml").write_text(yaml.safe_dump(CANVAS), encoding="utf-8")
    found = load_zoo(zoo)
    assert {str(note) for note in found.notes} == before
    assert set(found.model("guide").model.heads) == set(block["heads"])


def test_every_loss_term_balance_and_way_to_share_is_in_its_table() -> None:
    assert len(MODELS) >= 4
    assert len(LABELS) == 1
    named = set(re.findall(r"^\| `(\w+)` \|", GUIDE, re.MULTILINE))
    assert named == {*LOSSES.names(), *HISTORY_TERMS, *BALANCERS.names(), *SHARINGS.names()}
