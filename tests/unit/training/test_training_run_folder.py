"""What was checked before a run that was killed is not checked again while nothing it read has changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from fixtures import shown_service as service
from playbill.datasets import build_training_set, make_split
from playbill.datasets.parts import build_in_parts
from playbill.errors import DataError
from playbill.training.build import build_network
from playbill.training.run_folder import CHECKS, FOUND, SPLIT, Checks, RunFolder, sources_digest

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def check():
    """The checks, and how often they were made."""
    plays = [
        {"event_id": f"{member}-{seq}", "member_id": member, "seq": seq, "action": "play"}
        for member in ("a", "b")
        for seq in range(4)
    ]
    moments = [START + timedelta(days=row["seq"]) for row in plays]
    split = make_split("leave_one_out", pl.DataFrame(plays).with_columns(event_at=pl.Series(moments)))

    def made():
        made.calls += 1
        return split, ("view 'mine': a note",)

    made.calls = 0
    return made


def test_the_next_attempt_takes_what_the_first_one_found(tmp_path, check):
    folder = RunFolder(tmp_path / "everycanvas-1")
    first = Checks.of(tmp_path, "everycanvas", "key", check)
    folder.keep_checks(first)
    again = Checks.of(tmp_path, "everycanvas", "key", check)
    assert check.calls == 1
    assert again.notes == first.notes
    assert again.split.digest == first.split.digest
    assert again.split.frame.equals(first.split.frame)


def test_anything_else_that_was_read_another_model_or_an_ended_run_is_checked(tmp_path, check):
    folder = RunFolder(tmp_path / "everycanvas-1")
    folder.keep_checks(Checks.of(tmp_path, "everycanvas", "key", check))
    for model, key in (("everycanvas", "other"), ("another", "key")):
        Checks.of(tmp_path, model, key, check)
    assert check.calls == 3
    folder.drop_training_set()
    Checks.of(tmp_path, "everycanvas", "key", check)
    assert check.calls == 4


@pytest.mark.parametrize("name", [SPLIT, FOUND])
def test_damaged_checks_are_made_again(tmp_path, check, name):
    folder = RunFolder(tmp_path / "everycanvas-1")
    folder.keep_checks(Checks.of(tmp_path, "everycanvas", "key", check))
    file = folder.path / CHECKS / name
    file.write_bytes(file.read_bytes()[:-9])
    assert Checks.of(tmp_path, "everycanvas", "key", check).notes == ("view 'mine': a note",)
    assert check.calls == 2


def test_failed_checks_are_not_kept(tmp_path):
    def refused():
        raise DataError("views", [])

    for _ in range(2):
        with pytest.raises(DataError):
            Checks.of(tmp_path, "everycanvas", "key", refused)
    assert not list(tmp_path.iterdir())


def test_the_digest_of_sources_knows_every_file_and_its_name(tmp_path):
    (tmp_path / "views").mkdir()
    file = tmp_path / "views" / "mine.py"
    found = set()
    for text in ("a = 1\n", "a = 2\n"):
        file.write_text(text)
        found.add(sources_digest(tmp_path))
    file.rename(tmp_path / "views" / "other.py")
    found.add(sources_digest(tmp_path))
    (tmp_path / "notes.txt").write_text("no code")
    found.add(sources_digest(tmp_path))
    assert len(found) == 3


def test_a_training_set_that_was_built_in_parts_reads_what_was_kept_of_it(tmp_path):
    """Files that it was built in are dropped, those of an attempt before at once."""
    tables, folder = service.Tables(service.log(members=6)), RunFolder(tmp_path / "shown-1")
    resolved = service.model({"play": {"label": "play", "loss": "softmax"}})
    given = (resolved, make_split("global_time", tables.interactions()), service.NoFeatures(), service.CLOCK)
    whole = build_training_set(tables, *given)
    assert folder.without_parts(whole) is whole
    (folder.new_parts() / "left").touch()
    parts = build_in_parts(service.InRanges(tables), *given, folder.new_parts(), 100)
    start = build_network(parts.trained(resolved), parts)
    folder.keep_training_set(parts, start, {})
    kept = folder.without_parts(parts)
    assert sorted(path.name for path in folder.path.iterdir()) == ["training_set"]
    for one, other in zip(kept.epoch(0), whole.epoch(0), strict=True):
        assert (one.targets.title == other.targets.title).all()
        assert (one.history.title == other.history.title).all()
