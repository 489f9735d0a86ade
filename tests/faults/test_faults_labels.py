"""What is wrong with labels is said with its place before anything is written; a publication is whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from fixtures.label_log import START, label_log
from playbill.cli.main import main
from playbill.config import ProjectFolder, Workspace
from playbill.definitions.specs import LabelSpec
from playbill.errors import DataError, StorageError
from playbill.features import LabelValues
from playbill.features.labels import write_labels
from playbill.labels import label_extractor, label_parts, labeler, published_rows
from playbill.tables import Tables

RULE = "kind: Label\nname: {name}\nversion: 1\nfrom: {{action: play, where: {where!r}}}\nmatures_after: 0h\n"
LATE = START + timedelta(days=99)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "playbill.toml").write_text('workspace = "log"\n[workspaces.log]\n')
    for name in ("model_zoo", "feature_repo"):
        (tmp_path / name).mkdir()
    found = ProjectFolder.find(tmp_path).workspace("log")
    label_log(400, members=5, titles=20, seed=3, days=9).write(found)
    return found


def playbill(workspace: Workspace, *words: str) -> Result:
    return CliRunner().invoke(main, ["--project", str(workspace.project.root), *words])


def define(workspace: Workspace, name: str, where: str) -> None:
    (workspace.project.model_zoo / f"{name}.yaml").write_text(RULE.format(name=name, where=where))


def test_all_mistakes_in_conditions_are_reported_with_a_caret(workspace: Workspace) -> None:
    define(workspace, "near", "progres >= 0.1")
    define(workspace, "typed", "progress >= 0.1 annd prior_plays = 0")
    found = playbill(workspace, "check")
    assert found.exit_code == 1
    assert "2 problems" in found.output
    assert "near.yaml:4:30: from.where: unknown column 'progres'. Did you mean 'progress'?" in found.output
    lines = found.output.splitlines()
    at = lines.index("    progress >= 0.1 annd prior_plays = 0")
    assert lines[at - 1].endswith("unexpected 'annd'. Expected 'and', 'or' or the end.")
    assert lines[at + 1] == " " * (4 + len("progress >= 0.1 ")) + "^"


@pytest.mark.parametrize("command", ["show", "publish", "explain"])
def test_a_label_with_a_mistake_is_refused_by_name(workspace: Workspace, command: str) -> None:
    define(workspace, "near", "progres >= 0.1")
    found = playbill(workspace, "labels", command, "--label", "near")
    assert found.exit_code == 1
    assert "near.yaml:4:30: from.where: unknown column 'progres'. Did you mean 'progress'?" in found.output
    assert not workspace.features.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--label", "plaid"), "unknown label 'plaid'. Did you mean 'played'?"),
        (("--label", "played", "--label", "played:1"), "played: is given in two versions"),
        (("--as-of", "yesterday"), "'yesterday' is no ISO 8601 moment"),
    ],
)
def test_wrong_arguments_are_reported(workspace: Workspace, words: tuple[str, ...], message: str) -> None:
    define(workspace, "played", "progress >= 0.1")
    text = (workspace.project.model_zoo / "played.yaml").read_text().replace("version: 1", "version: 2")
    (workspace.project.model_zoo / "played_2.yaml").write_text(text)
    found = playbill(workspace, "labels", "show", *words)
    assert found.exit_code == 1
    assert message in found.output


def test_a_label_that_no_event_matches_is_reported_with_the_reason(workspace: Workspace) -> None:
    define(workspace, "never", "progress > 2")
    (workspace.project.model_zoo / "trailers.yaml").write_text(
        "kind: Label\nname: trailers\nversion: 1\nfrom: {action: trailer_view}\n"
    )
    found = playbill(workspace, "labels", "show")
    assert found.exit_code == 0, found.output
    assert "note: label never: none of " in found.output
    assert "matches and is mature. Check where: progress > 2" in found.output
    assert "trailers:1" not in found.output
    assert "note: label trailers" not in found.output
    line = "1 of 2 labels need an action, a column or a canvas that this log does not have"
    assert f"{line} (`labels show --label NAME` says which): trailers" in found.output
    named = playbill(workspace, "labels", "show", "--label", "trailers")
    assert "trailers:1" in named.output
    assert "note: label trailers: the log has no 'trailer_view' event. Actions in it: " in named.output


def parts(workspace: Workspace, labels: list[LabelSpec]) -> Iterator[pl.DataFrame]:
    return label_parts(labels, Tables(workspace).published().log(None, None, None), LATE, block=100)


@pytest.mark.usefixtures("own_plugins")
def test_an_extractor_that_fails_halfway_leaves_what_was_published(
    workspace: Workspace,
) -> None:
    @label_extractor("fragile")
    def fragile(events: pl.DataFrame, context: object) -> pl.Series:
        """Fail at the last member."""
        if (events["member_id"] == "m4").any():
            raise ValueError("too much")
        return events["seq"]

    labels = [
        LabelSpec.model_validate({"name": "whole", "version": 1, "from": {"action": "play"}}),
        LabelSpec.model_validate({"name": "half", "version": 1, "extractor": "fragile"}),
    ]
    values = [LabelValues(label.name, labeler(label), partial(published_rows, label)) for label in labels]
    write_labels(workspace.features, values[:1], parts(workspace, labels[:1]), LATE)
    before = {path: path.read_bytes() for path in workspace.features.rglob("*.parquet")}
    assert len(before) == 1
    with pytest.raises(DataError, match=r"label half: 1 problem\n  extractor 'fragile': ValueError: too much"):
        write_labels(workspace.features, values, parts(workspace, labels), LATE)
    assert {path: path.read_bytes() for path in workspace.features.rglob("*.parquet")} == before
    assert not list(workspace.features.glob(".labels*"))


def test_a_disk_that_is_full_leaves_what_was_published(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    label = LabelSpec.model_validate({"name": "whole", "version": 1, "from": {"action": "play"}})
    values = [LabelValues(label.name, labeler(label), partial(published_rows, label))]
    write_labels(workspace.features, values, parts(workspace, [label]), LATE)
    before = {path: path.read_bytes() for path in workspace.features.rglob("*.parquet")}

    def full(self: object, table: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(StorageError, match=r"the labels at .*: the disk is full\..*What was there before is unchanged"):
        write_labels(workspace.features, values, parts(workspace, [label]), LATE)
    assert {path: path.read_bytes() for path in workspace.features.rglob("*.parquet")} == before
