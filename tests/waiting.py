"""Waiting for what sets no event of ours: another process, a clock, an object that announces nothing."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

#: Long past what a busy machine takes; it passes only when something is wrong.
PATIENCE_SECONDS = 30.0
PAUSE_SECONDS = 0.01


async def until(
    condition: Callable[[], object], *, seconds: float = PATIENCE_SECONDS, pause: float = PAUSE_SECONDS
) -> None:
    """Wait until `condition()`, or what it is awaited for, is true; look again after `pause`. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            value = condition()
            if await value if inspect.isawaitable(value) else value:
                return
            await asyncio.sleep(pause)
