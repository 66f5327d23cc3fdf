"""Clients that are connected and read nothing: what they may cost the server, and that they cannot keep it."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.listening import UNSENT_BYTES, listen
from tests.api.conftest import Starter
from tests.api.servers import Server, live, serving

POSTS, BODY_BYTES = 40, 60_000


def test_what_waits_in_the_kernel() -> None:
    """A connection takes no more than its bound from the server before its client reads."""
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()[:2]) as client:
        accepted, _ = listening.accept()
        with accepted:
            accepted.setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += accepted.send(bytes(16_384))
            received = client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            # What the client's own machine has room for is on its way; the rest is what the server's would keep.
            assert sent < received + 4 * UNSENT_BYTES


@pytest.fixture
def server(tmp_path: Path, server_settings: Starter, free_port: Callable[[], int]) -> Iterator[Server]:
    """A server of its own, which is stopped."""
    with serving(tmp_path, free_port(), server_settings()) as server:
        yield server


def test_server_that_stops(server: Server) -> None:
    """It ends in good order and soon, though an event stream and a download by WebSocket are not taken."""
    user = server.register("mara")
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stream.sendall(
            b"GET /api/v1/posts?snapshot=false HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        )
        assert b"200 OK" in stream.recv(1_024)
        witness = stack.enter_context(live(server, max_size=None))
        witness.subscribe("1", snapshot=False)
        for _ in range(POSTS):
            # Random, so that it cannot be compressed on its way.
            post = {"title": "Fat", "body": secrets.token_hex(BODY_BYTES // 2), "status": "published"}
            assert user.client.post("/posts", json=post).status_code == 201
        stopped = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        assert time.monotonic() - stopped < 9
    server.check_log()
