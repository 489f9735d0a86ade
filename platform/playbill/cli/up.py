"""`playbill up`: the MLflow UI and the server, started and stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import click

from playbill.cli.doctor import port_is_free
from playbill.cli.main import Selection
from playbill.errors import ConfigError, ServiceError
from playbill.files import require_writable

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
    from playbill.versions.tracking.ui import model_page, ui_command, ui_environment

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
    _run(services, page)


def _run(services: Sequence[Service], page: str) -> None:
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
