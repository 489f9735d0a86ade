"""From the arguments of a call, some of them text, to what the rooms below take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from pydantic import ValidationError

from playbill.clock import parse_moment
from playbill.errors import RequestError

if TYPE_CHECKING:
    from playbill.serving import ActiveModel, RecommendRequest
    from playbill.training.watch import ProgressListener


class Situation(TypedDict, total=False):
    """What else a request may say; the fields are those of `RecommendRequest`."""

    k: int
    """Titles in a list, and in each row, at most (default: 10)."""
    at: datetime | str | None
    """The moment to answer for, with a zone (default: now, after every event acknowledged so far)."""
    country: str | None
    device: str | None
    language: str | None
    query: str | None
    """What was typed so far, for canvases such as search."""
    source_title: str | None
    """Id or exact name of the title that the list is about, for canvases such as more_like_this."""
    context: Mapping[str, str | float]
    """Values of context fields that packages outside Playbill add."""
    rows: bool | None
    """Whether to fill the canvas's rows (default: if it has any)."""


def moment_of(moment: datetime | str | None) -> datetime | None:
    """Read a moment that may be written as text.

    Raises:
        ConfigError: The text is no moment, or has no zone.
    """
    return parse_moment(moment) if isinstance(moment, str) else moment


def request_of(
    active: ActiveModel, member_id: str | None, canvas: str | None, situation: Situation
) -> RecommendRequest:
    """Return a request to a model, checked.

    Raises:
        UnknownNameError: No such canvas.
        NotFoundError: No such source title.
        RequestError: A field is unknown or wrong; all are named.
    """
    from playbill.serving import RecommendRequest
    from playbill.serving.request_context import find_title

    canvas = canvas or active.resolved.main_canvas
    active.resolved.canvas(canvas)
    fields: dict[str, Any] = {**situation, "member_id": member_id, "canvas": canvas}
    if (title := fields.pop("source_title", None)) is not None:
        fields["source_title_id"] = find_title(active, title)
    try:
        return RecommendRequest.model_validate(fields)
    except ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
        raise RequestError("; ".join(problems)) from None


def by_stage(progress: ProgressListener) -> Callable[[str, int, int | None], None]:
    """Return what hears of (stage, done, total), for work that names its stage with every step."""
    current: list[str] = []

    def heard(stage: str, done: int, total: int | None) -> None:
        if current != [stage]:
            current[:] = [stage]
            progress.stage(stage)
        progress.advance(done, total)

    return heard
