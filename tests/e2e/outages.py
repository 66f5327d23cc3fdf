"""A way between browser and server that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

from tests.chaos.proxy import Proxy


class Road:
    """A proxy before a server. Its event loop has a thread of its own: the tests of a browser have none."""

    def __init__(self, target: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._proxy = Proxy(target, random.Random(1))  # noqa: S311 - not for secrets
        self._run(self._proxy.start())

    @property
    def port(self) -> int:
        """Where the browser goes."""
        return self._proxy.port

    def cut(self) -> None:
        """Cut all connections, and let none come until `mend`."""
        self._run(self._cut())

    async def _cut(self) -> None:
        self._proxy.refusing = True
        self._proxy.cut()

    def mend(self) -> None:
        """Let connections come again."""
        self._proxy.refusing = False

    def close(self) -> None:
        """End it."""
        self._run(self._proxy.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


@contextlib.contextmanager
def road_to(port: int) -> Iterator[Road]:
    """A way to a server on `port`, until the block ends."""
    road = Road(port)
    try:
        yield road
    finally:
        road.close()
