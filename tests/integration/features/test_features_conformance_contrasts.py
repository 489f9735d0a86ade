"""The conformance suites find what is known to be wrong with Feast's own stores, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Hypothesis is told not to look for the smallest example: one failure is enough here.
HEADER = """
from hypothesis import Phase, settings
from playbill_feast.conformance import OfflineStoreConformance, OnlineStoreConformance

settings.register_profile("first", phases=[Phase.generate], database=None)
settings.load_profile("first")
"""


@pytest.fixture
def failures(tmp_path: Path) -> Callable[..., set[str]]:
    """Return a runner of one suite on one store, in a process of its own, that returns the tests that failed."""

    def run(suite: str, body: str, *, leave_out: str = "") -> set[str]:
        (tmp_path / "test_a_store.py").write_text(f"{HEADER}\n\nclass TestAStore({suite}):\n    {body}\n")
        # Feast's stores raise warnings of their own: their findings are wanted here, not their warnings.
        options = ["-q", "-p", "no:cacheprovider", "-rfE", "--tb=no", "-W", "ignore", f"--rootdir={tmp_path}"]
        command = [sys.executable, "-m", "pytest", *options, *(["-k", f"not {leave_out}"] if leave_out else [])]
        done = subprocess.run(
            [*command, "test_a_store.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500
        )
        assert " passed" in done.stdout, done.stdout + done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return {line.split("::")[-1].split(" - ")[0].split("[")[0] for line in lines}

    return run


def test_feasts_file_store_loses_rows_order_and_text_times(failures: Callable[..., set[str]]) -> None:
    # The long log is left out: that store pairs every row with the whole history of its key, which takes minutes.
    found = failures("OfflineStoreConformance", 'offline_store = {"type": "dask"}', leave_out="hot_key")
    assert found == {
        "test_slate_rows_are_all_kept",
        "test_exact_duplicates_are_kept",
        "test_output_has_the_order_of_the_input",
        "test_rows_whose_history_is_all_expired_are_kept_with_null",
        "test_rows_whose_history_lies_all_ahead_are_kept_with_null",
        "test_null_text_keys_are_kept_and_match_nothing",
        "test_age_of_exactly_the_ttl_is_kept_and_a_microsecond_more_is_null",
        "test_a_value_holds_from_its_own_moment_on",
        "test_the_time_column_may_have_another_name",
        "test_times_of_every_sort_mean_one_moment",
        "test_a_view_without_entity_holds_for_every_row",
        "test_a_pull_of_a_view_without_entity",
        "test_a_snapshot_by_dates_has_every_moment_of_every_key",
        "test_a_snapshot_leaves_out_what_lies_outside_its_dates",
        "test_written_rows_are_read_beside_the_old",
        "test_sums_equal_merge_asof",
    }


def test_feasts_sqlite_store_lets_late_writes_win_and_ignores_ttl(failures: Callable[..., set[str]]) -> None:
    found = failures("OnlineStoreConformance", 'online_store = {"type": "sqlite", "path": "{folder}/online.db"}')
    assert found == {
        "test_a_late_write_never_wins",
        "test_event_times_are_compared_below_the_second",
        "test_of_equal_event_times_the_later_created_wins",
        "test_rows_of_one_entity_in_one_write",
        "test_a_late_row_holds_up_no_other",
        "test_materialization_does_not_undo_what_was_pushed_later",
        "test_a_value_past_its_ttl",
        "test_age_is_each_views_own",
    }
