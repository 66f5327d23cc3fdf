"""Requests whose head does not end: uvicorn waits for the rest of it as long as the client likes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Somebody who opens connections and sends a byte a minute on each would otherwise use up the server's files. The same
#: time is allowed to connections on which nothing has been sent yet. A head is closed on after once to twice as long.
HEAD_SECONDS: Final = 30.0

_Http = H11Protocol | HttpToolsProtocol


async def end_unfinished(connections: Iterable[object], seconds: float = HEAD_SECONDS) -> None:
    """Close those of uvicorn's `connections` whose next request does not come to its headers' end, until cancelled.

    Idle connections, on which a request was answered, have uvicorn's own limit until the next one begins.
    """
    before: dict[_Http, object] = {}
    while True:
        await asyncio.sleep(seconds)
        now = dict(_waiting(connections))
        for connection, last in now.items():
            # With the same last request as then: no request has been heard in the meantime.
            if connection in before and before[connection] is last:
                connection.transport.close()
        before = now


def _waiting(connections: Iterable[object]) -> Iterator[tuple[_Http, object]]:
    """The connections on which a head is awaited, each with its last request (None: there was none)."""
    for connection in list(connections):
        if isinstance(connection, _Http) and connection.timeout_keep_alive_task is None:
            last = connection.cycle
            if last is None or last.response_complete:  # type: ignore[redundant-expr]  # None before the first
                yield connection, last
