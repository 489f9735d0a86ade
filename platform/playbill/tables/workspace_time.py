"""The clock of a workspace, which may stand at the end of its data."""

from __future__ import annotations

from datetime import datetime

from playbill.clock import Clock, FixedClock, WallClock
from playbill.config import Workspace
from playbill.tables.store import Tables


def workspace_clock(workspace: Workspace) -> Clock:
    """Return the workspace's clock: the wall's, a fixed one, or one standing at the end of the data.

    Raises:
        StateError: The clock is `data_end` and nothing has been ingested yet.
    """
    setting = workspace.clock_setting
    if isinstance(setting, datetime):
        return FixedClock(setting)
    return WallClock() if setting == "wall" else FixedClock(Tables(workspace).data_end())
