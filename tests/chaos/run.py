"""One run: start everything, let it suffer, heal it, and judge."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.api.servers import PASSWORD
from tests.chaos.clients import Account, Client, EventStreamClient, Query, Temper, WebSocketClient
from tests.chaos.faults import Faults
from tests.chaos.ledger import Ledger
from tests.chaos.site import EMBEDDED, Site, Worker, running_site, until
from tests.chaos.truth import Truth
from tests.chaos.writers import Writers, mark

USERS = 8
#: Of each kind of client that reads nothing now and then.
ABSENT = 2
#: What is promised: nobody is left in silence for longer once nothing is wrong any more.
SILENCE_SECONDS = 5.0
SETTLE_SECONDS = 60.0
#: A stream that brings nothing is reopened three times, and given up then.
STILL_SECONDS = 25.0

_MARKER: dict[str, Any] = {"group": "marker"}
#: Errors in a worker's log that faults bring about by design.
_EXPECTED_ERRORS = re.compile(
    r"history lost after|cluster time went back|(audit|mail) \([\w.]+\) failed: DatabaseAway"
    # PyMongo's own, when it returns cursors to a server that has gone.
    r"|pymongo.client: MongoClient background task"
)


def _or_marker(filter: dict[str, Any]) -> dict[str, Any]:
    return {"$or": [_MARKER, filter]}


_VIEWS = (
    Query("readings"),
    *(Query("readings", _or_marker({"group": group})) for group in ("a", "b")),
    Query("readings", _or_marker({"value": {"$gte": 50}})),
    Query("readings", _or_marker({"tags": {"$in": ["x", "z"]}}), fields=("group", "value")),
    Query("readings", _or_marker({"value": {"$lt": 30}, "group": {"$ne": "b"}})),
    Query("readings", fields=("note",)),
    Query("readings", _or_marker({"note": {"$contains": "DAMP"}})),
    Query("readings", _or_marker({"group": {"$in": ["c", "d"]}}), sort="-value", limit=10),
    Query("readings", _or_marker({"status": "open", "$nor": [{"tags": "y"}, {"value": {"$gt": 90}}]})),
    Query("posts"),
    Query("scratches"),
)
_OF_USERS = (Query("readings"), Query("readings", _or_marker({"status": "closed"})), Query("posts"))
_OF_MODERATORS = (Query("readings", whole=True), Query("readings", _or_marker({"grade": {"$gte": 2}})), Query("posts"))


@dataclass
class Report:
    """What came of a run."""

    seed: int
    seconds: float
    faults: dict[str, int]
    untested: list[str]
    ledger: Ledger
    clients: int
    stretches: int
    #: Of them, how many were held against the database's own word.
    whole_stretches: int
    writes: dict[str, int]
    failovers: list[float]
    slowest: float
    lost_messages: int
    machine: str = field(
        default_factory=lambda: f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )

    @property
    def failed(self) -> bool:
        """Whether a promise was broken, or something was not tried."""
        return bool(self.ledger.violations or self.untested or not self.whole_stretches)

    def __str__(self) -> str:
        ledger = self.ledger
        lines = [
            f"seed {self.seed}: {self.seconds:.0f} s, {sum(self.faults.values())} faults, {self.clients} clients, "
            f"{ledger.deliveries} deliveries, {len(ledger.violations)} violations ({self.machine})",
            "faults: " + _listed(self.faults),
            "resets: " + _listed(ledger.resets),
            f"resumed: {ledger.recovered} with what was missed, {ledger.not_recovered} with a reset (WebSocket)",
            "reconnections: " + _listed(ledger.reconnects),
            f"messages lost on purpose: {self.lost_messages}; "
            f"stretches compared: {self.stretches}, of which {self.whole_stretches} with the database's own history",
            "writes: " + _listed(self.writes),
        ]
        if self.failovers:
            median, most = statistics.median(self.failovers), max(self.failovers)
            lines.append(f"fail-over of the relay: median {median:.2f} s, longest {most:.2f} s ({len(self.failovers)})")
        lines.append(f"after the faults everybody heard of a change within {self.slowest:.2f} s")
        lines += [f"NOT TRIED: {kind}" for kind in self.untested]
        # The same thing often happens to many: by what was said, up to where it names one of them.
        kinds = Counter(re.split(r"\d", violation.what)[0].strip() for violation in ledger.violations)
        lines += [f"{count} violations: {kind} …" for kind, count in kinds.most_common()]
        lines += [f"VIOLATION {violation}" for violation in ledger.violations[:10]]
        if len(ledger.violations) > 10:
            lines.append("All of them are in violations.txt, beside the logs.")
        return "\n".join(lines)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


async def run(
    directory: Path,
    ports: list[int],
    *,
    seconds: float,
    seed: int,
    rate: float,
    crowd: int = 0,
    database: Sequence[str] = EMBEDDED,
) -> Report:
    """Run the checker for so long, plus what starting, healing and judging takes."""
    chance = random.Random(seed)  # noqa: S311 - a run must be repeatable
    ledger = Ledger(directory / "violations.txt")
    began = time.monotonic()
    async with running_site(directory, ports, chance, database) as site:
        admin, moderators, users = await _accounts(site)
        clients = _clients(site, users, moderators, ledger, chance, crowd)
        writers = Writers(site, users, admin, ledger, chance, rate)
        faults = Faults(site, ledger, chance, [client for client in clients if client.temper is Temper.ABSENT])
        truth = Truth(site.db["readings"])
        following = [asyncio.create_task(truth.run())]
        await truth.open.wait()
        following += [asyncio.create_task(client.run()) for client in clients]
        writing = asyncio.create_task(writers.run())
        try:
            await _all(clients, _has_lived, "is not live before the first fault")
            following.append(asyncio.create_task(_watch_progress(site, clients, truth)))
            await _while(writing, faults.run(seconds))
            # What is cancelled may be carried out all the same, and later than what is judged.
            writers.enough.set()
            await asyncio.wait([writing], timeout=SETTLE_SECONDS)
            await _end([writing])
            await site.heal()
            await writers.settle()
            for client in clients:
                client.calm.set()
            slowest, marker = await _judge(site, clients)
            await truth.reaches(marker)
            _check_tasks(following)
        finally:
            await _end([writing, *following])
    stretches, whole = ledger.compare(), truth.compare(ledger)
    _check_logs(site.workers, ledger)
    return Report(
        seed=seed,
        seconds=time.monotonic() - began,
        faults=dict(faults.counts),
        untested=[kind for kind in faults.kinds if not faults.counts[kind]],
        ledger=ledger,
        clients=len(clients),
        stretches=stretches,
        whole_stretches=whole,
        writes=dict(writers.counts),
        failovers=faults.failovers,
        slowest=slowest,
        lost_messages=site.to_redis.lost_messages,
    )


async def _while(background: asyncio.Task[None], work: Any) -> None:
    """Await `work`; an error of the background ends both."""
    foreground = asyncio.create_task(work)
    try:
        await asyncio.wait((foreground, background), return_when=asyncio.FIRST_COMPLETED)
        if background.done():  # which it is only by an error
            background.result()
        await foreground
    finally:
        await _end([foreground])


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: a library may swallow a cancellation."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1)


def _check_tasks(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


async def _accounts(site: Site) -> tuple[Account, list[Account], list[Account]]:
    """The admin, two moderators, and users."""
    http = site.workers[0].http

    async def sign_in(name: str) -> Account:
        answer = await http.post("/api/v1/auth/login", json={"username": name, "password": PASSWORD}, timeout=30)
        answer.raise_for_status()
        token = answer.json()["access_token"]
        me = await http.get("/api/v1/users/me", headers={"Authorization": f"Bearer {token}"})
        return Account(me.json()["id"], name, token)

    names = ["mod-1", "mod-2", *(f"user-{n}" for n in range(USERS))]
    for name in names:
        body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
        (await http.post("/api/v1/auth/register", json=body, timeout=30)).raise_for_status()
    await site.db["users"].update_many({"username": {"$in": names[:2]}}, {"$set": {"roles": ["user", "moderator"]}})
    accounts = [await sign_in(name) for name in names]
    return await sign_in("admin"), accounts[:2], accounts[2:]


def _clients(
    site: Site, users: list[Account], moderators: list[Account], ledger: Ledger, chance: random.Random, crowd: int
) -> list[Client]:
    """Clients of all views, tempers and transports, at least two of each view, and a crowd that watches much."""
    wanted: list[tuple[tuple[Query, ...], Account | None]] = [((query,), None) for query in _VIEWS]
    wanted += [((query,), user) for user in users for query in _OF_USERS[:2]]
    wanted += [((query,), moderator) for moderator in moderators for query in _OF_MODERATORS]
    clients: list[Client] = []
    tempers = [temper for temper in Temper if temper is not Temper.ABSENT]

    def add(
        make: type[Client], queries: tuple[Query, ...], account: Account | None, temper: Temper | None = None
    ) -> None:
        if temper is None:
            temper = tempers[len(clients) % len(tempers)] if chance.random() < 0.7 else Temper.STEADY
        clients.append(make(len(clients), site, queries, account, temper, ledger, chance))

    for queries, account in wanted:
        add(WebSocketClient, queries, account)
        add(EventStreamClient, queries, account)
    for account in (None, *users):
        add(WebSocketClient, _OF_USERS, account)
    for _ in range(ABSENT):
        add(WebSocketClient, (Query("readings"),), None, Temper.ABSENT)
        add(WebSocketClient, _VIEWS, None, Temper.ABSENT)
        add(EventStreamClient, (Query("readings"),), None, Temper.ABSENT)
    for number in range(crowd):
        add(WebSocketClient, _VIEWS, None, Temper.SLEEPY if number % 2 else Temper.STEADY)
    return clients


def _is_ready(client: Client) -> bool:
    return client.ready


def _has_lived(client: Client) -> bool:
    """Whether it was live once, if it may be at all: some sleep, some leave, some are sent away."""
    return client.lived or (client.account is not None and not client.account.active)


async def _all(clients: list[Client], condition: Callable[[Client], bool], what: str) -> None:
    """Wait until it is true of all clients; who is late has been left alone."""
    try:
        await until(lambda: all(map(condition, clients)), what, SETTLE_SECONDS)
    except TimeoutError:
        for client in clients:
            if not condition(client):
                for watched in client.watched:
                    watched.violate(what)


async def _watch_progress(site: Site, clients: list[Client], truth: Truth) -> None:
    """Nobody who is live may stand still while the database goes on, unless a fault of just now explains it."""
    whole = [
        (client, watched)
        for client in clients
        for query, watched in zip(client.queries, client.watched, strict=True)
        if query.whole and client.temper in (Temper.STEADY, Temper.RESTLESS)
    ]
    lived: dict[str, float] = {}
    while True:
        await asyncio.sleep(1)
        now = time.monotonic()
        for client, watched in whole:
            if not watched.ready or watched.position is None or site.excuses(client.port):
                lived[watched.who] = now
            overdue = now - lived.setdefault(watched.who, now)
            if overdue > STILL_SECONDS and truth.age_of_next(str(watched.position)) > STILL_SECONDS:
                watched.violate(f"stands still for {STILL_SECONDS:.0f} s at {watched.position}")
                lived[watched.who] = now


async def _judge(site: Site, clients: list[Client]) -> tuple[float, str]:
    """Check every client against a fresh query; how long the slowest took to hear of a change, and which it was."""
    await _all(clients, _is_ready, "does not come back after the faults")
    began = time.monotonic()
    marker = await mark(site)
    try:
        await until(lambda: all(client.has(marker) for client in clients), "silence", SILENCE_SECONDS)
    except TimeoutError:
        for client in clients:
            if not client.has(marker):
                for watched in client.watched:
                    watched.violate(f"hears nothing of {marker} for {SILENCE_SECONDS:.0f} s after the faults")
    slowest = time.monotonic() - began
    fresh: dict[str, dict[str, dict[str, Any]]] = {}
    for client in clients:
        for query, watched in zip(client.queries, client.watched, strict=True):
            key = json.dumps([query.resource, query.parameters(shaped=False), client.account and client.account.id])
            if key not in fresh:
                fresh[key] = await _fresh(site.workers[0], query, client.account)
            watched.finish(fresh[key])
    return slowest, marker


async def _fresh(worker: Worker, query: Query, account: Account | None) -> dict[str, dict[str, Any]]:
    """The whole result of a query, as a new REST request gives it."""
    headers = {"Accept": "application/x-ndjson"}
    if account is not None:
        headers["Authorization"] = f"Bearer {account.token}"
    parameters = query.parameters(shaped=False)
    answer = await worker.http.get(f"/api/v1/{query.resource}", params=parameters, headers=headers, timeout=30)
    answer.raise_for_status()
    documents = [json.loads(line) for line in answer.text.splitlines() if line]
    return {document["id"]: document for document in documents}


def _check_logs(workers: list[Worker], ledger: Ledger) -> None:
    for worker in workers:
        # Each record with what follows it without a time of its own, such as a traceback.
        records = re.split(r"^(?=\d{4}-\d\d-\d\dT\d\d:)", worker.log.read_text(), flags=re.M)
        for record in records:
            wrong = re.search(r" (ERROR|CRITICAL) |^Traceback", record, re.M)
            if wrong and not _EXPECTED_ERRORS.search(record):
                ledger.violate(worker.name, "an unexpected error in its log", tuple(record.splitlines()[:40]))
                break
