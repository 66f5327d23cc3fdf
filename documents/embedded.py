"""The embedded database: a MongoDB-compatible server, run and watched as a child process.

SecantusDB is GPL-licensed and is therefore started as a program of its own and never imported.
`EmbeddedDatabase` owns it from `start` to `stop`: it refuses a data folder or port that cannot be used with
one clear line, restarts a server that dies, and leaves no process behind.

Three things could leave the server running without us, or two of them on one folder; each has its own guard:

- The terminal's Ctrl-C goes to every process of its group. The server has its own session, so it lives
  until we have closed our connections and stop it ourselves.
- We are killed by `kill -9`. On Linux the kernel then sends the server SIGKILL (`PR_SET_PDEATHSIG`). That
  signal follows the *thread* that started the server, not the process, so `start` must run on a thread that
  outlives the server: the event loop's, which is the one that supervises it anyway. Where the kernel has no
  such signal the server survives us, and the next start recognises it by the lock that it holds and stops
  it.
- Two Headwaters are given one folder. `headwater.lock` is held with `flock(2)` as long as we live. The
  kernel drops it with the process, so a lock *file* left by a killed one means nothing; the same is true of
  WiredTiger's own.

POSIX only, like the server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from documents.data_folder import DataFolder
from documents.errors import DatabaseRefused

HOST = "127.0.0.1"  # never another: its port has no authentication
RESTART_DELAY_FIRST = timedelta(seconds=0.5)
RESTART_DELAY_MOST = timedelta(seconds=10)
# After a run of this length a death counts as a new trouble and not as the same one again.
RESTART_DELAY_FORGOTTEN_AFTER = timedelta(minutes=1)
START_TIMEOUT = timedelta(seconds=60)  # a long log is replayed after a crash
STOP_TIMEOUT = timedelta(seconds=10)  # closing takes about two seconds
LOG_BYTES_KEPT = 4 * 1024 * 1024

# Beyond its oplog the server loses history silently, so it is given one that holds a day of heavy use; the
# no-op entries keep the resume tokens of quiet streams inside it.
_FLAGS = (
    "--log-level=WARNING",
    "--oplog-max-entries=5000000",
    "--oplog-retention-seconds=86400",
    "--noop-heartbeat-seconds=5",
)

# Runs in the child before the server does. Not `preexec_fn`: that would run Python between fork and exec,
# where another thread's lock may be held for ever. PR_SET_PDEATHSIG is 1 and survives `exec`; SIGKILL, because a
# SIGTERM soon after its start can hang the server, and each commit has been synced. The second line covers a parent
# that died before the first. `-P` keeps the working directory off the import path.
_LAUNCHER = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that starts the database has ended")
os.execv(sys.executable, [sys.executable, "-P", "-m", "secantus", *sys.argv[2:]])
"""


class EmbeddedDatabase:
    """One SecantusDB server on `port` of the loopback, its data in `<data_dir>/db`.

    `on_event` hears one line for each thing that happens to the server while it is supervised (died,
    restarted, cannot be restarted yet, left over and stopped); it is called on the event loop and must
    neither block nor raise.

    In `data_dir` there are besides: `database.log` (what the server prints), `database.toml` (further
    settings of the server, if somebody wants any), `database.pid` and `headwater.lock`. The folder is
    created when missing.

    `durable` has each commit on the disk before it is acknowledged. Without it, the last 200 ms of
    acknowledged writes are lost when the server is killed, although subscribers have been told of them.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int,
        *,
        on_event: Callable[[str], None] = lambda _: None,
        durable: bool = True,
    ) -> None:
        self._folder = DataFolder(data_dir)
        self._port = port
        self._on_event = on_event
        self._flags = (*_FLAGS, "--sync-on-commit") if durable else _FLAGS
        self._log_start = 0
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """What clients connect to. Its bookkeeping of retryable writes is slow, hence `retryWrites=false`."""
        return f"mongodb://{HOST}:{self._port}/?retryWrites=false&directConnection=true"

    @property
    def pid(self) -> int | None:
        """The process id of the server, or None while there is none."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> str:
        """Start the server, wait until it answers, watch it from then on; return its URL.

        Raises `DatabaseRefused` with one line that says what to change. Then, and when cancelled, nothing
        is left: the server is killed (its data survives that) and the folder is free again.
        """
        if self._folder.claimed:
            raise RuntimeError("expected a database that is not started, got one that is")
        if importlib.util.find_spec("secantus") is None:
            raise DatabaseRefused(
                "the embedded database is not installed: pip install 'headwater[embedded]', "
                "or set HEADWATER_MONGODB_URL to a MongoDB server"
            )
        self._stopping.clear()
        self._folder.claim()
        try:
            await self._end_leftover()
            await self._probe_port()
            await self._launch()
        except BaseException:
            self._kill()
            self._folder.release()
            raise
        self._supervisor = asyncio.create_task(self._supervise(), name="embedded-database")
        return self.url

    async def stop(self) -> None:
        """End the supervision, close the server (SIGTERM, after `STOP_TIMEOUT` SIGKILL) and free the folder.

        Does nothing when it is not started. Close all clients before. When cancelled, the server is killed
        at once and the folder is free all the same; its data survives that.
        """
        self._stopping.set()
        try:
            if self._supervisor is not None:
                await self._supervisor
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_TIMEOUT.total_seconds()):
                        await self._process.wait()
        finally:
            self._kill()
            self._folder.release()
        if self._process is not None:
            await self._process.wait()
            self._folder.pid_file.unlink(missing_ok=True)
        self._process = self._supervisor = None

    async def _end_leftover(self) -> None:
        """Stop the server that a killed Headwater left on this folder; refuse if somebody else's is on it.

        We hold the folder's lock, so no living Headwater owns that server. It is ours to stop if it is the
        one whose id was written down at its start: an id that is used again cannot also hold WiredTiger's
        lock.
        """
        holder = self._folder.storage_holder()
        if holder is None:
            return
        if holder != self._folder.started_process():
            raise DatabaseRefused(
                f"the data folder {self._folder.path} is in use by a database (process {holder}) that no "
                "Headwater started: stop that one, or set HEADWATER_DATA_DIR"
            )
        for ending in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder, ending)
            for _ in range(int(STOP_TIMEOUT / timedelta(seconds=0.05))):
                if self._folder.storage_holder() != holder:
                    self._on_event(f"stopped the database (process {holder}) that a killed Headwater had left")
                    return
                await asyncio.sleep(0.05)
        raise DatabaseRefused(f"the data folder {self._folder.path} is in use by process {holder}, which does not end")

    # -- the port --------------------------------------------------------------------------------------------

    async def _probe_port(self) -> None:
        """Refuse a port that is in use before the server is started: now we can say who seems to use it."""
        deadline = asyncio.get_running_loop().time() + STOP_TIMEOUT.total_seconds()
        while (reason := self._port_fault()) and self._folder.started_process_is_alive():
            # A server that is being closed gives its lock back before its port.
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.05)
        if reason:
            listener = await asyncio.to_thread(_name_listener, self._port)
            raise DatabaseRefused(
                f"port {self._port} of the embedded database cannot be used ({reason}{listener}): "
                "set HEADWATER_EMBEDDED_PORT to a free one"
            )

    def _port_fault(self) -> str | None:
        """Why the port cannot be bound now, or None."""
        try:
            with socket.socket() as probe:
                # As the server binds: a port whose last connections are only in TIME_WAIT is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, self._port))
        except OSError as error:
            return error.strerror or str(error)
        except OverflowError:
            return "not a port number"
        return None

    # -- the process -----------------------------------------------------------------------------------------

    async def _launch(self) -> None:
        """Start the process and wait until it answers or `stop` is called. `DatabaseRefused`: none is left.

        A cancellation while the process is being made leaves it to asyncio, which kills it; a later one to
        our caller.
        """
        try:
            await self._execute()
        except OSError as error:
            self._kill()
            raise DatabaseRefused(f"the embedded database cannot be started: {error}") from error
        assert self._process is not None  # noqa: S101 - made by the line above
        exited = asyncio.create_task(self._process.wait())
        try:
            async with asyncio.timeout(START_TIMEOUT.total_seconds()):
                while not exited.done():
                    if self._stopping.is_set() or await self._answers():
                        return
                    await asyncio.wait({exited}, timeout=0.05)
        except TimeoutError:
            self._kill()
            await self._process.wait()
            seconds = START_TIMEOUT.total_seconds()
            raise DatabaseRefused(
                f"the embedded database did not answer within {seconds:.0f} s (see {self._folder.log})"
            ) from None
        finally:
            exited.cancel()
        raise DatabaseRefused(self._explain_exit())

    async def _answers(self) -> bool:
        """Whether the server answers a command. One that only listens may not be ready for SIGTERM yet."""
        try:
            _, writer = await asyncio.open_connection(HOST, self._port)
        except OSError:
            return False  # the usual case, found out without a client and its thread
        writer.close()
        return await asyncio.to_thread(_hello, self._port, 500) is not None

    async def _execute(self) -> None:
        """Make the process, its output appended to the log. Raises OSError."""
        log_path = self._folder.log
        if log_path.exists() and log_path.stat().st_size > LOG_BYTES_KEPT:
            log_path.replace(log_path.with_suffix(".log.1"))
        with log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                _LAUNCHER,
                str(os.getpid()),
                f"--host={HOST}",
                f"--port={self._port}",
                f"--storage-path={self._folder.storage}",
                # Named, because otherwise a file of the user or the machine is found, even one that asks
                # for TLS.
                f"--config={self._folder.config}",
                *self._flags,
                cwd=self._folder.path,
                # The server has no business with our secrets.
                env={k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._folder.pid_file.write_text(f"{self._process.pid}\n")

    def _kill(self) -> None:
        """Kill the server now, if it runs. Its log brings back what it had on the disk."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _printed(self) -> str:
        """What the current process has printed, at most 1 MiB. Read only when it has ended."""
        try:
            with self._folder.log.open("rb") as log:
                log.seek(self._log_start)
                return log.read(1024 * 1024).decode(errors="replace").strip()
        except OSError:
            return ""

    def _explain_exit(self) -> str:
        """Why the process ended instead of starting, in one line."""
        printed = self._printed()
        data = self._folder.storage
        if "Address already in use" in printed:
            return f"port {self._port} of the embedded database is in use: set HEADWATER_EMBEDDED_PORT"
        if "Device or resource busy" in printed:
            return f"the data in {data} is in use by another database: stop it, or set HEADWATER_DATA_DIR"
        if "unsupported WiredTiger" in printed:
            return (
                f"the data in {data} was written by an incompatible version of the embedded "
                "database: install the one that wrote it, or set HEADWATER_DATA_DIR to a new folder "
                f"(see {self._folder.log})"
            )
        if "corruption detected" in printed:
            return (
                f"the data in {data} is damaged: restore a copy, or set HEADWATER_DATA_DIR to a new folder "
                f"(see {self._folder.log})"
            )
        said = printed.rpartition("\n")[2].strip() or "it said nothing"
        return f"the embedded database did not start: {said} (see {self._folder.log})"

    # -- supervision -----------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        """Restart the server whenever it dies, for ever, ever more slowly; until `stop`.

        Ended by the event and not by a cancellation, so that a process is never left half made.
        """
        loop = asyncio.get_running_loop()
        delay = RESTART_DELAY_FIRST
        started_at = loop.time()
        while True:
            assert self._process is not None  # noqa: S101 - `start` launched it
            if await self._stopped_before(self._process.wait()):
                return
            if loop.time() - started_at > RESTART_DELAY_FORGOTTEN_AFTER.total_seconds():
                delay = RESTART_DELAY_FIRST
            self._on_event(f"the embedded database {self._describe_death()}")
            while True:
                if await self._stopped_before(asyncio.sleep(delay.total_seconds())):
                    return
                delay = min(delay * 2, RESTART_DELAY_MOST)
                try:
                    await self._launch()
                except DatabaseRefused as error:
                    self._on_event(f"{error}; trying again in {delay.total_seconds():g} s")
                else:
                    break
            started_at = loop.time()
            self._on_event(f"the embedded database runs again (process {self._process.pid})")

    async def _stopped_before(self, waiting: Coroutine[None, None, object]) -> bool:
        """Wait for `waiting` or for `stop`, whichever is first; tell whether it is `stop`."""
        other = asyncio.create_task(waiting)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({other, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            other.cancel()
            stop.cancel()
        return self._stopping.is_set()

    def _describe_death(self) -> str:
        assert self._process is not None  # noqa: S101 - only called after its death
        code = self._process.returncode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        said = self._printed().rpartition("\n")[2].strip()
        return f"(process {self._process.pid}) {how} and is restarted{f'; it said: {said}' if said else ''}"


def _hello(port: int, timeout_ms: int) -> dict[str, object] | None:
    """What a MongoDB-compatible server on the port says of itself, or None. Blocks for about the timeout."""
    client: MongoClient[dict[str, object]] = MongoClient(
        HOST,
        port,
        directConnection=True,
        serverSelectionTimeoutMS=timeout_ms,
        connectTimeoutMS=timeout_ms,
        socketTimeoutMS=timeout_ms,
    )
    try:
        return client.admin.command("hello")
    except (PyMongoError, OSError, ValueError):
        return None
    finally:
        client.close()


def _name_listener(port: int) -> str:
    """Who seems to listen on the port, as the end of a sentence. Blocks for up to a second."""
    hello = _hello(port, 1000)
    if hello is None:
        return ""
    if hello.get("setName") == "secantus":
        return "; it looks like another Headwater's database"
    return "; it looks like a MongoDB server, which HEADWATER_MONGODB_URL could name"
