"""What a worker pays for the relay's messages: Redis' pub/sub, one change in a message, and in batches.

    python -m benchmarks.messages [--changes 20000]

Measures the whole way: the script that appends and publishes, the reply, and reading and decoding by one worker.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import sys
import tempfile
import time
from pathlib import Path

from bson import ObjectId

from documents import Change, ChangeKind, EntryCodec, Position, Registry
from realtime import RedisLog
from realtime.log_redis import Head
from tests.conftest import find_free_port
from tests.redis_server import running_redis

BATCHES = (1, 10, 100, 500)


def _changes(count: int) -> list[Change]:
    """Updates of a small post."""
    at = dt.datetime.now(dt.UTC)
    found = []
    for number in range(1, count + 1):
        before = {"_id": ObjectId(), "title": "High water", "slug": "high-water", "status": "published", "tags": ["a"]}
        after = before | {"title": f"High water {number}"}
        position = Position((1 << 32) + number, 1)
        found.append(
            Change(
                position, {"_data": f"{number:040x}"}, at, 400, ChangeKind.UPDATE, "posts", before["_id"], before, after
            )
        )
    return found


async def _measure(url: str, changes: list[Change], batch: int) -> tuple[float, float]:
    """Microseconds of this process's CPU for each change: to append and publish, and to hear."""
    registry = Registry.load(["documents.models"])
    log = RedisLog(url, f"batch{batch}", EntryCodec(registry), max_entries=1_000_000, max_bytes=1 << 30)
    heard = 0
    spent = [0.0, 0.0]
    try:
        first, *rest = changes
        description = await log.begin(None, first.position, first, frozenset({"posts"}))
        async with log.listen() as messages:
            last = first.position
            for start in range(0, len(rest), batch):
                piece = rest[start : start + batch]
                began = time.process_time()
                last = await log.append(description.id, last, piece)
                spent[0] += time.process_time() - began
                began = time.process_time()
                while heard < start + len(piece):
                    message = await messages.next(5)
                    assert message is not None  # noqa: S101 - nothing is lost on the loopback
                    heard += 0 if isinstance(message, Head) else len(message)
                spent[1] += time.process_time() - began
    finally:
        await log.close()
    return spent[0] / len(rest) * 1e6, spent[1] / len(rest) * 1e6


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.messages", description=__doc__)
    parser.add_argument("--changes", type=int, default=20_000)
    options = parser.parse_args()
    sys.stdout.write(
        "| changes in a message | the relay, µs of CPU per change | a worker, µs of CPU per change |\n|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder, running_redis(Path(folder), find_free_port()) as redis:
        for batch in BATCHES:
            relay, worker = asyncio.run(
                _measure(redis.url, _changes(options.changes // (10 if batch == 1 else 1)), batch)
            )
            sys.stdout.write(f"| {batch} | {relay:.0f} | {worker:.0f} |\n")


if __name__ == "__main__":
    main()
