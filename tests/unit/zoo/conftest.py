"""A small zoo that is right, for tests to break."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.config import shipped_folder
from playbill.definitions.zoo import load_zoo
from playbill.errors import DefinitionError

FILES = {
    "labels/play.yaml": """\
kind: Label
name: play
version: 1
from: {action: play, where: "prior_plays_of_title = 0"}
""",
    "labels/up.yaml": """\
kind: Label
name: up
version: 1
from: {action: thumbs_up}
negatives: {actions: [thumbs_down]}
""",
    "canvases/home.yaml": """\
kind: Canvas
name: home
version: 1
blend: {play: 1.0, up: 0.2}
metric: play
rows: [top]
""",
    "canvases/search.yaml": """\
kind: Canvas
name: search
version: 1
context: [member, query, country]
blend: {play: 1.0}
metric: play
""",
    "rows/top.yaml": """\
kind: Row
name: top
version: 1
title: {en: Top}
canvas: home
blend: {play: 1.0}
""",
    "rows/again.yaml": """\
kind: Row
name: again
version: 1
title: {en: Again}
canvas: home
candidates: {watched: true}
policy: popular
""",
    "models/every.yaml": """\
kind: Model
name: every
version: 1
features: every_v1
canvases: [home, search]
heads:
  play: {label: play, loss: softmax}
  up: {label: up, loss: bce, weight: 0.3}
tasks:
  search: {from: title_names}
gates:
  - {metric: ndcg@10, canvas: home, tolerance: -1%}
""",
}


@pytest.fixture
def zoo_folder(tmp_path: Path) -> Path:
    """A zoo without mistakes."""
    folder = tmp_path / "model_zoo"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def write(zoo_folder: Path) -> Callable[[str, str], None]:
    """Write one file of the zoo."""

    def write(name: str, text: str) -> None:
        (zoo_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (zoo_folder / name).write_text(text)

    return write


@pytest.fixture
def edit(zoo_folder: Path) -> Callable[[str, str, str], None]:
    """Replace a piece of one file's text."""

    def edit(name: str, old: str, new: str) -> None:
        text = (zoo_folder / name).read_text()
        assert old in text
        (zoo_folder / name).write_text(text.replace(old, new))

    return edit


@pytest.fixture
def mistakes(zoo_folder: Path) -> Callable[..., list[str]]:
    """Load the zoo and return its mistakes as text, none when it is right."""

    def mistakes(feature_repo: Path | None = None) -> list[str]:
        try:
            load_zoo(zoo_folder, feature_repo)
        except DefinitionError as error:
            return [str(problem) for problem in error.problems]
        return []

    return mistakes


@pytest.fixture
def shipped_zoo(tmp_path: Path) -> Path:
    """A copy of what ships with Playbill."""
    return Path(shutil.copytree(shipped_folder("model_zoo"), tmp_path / "shipped" / "model_zoo"))
