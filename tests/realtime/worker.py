"""A worker without a web server: the real feed, views, snapshots and connections on the real database.

It is put together as `main.running` does it, with two additions for tests: the feed's source has a gate, so that
committed changes can be kept from the feed; and a `Client` takes frames from a connection's outbox as a transport
would, checks each against the protocol, and applies them.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, Literal

from pydantic import TypeAdapter

from documents import (
    ANONYMOUS,
    BOOKKEEPING,
    BY_ID,
    Change,
    ChangeStream,
    Credentials,
    CursorCodec,
    Entry,
    Heartbeat,
    Lists,
    Position,
    PositionCodec,
    Principal,
    Registry,
    ResourceClass,
    Sort,
    Store,
    bind_classes,
    install,
    live_collections,
    open_database,
    parse_filter,
    parse_sort,
    public_id,
    selected,
)
from documents.shapes import Kind
from documents.streams import ServerStreams
from realtime import (
    Connection,
    ConnectionManager,
    Feed,
    Frame,
    History,
    Principals,
    Snapshots,
    SubscribeRequest,
    ViewIndex,
    ViewQuery,
    protocol,
)

SECRET = b"the secret of the tests, 32 bytes"
#: Far longer than anything here takes; a test that waits for what never comes fails with the place.
PATIENCE = 30

_server_message: TypeAdapter[protocol.ServerMessage] = TypeAdapter(protocol.ServerMessage)


class GatedSource:
    """The change stream, behind a gate. Closed, it keeps back what it has read."""

    def __init__(self, source: ChangeStream) -> None:
        self._source = source
        self._open = asyncio.Event()
        self._open.set()

    @property
    def connected(self) -> bool:
        return self._source.connected

    def close(self) -> None:
        """Keep back everything from now on."""
        self._open.clear()

    def open(self) -> None:
        """Let everything through, in order."""
        self._open.set()

    async def batches(self) -> AsyncGenerator[Sequence[Entry], None]:
        async with contextlib.aclosing(self._source.batches()) as batches:
            async for batch in batches:
                await self._open.wait()
                yield batch


class Worker:
    """Everything that a subscriber needs of one process."""

    def __init__(self, database: Any, registry: Registry, history: History, outbox_max_bytes: int) -> None:
        self.database = database
        self.registry = registry
        self.posts = registry["posts"]
        self.store = Store(database, registry)
        self.lists = Lists(database, self.store, CursorCodec(SECRET))
        self.positions = PositionCodec(SECRET, database.id)
        # A worker's end waits for its getMore; with hundreds of workers that would be most of the time.
        streams = ServerStreams(database.raw, max_await=dt.timedelta(milliseconds=50))
        self.source = GatedSource(ChangeStream(database.raw, live_collections(registry), open_cursor=streams.open))
        self.feed = Feed(self.source, Heartbeat(database.raw), history)
        self.views = ViewIndex(self.store, self.positions)
        self.snapshots = Snapshots(self.feed, self.lists)
        self.manager = ConnectionManager(
            self.feed, self.views, self.snapshots, self.positions, outbox_max_bytes=outbox_max_bytes
        )
        self.principals = Principals(Credentials(database, registry), self.manager)
        #: Every change of every live collection since the start, as the feed brought it.
        self.changes: list[Change] = []

    @property
    def raw(self) -> Any:
        """The Motor database, for writes past everything."""
        return self.database.raw

    async def start(self) -> None:
        self.feed.add_listener(lambda entry: self.changes.append(entry) if isinstance(entry, Change) else None)
        await self.feed.start(None)
        self.feed.add_listener(self.principals.on_entry)
        self.manager.start()

    async def stop(self) -> None:
        self.source.open()
        await self.manager.stop()
        await self.feed.stop()

    async def caught_up(self) -> Position:
        """Wait until the feed has everything that is committed now."""
        self.source.open()
        async with self.database.session() as session:
            await self.database.collection("posts").find_one({}, session=session)
            position: Position = self.database.position(session)
        async with asyncio.timeout(PATIENCE):
            await self.feed.passed(position)
        return position

    async def fresh(self, query: ViewQuery, principal: Principal) -> dict[str, dict[str, Any]]:
        """The view's content by a plain query of its own: public documents by id."""
        rule, test = query.resource.rule("read", principal)
        del rule
        form = self.store.public_form(query.resource, principal.roles)
        found = await self.lists.result(query.resource, query.filter, BY_ID, 100_000, Position.ZERO)
        content = [form.document(stored) for stored in found.documents if test(stored)]
        return {d["id"]: selected(d, query.fields) if query.fields else d for d in content}

    def query(
        self, filter: dict[str, Any], fields: tuple[str, ...] | None = None, resource: ResourceClass | None = None
    ) -> ViewQuery:
        """A query as an admin may write it."""
        resource = resource or self.posts
        return ViewQuery(resource, parse_filter(filter, resource.visible(frozenset({"admin"})), loc=()), fields)

    def sort(self, *names: str) -> Sort:
        return parse_sort(names, self.posts.visible(frozenset()))

    async def truth(self, client: Client, id: str, position: Position | None = None) -> None:
        """Assert that the client has exactly what a fresh query gives, once it has everything up to now."""
        await client.synced(position or await self.caught_up())
        subscription = client.connection.subscriptions[id]
        held = client.views[subscription.view.id].documents
        expected = await self.fresh(subscription.query, client.connection.principal)
        # A change of bookkeeping alone is no event, so it is not part of what a view promises.
        assert [_content(d) for d in _by_id(held)] == [_content(d) for d in _by_id(expected)]


@contextlib.asynccontextmanager
async def working(
    url: str, name: str, *, history: History | None = None, outbox_max_bytes: int = 1_048_576
) -> AsyncIterator[Worker]:
    """A worker on an empty database of the given name; dropped afterwards."""
    database: Any = await open_database(url, name)
    try:
        registry = Registry.load(["documents.models"])
        await bind_classes(database, registry)
        await install(database, registry, "warn")
        if history is None:  # (an empty one is false)
            history = History(50_000, 67_108_864)
        worker = Worker(database, registry, history, outbox_max_bytes)
        await worker.start()
        try:
            yield worker
        finally:
            await worker.stop()
        await database.client.drop_database(name)
    finally:
        await database.close()


def _by_id(documents: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [documents[id] for id in sorted(documents, key=str)]


def _content(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in BOOKKEEPING}


class ClientView:
    """What a client knows of one view. Its methods fail where the protocol's promises are broken."""

    def __init__(self, *, whole: bool = True) -> None:
        self.ready = False
        self.whole = whole
        self.position = ""
        self.documents: dict[str, dict[str, Any]] = {}
        #: (op, id) of every event since the last `ready` or reset.
        self.events: list[tuple[str, Any]] = []

    def event(self, frame: dict[str, Any], *, recovering: bool) -> None:
        op, id = frame["op"], frame["id"]
        assert self.ready or recovering, f"an event before ready: {frame}"
        assert frame["position"] > self.position, f"{op} of {id} at {frame['position']} after {self.position}"
        self.position = frame["position"]
        self.events.append((op, id))
        assert ("document" in frame) is (op in ("create", "enter", "update"))
        assert ("changed" in frame) is (op == "update")
        if self.whole:
            assert (id in self.documents) is (op in ("update", "leave", "delete")), f"{op} of {id}"
        if op in ("leave", "delete"):
            self.documents.pop(id, None)
        else:
            assert frame["document"]["id"] == id
            self.documents[id] = frame["document"]


class Client:
    """Takes frames from a connection and keeps what they say."""

    def __init__(self, worker: Worker, principal: Principal = ANONYMOUS) -> None:
        self.worker = worker
        self.connection: Connection = worker.manager.connect(principal)
        self.frames: list[dict[str, Any]] = []
        self.raw: list[Frame] = []
        self.views: dict[str, ClientView] = {}
        self._recovering: set[str] = set()
        self._whole = True
        self._changed = asyncio.Event()
        self._holding = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()
        self._pings = 0
        self._task = asyncio.create_task(self._read(), name="client")

    def subscribe(
        self,
        query: ViewQuery,
        id: str = "1",
        *,
        sort: Sort = BY_ID,
        limit: int = 10_000,
        snapshot: bool = True,
        since: tuple[str, Position] | None = None,
    ) -> None:
        self._whole = snapshot and limit >= 1_000
        self.connection.subscribe(SubscribeRequest(id, query, sort, limit, snapshot, since))

    def pause(self) -> None:
        """Stop reading, as a client whose socket is full."""
        self._reading.clear()

    async def stuck(self) -> None:
        """After `pause`: wait until a frame is on its way that the client does not take, so that nothing drains."""
        async with asyncio.timeout(PATIENCE):
            await self._holding.wait()

    def resume(self) -> None:
        """Read again."""
        self._holding.clear()
        self._reading.set()

    async def _read(self) -> None:
        outbox = self.connection.outbox
        while True:
            # A transport takes the next frames even if the socket is full, and then waits with them in hand.
            for frame in await outbox.take():
                if not self._reading.is_set():
                    self._holding.set()
                await self._reading.wait()
                self._apply(frame)
                outbox.sent(frame.size)
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def _apply(self, raw: Frame) -> None:
        # By the protocol's own models: an undeclared field would be refused.
        _server_message.validate_json(raw.text)
        frame: dict[str, Any] = json.loads(raw.text)
        self.frames.append(frame)
        self.raw.append(raw)
        kind, name = frame["type"], str(frame.get("view"))
        if kind == "subscribed":
            self.views[name] = ClientView(whole=self._whole)
            if frame["recovered"]:
                self._recovering.add(name)
                self.views[name].whole = False  # it goes on from what an earlier connection has
        elif kind == "reset":
            self.views.pop(name, None)
            self._recovering.discard(name)
        elif kind == "snapshot":
            view = self.views.setdefault(name, ClientView(whole=self._whole))
            assert not view.ready, "a snapshot after ready"
            for item in frame["items"]:
                assert item["document"]["id"] not in view.documents, "a document twice in a snapshot"
                view.documents[item["document"]["id"]] = item["document"]
        elif kind == "ready":
            view = self.views.setdefault(name, ClientView(whole=self._whole))
            assert not view.ready, "ready twice"
            assert frame["position"] >= view.position
            self._recovering.discard(name)
            view.ready, view.position = True, frame["position"]
            view.whole = view.whole and frame["complete"]
        elif kind == "event":
            self.views[name].event(frame, recovering=name in self._recovering)
        elif kind == "position":
            for view in self.views.values():
                if view.ready:
                    view.position = max(view.position, frame["position"])

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until what has been received makes `condition()` true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                if self._task.done():
                    self._task.result()
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({changed, self._task}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()

    async def received(self, type: str, times: int = 1) -> dict[str, Any]:
        """Wait for the frame of this type that makes it `times` in all; returns it."""
        await self.until(lambda: len(self.of_type(type)) >= times)
        return self.of_type(type)[times - 1]

    def of_type(self, *types: str) -> list[dict[str, Any]]:
        """The frames of these types so far."""
        return [frame for frame in self.frames if frame["type"] in types]

    async def synced(self, position: Position) -> None:
        """Wait until this client has everything up to `position`, as the protocol's `ping` promises."""
        self._pings += 1
        id = f"sync {self._pings}"
        self.connection.ping(id, position)
        await self.until(lambda: any(frame["id"] == id for frame in self.of_type("pong")))

    async def close(self) -> None:
        self._task.cancel()
        results = await asyncio.gather(self._task, return_exceptions=True)
        await self.connection.end()
        for result in results:
            if isinstance(result, Exception):
                raise result


@contextlib.asynccontextmanager
async def connected(worker: Worker, principal: Principal = ANONYMOUS) -> AsyncIterator[Client]:
    """A client, closed at the end; its broken promises fail the test."""
    client = Client(worker, principal)
    try:
        yield client
    finally:
        await client.close()


def served_id(id: Any) -> str:
    """How the API names a stored post: as an id of another type, where a test numbers its posts."""
    return public_id(id, Kind.OBJECT_ID)


def post(id: Any, status: Literal["draft", "published", "hidden"] = "published", **fields: Any) -> dict[str, Any]:
    """A stored post."""
    now = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
    return {
        "_id": id,
        "title": f"title {id}",
        "slug": f"s-{id}",
        "body": "",
        "tags": [],
        "status": status,
        "author_id": None,
        "created_at": now,
        "updated_at": now,
        "revision": 1,
    } | fields
