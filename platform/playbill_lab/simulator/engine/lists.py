"""Short lists of titles that members carry with them, newest first: to be continued, my list, reminders.

Axis letters: M members, W places of a list, N members at hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Lists = NDArray[np.int32]


def drop(lists: Lists, member: NDArray[np.integer], title: Lists, beside: NDArray[np.int16] | None = None) -> None:
    """Take one title from the list of each member; the ones behind it move up.

    Args:
        lists: [M, W], changed in place; -1 fills.
        member: [N], each once.
        title: [N].
        beside: [M, W] values that move with the titles.
    """
    rows = lists[member]
    kept = np.where(rows == title[:, None], -1, rows)
    order = np.argsort(kept < 0, axis=1, kind="stable")
    lists[member] = np.take_along_axis(kept, order, 1)
    if beside is not None:
        beside[member] = np.take_along_axis(beside[member], order, 1)


def push(
    lists: Lists,
    member: NDArray[np.integer],
    title: Lists,
    beside: NDArray[np.int16] | None = None,
    value: NDArray[np.integer] | None = None,
) -> None:
    """Put one title first on the list of each member; it is never on it twice, and the oldest falls off.

    Args:
        lists: [M, W], changed in place; -1 fills.
        member: [N], each once.
        title: [N].
        beside: [M, W] values that move with the titles.
        value: [N] the new titles' values.
    """
    drop(lists, member, title, beside)
    lists[member] = np.concatenate([title[:, None], lists[member][:, :-1]], axis=1)
    if beside is not None and value is not None:
        beside[member] = np.concatenate([value[:, None], beside[member][:, :-1]], axis=1)


def find(lists: Lists, member: NDArray[np.integer], title: Lists) -> NDArray[np.int64]:
    """Return [N] the place of a title on each member's list; -1 where it is not."""
    same = lists[member] == title[:, None]
    return np.where(same.any(axis=1), same.argmax(axis=1), -1)
