"""One workspace's connection to MLflow: imported late, probed before use, quiet, and explicit.

Every call goes through a client with its own tracking URI, so two workspaces in one process do not disturb
each other. Only where MLflow's fluent interface is the only way in (`log_model`, an active run for Feast's
own integration) is the process-wide tracking URI set, and put back afterwards.

The MLflow UI is started beside our server.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy

from playbill.config import Workspace
from playbill.errors import ConfigError, PlaybillError, ServiceError
from playbill.files import database_file, require_writable, storage_error

PROBE_SECONDS = 3
NOT_FOUND = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
ALREADY_THERE = frozenset({"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"})

_SQLITE = "sqlite:///"
_WEB = ("http://", "https://")
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
_THEIRS = frozenset({"mlflow", "sqlalchemy", "requests", "urllib3", "botocore", "boto3"})
_uri_lock = threading.RLock()


class Connection:
    """A lazily opened MLflow client for one tracking URI (server or database), safe to share between threads."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._client: Any = None

    def __reduce__(self) -> tuple[type[Connection], tuple[str]]:
        """Travel to another process as the URI alone; the client is opened anew there."""
        return Connection, (self.uri,)

    @property
    def is_database(self) -> bool:
        """Whether this process talks to MLflow's database itself, without a server."""
        return not self.uri.startswith(_WEB)

    @property
    def shown(self) -> str:
        """The URI without its password, for messages."""
        return sqlalchemy.make_url(self.uri).render_as_string(hide_password=True)

    @property
    def client(self) -> Any:
        """The `MlflowClient`, made at the first use.

        Raises:
            ServiceError: MLflow cannot be reached.
            ConfigError: MLflow is not installed, or the URI is neither a server nor a database.
        """
        with self._lock:
            if self._client is None:
                self._probe()
                mlflow = import_mlflow()
                with self.guarded("opened"):
                    self._client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            return self._client

    def _probe(self) -> None:
        """Fail within seconds; MLflow itself retries an unreachable database for over a minute."""
        if not self.is_database:
            self._probe_server()
        elif self.uri.startswith(_SQLITE):
            self._probe_sqlite(Path(self.uri.removeprefix(_SQLITE)))
        else:
            self._probe_database()

    def _probe_server(self) -> None:
        try:
            with urllib.request.urlopen(f"{self.uri.rstrip('/')}/health", timeout=PROBE_SECONDS):
                pass
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                raise self._unreachable(f"HTTP {error.code}") from None
        except (OSError, ValueError) as error:
            # urllib wraps what happened in an error whose own text is noise.
            raise self._unreachable(getattr(error, "reason", error)) from None

    def _probe_sqlite(self, path: Path) -> None:
        if not path.exists():
            require_writable(path.parent)
            return
        try:
            connection = sqlite3.connect(path, timeout=PROBE_SECONDS)
            try:
                connection.execute("PRAGMA schema_version")
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise storage_error(error, "MLflow's database", path) or self._unreachable(error) from None

    def _probe_database(self) -> None:
        try:
            url = sqlalchemy.make_url(self.uri)
            wait = {"connect_timeout": PROBE_SECONDS} if url.get_backend_name() == "postgresql" else {}
            engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=wait)
            engine.connect().close()
        except (sqlalchemy.exc.NoSuchModuleError, sqlalchemy.exc.ArgumentError, ImportError) as error:
            raise ConfigError(
                f"services.mlflow is '{self.uri}': {_first_line(error)}. "
                "Expected an http(s) server or a database URL such as sqlite:///mlflow.db"
            ) from None
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, reason: object) -> ServiceError:
        return ServiceError(
            f"MLflow at {self.shown} cannot be reached: {_first_line(reason)}. "
            "Start it, or correct services.mlflow in playbill.toml; `playbill doctor` looks again."
        )

    @contextmanager
    def guarded(self, action: str) -> Iterator[None]:
        """Turn whatever MLflow raises inside into a ServiceError that says what could not be done.

        `action` is a phrase for the message, such as "aliases of 'x' read".
        """
        try:
            yield
        except PlaybillError:
            raise
        except Exception as error:
            refused = storage_error(error, "MLflow's database", database_file(self.uri))
            if refused is not None:
                raise refused from error
            if not _is_theirs(error):
                raise
            raise ServiceError(f"MLflow at {self.shown}: {action} failed: {_first_line(error)}") from error

    @contextmanager
    def everywhere(self) -> Iterator[Any]:
        """Make this the process-wide tracking URI for a while; yields the `mlflow` module."""
        mlflow = import_mlflow()
        with _uri_lock:
            before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
            mlflow.set_tracking_uri(self.uri)
        try:
            yield mlflow
        finally:
            with _uri_lock:
                mlflow.set_tracking_uri(before)


def import_mlflow() -> Any:
    """Import MLflow with telemetry, progress bars and migration logs off. Environment settings win.

    Raises:
        ConfigError: MLflow is not installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
    except ModuleNotFoundError as error:
        if error.name != "mlflow":
            raise
        raise ConfigError("MLflow is not installed: pip install 'playbill[tracking]'") from None
    warnings.filterwarnings("ignore", category=sqlalchemy.exc.SADeprecationWarning, module=r"mlflow\.")
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def error_code(error: BaseException) -> str:
    """Return MLflow's code of an error, such as RESOURCE_DOES_NOT_EXIST; empty when it has none."""
    return str(getattr(error, "error_code", ""))


def is_missing(error: BaseException | None) -> bool:
    """Whether an error says that an artifact is not there, as against a store that cannot be reached."""
    if isinstance(error, FileNotFoundError) or (error is not None and error_code(error) in NOT_FOUND):
        return True
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None) == 404 or "No such artifact" in str(error)


def _is_theirs(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _THEIRS


def _first_line(reason: object) -> str:
    lines = str(reason).strip().splitlines()
    return lines[0] if lines else type(reason).__name__


def ui_command(workspace: Workspace, host: str, port: int) -> list[str]:
    """Return the command that serves the workspace's MLflow database, one worker, on loopback by default.

    Host headers other than those named in `--allowed-hosts` are answered with 403 by MLflow; its own list is
    replaced by ours, so localhost is in it too.
    """
    hosts = ",".join(f"{name}:{port}" for name in dict.fromkeys([host, "localhost", "127.0.0.1"]))
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", workspace.mlflow_uri),
        *("--default-artifact-root", workspace.artifacts),
        *("--host", host, "--port", str(port), "--workers", "1"),
        *("--allowed-hosts", hosts),
    ]


def ui_environment() -> dict[str, str]:
    """Return the settings that keep it at two processes instead of ten, and from asking about usage data."""
    return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def model_page(base: str, workspace: Workspace, model: str) -> str:
    """Return the address of a registered model's page in an MLflow UI.

    MLflow opens in its mode for generative models, in which the registry is not in the menu; the address names the
    other mode (`workflowType`, MLflow 3.17).
    """
    name = quote(workspace.registered_name(model), safe="")
    return f"{base.rstrip('/')}/#/models/{name}?workflowType=machine_learning"
