"""A hook at every await point of chosen tasks, without luck of timing.

A coroutine can only be overtaken where it waits. The event loop's task factory wraps the coroutines of the tasks on a
subscription's way to live (`establish …` and the shared `snapshot …`), and drives them step by step, as the loop
would. Each time such a coroutine has waited, before it goes on, the wrapper holds it, in its own task, and runs a hook
while everything else (feed, fan-out, other clients) runs freely. The points are counted over both tasks, in the order
in which they are reached: the k-th point is the same place in the code each time, and a path with a new await gets a
new point without any change here. Point 0 is before the first step.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

Hook = Callable[[int], Awaitable[None]]
Suspended = Callable[[], None]


class Stepper:
    """Interposes in the tasks of the running loop while it is installed. Use as a context manager."""

    def __init__(self, hook: Hook, suspended: Suspended = lambda: None) -> None:
        self.points = 0
        self._hook = hook
        self._suspended = suspended

    def __enter__(self) -> Stepper:
        asyncio.get_running_loop().set_task_factory(self._make_task)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().set_task_factory(None)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        # The factory is not told the name of the task in every version of Python, but the function has one.
        if getattr(coro, "__qualname__", "") in ("Subscription._establish", "Snapshots._read"):
            coro = self._driven(coro)
        return asyncio.Task(coro, loop=loop, **options)

    async def _driven(self, coro: Coroutine[Any, Any, Any]) -> Any:
        return await self._steps(coro)

    @types.coroutine
    def _steps(self, coro: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        thrown: BaseException | None = yield from self._held()
        while True:
            try:
                waits_for = coro.send(None) if thrown is None else coro.throw(thrown)
            except StopIteration as stop:
                return stop.value
            self._suspended()
            thrown = None
            try:
                yield waits_for
            except BaseException as error:  # also a cancellation: it belongs to the coroutine
                thrown = error
            if thrown is None:
                thrown = yield from self._held()

    def _held(self) -> Generator[Any, Any, BaseException | None]:
        point, self.points = self.points, self.points + 1
        try:
            yield from self._run_hook(point).__await__()
        except asyncio.CancelledError as cancelled:
            return cancelled
        return None

    async def _run_hook(self, point: int) -> None:
        await self._hook(point)
