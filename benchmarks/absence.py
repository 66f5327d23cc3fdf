"""What it costs to be away: a client that missed many changes, and a client that reads nothing.

    python -m benchmarks.absence [missed] [stuck] [--changes 100000] [--database PROGRAM]

Exit code 1 when a client is not told exactly what it missed, or not one reset where history does not reach back.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from bson import ObjectId
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from benchmarks.watchers import Watcher, percentile, watching
from tests.chaos.site import EMBEDDED, Site, running_site, until
from tests.conftest import find_free_port

BATCH = 500
STUCK = 100
QUERY = {"resource": "readings", "filter": {"group": "load"}}
_BOOK = {"group": "load", "value": 0, "tags": [], "status": "open", "grade": 0, "revision": 1}


@contextlib.asynccontextmanager
async def site(database: tuple[str, ...], **settings: str) -> AsyncIterator[Site]:
    """Three workers with these settings."""
    with tempfile.TemporaryDirectory(prefix="headwater-absence-") as folder:
        ports = [find_free_port() for _ in range(5)]
        chance = random.Random(1)  # noqa: S311 - ports and delays, no secret
        async with running_site(Path(folder), ports, chance, database, settings) as running:
            yield running


async def _insert(running: Site, count: int) -> list[str]:
    ids: list[str] = []
    while len(ids) < count:
        documents = [{"_id": ObjectId(), "note": "", **_BOOK} for _ in range(min(BATCH, count - len(ids)))]
        await running.db["readings"].insert_many(documents)
        ids += [str(document["_id"]) for document in documents]
    return ids


async def missed(database: tuple[str, ...], changes: int) -> bool:
    """A client is away while so many changes are made: once history covers them, once it does not."""
    well = True
    for name, kept in (("covered by history", 2 * changes), ("beyond history", changes // 2)):
        settings = {"history_events": str(kept), "history_max_bytes": str(1024 * 1024 * 1024)}
        async with site(database, **settings) as running:
            watcher = Watcher(running.worker_ports, QUERY, snapshot=True)
            async with watching([watcher]):
                pass
            watcher.live.clear()
            began = time.monotonic()
            witnesses = [Watcher([port], QUERY) for port in running.worker_ports]
            async with watching(witnesses):
                ids = await _insert(running, changes)
                await until(lambda: all(len(w.heard) >= changes for w in witnesses), "all is heard", 600)  # noqa: B023
            wrote = time.monotonic() - began
            began = time.monotonic()
            async with watching([watcher]):
                took = time.monotonic() - began
            resumed, resets = watcher.recovered[True] == 1, sum(watcher.resets.values())
            right = resumed and watcher.heard == ids and not resets if kept > changes else not resumed and resets == 1
            well = well and right
            sys.stdout.write(
                f"away for {changes} changes (made and heard by others in {wrote:.0f} s), {name} ({kept}): "
                f"{'resumed' if resumed else 'not resumed'}, {resets} resets, {len(watcher.heard)} events "
                f"{'in order, ' * (watcher.heard == ids)}live after {took:.1f} s{'' if right else ' - WRONG'}\n"
            )
            sys.stdout.flush()
    return well


async def stuck(database: tuple[str, ...], changes: int) -> bool:
    """Clients subscribe and read nothing while a load goes on: what they cost the worker, and others."""
    del changes
    async with site(database) as running:
        port, process = running.worker_ports[0], running.workers[0]
        watchers = [Watcher([port], QUERY) for _ in range(20)]
        async with watching(watchers):
            alone = await _loaded(running, watchers)
            before = _memory(process.pid)
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(STUCK):
                    await stack.enter_async_context(_reads_nothing(port))
                beside = await _loaded(running, watchers)
                cost = (_memory(process.pid) - before) / STUCK
                again = await _loaded(running, watchers)
    figures = [f"{percentile(delays, 0.99) * 1_000:.0f} ms" for delays in (alone, beside, again)]
    sys.stdout.write(
        f"{STUCK} clients that read nothing: {cost / 1024:.0f} KiB of the worker's memory each, with fat events; "
        f"p99 of the others {figures[0]} without them, {figures[1]} when they come, {figures[2]} after that\n"
    )
    return cost < 2 * 1024 * 1024


async def _loaded(running: Site, watchers: list[Watcher], seconds: float = 15) -> list[float]:
    """The delays at the watchers while documents of 20 KB are inserted, 20 a second."""
    for watcher in watchers:
        watcher.delays.clear()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        fat = {"_id": ObjectId(), **_BOOK, "tags": [secrets.token_hex(10_000)], "note": repr(time.time())}
        await running.db["readings"].insert_one(fat)
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    return [delay for watcher in watchers for _, delay in watcher.delays]


@contextlib.asynccontextmanager
async def _reads_nothing(port: int) -> AsyncIterator[None]:
    """A client that is subscribed, and takes nothing any more."""
    narrow = socket.socket()
    narrow.setblocking(False)
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", port))
    connection = await connect(
        f"ws://127.0.0.1:{port}/api/v1/ws",
        sock=narrow,
        subprotocols=[Subprotocol("headwater.v1")],
        max_queue=(1, 0),
        ping_interval=None,
        compression=None,
    )
    await connection.send(json.dumps({"type": "subscribe", "id": "1", **QUERY, "snapshot": False}))
    while json.loads(await connection.recv())["type"] != "ready":
        pass
    try:
        yield
    finally:
        connection.transport.abort()


def _memory(pid: int) -> int:
    """What a process has in memory, in bytes (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


MEASURED: dict[str, Callable[[tuple[str, ...], int], Awaitable[bool]]] = {"missed": missed, "stuck": stuck}


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.absence", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MEASURED)}; all, if none is named")
    parser.add_argument("--changes", type=int, default=100_000)
    parser.add_argument("--database", default=None, help="the program of the database; else the embedded one")
    options = parser.parse_args()
    database = (options.database,) if options.database else EMBEDDED

    async def measure() -> bool:
        return all([await MEASURED[name](database, options.changes) for name in options.names or MEASURED])

    return 0 if asyncio.run(measure()) else 1


if __name__ == "__main__":
    sys.exit(main())
