"""Waiting for what sets no event of ours: another process, a clock, an object that announces nothing."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Callable, Iterator

#: Long past what a busy machine takes; it passes only when something is wrong.
PATIENCE_SECONDS = 30.0
PAUSE_SECONDS = 0.01
#: As the documentation promises of whatever is pushed.
PROMPT_SECONDS = 1.0


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


@contextlib.contextmanager
def promptly(*, seconds: float = PROMPT_SECONDS) -> Iterator[None]:
    """What the block does and waits for is over in time: it is pushed, and not found by a later look."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds, f"it took {took:.1f} s"
