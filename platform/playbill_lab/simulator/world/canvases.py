"""The surfaces and rows of the simulated service, as numbers: what is shown where, and how it is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CANVASES = (
    *("home", "kids", "billboard", "search", "more_like_this", "post_play", "screensaver", "coming_soon", "pre_launch"),
    "row_ranking",
)
"""Every canvas; its place is its code."""
HOME, KIDS, BILLBOARD, SEARCH, MORE_LIKE_THIS, POST_PLAY, SCREENSAVER, COMING_SOON, PRE_LAUNCH, ROW_RANKING = range(10)

PREVIEWS = (COMING_SOON, PRE_LAUNCH)  # Canvases of titles that cannot be played yet: they have trailers, and reminders

ROWS = (
    *("continue_watching", "top_picks", "top_10", "because_you_watched", "new_releases", "trending", "my_list"),
    *("genre_rows", "gems_for_you", "watch_it_again", "popular"),
)
"""Every row of a home page; its place is its code. -1 stands for a canvas without rows."""
CONTINUE_WATCHING, TOP_PICKS, TOP_10, BECAUSE_YOU_WATCHED, NEW_RELEASES, TRENDING, MY_LIST = range(7)
GENRE_ROWS, GEMS_FOR_YOU, WATCH_IT_AGAIN, POPULAR = range(7, 11)
NO_ROW = -1

PINNED_ROWS = (CONTINUE_WATCHING, TOP_PICKS)
"""Rows that come first on every page that has them; the others follow in an order of chance."""
RULE_ROWS = (CONTINUE_WATCHING, TOP_10, MY_LIST)
"""Rows with an order of their own: no policy is asked, and every propensity is 1."""

DEVICES = ("tv", "mobile", "web", "tablet")


@dataclass(frozen=True, slots=True)
class CanvasExamination:
    """How a canvas or row is looked at."""

    size: int
    look: float  # Chance to look at the next place after one that was not played
    draw: float = 0.0  # Added to the log odds of a click there


CANVAS_PLACES = {
    HOME: CanvasExamination(8, 0.86),
    KIDS: CanvasExamination(8, 0.88, 0.3),
    BILLBOARD: CanvasExamination(1, 1.0, 0.6),
    SEARCH: CanvasExamination(8, 0.85, 0.2),
    MORE_LIKE_THIS: CanvasExamination(8, 0.85, 0.3),
    POST_PLAY: CanvasExamination(3, 0.9, 0.6),
    SCREENSAVER: CanvasExamination(4, 0.7, -0.8),
    COMING_SOON: CanvasExamination(6, 0.85, 0.0),
    PRE_LAUNCH: CanvasExamination(2, 0.9, 0.8),
}
"""Canvases of titles. `row_ranking` shows the rows of a page: what is on them is asked for as `home`."""
ROW_DRAW = {CONTINUE_WATCHING: 0.4, TOP_10: 0.2, MY_LIST: 0.8, NEW_RELEASES: 0.1, WATCH_IT_AGAIN: 0.3}
"""Added to the log odds of a click in the row: what the row's name promises."""
NEXT_ROW = 0.78  # Chance to scroll on to the next row of a page where nothing was played
MOST_ROWS = 8  # Rows of a page at most

SIZE = np.array([CANVAS_PLACES[code].size for code in sorted(CANVAS_PLACES)], np.int16)
LOOK = np.array([CANVAS_PLACES[code].look for code in sorted(CANVAS_PLACES)])
DRAW = np.array([CANVAS_PLACES[code].draw for code in sorted(CANVAS_PLACES)])
ROW_DRAWS = np.array([*(ROW_DRAW.get(code, 0.0) for code in range(len(ROWS))), 0.0])
"""[rows + 1]; the last, which -1 reads, is that of no row."""
