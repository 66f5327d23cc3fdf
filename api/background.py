"""Work that an answer does not wait for: mail, audit entries. It never delays and never fails what asked for it."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

logger = logging.getLogger("headwater.background")

#: How much work of one kind may wait. More is refused: what waits is memory, and mail that is hours late is noise.
MAX_WAITING = 1_000
#: How much work of one kind runs at once.
AT_A_TIME = 8
#: How long the end of the server waits for what is under way.
DRAIN_TIME = dt.timedelta(seconds=5)

Work = Callable[[], Awaitable[object]]


class Background:
    """Owns tasks that nobody awaits until the server stops.

    Work is of a *kind* ("mail", "audit"), and one kind never waits for another: a mail server that hangs holds up no
    audit entry. Work of one kind starts in the order in which it came, AT_A_TIME at once. Nothing survives the process.
    """

    def __init__(self, *, max_waiting: int = MAX_WAITING, drain_time: dt.timedelta = DRAIN_TIME) -> None:
        self._max_waiting = max_waiting
        self._drain_seconds = drain_time.total_seconds()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._stopped = False

    def submit(self, kind: str, what: str, work: Work) -> bool:
        """Run `work` soon. `what` is its name in the log and must not be a secret, nor personal.

        Returns whether it was taken: not when max_waiting are waiting, nor after the stop; that is logged. Never
        raises, never waits.
        """
        if self._stopped or self._pending[kind] >= self._max_waiting:
            reason = "the server is stopping" if self._stopped else f"{self._max_waiting} are waiting"
            logger.error("%s (%s) was left out: %s", kind, what, reason)
            return False
        self._pending[kind] += 1
        task = asyncio.create_task(self._run(kind, what, work), name=f"{kind}: {what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _run(self, kind: str, what: str, work: Work) -> None:
        try:
            async with self._turns.setdefault(kind, asyncio.Semaphore(AT_A_TIME)):
                await work()
        except BackgroundFailure as error:
            logger.error("%s (%s) failed: %s", kind, what, error)
        except Exception as error:
            # The type alone: a message may quote what it could not handle, and that may be a secret.
            logger.error("%s (%s) failed: %s", kind, what, type(error).__name__)
        finally:
            self._pending[kind] -= 1

    async def stop(self) -> None:
        """Take no more, wait for what is under way as long as the drain time, then cancel it."""
        self._stopped = True
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=self._drain_seconds)
        for task in late:
            logger.error("%s was cut off by the end of the server", task.get_name())
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class BackgroundFailure(Exception):
    """Why background work failed, in words that may stand in the log: no secret, no address."""
