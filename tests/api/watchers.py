"""Clients that follow the published posts wherever they are sent, and remember what they have seen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.api.servers import Live, Server, User, live


class Watcher:
    """A client that resumes wherever it is sent, and keeps the titles that it has seen, and what it was told."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.titles: list[str] = []
        self.recovered: list[bool | None] = []
        self.told: list[str] = []
        self._since: dict[str, str] | None = None
        self._stack = contextlib.ExitStack()
        self.live: Live | None = None

    def connect(self) -> None:
        """Subscribe, behind what was seen last."""
        self.live = self._stack.enter_context(live(self.server))
        since: dict[str, Any] = {"since": self._since} if self._since else {}
        self.live.send(type="subscribe", id="1", resource="posts", filter={"status": "published"}, **since)
        self._read_until("ready")

    def _read_until(self, type: str) -> None:
        assert self.live is not None
        while True:
            frame = self.live.receive()
            self.told.append(frame["type"])
            match frame["type"]:
                case "subscribed":
                    self.recovered.append(frame["recovered"])
                case "event":
                    self.titles.append(frame["document"]["title"])
            if "position" in frame:
                self._since = {"view": frame["view"], "position": frame["position"]}
            if frame["type"] == type:
                return

    def read(self, titles: list[str]) -> None:
        """Read until all of `titles` were seen, through every change of worker."""
        while self.titles != titles:
            assert titles[: len(self.titles)] == self.titles
            try:
                self._read_until("event")
            except ConnectionClosed:
                self._stack.close()
                self._reconnect()

    def read_all(self, titles: set[str]) -> None:
        """The same for titles of which nobody knows the order."""
        while not titles <= set(self.titles):
            try:
                self._read_until("event")
            except ConnectionClosed:
                self._stack.close()
                self._reconnect()

    def _reconnect(self) -> None:
        # What was accepted just before a worker stopped is closed by it unserved, and another try meets another worker.
        while True:
            with contextlib.suppress(ConnectionClosed, InvalidStatus, OSError):
                return self.connect()

    def close(self) -> None:
        """Leave."""
        self._stack.close()


@contextlib.contextmanager
def watching(server: Server, count: int) -> Iterator[list[Watcher]]:
    """Clients, subscribed."""
    watchers = [Watcher(server) for _ in range(count)]
    try:
        for watcher in watchers:
            watcher.connect()
        yield watchers
    finally:
        for watcher in watchers:
            watcher.close()


def publish(user: User, title: str) -> str:
    """Create a published post through any worker."""
    answer = user.client.post("/posts", json={"title": title, "status": "published"})
    assert answer.status_code == 201, answer.text
    return title
