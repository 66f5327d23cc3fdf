"""The main job over the wire: a real server process, WebSocket clients, writes by the API and past it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket as socket_library
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo import MongoClient
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from realtime.protocol import CloseCode
from tests.api.servers import SECRET, Server, User, serving
from tests.realtime import worker
from tests.waiting import until

PUBLISHED = {"status": "published"}
PATIENCE = 60
AUTHOR = ObjectId()


def oid(n: int) -> ObjectId:
    """The n-th id."""
    return ObjectId(f"{n:024x}")


def post(n: int, **fields: Any) -> dict[str, Any]:
    """A stored post that the validator takes."""
    return worker.post(oid(n), slug=f"s-{n}", author_id=AUTHOR, **fields)


@pytest.fixture(scope="module")
def database_of_server() -> str:
    """The name of the database that the module's server uses."""
    return f"server_{ObjectId()}"


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    mongodb_url: str,
    database_of_server: str,
    free_port: Callable[[], int],
) -> Iterator[Server]:
    """A server on the run's database."""
    settings = {
        "HEADWATER_MONGODB_URL": mongodb_url,
        "HEADWATER_DATABASE": database_of_server,
        "HEADWATER_SECRET_KEY": SECRET,
        "HEADWATER_OUTBOX_MAX_BYTES": "200000",
        "HEADWATER_LOG_LEVEL": "warning",
    }
    with serving(tmp_path_factory.mktemp("server"), free_port(), settings) as server:
        yield server
    server.check_log()


@pytest.fixture(scope="module")
def author(server: Server) -> User:
    """A signed-in user."""
    return server.register("author")


@pytest.fixture
def posts(mongodb_url: str, database_of_server: str, server: Server) -> Iterator[Any]:
    """The posts as any program sees them, with plain PyMongo. Empty at first."""
    del server  # which creates the collection
    with MongoClient[Any](mongodb_url, tz_aware=True) as client:
        collection = client[database_of_server].posts
        collection.delete_many({})
        yield collection


class Socket:
    """An open connection; keeps one subscription's result as the browser's client would."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.frames: list[dict[str, Any]] = []
        self.documents: dict[Any, dict[str, Any]] = {}
        self.position = ""
        self.ready = False
        self.recovering = False

    async def send(self, **message: Any) -> None:
        await self.websocket.send(json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        """The next frame, applied."""
        async with asyncio.timeout(PATIENCE):
            frame: dict[str, Any] = json.loads(await self.websocket.recv())
        self.frames.append(frame)
        self._apply(frame)
        return frame

    def _apply(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "reset":
                self.documents, self.ready, self.position = {}, False, ""
            case "snapshot":
                assert not self.ready
                self.documents |= {item["document"]["id"]: item["document"] for item in frame["items"]}
            case "ready":
                assert not self.ready or self.recovering
                self.recovering = False
                self.ready, self.position = True, frame["position"]
            case "event":
                assert self.ready or self.recovering
                assert frame["position"] > self.position
                self.position, id, op = frame["position"], frame["id"], frame["op"]
                assert (id in self.documents) is (op in ("update", "leave", "delete")), f"{op} of {id}"
                if "document" in frame:
                    self.documents[id] = frame["document"]
                else:
                    del self.documents[id]

    async def until(self, type: str) -> dict[str, Any]:
        """The next frame of this type."""
        while (frame := await self.receive())["type"] != type:
            pass
        return frame

    async def subscribe(self, **query: Any) -> None:
        await self.send(type="subscribe", id="1", resource="posts", **query)
        await self.until("ready")

    async def synced(self, position: str) -> None:
        """Take everything up to a position."""
        await self.send(type="ping", id="sync", position=position)
        await self.until("pong")

    def events(self) -> list[tuple[str, str]]:
        return [(frame["op"], frame["id"]) for frame in self.frames if frame["type"] == "event"]


@contextlib.asynccontextmanager
async def opened(server: Server, token: str | None = None, **options: Any) -> AsyncIterator[Socket]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"ws://127.0.0.1:{server.port}/api/v1/ws"
    async with connect(url, subprotocols=["headwater.v1"], additional_headers=headers, proxy=None, **options) as ws:  # type: ignore[list-item]
        socket = Socket(ws)
        assert (await socket.receive())["type"] == "welcome"
        yield socket


def position_now(server: Server) -> str:
    """A position that includes every write that was acknowledged to anybody before."""
    answer = httpx.get(f"{server.url}/api/v1/posts?limit=1", timeout=30)
    position: str = answer.headers["X-Position"]
    return position


async def test_first_session(server: Server, author: User, posts: Any) -> None:
    """A post's life through the API, as a subscriber to the published ones sees it: each event once, in order."""
    del posts
    async with opened(server) as socket:
        await socket.subscribe(filter=PUBLISHED, snapshot=True)
        assert [frame["type"] for frame in socket.frames] == ["welcome", "subscribed", "snapshot", "ready"]
        created = author.client.post("/posts", json={"title": "High water", "status": "published"})
        path = created.headers["Location"].removeprefix("/api/v1")
        merge = {"Content-Type": "application/merge-patch+json"}
        for patch in ({"title": "Low water"}, {"status": "draft"}, {"body": "unseen"}, {"status": "published"}):
            assert author.client.patch(path, json=patch, headers=merge).status_code == 200
        deleted = author.client.delete(path)
        assert deleted.status_code == 204
        await socket.synced(deleted.headers["X-Position"])
        id = created.json()["id"]
        assert socket.events() == [(op, id) for op in ("create", "update", "leave", "enter", "delete")]
        first = next(frame for frame in socket.frames if frame["type"] == "event")
        assert first["document"] == created.json()
        assert first["etag"] == created.headers["ETag"]
        assert socket.documents == {}


async def test_writes_past_the_api(server: Server, posts: Any) -> None:
    """Plain PyMongo, with `insert_many`, `update_many` and a transaction, gives the same events."""
    async with opened(server) as socket:
        await socket.subscribe(filter=PUBLISHED)
        posts.insert_one(post(1))
        posts.update_one({"_id": oid(1)}, {"$set": {"title": "Low water"}})
        posts.update_one({"_id": oid(1)}, {"$set": {"status": "draft"}})
        posts.update_one({"_id": oid(1)}, {"$set": {"body": "unseen"}})
        posts.update_one({"_id": oid(1)}, {"$set": {"status": "published"}})
        posts.delete_one({"_id": oid(1)})
        posts.insert_many([post(n) for n in range(10, 14)])
        posts.update_many({"_id": {"$gte": oid(10)}}, {"$set": {"body": "wet"}})
        with posts.database.client.start_session() as session, session.start_transaction():
            posts.insert_one(post(20), session=session)
            posts.delete_one({"_id": oid(10)}, session=session)
            posts.update_one({"_id": oid(11)}, {"$set": {"status": "hidden"}}, session=session)
        await socket.synced(position_now(server))
        expected = [
            *((op, 1) for op in ("create", "update", "leave", "enter", "delete")),
            *(("create", n) for n in range(10, 14)),
            *(("update", n) for n in range(10, 14)),
            ("create", 20),
            ("delete", 10),
            ("leave", 11),
        ]
        assert socket.events() == [(op, str(oid(n))) for op, n in expected]
        assert sorted(socket.documents) == [str(oid(n)) for n in (12, 13, 20)]


async def test_latency(server: Server, author: User, posts: Any) -> None:
    """From the beginning of a write to its event at the subscriber: under 50 ms at the median."""
    del posts
    delays: list[float] = []
    async with opened(server) as socket, httpx.AsyncClient(headers=author.client.headers, timeout=30) as client:
        await socket.subscribe(filter=PUBLISHED)
        for n in range(50):
            began = time.perf_counter()
            writing = asyncio.create_task(
                client.post(f"{server.url}/api/v1/posts", json={"title": f"post {n}", "status": "published"})
            )
            await socket.until("event")
            delays.append(time.perf_counter() - began)
            assert (await writing).status_code == 201
    assert statistics.median(delays) < 0.050


class Writers:
    """About 50 writes a second, of every kind, through the API and past it, until told to stop."""

    def __init__(self, server: Server, author: User, posts: Any) -> None:
        self._server, self._author, self._posts = server, author, posts
        self.writes = 0
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._through_the_api())
            group.create_task(self._past_it())

    def stop(self) -> None:
        self._stopped.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)

    async def _through_the_api(self) -> None:
        url = f"{self._server.url}/api/v1/posts"
        async with httpx.AsyncClient(headers=self._author.client.headers, timeout=60) as client:
            while not self._stopped.is_set():
                created = await client.post(url, json={"title": f"post {self.writes}", "status": "published"})
                assert created.status_code == 201
                status = ("published", "draft")[self.writes % 2]
                changed = await client.patch(f"{url}/{created.json()['id']}", json={"status": status, "body": "x"})
                assert changed.status_code == 200
                if self.writes % 3 == 0:
                    assert (await client.delete(f"{url}/{created.json()['id']}")).status_code == 204
                self.writes += 3
                await self._pause(0.1)

    async def _past_it(self) -> None:
        step = 0
        while not self._stopped.is_set():
            await asyncio.to_thread(self._burst, step)
            self.writes += 8
            step += 1
            await self._pause(0.25)

    def _burst(self, step: int) -> None:
        posts, base = self._posts, 1_000 * (step + 1)
        posts.insert_many([post(base + n) for n in range(3)])
        posts.update_many({"_id": {"$in": [oid(base), oid(base + 1)]}}, {"$set": {"status": "draft"}})
        posts.replace_one({"_id": oid(base)}, post(base, title="replaced"))
        with posts.database.client.start_session() as session, session.start_transaction():
            posts.delete_one({"_id": oid(base + 2)}, session=session)
            posts.update_one(
                {"_id": oid(step % 100)}, {"$set": {"status": ("draft", "published")[step % 2]}}, session=session
            )


async def test_two_hundred_clients_while_others_write(server: Server, author: User, posts: Any) -> None:
    """All end with exactly the collection's content, whenever they subscribed."""
    posts.insert_many([post(n) for n in range(300)])
    writers = Writers(server, author, posts)
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        writing = asyncio.create_task(writers.run())
        sockets = []
        for n in range(0, 200, 20):
            # Twenty at a time: they overtake each other's handshakes, reads and events.
            entered = [stack.enter_async_context(opened(server)) for _ in range(20)]
            sockets += [await one for one in entered]
            query = (
                {"filter": PUBLISHED},
                {"filter": PUBLISHED},
                {"limit": 10_000},
                {"filter": {"title": {"$ne": f"{n}"}}},
            )
            await asyncio.gather(*(s.subscribe(**query[i % 4]) for i, s in enumerate(sockets[n:])))
        # While all are there, too: a busy machine writes slowly.
        await until(lambda: writers.writes >= 400, seconds=120)
        writers.stop()
        await writing
        seconds = time.monotonic() - began
        position = position_now(server)
        await asyncio.gather(*(socket.synced(position) for socket in sockets))
        expected = {str(d["_id"]): (d["title"], d["status"], d["body"]) for d in posts.find({"status": "published"})}
        assert len(expected) > 250
        for socket in sockets:
            held = {id: (d["title"], d["status"], d["body"]) for id, d in socket.documents.items()}
            assert held == expected
            assert [frame for frame in socket.frames if frame["type"] in ("reset", "error")] == []
    assert writers.writes / seconds > 25, "too few writes to prove anything"


async def test_slow_client(server: Server, posts: Any) -> None:
    """One that does not read delays nobody. When it does, it hears that it lagged, or is disconnected and resumes."""
    posts.insert_many([post(n) for n in range(20)])
    # A small window: what the kernel keeps for the client would take many more writes to fill.
    narrow = socket_library.socket()
    narrow.setsockopt(socket_library.SOL_SOCKET, socket_library.SO_RCVBUF, 16_384)
    narrow.connect(("127.0.0.1", server.port))
    async with (
        opened(server, max_queue=1, compression=None, sock=narrow) as slow,
        opened(server) as fast,
    ):
        for socket in (slow, fast):
            await socket.subscribe(filter=PUBLISHED)
        # 2 MB, which is more than the outbox, the transport and the kernel take, and not much more. So it reads again
        # long before the server stops waiting for an answer to its close frame, which may be lost with the connection.
        for n in range(5):
            posts.update_many({}, {"$set": {"body": f"{n} " + "x" * 20_000}})
            await fast.synced(position_now(server))
        assert len(fast.events()) == 100
        position = position_now(server)
        with contextlib.suppress(ConnectionClosed):
            await slow.synced(position)
        if (code := slow.websocket.close_code) is not None:
            # The writes above took longer than a slow consumer is waited for, so it was told to come back.
            assert code == CloseCode.SLOW_CONSUMER
            slow = await resumed(slow, server, position)
        else:
            assert [frame["reason"] for frame in slow.frames if frame["type"] == "reset"] == ["lagging"]
        assert slow.documents == fast.documents
        assert {d["body"] for d in slow.documents.values()} == {"4 " + "x" * 20_000}


async def resumed(gone: Socket, server: Server, position: str) -> Socket:
    """What a client holds that comes back with what it had: everything that it missed, or a reset and all anew."""
    view = next(frame["view"] for frame in gone.frames if frame["type"] == "subscribed")
    async with opened(server) as again:
        again.documents, again.position = gone.documents, gone.position
        since = {"view": view, "position": gone.position}
        await again.send(type="subscribe", id="1", resource="posts", filter=PUBLISHED, since=since)
        await again.until("subscribed")
        recovered = again.frames[-1]["recovered"]
        again.recovering = recovered is True
        await again.until("ready")
        await again.synced(position)
        kinds = [frame["type"] for frame in again.frames]
        assert ("reset" in kinds) is (recovered is False)
        assert ("snapshot" in kinds) is (recovered is False)
        return again
