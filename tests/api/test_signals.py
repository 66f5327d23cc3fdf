"""Signals that come when they are least expected."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.api.servers import ROOT, environment, serving, wait_until

IN_MEMORY = {"HEADWATER_MONGODB_URL": "mongomock://"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_stopped_while_it_starts(tmp_path: Path, free_port: Callable[[], int], number: signal.Signals) -> None:
    """A start that waits for a silent database is given up, without a word, and the exit code is 0."""
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as database, log.open("wb") as output:
        database.settimeout(60)
        settings = {
            "HEADWATER_PORT": str(free_port()),
            "HEADWATER_MONGODB_URL": f"mongodb://127.0.0.1:{database.getsockname()[1]}/?directConnection=true",
        }
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(ROOT / "main.py")],
            cwd=tmp_path,
            env=environment(settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            waiting, _ = database.accept()
            with waiting:
                process.send_signal(number)
                assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
    assert log.read_text() == ""


def test_hangup_of_a_single_process(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """It ends in good order, as at SIGTERM: there are no workers to replace."""
    with serving(tmp_path, free_port(), IN_MEMORY) as server:
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(30) == 0
        assert "Finished server process" in server.log


def test_clients_that_outlast_the_grace(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Who still sends a body is answered 503, and the log has a line for it, of that status, and no stack trace.

    One who left before that is not counted as a fault of the server.
    """
    head = (
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    settings = IN_MEMORY | {"HEADWATER_LOG_FORMAT": "json"}
    with serving(tmp_path, free_port(), settings) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as leaver:
            leaver.sendall(head)
        wait_until(lambda: '"status": 499' in server.log)
        with socket.create_connection(("127.0.0.1", server.port), 30) as client:
            client.sendall(head)
            wait_until(lambda: "headwater_http_requests_in_progress 2.0" in httpx.get(f"{server.url}/metrics").text)
            server.process.send_signal(signal.SIGTERM)
            with client.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 503 ")
                assert b'"code":"unavailable"' in answer.read()
        assert server.process.wait(30) == 0
        lines = [json.loads(line) for line in server.log.splitlines()]
    logins = [line["status"] for line in lines if line.get("route") == "/api/v1/auth/login"]
    assert logins == [499, 503]
    assert not [line for line in lines if "exception" in line]
