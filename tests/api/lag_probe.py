"""A module of document classes (it has none) that measures the server which loads it: the lag of its event loop.

It is imported in the server's loop. Every few milliseconds a callback notes how much later it ran than it should have,
and how much of that time the loop's own thread was at work; a line each, in milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TextIO

INTERVAL_SECONDS = 0.002


class _Probe:
    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._next()

    def _next(self) -> None:
        self._due = time.perf_counter() + INTERVAL_SECONDS
        self._worked = time.thread_time()
        asyncio.get_running_loop().call_later(INTERVAL_SECONDS, self._run)

    def _run(self) -> None:
        lag, worked = time.perf_counter() - self._due, time.thread_time() - self._worked
        self._file.write(f"{lag * 1000:.3f} {worked * 1000:.3f}\n")
        self._next()


if path := os.environ.get("LAG_PROBE_FILE"):
    _Probe(open(path, "w", buffering=1))  # noqa: SIM115 - open as long as the process lives
