"""`playbill check --data` on a log of plays and thumbs: what is printed, and the exit status that a script reads."""

from __future__ import annotations

import json

import pytest

from fixtures.small_project import Shell

SOON = "coming_soon, coming_later, pre_launch: 1 label has no events (remind_me); everycanvas ranks by discovery_play"


@pytest.fixture(scope="module")
def shell(filled):
    return Shell(filled.folder)


def test_a_plain_log_is_right_and_takes_a_line_a_canvas(shell):
    result = shell.type("check", "--data")
    assert result.exit_code == 0, result.output
    notes = [line for line in result.output.splitlines() if line.startswith("note: ")]
    assert f"note: {SOON}" in notes
    assert len(notes) <= 5
    assert not [note for note in notes if "model_zoo/labels" in note]
    assert notes[-1].endswith("values that the data does not have: --verbose lists them")


def test_verbose_lists_every_value_with_its_file(shell):
    short, long = (shell.type("check", "--data", *more).output.splitlines() for more in ((), ("--verbose",)))
    (count,) = (int(line.split()[3]) for line in short if "--verbose lists them" in line)
    listed = [line for line in long if line.startswith("note: model_zoo/labels/")]
    assert len(listed) == count > 10
    assert "note: model_zoo/labels/remind_me.yaml:6:16: from.action.0: the data has no action 'remind_me'." in listed


def test_a_script_tells_incomplete_data_from_mistakes_by_the_exit_status(shell, tmp_path):
    result = shell.type("check", "--data", "--strict", "--json")
    assert result.exit_code == 3
    facts = json.loads(result.stdout)
    assert (facts["ok"], facts["data"]["complete"]) == (True, False)
    soon = next(one for one in facts["data"]["canvases"] if one["canvas"] == "coming_soon")
    assert soon["without_events"] == ["remind_me"]
    assert any(note["file"].endswith("remind_me.yaml") for note in facts["notes"])
    assert shell.type("check", "--data", "--json").exit_code == 0
    assert shell.type("check", "--strict").exit_code == 2
