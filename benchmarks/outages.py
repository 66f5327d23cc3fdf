"""What clients and callers notice of outages, on three workers with a Redis and a database of their own.

    python -m benchmarks.outages [redis] [database] [relay] [failover] [--seconds 30] [--database PROGRAM]

Exit code 1 when an event was lost, repeated, or moved, or a bound of docs/delivery.md does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from bson import ObjectId
from pymongo.errors import PyMongoError

from benchmarks.watchers import Watcher, percentile, watching
from tests.chaos.failover import failover
from tests.chaos.site import EMBEDDED, Site, running_site, until
from tests.conftest import find_free_port

WATCHERS = 30
PAUSE_SECONDS = 0.02
FAILOVERS = 10
QUERY = {"resource": "readings", "filter": {"group": "load"}}


class Load:
    """Inserts straight into the database, each with the time at which it was sent, and requests to the API."""

    def __init__(self, site: Site) -> None:
        self.ids: list[str] = []
        self.answers: Counter[int | str] = Counter()
        self.retry_after = 0
        self.slowest = 0.0
        self._site = site
        self.enough = asyncio.Event()

    async def write(self) -> None:
        """Insert until it is enough. An insert that is under way is finished."""
        book = {"group": "load", "value": 0, "tags": [], "status": "open", "grade": 0, "revision": 1}
        while not self.enough.is_set():
            now = time.time()
            document = {"_id": ObjectId(), "note": repr(now), **book}
            try:
                await self._site.db["readings"].insert_one(document)
                self.ids.append(str(document["_id"]))
            except PyMongoError:
                await asyncio.sleep(0.2)
            await asyncio.sleep(PAUSE_SECONDS)

    async def call(self) -> None:
        """Read and write through the API of any worker, until cancelled."""
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            token = await _token(http, self._site)
            while True:
                worker = random.choice([worker for worker in self._site.workers if worker.runs])  # noqa: S311
                url, headers = f"{worker.url}/api/v1/readings", {"Authorization": f"Bearer {token}"}
                began = time.monotonic()
                try:
                    if random.random() < 0.5:  # noqa: S311 - a choice, not a secret
                        answer = await http.get(url, params={"limit": 5}, headers=headers)
                    else:
                        answer = await http.post(url, json={"group": "other", "note": "x"}, headers=headers)
                    self.answers[answer.status_code] += 1
                    self.retry_after += "retry-after" in answer.headers
                except httpx.HTTPError as error:
                    self.answers[type(error).__name__] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                await asyncio.sleep(PAUSE_SECONDS)


async def _token(http: httpx.AsyncClient, site: Site) -> str:
    from tests.api.servers import PASSWORD

    answer = await http.post(
        f"{site.workers[0].url}/api/v1/auth/login", json={"username": "admin", "password": PASSWORD}
    )
    answer.raise_for_status()
    return str(answer.json()["access_token"])


@contextlib.asynccontextmanager
async def loaded(site: Site) -> AsyncIterator[tuple[Load, list[Watcher]]]:
    """Watchers at all workers, and a load."""
    watchers = [Watcher([site.worker_ports[n % len(site.worker_ports)]], QUERY) for n in range(WATCHERS)]
    load = Load(site)
    async with watching(watchers):
        tasks = [asyncio.create_task(load.write()), asyncio.create_task(load.call())]
        try:
            await asyncio.sleep(3)
            yield load, watchers
        finally:
            load.enough.set()
            tasks[1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                await until(lambda: all(len(w.heard) >= len(load.ids) for w in watchers), "all events", 30)


def judged(load: Load, watchers: list[Watcher]) -> str:
    """Whether each watcher heard of everything once and in order."""
    wrong = sum(watcher.heard != load.ids for watcher in watchers)
    resets = sum(sum(watcher.resets.values()) for watcher in watchers)
    closed = sum(sum(watcher.closed.values()) for watcher in watchers)
    verdict = "each once and in order" if not wrong else f"WRONG at {wrong} of {len(watchers)} watchers"
    return f"{len(load.ids)} changes, {verdict}; {resets} resets, {closed} connections closed"


def delays(watchers: list[Watcher], since: float, until_then: float) -> str:
    """The delays of what was heard in that time."""
    found = [delay for watcher in watchers for at, delay in watcher.delays if since <= at - delay < until_then]
    return (
        f"median {statistics.median(found) * 1_000:.0f} ms, p99 {percentile(found, 0.99) * 1_000:.0f} ms, "
        f"longest {max(found):.2f} s ({len(found)} deliveries)"
    )


async def redis_away(site: Site, seconds: float) -> list[str]:
    """Redis dies, and comes back empty."""
    async with loaded(site) as (load, watchers):
        before = time.time()
        site.redis.kill()
        await asyncio.sleep(seconds)
        after = time.time()
        await asyncio.to_thread(site.redis.start)
        await asyncio.sleep(5)
    lines = [
        f"Redis away for {seconds:.0f} s: {judged(load, watchers)}",
        f"  commit to client meanwhile: {delays(watchers, before, after)}",
        f"  requests: {dict(load.answers)}, slowest {load.slowest:.2f} s",
    ]
    return lines


async def database_away(site: Site, seconds: float) -> list[str]:
    """Workers cannot reach the database, while others write to it."""
    async with loaded(site) as (load, watchers):
        load.answers.clear()
        load.retry_after = 0
        site.to_database.refusing = True
        site.to_database.cut()
        await asyncio.sleep(seconds)
        answers, retry_after = dict(load.answers), load.retry_after
        before = time.time()
        site.to_database.refusing = False
        await asyncio.sleep(8)
    return [
        f"database away for {seconds:.0f} s: {judged(load, watchers)}",
        f"  requests meanwhile: {answers}, {retry_after} of them with Retry-After, slowest {load.slowest:.2f} s",
        f"  commit to client after 3 s: {delays(watchers, before + 3, time.time())}",
    ]


async def relay_stopped(site: Site, seconds: float) -> list[str]:
    """The relay hangs, and goes on as if nothing had been. Clients of the other workers are judged."""
    relay = site.relay()
    async with loaded(site) as (load, everyone):
        watchers = [w for n, w in enumerate(everyone) if site.worker_ports[n % len(site.worker_ports)] != relay.port]
        relay.send(signal.SIGSTOP)
        before, known = time.time(), relay.log.stat().st_size
        await asyncio.sleep(seconds)
        relay.send(signal.SIGCONT)
        after = time.time()
        await asyncio.sleep(8)
    said = relay.log.read_bytes()[known:].decode()
    refused = [line for line in said.splitlines() if " headwater.relay: " in line][:2]
    return [
        f"relay stopped for {seconds:.0f} s: {judged(load, everyone)}",
        f"  commit to client at the other workers meanwhile: {delays(watchers, before, after)}",
        f"  the log is one chain: {await _chained(site)}",
        *(f"  it said when it woke up: {line.split('headwater.relay: ')[1]}" for line in refused),
    ]


async def _chained(site: Site) -> str:
    """Whether each entry of the log names the one before it. Entries are read as Redis has them."""
    with site.redis.client() as client:
        keys: list[Any] = [key for key in client.keys("*:log:*") if client.type(key) == b"stream"]
        count = 0
        for key in keys:
            ids = [entry[0].decode() for entry in client.xrange(key)]  # type: ignore[union-attr]
            numbers = [tuple(map(int, id.split("-"))) for id in ids]
            if numbers != sorted(set(numbers)):
                return "NO"
            count += len(ids)
    return f"yes, {count} entries in {len(keys)} log"


async def failovers(site: Site, seconds: float) -> list[str]:
    """The relay is killed, again and again."""
    del seconds
    took: list[float] = []
    for _ in range(FAILOVERS):
        await until(lambda: all(worker.follows for worker in site.workers), "workers do not follow the relay")
        await asyncio.sleep(2)
        relay = site.relay()
        took.append(await failover(site, relay))
        await relay.ended()
        relay.start()
        await relay.serves()
    return [
        f"fail-over of the relay, kill -9 to the first change at clients of the others, {FAILOVERS} times: "
        f"median {statistics.median(took):.2f} s, longest {max(took):.2f} s"
    ]


OUTAGES: dict[str, Callable[[Site, float], Awaitable[list[str]]]] = {
    "redis": redis_away,
    "database": database_away,
    "relay": relay_stopped,
    "failover": failovers,
}


async def measure(names: list[str], seconds: float, database: tuple[str, ...]) -> bool:
    """Print what each outage does; whether nothing was wrong."""
    well = True
    with tempfile.TemporaryDirectory(prefix="headwater-outages-") as folder:
        ports = [find_free_port() for _ in range(5)]
        async with running_site(Path(folder), ports, random.Random(1), database) as site:  # noqa: S311
            for name in names:
                lines = await OUTAGES[name](site, seconds)
                well = well and not any("WRONG" in line or line.endswith("NO") for line in lines)
                sys.stdout.write("\n".join(lines) + "\n")
                sys.stdout.flush()
                await site.heal()
    return well


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outages", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(OUTAGES)}; all, if none is named")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long an outage lasts")
    parser.add_argument("--database", default=None, help="the program of the database; else the embedded one")
    options = parser.parse_args()
    database = (options.database,) if options.database else EMBEDDED
    return 0 if asyncio.run(measure(options.names or list(OUTAGES), options.seconds, database)) else 1


if __name__ == "__main__":
    sys.exit(main())
