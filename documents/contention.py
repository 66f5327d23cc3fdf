"""Attempts of one write that others keep spoiling."""

from __future__ import annotations

import asyncio
import datetime as dt
import random

from documents.errors import Contended

#: How long a write keeps trying while other writers change the document under it.
CONTENTION_TIMEOUT = dt.timedelta(seconds=10)


class Attempts:
    """Pauses between attempts of a contended write, jittered so that writers do not march in step."""

    def __init__(self) -> None:
        self._made = 0
        self._deadline = asyncio.get_running_loop().time() + CONTENTION_TIMEOUT.total_seconds()

    async def pause(self) -> None:
        """Wait a little. Raises Contended after CONTENTION_TIMEOUT."""
        self._made += 1
        if asyncio.get_running_loop().time() > self._deadline:
            raise Contended("the document kept changing; nothing was written")
        await asyncio.sleep(random.uniform(0, min(0.05, 0.002 * 2**self._made)))  # noqa: S311 - jitter
