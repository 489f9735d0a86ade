import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from playbill.versions.tracking import Lineage
from playbill.versions.tracking.registry import git_revision


def test_tags_leave_out_what_is_not_known() -> None:
    lineage = Lineage("h", "snap", "s_v1", "f1", "global_time", "d", datetime(2026, 1, 1, tzinfo=UTC), {"b": 2, "a": 1})
    tags = lineage.tags()
    assert tags["playbill.labels"] == "a:1,b:2"
    assert tags["playbill.watermark"] == "2026-01-01T00:00:00+00:00"
    assert not {"playbill.rewards", "playbill.parent_version", "playbill.git_revision"} & tags.keys()


def test_rewards_are_named_by_their_ids() -> None:
    ids = {"play": "play:1:0123456789ab", "long_term": "long_term:2:ba9876543210"}
    lineage = Lineage("h", "snap", "s_v1", "f1", "global_time", "d", datetime(2026, 1, 1, tzinfo=UTC), rewards=ids)
    assert lineage.tags()["playbill.rewards"] == "long_term:2:ba9876543210,play:1:0123456789ab"


def test_a_folder_outside_git_has_no_revision(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None


def test_a_changed_checkout_is_called_dirty(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    clean = git_revision(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert git_revision(tmp_path) == f"{clean}-dirty"


def test_importing_tracking_and_promotion_does_not_import_mlflow() -> None:
    code = (
        "import playbill.versions.tracking, playbill.versions.promotion, sys;"
        "print([name for name in ('mlflow', 'torch', 'feast', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
