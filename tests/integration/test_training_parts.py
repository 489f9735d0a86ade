"""A training set of real tables and Feast's features, built in parts, is that of the whole log."""

from __future__ import annotations

from pathlib import Path

from playbill.datasets import TrainingSet
from playbill.datasets.build import build_training_set
from playbill.datasets.parts import build_in_parts
from playbill.datasets.protocol_choice import model_split
from playbill.definitions.zoo import open_zoo
from playbill.features import FeatureDoor
from playbill.tables import Tables, workspace_clock

EVENTS = 1_500


def files(data: TrainingSet, folder: Path) -> dict[str, bytes]:
    data.save(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_model_of_every_canvas_is_taught_the_same(filled, tmp_path) -> None:
    from fixtures.small_project import Shell

    workspace = Shell(filled.folder).workspace
    tables, features = Tables(workspace), FeatureDoor(workspace)
    resolved = open_zoo(workspace.project.model_zoo, workspace.project.feature_repo).model("everycanvas")
    split = model_split(resolved, tables.interactions())
    assert len(tables.member_ranges(EVENTS)) > 3
    given = (tables, resolved, split, features, workspace_clock(workspace))
    whole = files(build_training_set(*given), tmp_path / "whole")
    (tmp_path / "raw").mkdir()
    parts = files(build_in_parts(*given, tmp_path / "raw", EVENTS), tmp_path / "parts")
    assert parts.keys() == whole.keys()
    assert [name for name in whole if parts[name] != whole[name]] == []
