"""What the guides of training and data sets say in YAML is accepted, and acts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from playbill.config import shipped_folder
from playbill.datasets.export.rows import LABEL, STRATUM, WEIGHT
from playbill.definitions.specs.head import NEGATIVES
from playbill.definitions.specs.network import TRUNKS
from playbill.definitions.zoo import load_zoo

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
TRAINING = (GUIDE / "training.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", TRAINING, re.DOTALL)
MODEL = """\
kind: Model
name: guide
version: 1
features: everycanvas_v1
canvases: [guided]
evaluate: {protocol: global_time}
"""


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_model_with_what_the_guide_shows_is_accepted_without_a_note(block: str, tmp_path: Path) -> None:
    zoo = tmp_path / "model_zoo"
    shutil.copytree(shipped_folder("model_zoo"), zoo)
    before = {str(note) for note in load_zoo(zoo).notes}
    keys = yaml.safe_load(block)
    keys.setdefault("heads", {"play": {"label": "discovery_play", "loss": "softmax"}})
    (zoo / "models" / "guide.yaml").write_text(MODEL + yaml.safe_dump(keys, sort_keys=False), encoding="utf-8")
    canvas = "kind: Canvas\nname: guided\nversion: 1\nblend: {play: 1.0}\nmetric: discovery_play\n"
    (zoo / "canvases" / "guided.yaml").write_text(canvas, encoding="utf-8")
    found = load_zoo(zoo)
    assert {str(note) for note in found.notes} == before
    assert set(found.model("guide").model.heads) == set(keys["heads"])


def test_there_are_blocks_of_heads_and_of_sampling() -> None:
    assert len(BLOCKS) >= 3
    keys = {key for block in BLOCKS for key in yaml.safe_load(block)}
    assert keys == {"heads", "history", "sampling", "titles", "training", "trunk"}


def test_every_policy_is_in_the_table() -> None:
    table = re.findall(r"^\| `(\w+)` \|", TRAINING.partition("## Negatives")[2].partition("## Strata")[0], re.MULTILINE)
    assert set(table) == set(NEGATIVES.names())


def test_every_trunk_is_in_the_table() -> None:
    table = re.findall(r"^\| `(\w+)` \|", TRAINING.partition("### Trunks")[2].partition("\n### ")[0], re.MULTILINE)
    assert set(table) == set(TRUNKS.names())


def test_columns_of_weights_are_those_of_the_guide() -> None:
    text = (GUIDE / "datasets.md").read_text(encoding="utf-8")
    for column in (f"`{LABEL}HEAD`", f"`{WEIGHT}HEAD`", f"`{STRATUM}`", "`draws`"):
        assert column in text
