"""`playbill serve`: answer requests over HTTP with the approved version, and follow promotions.

`playbill up`: the MLflow UI and the server, started and stopped together.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.doctor import port_is_free
from playbill.cli.main import Selection
from playbill.errors import ConfigError, ServiceError
from playbill.files import require_writable

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


START_SECONDS = 120
STOP_SECONDS = 10


@dataclass
class Service:
    """One process of `playbill up`, and where it answers."""

    name: str
    command: Sequence[str]
    host: str
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Start it in a process group of its own, so that its children stop with it."""
        environment = {**os.environ, **self.environment}
        self.process = subprocess.Popen(self.command, env=environment, start_new_session=True)

    def wait_until_it_answers(self) -> None:
        """Wait for the port.

        Raises:
            ServiceError: The process ended, or did not answer in time.
        """
        deadline = time.perf_counter() + START_SECONDS
        while port_is_free(self.host, self.port):
            if self.process is None or self.process.poll() is not None:
                raise ServiceError(f"{self.name} ended before it answered, its messages are above")
            if time.perf_counter() > deadline:
                raise ServiceError(f"{self.name} did not answer at {self.url} within {START_SECONDS} s")
            time.sleep(0.2)

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if self.process is None or self.process.poll() is not None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@click.command("up")
@click.option("--port", type=int, help="Port of the server (default: playbill.toml).")
@click.option("--mlflow-port", type=int, help="Port of the MLflow UI (default: playbill.toml).")
@click.option("--model", help="Model to serve (default: the promoted one).")
@click.pass_obj
def up(selection: Selection, port: int | None, mlflow_port: int | None, model: str | None) -> None:
    """Start the MLflow UI and the server together, and print where they are. Ctrl-C stops both.

    Example: playbill -w ml_100k up --port 8080
    """
    from playbill.versions.tracking.connection import model_page, ui_command, ui_environment

    workspace = selection.workspace
    settings = workspace.project.settings.serving
    host, port = settings.host, port or settings.port
    root = ["--project", str(workspace.project.root), "-w", workspace.name]
    serve = [sys.executable, "-m", "playbill.cli", *root, "serve", "--host", host, "--port", str(port)]
    serve += [] if model is None else ["--model", model]
    services = [Service("the server", serve, host, port)]
    require_writable(workspace.folder)
    if not workspace.mlflow_uri.startswith(("http://", "https://")):
        ui_port = mlflow_port or settings.mlflow_port
        command = ui_command(workspace, host, ui_port)
        services.insert(0, Service("the MLflow UI", command, host, ui_port, ui_environment()))
    mlflow = services[0].url if len(services) > 1 else workspace.mlflow_uri
    page = model_page(mlflow, workspace, model or workspace.settings.model)
    for service in services:
        if not port_is_free(service.host, service.port):
            raise ConfigError(f"{service.url} is in use, choose another port for {service.name}")
    run_services(services, page)


def run_services(services: Sequence[Service], page: str) -> None:
    """Start services, say where they are, and stop them at Ctrl-C, at SIGTERM or when one of them ends."""
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        for service in services:
            service.start()
        for service in services:
            service.wait_until_it_answers()
        click.echo(f"the model in MLflow, where it is promoted  {page}")
        for service in services:
            click.echo(f"{service.name:<14} {service.url}")
        click.echo("Ctrl-C stops them.")
        while all(service.process and service.process.poll() is None for service in services):
            time.sleep(0.5)
        ended = [service.name for service in services if service.process and service.process.poll() is not None]
        raise ServiceError(f"{', '.join(ended)} ended by itself, the rest was stopped")
    except KeyboardInterrupt:
        click.echo("stopping")
    finally:
        for service in reversed(services):
            service.stop()
        signal.signal(signal.SIGTERM, previous)
