"""What an export of a large list costs: the server's memory, and time.

    python -m benchmarks.export [--documents 100000] [--bytes 500]

The documents are stored before the server starts, so that its memory holds nothing of them. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from bson import ObjectId
from pymongo import MongoClient

from benchmarks.server import free_port, server
from documents import EmbeddedDatabase

LIMIT_MB = 50


def fill(url: str, documents: int, size: int) -> None:
    """Store published posts with texts of `size` bytes."""
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    client: MongoClient[dict[str, Any]] = MongoClient(url)
    for start in range(0, documents, 1_000):
        client["headwater"]["posts"].insert_many(
            [
                {"title": f"{n:06}", "slug": f"p{n}", "body": "x" * size, "tags": ["a"], "status": "published"}
                | {"author_id": ObjectId(), "created_at": at, "updated_at": at, "revision": 1}
                for n in range(start, min(start + 1_000, documents))
            ]
        )
    client.close()


def resident_mb(pid: int) -> float:
    """The memory that a process uses now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(base: str, pid: int, accept: str, documents: int) -> tuple[str, float]:
    """Read the whole as `accept`; a row of the table, and the growth of the server's memory in MB."""
    before = peak = resident_mb(pid)
    headers = {"Accept": accept, "Accept-Encoding": "identity"}
    started, size, lines = time.perf_counter(), 0, 0
    with httpx.stream("GET", f"{base}/api/v1/posts", headers=headers, timeout=60) as answer:
        answer.raise_for_status()
        for part in answer.iter_raw():
            size += len(part)
            lines += part.count(b"\n")
            peak = max(peak, resident_mb(pid))
    if lines < documents:
        raise SystemExit(f"{lines} lines of {documents}")
    seconds = time.perf_counter() - started
    return f"| {accept} | {size / 2**20:.0f} | {seconds:.1f} | {peak - before:.1f} |", peak - before


def main() -> None:
    """Run and print; exit code 1 when the memory grew by more than LIMIT_MB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        database = EmbeddedDatabase(Path(folder) / "data", free_port(), durable=False)
        url = runner.run(database.start())
        try:
            fill(url, options.documents, options.bytes)
            with server(mongodb_url=url) as (base, pid):
                results = [
                    measure(base, pid, accept, options.documents) for accept in ("text/csv", "application/x-ndjson")
                ]
        finally:
            runner.run(database.stop())
    say = sys.stdout.write
    say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, embedded database\n\n")
    say(f"| {options.documents} documents as | MB sent | seconds | server's memory grew by MB |\n|---|---|---|---|\n")
    say("".join(f"{row}\n" for row, _ in results))
    if max(growth for _, growth in results) > LIMIT_MB:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
