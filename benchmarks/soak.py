"""Whether a server that is used for long grows: memory, tasks, file descriptors.

    python -m benchmarks.soak [--minutes 10] [--idle 2000] [--active 100] [--rate 5]

Starts `main.py` with the embedded database in a temporary folder. The idle sockets are live on a view in which nothing
happens; each write goes to every active one, and one of them leaves and another comes every second. After a warm-up of
a fifth of the time the server's own figures (`/metrics`) must not grow: memory by less than 1 MB a minute (the slope of
the least squares), tasks and file descriptors not at all (the median of the last quarter against that of the first).
Exit code 1 when they do, or when a write did not reach everybody.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import platform
import random
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx
import orjson
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.server import PASSWORD, server

SAMPLE_SECONDS = 2.0
CHURN_SECONDS = 1.0
#: A connection for each request: on a machine that is busy, one that is kept ends as often as it is used again.
LIMITS = httpx.Limits(max_keepalive_connections=0)
#: Handshakes at a time.
CONNECTING = 50
DOCUMENTS = 50
WARM_UP = 0.2
MAX_BYTES_PER_MINUTE = 1_000_000
#: What one reconnecting client and one request under way have.
SLACK = 8

FIGURES = {
    "memory": "headwater_process_resident_memory_bytes",
    "tasks": "headwater_tasks",
    "files": "headwater_process_open_files",
    "connections": "headwater_connections",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """The server's figures at one time, in seconds since the start."""

    at: float
    memory: float
    tasks: float
    files: float
    connections: float


@dataclass
class Soak:
    """What goes on while the server is watched."""

    base: str
    token: str
    clients: list[ClientConnection] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    written: int = 0
    delivered: int = 0
    churned: int = 0

    async def live(self, filter: dict[str, str]) -> ClientConnection:
        """A client that is live on a view of the posts."""
        client = await connect(f"{self.base.replace('http', 'ws', 1)}/api/v1/ws", max_queue=None, compression=None)
        request = {"type": "subscribe", "id": "1", "resource": "posts", "filter": filter, "snapshot": False}
        await client.send(orjson.dumps(request).decode())
        while orjson.loads(await client.recv())["type"] != "ready":
            pass
        return client

    async def many(self, count: int, filter: dict[str, str]) -> list[ClientConnection]:
        """So many of them."""
        made: list[ClientConnection] = []
        while len(made) < count:
            more = min(CONNECTING, count - len(made))
            made += await asyncio.gather(*(self.live(filter) for _ in range(more)))
        return made

    async def listen(self, client: ClientConnection) -> None:
        """Count what one client is sent."""
        async for frame in client:
            self.delivered += b'"type":"event"' in (frame.encode() if isinstance(frame, str) else frame)

    async def write(self, rate: float) -> None:
        """Change published posts, so many a second, each of them a request."""
        async with httpx.AsyncClient(
            base_url=f"{self.base}/api/v1", headers={"Authorization": f"Bearer {self.token}"}, timeout=60, limits=LIMITS
        ) as http:
            posts = []
            for number in range(DOCUMENTS):
                answer = await http.post("/posts", json={"title": f"Post {number}", "status": "published"})
                answer.raise_for_status()
                posts.append(answer.json()["id"])
            for number, post in enumerate(itertools.cycle(posts)):
                (await http.patch(f"/posts/{post}", json={"title": f"Title {number}"})).raise_for_status()
                self.written += 1
                await asyncio.sleep(1 / rate)

    async def churn(self, group: asyncio.TaskGroup, clients: list[ClientConnection]) -> None:
        """One client leaves and another comes, again and again."""
        while True:
            await asyncio.sleep(CHURN_SECONDS)
            place = random.randrange(len(clients))  # noqa: S311 - no secret
            await clients[place].close()
            clients[place] = await self.live({"status": "published"})
            group.create_task(self.listen(clients[place]))
            self.churned += 1

    async def sample(self) -> None:
        """Ask the server how it is, every SAMPLE_SECONDS."""
        started = time.monotonic()
        async with httpx.AsyncClient(timeout=60, limits=LIMITS) as http:
            while True:
                text = (await http.get(f"{self.base}/metrics")).text
                figures = {name: total(text, metric) for name, metric in FIGURES.items()}
                self.samples.append(Sample(time.monotonic() - started, **figures))
                await asyncio.sleep(SAMPLE_SECONDS)


def total(text: str, metric: str) -> float:
    """The sum of a metric over its labels."""
    values = re.findall(rf"^{metric}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    if not values:
        raise SystemExit(f"the server tells nothing of {metric}")
    return sum(map(float, values))


@contextlib.asynccontextmanager
async def running(soak: Soak, idle: int, active: int, rate: float) -> AsyncIterator[None]:
    """Clients and writer, at work."""
    busy = await soak.many(active, {"status": "published"})
    quiet = await soak.many(idle, {"status": "hidden"})
    async with asyncio.TaskGroup() as group:
        work = [
            group.create_task(each)
            for each in (soak.write(rate), soak.churn(group, busy), soak.sample(), *map(soak.listen, busy + quiet))
        ]
        yield
        for task in work:
            task.cancel()
        await asyncio.gather(*(client.close() for client in busy + quiet))


def slope_per_minute(samples: Sequence[Sample]) -> float:
    """Bytes of memory a minute, by least squares."""
    return 60 * statistics.linear_regression([s.at for s in samples], [s.memory for s in samples]).slope


def growth(values: Sequence[float]) -> float:
    """How much greater the median of the last quarter is than that of the first."""
    quarter = max(1, len(values) // 4)
    return statistics.median(values[-quarter:]) - statistics.median(values[:quarter])


async def run(base: str, minutes: float, idle: int, active: int, rate: float) -> Soak:
    """Soak the server at `base`."""
    async with httpx.AsyncClient(base_url=f"{base}/api/v1") as http:
        account = {"username": "soak", "password": PASSWORD}
        (await http.post("/auth/register", json=account | {"email": "soak@example.org"})).raise_for_status()
        token = (await http.post("/auth/login", json=account)).json()["access_token"]
    soak = Soak(base, token)
    async with running(soak, idle, active, rate):
        await asyncio.sleep(minutes * 60)
    return soak


def main() -> None:
    """Run, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--idle", type=int, default=2_000)
    parser.add_argument("--active", type=int, default=100)
    parser.add_argument("--rate", type=float, default=5, help="writes a second")
    options = parser.parse_args()
    # The history fills up to its bound, which is no leak: full before the warm-up ends.
    with server(access_token_minutes="1440", history_events="200") as (base, _):  # noqa: S106 - minutes
        soak = asyncio.run(run(base, options.minutes, options.idle, options.active, options.rate))
    begin = WARM_UP * soak.samples[-1].at
    samples = [sample for sample in soak.samples if sample.at >= begin]
    slope = slope_per_minute(samples)
    tasks, files = growth([s.tasks for s in samples]), growth([s.files for s in samples])
    # A client that has just left missed the last few; one that has just come, those before it.
    expected = (soak.written + DOCUMENTS) * options.active
    say = sys.stdout.write
    say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, embedded database\n\n")
    say(f"{options.minutes:g} minutes, {options.idle} idle and {options.active} active sockets, ")
    say(f"{soak.written} writes, {soak.delivered} deliveries, {soak.churned} reconnections\n\n")
    say("| figure | at the end of the warm-up | at the end | growth | allowed | ratio |\n|---|---|---|---|---|---|\n")
    first, last = samples[0], samples[-1]
    say(f"| memory, MB | {first.memory / 1e6:.1f} | {last.memory / 1e6:.1f} | {slope / 1e6:.3f} a minute | ")
    say(f"{MAX_BYTES_PER_MINUTE / 1e6:g} a minute | {slope / MAX_BYTES_PER_MINUTE:.2f} |\n")
    say(f"| tasks | {first.tasks:.0f} | {last.tasks:.0f} | {tasks:.0f} | {SLACK} | {tasks / SLACK:.2f} |\n")
    say(f"| file descriptors | {first.files:.0f} | {last.files:.0f} | {files:.0f} | {SLACK} | {files / SLACK:.2f} |\n")
    say(f"| deliveries | | | {soak.delivered} | {expected} | {soak.delivered / max(1, expected):.3f} |\n")
    connections = {sample.connections for sample in samples}
    faults = [
        text
        for text, wrong in (
            ("memory grows", slope > MAX_BYTES_PER_MINUTE),
            ("tasks grow", tasks > SLACK),
            ("file descriptors grow", files > SLACK),
            ("deliveries are missing", soak.delivered < 0.97 * expected),
            ("sockets are missing", min(connections) < options.idle + options.active - SLACK),
        )
        if wrong
    ]
    if faults:
        raise SystemExit("; ".join(faults))


if __name__ == "__main__":
    main()
