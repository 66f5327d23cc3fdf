"""The read cache, in a whole application on a real database: it is used, and never behind what was pushed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from bson import ObjectId
from motor.motor_asyncio import AsyncIOMotorDatabase

from api import Services, Settings, create_app
from documents import Change, Entry, Position
from main import running
from realtime import read_cache
from tests.api import gauges
from tests.api.servers import PASSWORD, SECRET
from tests.waiting import until


@dataclass
class World:
    """The application, its parts, two clients of it, and what its feed has pushed so far."""

    services: Services
    gauges: Any
    anonymous: httpx.AsyncClient
    user: httpx.AsyncClient
    admin: httpx.AsyncClient
    pushed: dict[str, int]
    heard: asyncio.Event

    async def passed(self, position: str) -> None:
        """Wait until the feed has passed a position."""
        await self.services.feed.passed(self.services.positions.decode(position))

    async def create(self, **document: Any) -> tuple[str, str]:
        """A new gauge that the feed has told of: its address and its position."""
        made = await self.user.post("/gauges", json=document)
        assert made.status_code == 201, made.text
        await self.passed(made.headers["x-position"])
        return f"/gauges/{made.json()['id']}", made.headers["x-position"]

    @property
    def hits(self) -> int:
        """How often the cache was of use."""
        return self.services.read_cache.hits


@pytest.fixture
async def world(
    mongodb_url: str, database: AsyncIOMotorDatabase[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """An application with a cached class, in this process."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(
        mongodb_url=mongodb_url,
        database=database.name,
        secret_key=SECRET,
        admin_email="admin@example.org",
        admin_password=PASSWORD,
        documents=(gauges.__name__,),
        rate_limit="1000000/minute",
    )
    async with contextlib.AsyncExitStack() as stack:
        services = await stack.enter_async_context(running(settings))
        pushed: dict[str, int] = {}
        heard = asyncio.Event()

        def push(entry: Entry) -> None:
            # Listens after the connections do, so this is what they have been sent.
            if isinstance(entry, Change) and entry.collection == "gauges" and entry.after is not None:
                pushed[str(entry.document_id)] = entry.after["n"]
                heard.set()

        services.feed.add_listener(push)
        transport = httpx.ASGITransport(create_app(services))

        async def client(**headers: str) -> httpx.AsyncClient:
            made = httpx.AsyncClient(transport=transport, base_url="http://x/api/v1", headers=headers)
            return await stack.enter_async_context(made)

        anonymous = await client()

        async def signed_in(name: str) -> httpx.AsyncClient:
            answer = await anonymous.post("/auth/login", json={"username": name, "password": PASSWORD})
            return await client(Authorization=f"Bearer {answer.json()['access_token']}")

        body = {"username": "mara", "email": "mara@example.org", "password": PASSWORD}
        assert (await anonymous.post("/auth/register", json=body)).status_code == 201
        user, admin = await signed_in("mara"), await signed_in("admin")
        yield World(services, database["gauges"], anonymous, user, admin, pushed, heard)


async def test_reading_again(world: World) -> None:
    """Asks the database once, for all whom the answer is the same for; with the same headers."""
    address, written_at = await world.create(n=1)
    first = await world.anonymous.get(address)
    assert world.hits == 0
    second = await world.anonymous.get(address.upper().replace("/GAUGES", "/gauges"))
    assert world.hits == 1
    for name in ("etag", "x-position", "last-modified", "vary"):
        assert second.headers[name] == first.headers[name]
    decode = world.services.positions.decode
    assert decode(second.headers["x-position"]) >= decode(written_at)
    unchanged = await world.anonymous.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (unchanged.status_code, world.hits) == (304, 2)
    pages = [(await world.anonymous.get("/gauges?sort=-n&count=exact")).json() for _ in range(2)]
    assert (pages[0], world.hits) == (pages[1], 3)
    for other in ("/gauges?sort=n", "/gauges?limit=1", "/gauges?n=1", "/gauges?page=1", "/gauges?page=2"):
        await world.anonymous.get(other)
    assert world.hits == 3


async def test_readers_with_other_rights(world: World) -> None:
    """Do not get what was kept for somebody else."""
    address, _ = await world.create(n=1, open=False)
    assert "secret" in (await world.admin.get(address)).json()
    for reader in (world.user, world.anonymous):
        assert (await reader.get(address)).status_code == 404
        assert (await reader.get("/gauges")).json()["items"] == []
    assert "secret" in (await world.admin.get(address)).json()
    assert world.hits == 1


async def test_change(world: World) -> None:
    """Drops the document and the lists, whoever made it."""
    address, _ = await world.create(n=1)
    for n in (2, 3):
        assert (await world.anonymous.get(address)).json()["n"] == n - 1
        assert (await world.anonymous.get("/gauges")).json()["items"][0]["n"] == n - 1
        world.heard.clear()
        await world.gauges.update_one({}, {"$set": {"n": n}})
        await asyncio.wait_for(world.heard.wait(), 20)
    assert (await world.anonymous.get(address)).json()["n"] == 3
    await world.gauges.drop()

    async def is_gone() -> bool:
        return (await world.anonymous.get(address)).status_code == 404

    await until(is_gone)


async def test_own_write(world: World) -> None:
    """Is read by its writer at once, before the feed has told of it."""
    address, _ = await world.create(n=0)
    for n in range(1, 20):
        for reader in (world.anonymous, world.user) * 2:
            await reader.get(address)
            await reader.get("/gauges")
        await world.user.patch(address, json={"n": n})
        assert (await world.user.get(address)).json()["n"] == n
        assert (await world.user.get("/gauges")).json()["items"][0]["n"] == n
    assert world.hits > 0


async def test_feed_that_stands_still(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the cache be left alone: nobody would tell of a change."""
    address, _ = await world.create(n=1)
    await world.anonymous.get(address)
    monkeypatch.setattr(read_cache, "MAX_SILENCE_SECONDS", 0.0)
    await world.gauges.update_one({}, {"$set": {"n": 2}})
    assert (await world.anonymous.get(address)).json()["n"] == 2
    assert world.hits == 0


async def test_answer_older_than_the_feed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not kept: a member that lags behind gave it, and no change will drop it."""
    address, _ = await world.create(n=1)
    monkeypatch.setattr(world.services.database, "position", lambda _: Position(1, 1))
    for _ in range(2):
        assert (await world.anonymous.get(address)).status_code == 200
    assert (world.hits, len(world.services.read_cache)) == (0, 0)


async def test_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are kept, in entries and in bytes; the least used go first."""
    addresses = [(await world.create(n=n))[0] for n in range(5)]
    cache = world.services.read_cache
    monkeypatch.setattr(read_cache, "MAX_ENTRIES", 3)
    for address in (*addresses[:3], addresses[0], *addresses[3:]):
        await world.anonymous.get(address)
    assert (len(cache), world.hits) == (3, 1)
    await world.anonymous.get(addresses[0])
    assert world.hits == 2
    monkeypatch.setattr(read_cache, "MAX_BYTES", cache.bytes // 3 * 2 + 100)
    await world.anonymous.get(addresses[1])
    assert len(cache) <= 2
    assert cache.bytes <= read_cache.MAX_BYTES
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)


async def test_readers_and_writers_all_at_once(world: World) -> None:
    """No answer is older than what was pushed before it was asked for, nor than its reader's own writes."""
    addresses = [(await world.create(n=0))[0] for _ in range(3)]
    done = asyncio.Event()
    answers = 0

    async def read_meanwhile() -> None:
        """Somebody has read since the last write, so that reads and writes alternate."""
        before = answers
        await until(lambda: answers > before, pause=0)

    def floor(address: str) -> int:
        return world.pushed.get(address.rpartition("/")[2], 0)

    async def read(address: str) -> None:
        nonlocal answers
        while not done.is_set():
            least, least_of_all = floor(address), max(map(floor, addresses))
            assert (await world.anonymous.get(address)).json()["n"] >= least
            top = (await world.anonymous.get("/gauges?sort=-n&limit=1")).json()["items"][0]["n"]
            assert top >= least_of_all
            answers += 1
            await asyncio.sleep(0)

    async def write_directly(address: str) -> None:
        for _ in range(40):
            await world.gauges.update_one({"_id": ObjectId(address.rpartition("/")[2])}, {"$inc": {"n": 1}})
            await read_meanwhile()

    async def write(address: str) -> None:
        for _ in range(15):
            answer = await world.user.patch(
                address, json={"$inc": {"n": 1}}, headers={"Content-Type": "application/vnd.headwater.update+json"}
            )
            assert answer.status_code == 200, answer.text
            assert (await world.user.get(address)).json()["n"] >= answer.json()["n"]
            await read_meanwhile()

    async with asyncio.TaskGroup() as readers:
        for address in addresses * 2:
            readers.create_task(read(address))
        async with asyncio.TaskGroup() as writers:
            for address in addresses:
                writers.create_task(write_directly(address))
                writers.create_task(write(address))
        done.set()
    assert world.hits > 0
    assert [(await world.user.get(address)).json()["n"] for address in addresses] == [55] * 3
