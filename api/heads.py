"""Requests whose head does not end: uvicorn waits for the rest of it as long as the client likes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Somebody who opens connections and sends a byte a minute on each would otherwise use up the server's files. The same
#: time is allowed to connections on which nothing has been sent yet. A head is closed on after once to twice as long.
HEAD_SECONDS: Final = 30.0

_Http = H11Protocol | HttpToolsProtocol


class UnfinishedHeads:
    """uvicorn's `connections` (its own set of them) whose next request does not come to the end of its head.

    Idle connections, on which a request was answered, have uvicorn's own limit until the next one begins.
    """

    def __init__(self, connections: Collection[object]) -> None:
        self._connections = connections
        self._before: dict[_Http, object] = {}

    async def run(self, seconds: float = HEAD_SECONDS) -> None:
        """Sweep again and again, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            self.sweep()

    def sweep(self) -> None:
        """Close those of which nothing but a part of a head has come since the last sweep."""
        now = dict(self._waiting())
        for connection, last in now.items():
            # With the same last request as then: no request has been heard in the meantime.
            if connection in self._before and self._before[connection] is last:
                connection.transport.close()
        self._before = now

    def _waiting(self) -> Iterator[tuple[_Http, object]]:
        """The connections on which a head is awaited, each with its last request (None: there was none)."""
        for connection in self._connections:
            if isinstance(connection, _Http) and connection.timeout_keep_alive_task is None:
                last = connection.cycle
                if last is None or last.response_complete:  # type: ignore[redundant-expr]  # None before the first
                    yield connection, last
