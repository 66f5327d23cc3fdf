"""How long a write takes to reach subscribers, and what a delivery costs the server's CPU.

    python -m benchmarks.delivery [--writes 500] [--clients 200]

Starts `main.py` with the embedded database in a temporary folder. The delay is measured from before the write is sent
until the event is received, so it includes the write itself (HTTP, validation, commit).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.server import PASSWORD, server

PAUSE_SECONDS = 0.005


@dataclass
class Figures:
    """Delays in milliseconds, and the server's CPU time per delivery in microseconds."""

    name: str
    delays: list[float]
    cpu_per_delivery: float

    def row(self) -> str:
        """A row of the table."""
        delays = sorted(self.delays)
        p99 = delays[int(len(delays) * 0.99)]
        return f"| {self.name} | {statistics.median(delays):.1f} | {p99:.1f} | {self.cpu_per_delivery:.0f} |"


def cpu_seconds(pid: int) -> float:
    """CPU time of one process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def subscribe(url: str) -> ClientConnection:
    """A client that is live on the published posts."""
    client = await connect(url, max_queue=None)
    await client.send(json.dumps({"type": "subscribe", "id": "1", "resource": "posts", "snapshot": False}))
    while json.loads(await client.recv())["type"] != "ready":
        pass
    return client


async def measure(
    name: str, clients: list[ClientConnection], pid: int, writes: int, write: Callable[[str], Awaitable[object]]
) -> Figures:
    """Write one document at a time; each is seen by all clients before the next."""
    delays: list[float] = []
    before = cpu_seconds(pid)
    for number in range(writes):
        title = f"{name} {number}"
        started = time.perf_counter()
        receiving = [asyncio.create_task(client.recv()) for client in clients]
        await write(title)
        events = await asyncio.gather(*receiving)
        delays.append((time.perf_counter() - started) * 1_000)
        if any(json.loads(event).get("document", {}).get("title") != title for event in events[:1]):
            raise SystemExit(f"unexpected event: {events[0]!r}")
        await asyncio.sleep(PAUSE_SECONDS)
    return Figures(name, delays, (cpu_seconds(pid) - before) / writes / len(clients) * 1e6)


async def run(base: str, pid: int, writes: int, clients: int) -> list[Figures]:
    """All measurements against the server at `base`."""
    async with httpx.AsyncClient(base_url=f"{base}/api/v1") as http:
        account = {"username": "bench", "password": PASSWORD}
        (await http.post("/auth/register", json=account | {"email": "bench@example.org"})).raise_for_status()
        token = (await http.post("/auth/login", json=account)).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"

        async def create(title: str) -> None:
            (await http.post("/posts", json={"title": title, "status": "published"})).raise_for_status()

        url = f"{base.replace('http', 'ws', 1)}/api/v1/ws"
        sockets = [await subscribe(url)]
        figures = [await measure("1 subscriber", sockets, pid, writes, create)]
        sockets += await asyncio.gather(*(subscribe(url) for _ in range(clients - 1)))
        figures.append(await measure(f"{clients} subscribers", sockets, pid, writes // 2, create))
        await asyncio.gather(*(client.close() for client in sockets))
        return figures


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--writes", type=int, default=500)
    parser.add_argument("--clients", type=int, default=200)
    options = parser.parse_args()
    with server() as (base, pid):
        figures = asyncio.run(run(base, pid, options.writes, options.clients))
    say = sys.stdout.write
    say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, embedded database\n\n")
    say("| write to event, all subscribers | median ms | 99 % ms | server CPU µs per delivery |\n|---|---|---|---|\n")
    say("".join(f"{entry.row()}\n" for entry in figures))


if __name__ == "__main__":
    main()
