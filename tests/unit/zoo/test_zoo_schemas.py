"""The schemas that editors complete from are committed, current, and named by every file of the zoo."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from playbill.config import shipped_folder
from playbill.definitions.specs import KINDS
from playbill.definitions.zoo import load_zoo
from playbill.definitions.zoo.json_schema import (
    FOLDER,
    UMBRELLA,
    file_name,
    first_line,
    write_schemas,
)
from playbill.definitions.zoo.parsing import yaml_files
from playbill.project.starting import start_project

ZOO = shipped_folder("model_zoo")


def test_the_committed_schemas_are_what_the_specs_say(tmp_path: Path) -> None:
    written = write_schemas(tmp_path)
    assert {path.name for path in (ZOO / FOLDER).iterdir()} == {path.name for path in written}
    for path in written:
        assert (ZOO / FOLDER / path.name).read_text() == path.read_text(), "run `playbill schema`"


def test_every_file_names_the_schema_of_its_kind(tmp_path: Path) -> None:
    start_project(tmp_path / "mine")
    for zoo in (ZOO, tmp_path / "mine" / "model_zoo"):
        files = yaml_files(zoo)
        assert len(files) > 50
        for path in files:
            line, text = path.read_text().split("\n", 1)
            kind = re.search(r"^kind: (\w+)", text, re.MULTILINE)
            assert kind is not None
            assert line == first_line(kind[1], path, zoo)
            named = path.parent / line.partition("$schema=")[2]
            assert json.loads(named.read_text())["properties"]["kind"]["const"] == kind[1]


def test_the_schema_line_does_not_change_a_hash(tmp_path: Path, zoo_folder: Path) -> None:
    load_zoo(zoo_folder).publish()
    for path in yaml_files(zoo_folder):
        path.write_text("# yaml-language-server: $schema=../schemas/x.json\n" + path.read_text())
    assert load_zoo(zoo_folder).publish() == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_schema_that_the_umbrella_names(kind: str) -> None:
    umbrella = json.loads((ZOO / FOLDER / UMBRELLA).read_text())
    assert file_name(kind) in {branch["then"]["$ref"] for branch in umbrella["allOf"]}
    assert (ZOO / FOLDER / file_name(kind)).is_file()
