"""A Redis server that lives as long as a test session, from whatever Redis is installed."""

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager

STARTS_WITHIN_S = 20


def find():
    """Return the server program's path, None when Redis is not installed."""
    return shutil.which("redis-server")


@contextmanager
def throwaway_redis(port=None):
    """Start a server of its own on a free loopback port, keeping nothing on disk; yields its `redis://` URL."""
    folder = tempfile.mkdtemp(prefix="playbill-redis-")
    port = port or free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([find(), *options], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        _wait(server, port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(timeout=STARTS_WITHIN_S)
        shutil.rmtree(folder, ignore_errors=True)


def free_port():
    """Return a loopback port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(server, port):
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until and server.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
                client.sendall(b"PING\r\n")
                if client.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"redis-server does not answer at port {port}")
