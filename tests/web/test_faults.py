"""The client and a real server, while all that happens which happens: afterwards the local results are the server's."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from bson import ObjectId
from pymongo import MongoClient

from tests.api.conftest import Starter
from tests.api.servers import ADMIN_EMAIL, SECRET, Server, serving, wait_until
from tests.web.driving import Driver, Plug, driving, plugged

pytestmark = pytest.mark.usefixtures("node")

QUERIES: dict[str, tuple[str, dict[str, Any]]] = {
    "all": ("posts", {"sort": ["-created_at"]}),
    "published": ("posts", {"filter": {"status": "published"}, "sort": ["title"]}),
    "window": ("posts", {"filter": {"tags": "a"}, "sort": ["-body", "title"], "limit": 5}),
}


@contextlib.contextmanager
def opened(mongodb_url: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """The database server, as another program sees it."""
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb_url)
    try:
        yield client
    finally:
        client.close()


class Place:
    """A server that can be killed and started again, its database, and changes there."""

    def __init__(self, start: Callable[[], Server], posts: Any) -> None:
        self._start = start
        self.server = start()
        self.token = self.server.login(ADMIN_EMAIL)
        self.posts = posts
        self._chance = random.Random(11)  # noqa: S311 - plays, and keeps no secret
        self._ids = [ObjectId() for _ in range(60)]

    def restart(self) -> None:
        """Start the server again, on the same port and database."""
        self.server = self._start()

    def write(self, number: int) -> None:
        """Make this many changes of every kind, straight in the database."""
        for _ in range(number):
            one = {"_id": self._chance.choice(self._ids)}
            if self._chance.random() < 0.25:
                self.posts.delete_one(one)
                continue
            word = self._chance.choice(["Æther", "brook", "Creek", "delta", "\U0001f30a", "\uff5e"])
            document = {
                "title": word,
                "slug": f"slug-{one['_id']}",
                "body": self._chance.choice(["", "a", "b", "B"]),
                "tags": self._chance.sample(["a", "b", "c"], 2),
                "status": self._chance.choice(["draft", "published", "hidden"]),
                "author_id": ObjectId(),
                "created_at": dt.datetime.fromtimestamp(self._chance.randrange(2_000_000_000), dt.UTC),
                "updated_at": dt.datetime.now(dt.UTC),
                "revision": 1,
            }
            self.posts.replace_one(one, document, upsert=True)


@contextlib.contextmanager
def placed(directory: Path, port: int, settings: dict[str, str], mongodb_url: str) -> Iterator[Place]:
    """A server with some posts."""
    with contextlib.ExitStack() as stack:
        mongo = stack.enter_context(opened(mongodb_url))
        place = Place(
            lambda: stack.enter_context(serving(directory, port, settings)),
            mongo[settings["HEADWATER_DATABASE"]]["posts"],
        )
        place.write(80)
        yield place


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    server_settings: Starter,
    free_port: Callable[[], int],
    mongodb_url: str,
) -> Iterator[Place]:
    """The one server of this module."""
    settings = server_settings(page_size_max="1000", outbox_max_bytes="65536", schema_action="warn")
    with placed(tmp_path_factory.mktemp("server"), free_port(), settings, mongodb_url) as place:
        yield place


@pytest.fixture
async def plug(place: Place) -> AsyncIterator[Plug]:
    """What stands between the server and the client."""
    async with plugged(place.server.port) as plug:
        yield plug


@pytest.fixture
async def client(place: Place, plug: Plug) -> AsyncIterator[Driver]:
    """A client with live queries."""
    async with driving(plug.url, place.token) as driver:
        for name, (resource, query) in QUERIES.items():
            await driver.open(name, resource, query)
        await driver.all("live")
        yield driver


def lost_and_found(seen: dict[str, Any]) -> bool:
    """Whether every live query was live, said that it was not, and is live again."""
    return all(
        live["states"][-1] == "live" and {"stale", "offline"} & set(live["states"]) for live in seen["lives"].values()
    )


def expiry(token: str) -> int:
    """When a token expires."""
    seconds: int = jwt.decode(token, options={"verify_signature": False})["exp"]
    return seconds


async def test_changes_of_every_kind(client: Driver, place: Place) -> None:
    """In the database or by the API: the client has them, in the server's order."""
    await asyncio.to_thread(place.write, 300)
    await client.agrees(place.server.url, place.token)
    seen = await client.do("look")
    assert seen["states"] == ["connecting", "live"]


async def test_connection_cut(client: Driver, place: Place, plug: Plug) -> None:
    """Time and again, while changes come."""
    for _ in range(5):
        plug.cut()
        await asyncio.to_thread(place.write, 30)
    await client.agrees(place.server.url, place.token)
    assert lost_and_found(await client.all("live"))


async def test_half_open_connection(client: Driver, place: Place, plug: Plug) -> None:
    """Nobody is told of it: the client finds out when it wants something, and does not say that it is live."""
    plug.hang()
    await asyncio.to_thread(place.write, 50)
    await client.agrees(place.server.url, place.token, patience=100)
    assert lost_and_found(await client.all("live"))


async def test_server_paused(client: Driver, place: Place) -> None:
    """As by a debugger, or a machine that is moved."""
    os.kill(place.server.process.pid, signal.SIGSTOP)
    try:
        await asyncio.to_thread(place.write, 50)
    finally:
        os.kill(place.server.process.pid, signal.SIGCONT)
    await client.agrees(place.server.url, place.token)


async def test_client_that_reads_nothing_for_a_while(client: Driver, place: Place) -> None:
    """The server drops its views, or the connection; then it has all again."""
    blocked = asyncio.create_task(client.do("block", ms=6_000))
    for _ in range(20):
        await asyncio.to_thread(place.write, 100)
    await blocked
    await client.agrees(place.server.url, place.token)
    await client.all("live")


async def test_token_expires(place: Place, plug: Plug) -> None:
    """Unnoticed: the next one is sent in time."""
    claims = jwt.decode(place.token, options={"verify_signature": False})
    short = jwt.encode(claims | {"exp": int(time.time()) + 6}, SECRET)
    async with driving(plug.url, short, place.token) as client:
        for name, (resource, query) in QUERIES.items():
            await client.open(name, resource, query)
        await client.all("live")
        await asyncio.to_thread(wait_until, lambda: time.time() > expiry(short) + 1)
        await asyncio.to_thread(place.write, 30)
        await client.agrees(place.server.url, place.token)
        seen = await client.do("look")
        assert seen["states"] == ["connecting", "live"]


async def test_expired_token(place: Place, plug: Plug) -> None:
    """What was cached too long is refused, and another one asked for."""
    claims = jwt.decode(place.token, options={"verify_signature": False})
    stale = jwt.encode(claims | {"exp": int(time.time()) - 60}, SECRET)
    for transport in ("websocket", "sse"):
        async with driving(plug.url, stale, place.token, transport=transport) as client:
            await client.open("all", *QUERIES["all"])
            await client.agrees(place.server.url, place.token)


async def test_proxy_without_websockets(place: Place, plug: Plug) -> None:
    """Server-Sent Events take their place, through cuts and half-open connections, too."""
    plug.websockets = False
    async with driving(plug.url, place.token) as client:
        for name, (resource, query) in QUERIES.items():
            await client.open(name, resource, query)
        seen = await client.all("live")
        assert seen["transport"] == "sse"
        await asyncio.to_thread(place.write, 100)
        plug.cut()
        await asyncio.to_thread(place.write, 30)
        # Once: on a quiet stream that takes until the next heartbeat.
        await client.agrees(place.server.url, place.token)
        assert lost_and_found(await client.all("live"))


async def test_server_killed(client: Driver, place: Place) -> None:
    """And started again many changes later: the client comes back by itself and has them all."""
    place.server.process.kill()
    place.server.process.wait()
    await asyncio.to_thread(place.write, 300)
    seen = await client.do("look")
    assert "live" not in {live["state"] for live in seen["lives"].values()}
    await asyncio.to_thread(place.restart)
    await client.agrees(place.server.url, place.token)
    assert lost_and_found(await client.all("live"))


async def test_deploy(tmp_path: Path, server_settings: Starter, free_port: Callable[[], int], mongodb_url: str) -> None:
    """Two workers are replaced, one by one: clients leave and come back when they are told to, without a reset."""
    settings = server_settings(workers="2", page_size_max="1000", schema_action="warn")
    with placed(tmp_path, free_port(), settings, mongodb_url) as place:
        server = place.server
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(driving(server.url, place.token)) for _ in range(2)]
            for client in clients:
                for name, (resource, query) in QUERIES.items():
                    await client.open(name, resource, query)
                await client.all("live")
            server.process.send_signal(signal.SIGHUP)
            for client in clients:
                await client.until(lambda seen: lost_and_found(seen))
                await asyncio.to_thread(place.write, 30)
            for client in clients:
                await client.agrees(server.url, place.token)


async def test_order_of_what_should_not_be_there(client: Driver, place: Place) -> None:
    """Values of every type that JSON shows as such, in a field of text: the order is the database's, also of [[]].

    Each is moved out of its place and back, so that the client puts it there and not the server.
    """
    values: list[Any] = [
        *(None, True, False, 3, -2.5, 10, 2**53 - 1, "text", "Text", "", "6a13", "\U0001f30a", "\uff5e", "10"),
        *([], [[]], [[], [1]], [[], 1], [5, "x"], ["b", 1], [[1]], [[[]]], [None]),
        *({"a": 1}, {"a": 1, "b": 2}, {"b": 0}, {"a": "1"}, {}, {"a": []}, {"a": [[]]}),
    ]
    times = [None, 7, "yesterday", dt.datetime(1969, 1, 1, tzinfo=dt.UTC), dt.datetime(2040, 1, 1, tzinfo=dt.UTC)]
    documents: list[dict[str, Any]] = [
        {"title": value, "slug": f"odd-{n}", "body": "odd", "created_at": times[n % 5], "status": "published"}
        for n, value in enumerate(values)
    ]
    documents.append({"slug": "odd", "body": "odd", "status": "published"})
    place.posts.insert_many(documents)
    for sort in (["title"], ["-title"], ["created_at", "-title"]):
        await client.open(",".join(sort), "posts", {"filter": {"body": "odd"}, "sort": sort})
    await client.open("window", "posts", {"filter": {"body": "odd"}, "sort": ["title"], "limit": 9})
    await client.agrees(place.server.url, place.token)
    for document in documents:
        place.posts.replace_one({"_id": document["_id"]}, {**document, "title": "moved"})
    for document in reversed(documents):
        place.posts.replace_one({"_id": document["_id"]}, document)
    await client.agrees(place.server.url, place.token)
    place.posts.delete_many({"body": "odd"})
    await client.agrees(place.server.url, place.token)
