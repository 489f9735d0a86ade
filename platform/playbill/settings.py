"""Tables of playbill.toml: what every one is, and those of the HTTP server."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt


class Settings(BaseModel):
    """A table of playbill.toml. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LimitsSettings(Settings):
    """`[serving.limits]`: what a client may send, and how many requests wait before more are refused."""

    body_kb: PositiveInt = 2048
    """Size of a request's body; a larger one is refused with 413."""
    header_seconds: PositiveFloat = 10.0
    """Time for the headers of a request; then the connection is closed with 408."""
    body_seconds: PositiveFloat = 10.0
    """Time for the body after them; then 408."""
    queue: NonNegativeInt | None = None
    """Requests that may wait to be scored; one more is refused with 429. None = 8 for each processor."""
    queue_seconds: PositiveFloat = 1.0
    """How long one of them may wait; then 429."""
    when_busy: Literal["refuse", "fallback"] = "refuse"
    """What is done instead of waiting: `refuse` with 429, or answer by the canvas's `fallback`."""


class ServingSettings(Settings):
    """`[serving]`: the HTTP server and the promotion controller."""

    host: str = "127.0.0.1"
    port: PositiveInt = 8080
    mlflow_port: PositiveInt = 5000
    poll_seconds: float = Field(default=2.0, gt=0)
    """How often aliases and approvals are looked up."""
    limits: LimitsSettings = LimitsSettings()
