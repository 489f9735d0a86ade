"""A Postgres server that lives as long as a test session, from whatever Postgres is installed."""

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path


def find(program):
    """Return a server program's path; Debian keeps them off the PATH. None when Postgres is not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return shutil.which(program) or (str(installed[-1]) if installed else None)


@contextmanager
def throwaway_postgres():
    """Start a cluster of its own on a free loopback port; yields its SQLAlchemy URL. Postgres refuses to be root."""
    folder = Path(tempfile.mkdtemp(prefix="playbill-postgres-"))
    owner = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    if owner:
        shutil.chown(folder, **owner)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = str(folder / "data")

    def run(*command):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, **owner)

    try:
        run(find("initdb"), "-D", data, "-U", "playbill", "--auth", "trust", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(find("pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://playbill@127.0.0.1:{port}/postgres"
        finally:
            run(find("pg_ctl"), "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
