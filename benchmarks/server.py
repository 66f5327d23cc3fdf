"""A server to measure: `main.py` as a process of its own, on free ports of the loopback and with an empty folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = secrets.token_urlsafe(12)
START_SECONDS = 30
STOP_SECONDS = 30


def free_port() -> int:
    """A free TCP port of the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(**settings: str) -> Iterator[tuple[str, int]]:
    """The URL and the process id of a server that runs until the block ends; with the embedded database, if not set."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "HEADWATER_PORT": str(port),
            "HEADWATER_EMBEDDED_PORT": str(free_port()),
            "HEADWATER_DATA_DIR": folder,
            "HEADWATER_ADMIN_EMAIL": "admin@example.org",
            "HEADWATER_ADMIN_PASSWORD": PASSWORD,
            # One user writes and one address connects, faster than people do.
            "HEADWATER_RATE_LIMIT": "1000000/minute",
        }
        environment |= {f"HEADWATER_{name.upper()}": value for name, value in settings.items()}
        log = Path(folder) / "server.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "main.py")], env=environment, stdout=subprocess.DEVNULL, stderr=file
            )
        try:
            _wait_until_ready(base, process, log)
            yield base, process.pid
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def _wait_until_ready(base: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{base}/health/ready", timeout=1).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit(f"the server did not start:\n{log.read_text()}")
