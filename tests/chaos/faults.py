"""Faults, by kind. Each method makes one, lasts as long as it does, and leaves the site whole again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import redis.asyncio
from bson import ObjectId
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from realtime.relay import LEASE
from tests.chaos.absences import Absences
from tests.chaos.clients import Client
from tests.chaos.failover import failover
from tests.chaos.ledger import Ledger
from tests.chaos.proxy import Proxy
from tests.chaos.site import Site, Worker, until
from tests.chaos.writers import now

#: Longer than the relay's lease.
STOPPED_SECONDS = (2.0, 5.0)
SHORT_SECONDS = (0.3, 2.0)
#: So few changes make the oplog forget, when it is made short.
SHORT_OPLOG = 200
EFFECT_SECONDS = 30
LOST_MESSAGES = 20

Fault = Callable[[], Awaitable[None]]


class Faults:
    """Makes faults until told to stop; each kind comes once before any comes again.

    Three go on at a time: one of the workers, one of what is around them, one of the clients. `quiet` is held by those
    of the first two that must be alone. `absent` are the clients that can be told to read nothing.
    """

    def __init__(self, site: Site, ledger: Ledger, chance: random.Random, absent: Sequence[Client]) -> None:
        self.counts: Counter[str] = Counter()
        #: Seconds from the death of a relay until the other workers' clients heard of a change made after it.
        self.failovers: list[float] = []
        self.deadline = 0.0
        self._site = site
        self._ledger = ledger
        self._chance = chance
        absences = Absences(site, ledger, absent)
        self._quiet = asyncio.Lock()
        self.of_workers: list[Fault] = [
            self.worker_killed,
            self.worker_stopped,
            self.worker_terminated,
            self.relay_killed,
            self.relay_stopped,
        ]
        self.of_the_rest: list[Fault] = [
            self.redis_restarted_empty,
            self.redis_paused,
            self.redis_with_an_older_log,
            self.redis_without_memory,
            self.pubsub_clients_killed,
            self.pubsub_buffers_tiny,
            self.messages_lost,
            self.redis_connections_cut,
            self.redis_connections_half_open,
            self.redis_slow,
            self.database_connections_cut,
            self.database_connections_half_open,
            self.database_restarted,
            self.database_killed,
            self.database_away,
            self.cursors_killed,
            self.history_lost,
            self.collection_dropped,
        ]
        self.of_clients: list[Fault] = [absences.consumers_slow, absences.consumers_stuck]

    @property
    def kinds(self) -> list[str]:
        """The names of all kinds."""
        return [getattr(fault, "__name__", "?") for lane in self._lanes for fault in lane]

    @property
    def _lanes(self) -> tuple[list[Fault], ...]:
        return self.of_workers, self.of_the_rest, self.of_clients

    async def run(self, seconds: float) -> None:
        """Make faults for so long, and at least one of each kind."""
        self.deadline = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(self._keep_making(lane))

    async def _keep_making(self, kinds: list[Fault]) -> None:
        first = True
        while first or time.monotonic() < self.deadline:
            for fault in self._chance.sample(kinds, len(kinds)):
                if not first and time.monotonic() > self.deadline:
                    return
                await self._make(fault)
                await asyncio.sleep(self._chance.uniform(0.02, 0.2))
            first = False

    async def _make(self, fault: Fault) -> None:
        name = getattr(fault, "__name__", "?")
        try:
            await fault()
        except Exception as error:
            # The clients' judgement is worth more than one fault: the run goes on, and fails at its end.
            self._ledger.violate(f"the fault {name}", f"did not come off: {error!r}")
        self.counts[name] += 1

    async def _last(self, bounds: tuple[float, float] = SHORT_SECONDS) -> None:
        await asyncio.sleep(self._chance.uniform(*bounds))

    # -- workers ---------------------------------------------------------------------------------------------

    async def worker_killed(self) -> None:
        """A worker is killed, and started again."""
        worker = self._chance.choice(self._site.workers)
        await self._kill(worker)

    async def _kill(self, worker: Worker) -> None:
        worker.send(signal.SIGKILL)
        await worker.ended()
        await self._site.end_transactions()
        await self._last()
        worker.start()
        await worker.serves()

    async def worker_stopped(self) -> None:
        """A worker hangs for some seconds, and goes on as if nothing had been."""
        await self._stop(self._chance.choice(self._site.workers))

    async def _stop(self, worker: Worker) -> None:
        worker.send(signal.SIGSTOP)
        await self._last(STOPPED_SECONDS)
        worker.send(signal.SIGCONT)

    async def worker_terminated(self) -> None:
        """A worker is asked to stop, and started again."""
        worker = self._chance.choice(self._site.workers)
        worker.send(signal.SIGTERM)
        try:
            await worker.ended()
        except TimeoutError:
            self._ledger.violate(worker.name, "does not end when it is asked to")
        worker.start()
        await worker.serves()

    async def relay_killed(self) -> None:
        """The relay is killed while nothing else is wrong: how long until changes arrive again?"""
        async with self._quiet:
            await until(lambda: all(worker.follows for worker in self._site.workers), "workers do not follow the relay")
            await asyncio.sleep(LEASE.total_seconds())
            relay = self._site.relay()
            self.failovers.append(await failover(self._site, relay))
        await self._kill(relay)

    async def relay_stopped(self) -> None:
        """The relay hangs for longer than its lease, wakes up, and must not write anything wrong."""
        await self._stop(self._site.relay())

    # -- Redis -----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _redis(self) -> AsyncIterator[redis.asyncio.Redis]:
        async with redis.asyncio.Redis.from_url(self._site.redis.url) as client:
            yield client

    async def redis_restarted_empty(self) -> None:
        """Redis dies and comes back with nothing."""
        async with self._quiet:
            await asyncio.to_thread(self._site.redis.kill)
            await self._last()
            (self._site.directory / "dump.rdb").unlink(missing_ok=True)
            await asyncio.to_thread(self._site.redis.start)

    async def redis_with_an_older_log(self) -> None:
        """Redis dies and comes back with what it had been some seconds before."""
        async with self._quiet:
            stored, kept = self._site.directory / "dump.rdb", self._site.directory / "older.rdb"
            async with self._redis() as client:
                await client.save()
            await asyncio.to_thread(shutil.copy, stored, kept)
            await self._last((1.0, 3.0))
            await asyncio.to_thread(self._site.redis.kill)
            await asyncio.to_thread(shutil.copy, kept, stored)
            await self._last((0.0, 1.0))
            await asyncio.to_thread(self._site.redis.start)
            stored.unlink(missing_ok=True)

    async def redis_paused(self) -> None:
        """Redis hangs."""
        async with self._quiet:
            self._site.redis.pause()
            await self._last((0.5, 4.0))
            self._site.redis.resume()

    async def redis_without_memory(self) -> None:
        """Redis refuses to write, so appends fail."""
        async with self._quiet, self._redis() as client:
            await client.config_set("maxmemory", "1")
            await self._last()
            await client.config_set("maxmemory", "0")

    async def pubsub_clients_killed(self) -> None:
        """All subscriptions to Redis' channels are ended."""
        async with self._quiet, self._redis() as client:
            for _ in range(self._chance.randrange(1, 4)):
                await client.client_kill_filter(_type="pubsub")
                await asyncio.sleep(0.2)

    async def pubsub_buffers_tiny(self) -> None:
        """Redis ends subscriptions that do not take messages at once."""
        async with self._quiet, self._redis() as client:
            await client.config_set("client-output-buffer-limit", "pubsub 4096 1024 1")
            await self._insert(100)
            await self._last()
            await client.config_set("client-output-buffer-limit", "pubsub 33554432 8388608 60")

    async def messages_lost(self) -> None:
        """One published message in ten does not arrive."""
        async with self._quiet:
            self._site.to_redis.lost_share = 0.1
            before = self._site.to_redis.lost_messages
            try:
                async with asyncio.timeout(EFFECT_SECONDS):
                    # Some of them only say where the log ends. What is written meanwhile many can see.
                    while self._site.to_redis.lost_messages < before + LOST_MESSAGES:
                        await self._insert(10, status="open")
            finally:
                self._site.to_redis.lost_share = 0.0

    async def redis_connections_cut(self) -> None:
        """Connections to Redis break."""
        await self._cut(self._site.to_redis)

    async def redis_connections_half_open(self) -> None:
        """Connections to Redis carry nothing any more, and nobody says so."""
        await self._hang(self._site.to_redis)

    async def redis_slow(self) -> None:
        """Redis is far away."""
        async with self._quiet:
            self._site.to_redis.delay_seconds = self._chance.uniform(0.05, 0.4)
            await self._last()
            self._site.to_redis.delay_seconds = 0.0

    async def _cut(self, proxy: Proxy) -> None:
        async with self._quiet:
            for _ in range(self._chance.randrange(1, 4)):
                proxy.cut(self._chance.choice((0.3, 1.0)))
                await asyncio.sleep(self._chance.uniform(0, 0.5))

    async def _hang(self, proxy: Proxy) -> None:
        async with self._quiet:
            proxy.hang()
            await self._last((1.0, 4.0))
            proxy.cut()

    # -- the database ----------------------------------------------------------------------------------------

    async def database_connections_cut(self) -> None:
        """Connections to the database break."""
        with self._site.database_trouble():
            await self._cut(self._site.to_database)
        await self._site.end_transactions()

    async def database_connections_half_open(self) -> None:
        """Connections to the database carry nothing any more, and nobody says so."""
        with self._site.database_trouble():
            await self._hang(self._site.to_database)
        await self._site.end_transactions()

    async def database_away(self) -> None:
        """The database cannot be reached, while others write to it."""
        async with self._quiet, self._without_database():
            await self._last((1.0, 4.0))

    @contextlib.asynccontextmanager
    async def _without_database(self) -> AsyncIterator[None]:
        """No worker reaches the database, and others do."""
        proxy = self._site.to_database
        with self._site.database_trouble():
            proxy.refusing = True
            proxy.cut()
            try:
                yield
            finally:
                proxy.refusing = False
        await self._site.end_transactions()

    async def database_restarted(self) -> None:
        """The database is stopped in good order, and started again."""
        async with self._quiet:
            with self._site.database_trouble():
                await self._site.database.stop()
                await self._site.database.start()

    async def database_killed(self) -> None:
        """The database dies, and comes back with all that it had acknowledged."""
        async with self._quiet:
            with self._site.database_trouble():
                await self._site.database.kill()
                await self._last()
                await self._site.database.start()

    async def cursors_killed(self) -> None:
        """The change streams' cursors are killed on the server."""
        async with self._quiet:

            async def killed() -> object:
                cursors = list(self._site.to_database.cursors)[-8:]
                answer = await self._site.db.command("killCursors", "$cmd.aggregate", cursors=cursors)
                return answer["cursorsKilled"]

            # A worker that has just been started may not have read yet.
            await until(killed, "a cursor is killed", EFFECT_SECONDS)

    async def history_lost(self) -> None:
        """The oplog forgets what no worker has read."""
        async with self._quiet:
            database = self._site.database
            async with self._without_database():
                await database.stop()
                await database.start(SHORT_OPLOG)
                await self._insert(2 * SHORT_OPLOG)
                await database.client.admin.command("secantusAdmin.pruneOplog")
                await database.stop()
                await database.start()
                noticed = self._histories_lost()
            await until(lambda: self._histories_lost() > noticed, "no worker notices that history was lost")

    def _histories_lost(self) -> int:
        return sum(worker.log.read_text().count("history lost after") for worker in self._site.workers)

    async def _insert(self, count: int, status: str = "closed") -> None:
        """Insert documents that last until the next such insert, and that most views do not show."""
        readings = self._site.db["readings"]
        book = {"revision": 1, "created_at": now(), "updated_at": now(), "grade": 0, "owner_id": ObjectId()}
        more = {"group": "flood", "note": "", "tags": [], "status": status}
        for value in range(count):
            await readings.insert_one({"value": -value, **more, **book})
        await readings.delete_many({"group": "flood"})

    async def collection_dropped(self) -> None:
        """A collection is dropped by hand."""
        with contextlib.suppress(PyMongoError, RedisError):
            await self._site.db["scratches"].drop()
