"""The processes: a database, a Redis, and three workers that reach both through proxies of ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from tests import waiting
from tests.api.servers import ADMIN_EMAIL, PASSWORD, ROOT, SECRET, environment
from tests.chaos.proxy import Proxy
from tests.redis_server import RedisServer

DATABASE = "chaos"
OPLOG_ENTRIES = 2_000_000
#: For so long after a fault has ended it still explains that a worker cannot serve: drivers look for servers.
AFTERMATH_SECONDS = 10
START_SECONDS = 120
STOP_SECONDS = 10
WORKERS = 3
PAUSE_SECONDS = 0.05
#: The database's program, which takes SecantusDB's options.
EMBEDDED = (sys.executable, "-P", "-m", "secantus")


async def until(condition: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
    """Wait until `condition()` is true, which another process brings about. Raises TimeoutError that says `what`."""
    try:
        await waiting.until(condition, seconds=seconds, pause=PAUSE_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"after {seconds:.0f} s: {what}") from None


class Process:
    """A process of ours that may be killed, stopped and started again; its output goes on in one file."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, command: list[str], env: dict[str, str], cwd: Path) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None and self.runs:
            self._process.send_signal(number)

    async def ended(self, seconds: float = 30) -> None:
        """Wait until it has ended; kill it when it takes too long."""
        try:
            await until(lambda: not self.runs, f"{self.name} has not ended", seconds)
        except TimeoutError:
            self.send(signal.SIGKILL)
            await until(lambda: not self.runs, f"{self.name} survives SIGKILL", seconds)
            raise


class Worker(Process):
    """One `python main.py`, on a port of its own."""

    def __init__(self, number: int, port: int, directory: Path, settings: dict[str, str]) -> None:
        super().__init__(f"worker {number}", directory / f"worker-{number}.log")
        self.port = port
        self._directory = directory
        self._settings = settings | {"HEADWATER_PORT": str(port)}
        self._log_start = 0
        #: Whether it was made unable to serve, and since when it is able again.
        self._unwell = True
        self._well_since = 0.0
        self.http = httpx.AsyncClient(base_url=self.url, timeout=5, trust_env=False)

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        super().send(number)
        if number is signal.SIGCONT:
            self._recovered()
        else:
            self._unwell = True

    def _recovered(self) -> None:
        if self._unwell and self.runs:
            self._unwell, self._well_since = False, time.monotonic()

    def unwell_since(self, moment: float) -> bool:
        """Whether it was dead, stopped or starting at any time since `moment`, because it was made so."""
        return self._unwell or self._well_since > moment

    def start(self) -> None:
        """Start it; it serves some seconds later."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self.launch([sys.executable, str(ROOT / "main.py")], environment(self._settings), self._directory)

    async def is_ready(self) -> bool:
        """Whether it says that it can serve."""
        try:
            return (await self.http.get("/health/ready")).status_code == 200
        except httpx.HTTPError:
            return False

    async def ready(self) -> None:
        """Wait until it serves."""

        async def ready() -> bool:
            if await self.is_ready():
                return True
            if not self.runs:
                raise RuntimeError(f"{self.name} has ended:\n{self.log.read_text()[-3_000:]}")
            return False

        try:
            await until(ready, f"{self.name} is ready")
        except TimeoutError as late:
            raise TimeoutError(f"{late}:\n{self.log.read_text()[-3_000:]}") from None
        self._recovered()

    async def serves(self) -> None:
        """The same, where a start that meets a fault of the database or Redis is refused, and tried again."""
        while True:
            with contextlib.suppress(RuntimeError):
                await self.ready()
                return
            self.start()

    def became_relay_at(self) -> str:
        """When it last became the relay, as its log writes times; empty if it never did."""
        found = re.findall(r"^(\S+) INFO +headwater.relay: this worker is the relay", self._said, re.M)
        return found[-1] if found else ""

    @property
    def follows(self) -> bool:
        """Whether it takes changes from the relay, as its log tells."""
        said = self._said
        return said.rfind("reading the database's changes directly") <= said.rfind("following the relay again")

    @property
    def _said(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode()


class Database(Process):
    """The embedded database as a process of its own, whose oplog may be made short."""

    def __init__(self, port: int, directory: Path, command: Sequence[str]) -> None:
        super().__init__("the database", directory / "database.log")
        self.port = port
        self._command = tuple(command)
        self._directory = directory
        self._clients: list[AsyncMongoClient[dict[str, Any]]] = []
        self.renew_client()

    def renew_client(self) -> None:
        """Use a client of which nobody's cancellation has taken away a connection that it waits for."""
        self._clients.append(
            AsyncMongoClient(
                self.url(self.port),
                tz_aware=True,
                serverSelectionTimeoutMS=2_000,
                socketTimeoutMS=10_000,
                waitQueueTimeoutMS=10_000,
            )
        )

    @property
    def client(self) -> AsyncMongoClient[dict[str, Any]]:
        """A client that no fault concerns, but those of the server itself."""
        return self._clients[-1]

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            await client.close()

    @staticmethod
    def url(port: int) -> str:
        """What clients connect to, at the server's own port or a proxy's."""
        return f"mongodb://127.0.0.1:{port}/?retryWrites=false&directConnection=true"

    async def start(self, oplog_entries: int = OPLOG_ENTRIES) -> None:
        """Start it; returns when it answers."""
        config = self._directory / "database.toml"
        # Named, because otherwise a file of the user or the machine is found.
        config.touch()
        flags = [
            "--host=127.0.0.1",
            f"--port={self.port}",
            f"--storage-path={self._directory / 'db'}",
            f"--config={config}",
            "--log-level=WARNING",
            f"--oplog-max-entries={oplog_entries}",
            "--oplog-retention-seconds=86400",
            "--noop-heartbeat-seconds=5",
            # As `make run` starts it: what was acknowledged survives SIGKILL.
            "--sync-on-commit",
        ]
        self.launch([*self._command, *flags], dict(os.environ), self._directory)

        async def answers() -> bool:
            try:
                await self.client.admin.command("ping")
            except PyMongoError:
                if not self.runs:
                    raise
                return False
            return True

        await until(answers, "the database answers")

    async def stop(self) -> None:
        """End it in good order, or by force: soon after its start it may not heed SIGTERM."""
        self.send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await self.ended(STOP_SECONDS)

    async def kill(self) -> None:
        """End it as a crash would."""
        self.send(signal.SIGKILL)
        await self.ended()


class Site:
    """Everything that runs. `heal` ends whatever is wrong."""

    def __init__(
        self,
        directory: Path,
        ports: list[int],
        chance: random.Random,
        database: Sequence[str],
        settings: Mapping[str, str],
    ) -> None:
        self.directory = directory
        self._more = {f"HEADWATER_{name.upper()}": value for name, value in settings.items()}
        self.database = Database(ports[0], directory, database)
        self.redis = RedisServer(directory, ports[1])
        self.to_database = Proxy(ports[0], chance)
        self.to_redis = Proxy(ports[1], chance)
        self.worker_ports = ports[2 : 2 + WORKERS]
        self.workers: list[Worker] = []
        self._database_unwell = 0
        self._database_well_since = 0.0

    @contextlib.contextmanager
    def database_trouble(self) -> Iterator[None]:
        """While this lasts the workers may be unable to use the database."""
        self._database_unwell += 1
        try:
            yield
        finally:
            self._database_unwell -= 1
            self._database_well_since = time.monotonic()

    def excuses(self, port: int) -> bool:
        """Whether the worker at `port` may be unable to serve at present, because of a fault of now or just now."""
        moment = time.monotonic() - AFTERMATH_SECONDS
        if self._database_unwell or self._database_well_since > moment:
            return True
        return any(worker.unwell_since(moment) for worker in self.workers if worker.port == port)

    @property
    def db(self) -> Any:
        """The database, as another program sees it: not through the proxy."""
        return self.database.client[DATABASE]

    async def start(self) -> None:
        """Start everything; returns when all workers serve."""
        for proxy in (self.to_database, self.to_redis):
            await proxy.start()
        await asyncio.gather(self.database.start(), asyncio.to_thread(self.redis.start))
        settings = {
            "HEADWATER_MONGODB_URL": Database.url(self.to_database.port),
            "HEADWATER_REDIS_URL": f"redis://127.0.0.1:{self.to_redis.port}/0",
            "HEADWATER_DATABASE": DATABASE,
            "HEADWATER_DOCUMENTS": "documents.models,tests.chaos.classes",
            "HEADWATER_SECRET_KEY": SECRET,
            "HEADWATER_ADMIN_EMAIL": ADMIN_EMAIL,
            "HEADWATER_ADMIN_PASSWORD": PASSWORD,
            "HEADWATER_ACCESS_TOKEN_MINUTES": "1440",
            "HEADWATER_LOGIN_RATE_LIMIT": "100000/minute",
            "HEADWATER_RATE_LIMIT": "1000000/minute",
            # Small, so that a client that sleeps reaches behind the ring, and one that is slow fills its outbox.
            "HEADWATER_HISTORY_EVENTS": "2000",
            "HEADWATER_OUTBOX_MAX_BYTES": "65536",
        }
        settings |= self._more
        self.workers = [Worker(n, port, self.directory, settings) for n, port in enumerate(self.worker_ports, 1)]
        # The first one makes the admin and the indexes.
        for group in (self.workers[:1], self.workers[1:]):
            for worker in group:
                worker.start()
            await asyncio.gather(*(worker.ready() for worker in group))

    async def end_transactions(self) -> None:
        """End the transactions that were left open by who was killed, cut off or cancelled.

        MongoDB's change streams go on beside those; the embedded server's wait for them, for a minute or longer.
        """
        with contextlib.suppress(PyMongoError):
            await self.database.client.admin.command("killAllSessions", [])

    def relay(self) -> Worker:
        """The worker that became the relay last."""
        return max((worker for worker in self.workers if worker.runs), key=Worker.became_relay_at)

    async def heal(self) -> None:
        """No fault any more; returns when all workers serve."""
        for proxy in (self.to_redis, self.to_database):
            proxy.lost_share = proxy.delay_seconds = 0.0
            proxy.refusing = False
        self.database.renew_client()
        if not self.database.runs:
            await self.database.start()
        await self.end_transactions()
        for worker in self.workers:
            worker.send(signal.SIGCONT)
            if not worker.runs:
                worker.start()
        await asyncio.gather(*(worker.serves() for worker in self.workers))

    async def stop(self) -> None:
        """End everything."""
        for worker in self.workers:
            worker.send(signal.SIGCONT)
            worker.send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.gather(*(worker.ended() for worker in self.workers))
        for worker in self.workers:
            await worker.http.aclose()
        await self.database.close()
        for proxy in (self.to_redis, self.to_database):
            await proxy.stop()
        self.redis.kill()
        with contextlib.suppress(TimeoutError):
            await self.database.stop()


@contextlib.asynccontextmanager
async def running_site(
    directory: Path,
    ports: list[int],
    chance: random.Random,
    database: Sequence[str] = EMBEDDED,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Site]:
    """The site, while the block lasts; with other `settings` of the workers than the checker's own."""
    site = Site(directory, ports, chance, database, settings)
    try:
        await site.start()
        yield site
    finally:
        await site.stop()
