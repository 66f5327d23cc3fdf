"""Several worker processes on one listening socket: started, watched, replaced, rolled and stopped.

The socket is the supervisor's and is inherited, so connections that wait to be accepted survive the end of a worker.
Each worker inherits one more socket, its *lifeline*: it says there that it is ready, and hears there that the
supervisor is gone. Signals: SIGTERM and SIGINT stop everything, SIGHUP replaces the workers one by one, each after its
successor is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

logger = logging.getLogger("headwater.supervisor")

#: A worker that takes longer to start is given up.
START_TIMEOUT: Final = dt.timedelta(seconds=60)
#: A worker that takes longer to stop is killed. Longer than a worker's own grace.
STOP_TIMEOUT: Final = dt.timedelta(seconds=15)
#: Workers that end soon after their start are replaced ever more slowly.
PAUSE_MIN: Final = dt.timedelta(milliseconds=200)
PAUSE_MAX: Final = dt.timedelta(seconds=10)
SETTLED: Final = dt.timedelta(seconds=30)

READY: Final = b"ready"
LISTEN_FD = "HEADWATER_LISTEN_FD"
LIFELINE_FD = "HEADWATER_LIFELINE_FD"


class _NeverReady(Exception):
    """A worker ended, or was given up, before it was ready."""


class _Worker:
    """One process."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, lifeline: socket.socket) -> None:
        self.number = number
        self.process = process
        self._lifeline = lifeline

    async def ready(self) -> None:
        """Wait until the worker serves. Raises _NeverReady."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(START_TIMEOUT.total_seconds()):
                if await loop.sock_recv(self._lifeline, len(READY)) == READY:
                    return
        except TimeoutError:
            logger.error("worker %d did not start within %s", self.process.pid, START_TIMEOUT)
        raise _NeverReady

    async def stop(self) -> None:
        """End it in good order, or by force. Safe to call twice."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_TIMEOUT.total_seconds()):
                    await self.process.wait()
            except TimeoutError:
                logger.error("worker %d did not stop within %s; it is killed", self.process.pid, STOP_TIMEOUT)
                with contextlib.suppress(ProcessLookupError):
                    self.process.kill()
                await self.process.wait()
        self._lifeline.close()


class Supervisor:
    """Keeps `count` workers alive. `command` starts one; `environment` is theirs, `listening` the socket they share.

    `on_end` is called with the process id of each worker that has ended.
    """

    def __init__(
        self,
        count: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        listening: socket.socket,
        on_end: Callable[[int], object],
    ) -> None:
        self._count = count
        self._command = tuple(command)
        self._environment = dict(environment)
        self._listening = listening
        self._on_end = on_end
        self._workers: dict[int, _Worker] = {}
        self._stopping = asyncio.Event()
        self._rolling = asyncio.Event()

    async def run(self, on_ready: Callable[[], object]) -> bool:
        """Run until a signal asks to stop; False when the first workers could not be started.

        `on_ready` is called when all workers serve.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._rolling.set)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            starting = asyncio.ensure_future(self._start_all())
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                return True
            try:
                starting.result()
            except _NeverReady:  # it has said why
                return False
            on_ready()
            keeping = [asyncio.create_task(self._keep(number)) for number in range(self._count)]
            rolling = asyncio.create_task(self._roll())
            await stopping
            for task in (*keeping, rolling):
                task.cancel()
            await asyncio.gather(*keeping, rolling, return_exceptions=True)
            return True
        finally:
            stopping.cancel()
            # Only the workers have it from here on, who serve what waits there before they close it: the last of them
            # closes it for good, and whoever comes then is refused at once and may ask another server.
            self._listening.close()
            await asyncio.gather(*(self._stop(worker) for worker in self._workers.values()))

    async def _start_all(self) -> None:
        await asyncio.gather(*(self._start(number) for number in range(self._count)))

    async def _start(self, number: int) -> _Worker:
        """A worker that serves, in the place of the present one if there is one. Raises _NeverReady."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        descriptors = (self._listening.fileno(), theirs.fileno())
        names = {LISTEN_FD: str(descriptors[0]), LIFELINE_FD: str(descriptors[1])}
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment | names,
            pass_fds=descriptors,
            # Ctrl-C in a terminal reaches the whole group; here the supervisor decides who stops when.
            start_new_session=True,
        )
        theirs.close()
        worker = _Worker(number, process, ours)
        previous = self._workers.get(number)
        if previous is None:
            self._workers[number] = worker
        try:
            await worker.ready()
        except BaseException:
            await self._stop(worker)
            if self._workers.get(number) is worker:
                del self._workers[number]
            raise
        self._workers[number] = worker
        logger.info("worker %d serves", process.pid)
        return worker

    async def _keep(self, number: int) -> None:
        """Replace the worker of one place whenever it has ended."""
        pause = PAUSE_MIN
        clock = asyncio.get_running_loop().time
        while True:
            worker, began = self._workers.get(number), clock()
            if worker is not None:
                code = await worker.process.wait()
                if self._workers.get(number) is not worker:  # rolled
                    continue
                logger.error("worker %d ended with %d; another one is started", worker.process.pid, code)
                await self._stop(worker)
                del self._workers[number]
                if clock() - began > SETTLED.total_seconds():
                    pause = PAUSE_MIN
            await asyncio.sleep(pause.total_seconds())
            pause = min(2 * pause, PAUSE_MAX)
            if number not in self._workers:
                with contextlib.suppress(_NeverReady):
                    await self._start(number)

    async def _roll(self) -> None:
        """At each SIGHUP put a new worker into the place of each, one by one."""
        while True:
            await self._rolling.wait()
            self._rolling.clear()
            for number in range(self._count):
                previous = self._workers.get(number)
                if previous is None:  # it is being replaced in any case
                    continue
                try:
                    worker = await self._start(number)
                except _NeverReady:
                    logger.error("a new worker does not start; worker %d stays, and so do those after it", number)
                    break
                logger.info("worker %d takes the place of %d", worker.process.pid, previous.process.pid)
                await self._stop(previous)

    async def _stop(self, worker: _Worker) -> None:
        await worker.stop()
        self._on_end(worker.process.pid)


def inherited_socket() -> socket.socket | None:
    """The socket to listen on, when a supervisor has started this process."""
    descriptor = os.environ.get(LISTEN_FD)
    return None if descriptor is None else socket.socket(fileno=int(descriptor))


class Lifeline:
    """A worker's end of the connection to its supervisor."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    @classmethod
    def inherited(cls) -> Lifeline | None:
        """This process's lifeline; None when no supervisor has started it."""
        descriptor = os.environ.get(LIFELINE_FD)
        return None if descriptor is None else cls(int(descriptor))

    def ready(self) -> None:
        """Say that this worker serves, and stop it when the supervisor is gone."""
        with contextlib.suppress(OSError):
            self._socket.send(READY)
        asyncio.get_running_loop().add_reader(self._socket, self._cut)

    def _cut(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        logger.error("the supervisor is gone; this worker stops")
        signal.raise_signal(signal.SIGTERM)


def worker_command() -> list[str]:
    """The command line that starts this program again."""
    return [sys.executable, *sys.orig_argv[1:]]
