"""Subscribers that keep the browser client's rules: resume with `since`, back off with jitter, go when told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

BACKOFF_MIN, BACKOFF_MAX = 0.25, 8.0
CONNECT_SECONDS = 10
NO_STATUS = 1005


class Watcher:
    """One subscription, for as long as `run` runs.

    `heard` has the documents' ids in the order of their events, and `delays` the seconds since the time that stands in
    each document's `note`, or `body` where there is none.
    """

    def __init__(self, ports: Sequence[int], query: dict[str, Any], *, snapshot: bool = False) -> None:
        self.heard: list[str] = []
        self.delays: list[tuple[float, float]] = []
        self.resets: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.recovered: Counter[bool] = Counter()
        self.live = asyncio.Event()
        self.since: dict[str, str] | None = None
        self._ports = tuple(ports)
        self._query = {**query, "snapshot": snapshot}
        self._backoff = BACKOFF_MIN
        self._pause: tuple[float, float] | None = None

    async def run(self) -> None:
        """Watch, across every change of worker, until cancelled."""
        while True:
            try:
                async with connect(
                    f"ws://127.0.0.1:{random.choice(self._ports)}/api/v1/ws",  # noqa: S311 - any will do
                    subprotocols=[Subprotocol("headwater.v1")],
                    proxy=None,
                    open_timeout=CONNECT_SECONDS,
                    close_timeout=1,
                    max_size=None,
                    compression=None,
                ) as connection:
                    await self._watch(connection)
            except ConnectionClosed as closed:
                self.closed[str(closed.rcvd.code if closed.rcvd else NO_STATUS)] += 1
            except (OSError, TimeoutError, InvalidHandshake) as error:
                self.closed[type(error).__name__] += 1
            self.live.clear()
            low, high = self._pause or (0.0, self._backoff)
            self._pause = None
            self._backoff = min(2 * self._backoff, BACKOFF_MAX)
            await asyncio.sleep(random.uniform(low, high))  # noqa: S311 - jitter

    async def _watch(self, connection: ClientConnection) -> None:
        since = {} if self.since is None else {"since": self.since}
        await connection.send(json.dumps({"type": "subscribe", "id": "1", **self._query, **since}))
        async for text in connection:
            self.hear(json.loads(text))

    def hear(self, frame: dict[str, Any]) -> None:
        """One frame."""
        match frame["type"]:
            case "subscribed" if frame["recovered"] is not None:
                self.recovered[frame["recovered"]] += 1
            case "reset":
                self.resets[frame["reason"]] += 1
                self.since = None
            case "ready":
                self.since = {"view": frame["view"], "position": frame["position"]}
                self._backoff = BACKOFF_MIN
                self.live.set()
            case "event":
                self.since = {"view": frame["view"], "position": frame["position"]}
                self._note(frame)
            case "position" if self.since is not None and self.live.is_set():
                self.since["position"] = frame["position"]
            case "goaway":
                low, high = frame["retry_after_ms"]
                self._pause = (low / 1_000, high / 1_000)

    def _note(self, frame: dict[str, Any]) -> None:
        if frame["op"] not in ("create", "enter"):
            return
        self.heard.append(frame["id"])
        with contextlib.suppress(KeyError, ValueError):
            now = time.time()
            document = frame["document"]
            self.delays.append((now, now - float(document["note" if "note" in document else "body"])))


@contextlib.asynccontextmanager
async def watching(watchers: Sequence[Watcher]):  # type: ignore[no-untyped-def]
    """All of them live."""
    tasks = [asyncio.create_task(watcher.run()) for watcher in watchers]
    try:
        for watcher in watchers:
            await watcher.live.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
