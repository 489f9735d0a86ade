"""The commands of `infra/compose.yaml`, run here as its containers would run them."""

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy
import yaml

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "infra" / "compose.yaml").read_text())
WAIT_S = 240


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def status(port, host, path="/api/2.0/mlflow/experiments/search?max_results=1"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


@pytest.mark.parametrize(("program", "subcommand"), [("mlflow", "server"), ("ray", "start")])
def test_every_option_of_other_programs_exists(program, subcommand):
    written = {
        name: one["command"] for name, one in COMPOSE["services"].items() if one.get("command", [""])[0] == program
    }
    assert written
    executable = Path(sys.executable).with_name(program)
    shown = subprocess.run([executable, subcommand, "--help"], capture_output=True, text=True, check=True).stdout
    for name, words in written.items():
        assert words[1] == subcommand
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options - set(re.findall(r"--[\w-]+", shown)) == set(), name


@pytest.fixture
def mlflow_database(postgres_url):
    """An empty database beside the tests' own."""
    engine = sqlalchemy.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE of_compose"))
    yield engine.url.set(database="of_compose").render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("DROP DATABASE of_compose WITH (FORCE)"))
    engine.dispose()


def test_mlflow_serves_postgres_to_the_names_of_compose_and_to_no_others(mlflow_database, tmp_path):
    service, port = COMPOSE["services"]["mlflow"], free_port()
    here = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--backend-store-uri": mlflow_database,
        "--artifacts-destination": str(tmp_path / "artifacts"),
    }
    words = [
        f"{name}={here.get(name, value)}" if equals else name
        for name, equals, value in (word.partition("=") for word in service["command"])
    ]
    executable = str(Path(sys.executable).with_name(words[0]))
    environment = {**os.environ, **service["environment"]}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([executable, *words[1:]], env=environment, stdout=log, stderr=log)
        try:
            deadline = time.perf_counter() + WAIT_S
            while status(port, "mlflow:5000") != 200:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.perf_counter() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
            assert status(port, "elsewhere:5000") == 403
        finally:
            process.terminate()
            process.wait(30)
