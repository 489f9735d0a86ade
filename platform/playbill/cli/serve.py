"""`playbill serve`: answer requests over HTTP with the approved version, and follow promotions."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.serving.profile import ProfileName


SWITCH_SECONDS = 0.0005


@click.command("serve")
@click.option("--host", help="Address to listen at (default: playbill.toml).")
@click.option("--port", type=click.IntRange(min=1, max=65535), help="Port (default: playbill.toml).")
@click.option("--model", help="Model to serve (default: the promoted one).")
@click.option("--controller/--no-controller", default=True, help="Also decide about promotions in this process.")
@click.option(
    "--profile",
    type=click.Choice(["fresh", "cached"]),
    default="fresh",
    show_default=True,
    help="Make every answer anew, or keep answers for a while.",
)
@click.option("--cache-seconds", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True)
@click.option(
    "--timeout-ms", type=click.IntRange(min=1), help="After it the canvas's fallback answers (default: none)."
)
@click.option(
    "--queue", type=click.IntRange(min=0), help="Requests that may wait to be scored (default: playbill.toml)."
)
@click.option(
    "--queue-seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="How long they may wait (default: playbill.toml).",
)
@click.option(
    "--when-busy",
    type=click.Choice(["refuse", "fallback"]),
    help="Past that: refuse with 429, or answer by the canvas's fallback (default: playbill.toml).",
)
@click.pass_obj
def serve(
    selection: Selection,
    /,
    host: str | None,
    port: int | None,
    model: str | None,
    controller: bool,
    profile: ProfileName,
    cache_seconds: float,
    timeout_ms: int | None,
    **limits: Any,
) -> None:
    """Answer /v1/recommend and /v1/events with the approved version, and swap to a newer one when it is approved.

    POST /v1/events needs the bearer token of PLAYBILL_TOKEN when that is set. It must be set when the host can be
    reached from other machines.

    Example: playbill -w ml_100k serve --port 8080
    """
    import logging

    workspace = selection.workspace
    settings = workspace.project.settings.serving
    host, port = host or settings.host, port or settings.port
    _require_packages()

    import torch
    import uvicorn

    from playbill.serving.app import TOKEN_VARIABLE, create_app
    from playbill.serving.limits import server_config
    from playbill.serving.loading import served_model
    from playbill.serving.profile import Profile
    from playbill.serving.runtime import build_services

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("playbill").setLevel(logging.INFO)
    # Requests are scored side by side, so one of them must not take every processor.
    torch.set_num_threads(1)
    # Python lets a thread that computes keep the others waiting for 5 ms at each of their turns, and refusing a request
    # takes several turns: with four threads at work a refusal was seconds late.
    sys.setswitchinterval(SWITCH_SECONDS)
    token = os.environ.get(TOKEN_VARIABLE)
    chosen = model or served_model(workspace)
    how = Profile.named(profile, cache_seconds, timeout_ms)
    given = {name: value for name, value in limits.items() if value is not None}
    bounds = settings.limits.model_copy(update=given)
    services = build_services(
        workspace, chosen, host=host, token=token, with_controller=controller, profile=how, limits=bounds
    )
    click.echo(f"serving {chosen} of {workspace.name} at http://{host}:{port}, Ctrl-C ends it")
    server = uvicorn.Server(server_config(create_app(services), host, port, bounds))
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise click.exceptions.Exit(3)


def _require_packages() -> None:
    from importlib.util import find_spec

    from playbill.errors import ConfigError

    needed = {"fastapi": "serving", "uvicorn": "serving", "torch": "train"}
    missing = sorted({extra for package, extra in needed.items() if find_spec(package) is None})
    if missing:
        raise ConfigError(f"serving needs more packages. Run `pip install 'playbill[{','.join(missing)}]'`.")
