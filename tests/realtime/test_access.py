"""What whom reaches, and what a change of rights does: snapshot, act, apply the events, equals a fresh snapshot."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from bson import ObjectId

from documents import ANONYMOUS, Credential, Position, Principal, Standing
from realtime import Connection, Refused
from realtime.protocol import CloseCode, ErrorCode, ResetReason
from tests.realtime.steps import Stepper
from tests.realtime.test_subscribe_path import SEEDS, WRITES
from tests.realtime.worker import PATIENCE, Client, Worker, connected, post, working

AUTHOR, OTHER, MODERATOR = ObjectId(), ObjectId(), ObjectId()
PRINCIPALS = {
    "anonymous": ANONYMOUS,
    "author": Principal(AUTHOR, "author", frozenset({"user"})),
    "other": Principal(OTHER, "other", frozenset({"user"})),
    "moderator": Principal(MODERATOR, "moderator", frozenset({"user", "moderator"})),
}
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"status": "published"},
    {"status": {"$ne": "published"}},
    {"author_id": str(AUTHOR)},
    {"title": {"$gte": "t80"}, "body": ""},
)


@pytest.fixture
async def worker(mongodb_url: str, database_name: str) -> AsyncIterator[Worker]:
    """A worker over posts of the author, some hidden; users for each principal."""
    async with working(mongodb_url, database_name) as worker:
        await worker.raw.posts.insert_many([seed | {"author_id": (AUTHOR, OTHER)[seed["_id"] % 2]} for seed in SEEDS])
        await worker.raw.posts.update_many({"_id": {"$in": [1, 2, 3]}}, {"$set": {"status": "hidden"}})
        for principal in PRINCIPALS.values():
            if principal.signed_in:
                await worker.raw.users.insert_one(user(principal))
        await worker.caught_up()
        yield worker


def user(principal: Principal) -> dict[str, Any]:
    name = str(principal.username)
    return {
        "_id": principal.user_id, "username": name, "username_key": name, "email": f"{name}@example.org",
        "email_key": f"{name}@example.org", "roles": sorted(principal.roles), "is_active": True,
        "password_hash": "$argon2id$SECRET-HASH",
    }  # fmt: skip


async def change_author(worker: Worker) -> None:
    """The change that moves a document between what two users may see."""
    await worker.raw.posts.update_many({"_id": {"$lt": 6}}, {"$set": {"author_id": OTHER}})
    await worker.raw.posts.update_many({"_id": {"$gt": 33}}, {"$set": {"author_id": AUTHOR, "status": "hidden"}})


async def test_every_kind_of_write_for_every_principal_and_filter(worker: Worker) -> None:
    """After each write, what a client holds is what a fresh query gives it: for 20 views at once."""
    async with contextlib.AsyncExitStack() as stack:
        clients: list[Client] = []
        for principal in PRINCIPALS.values():
            client = await stack.enter_async_context(connected(worker, principal))
            for number, filter in enumerate(FILTERS):
                fields = ("title",) if number == 1 else None
                client.subscribe(worker.query(filter, fields), id=str(number))
            await client.received("ready", len(FILTERS))
            clients.append(client)
        for write in (*WRITES, change_author):
            await write(worker)
            position = await worker.caught_up()
            for client in clients:
                for id in client.connection.subscriptions:
                    await worker.truth(client, id, position)
        for client in clients:
            assert client.of_type("reset", "error") == []
            assert len(client.of_type("ready")) == len(FILTERS)


async def test_shared_view_is_encoded_once(worker: Worker) -> None:
    """Subscribers with equal rights and queries get the very same frame; others get one of their own."""
    async with contextlib.AsyncExitStack() as stack:
        principals = [ANONYMOUS, ANONYMOUS, PRINCIPALS["other"]]
        first, second, third = [await stack.enter_async_context(connected(worker, p)) for p in principals]
        for client in (first, second, third):
            client.subscribe(worker.query({"status": "published"}), id=f"{id(client)}")
            await client.received("ready")
        await worker.raw.posts.insert_one(post(500))
        position = await worker.caught_up()
        for client in (first, second, third):
            await client.synced(position)
        frames = [next(f for f in client.raw if f.event_name == "create") for client in (first, second, third)]
        assert frames[0] is frames[1]
        assert frames[0] is not frames[2]


async def test_hidden_fields_never_leave(worker: Worker) -> None:
    """Users are live: others see their names, admins all but secrets, and a change of a secret is no event."""
    users = worker.registry["users"]
    admin = Principal(ObjectId(), "admin", frozenset({"admin"}))
    async with connected(worker, PRINCIPALS["other"]) as other, connected(worker, admin) as boss:
        for client in (other, boss):
            client.subscribe(worker.query({}, resource=users))
            await client.received("ready")
        await worker.raw.users.update_one({"_id": AUTHOR}, {"$set": {"password_hash": "$argon2id$SECRET-TWO"}})
        await worker.raw.users.update_one({"_id": AUTHOR}, {"$set": {"email": "new@example.org"}})
        await worker.raw.users.update_one({"_id": AUTHOR}, {"$set": {"username": "renamed"}})
        await worker.truth(other, "1")
        await worker.truth(boss, "1")
        assert [frame["changed"] for frame in boss.of_type("event")] == [["email"], ["username"]]
        assert [frame["changed"] for frame in other.of_type("event")] == [["username"]]
        assert "@example.org" not in "".join(frame.text for frame in other.raw)
        for client in (other, boss):
            text = "".join(frame.text for frame in client.raw)
            assert "SECRET" not in text
            assert "_key" not in text


def promote(*roles: str) -> Callable[[Worker], Awaitable[object]]:
    async def act(worker: Worker) -> None:
        await worker.raw.users.update_one({"_id": OTHER}, {"$set": {"roles": ["user", *roles]}})

    return act


async def test_change_of_roles_at_every_await_point(worker: Worker) -> None:
    """Wherever the path is, from the change's own position on the client has what its new rights give it."""
    for roles in ((), ("moderator",)):
        at, points = 0, 1
        while at < points:
            await promote(*(() if roles else ("moderator",)))(worker)
            await worker.raw.posts.update_one({"_id": 1}, {"$set": {"body": f"{roles} {at}"}})
            await worker.caught_up()
            before = PRINCIPALS["other"] if roles else Principal(OTHER, "other", frozenset({"user", "moderator"}))

            async def hook(point: int, at: int = at, roles: tuple[str, ...] = roles) -> None:
                if point == at:
                    await promote(*roles)(worker)
                    await worker.caught_up()

            async with connected(worker, before) as client:
                with Stepper(hook) as stepper:
                    client.subscribe(worker.query({}))
                    await client.received("ready")
                    await worker.raw.posts.update_one({"_id": 1}, {"$set": {"status": "hidden", "body": f"{at}"}})
                    await worker.truth(client, "1")
                points = max(points, stepper.points // 2)
                assert [frame["reason"] for frame in client.of_type("reset")] == ["access_changed"]
                assert client.connection.principal.roles == {"user", *roles}
                kinds = [frame["type"] for frame in client.frames]
                after = [f for f in client.frames[kinds.index("reset") + 1 :] if f["type"] in ("snapshot", "event")]
                assert {f["view"] for f in after} == {client.connection.subscriptions["1"].view.id}
            at += 1
        assert points >= 4


async def test_change_of_roles_while_live_and_lagging(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow client whose rights end gets nothing more that they covered, and hears of the rights only."""
    monkeypatch.setattr(worker.manager, "_outbox_max_bytes", 20_000)
    async with connected(worker, PRINCIPALS["moderator"]) as client:
        client.subscribe(worker.query({}))
        await client.received("ready")
        client.pause()
        await worker.raw.posts.update_one({"_id": 1}, {"$set": {"title": "on its way"}})
        await client.stuck()
        await worker.raw.posts.update_many({}, {"$set": {"body": "x" * 900}})
        await worker.raw.users.update_one({"_id": MODERATOR}, {"$set": {"roles": ["user"]}})
        await worker.raw.posts.update_one({"_id": 1}, {"$set": {"title": "FORBIDDEN"}})
        await worker.caught_up()
        client.resume()
        await client.received("ready", 2)
        await worker.truth(client, "1")
        check_change_of_rights(client, ["access_changed"])


async def test_change_of_roles_after_lagging(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told that it lagged, and with the new snapshot under way, it hears of its rights and gets no more of that."""
    monkeypatch.setattr(worker.manager, "_outbox_max_bytes", 20_000)
    async with connected(worker, PRINCIPALS["moderator"]) as client:
        client.subscribe(worker.query({}))
        await client.received("ready")
        client.pause()
        await worker.raw.posts.update_one({"_id": 1}, {"$set": {"title": "on its way"}})
        await client.stuck()
        await worker.raw.posts.update_many({}, {"$set": {"body": "x" * 900}})
        await worker.caught_up()
        client.resume()
        await client.received("reset")
        client.pause()
        await client.stuck()
        await worker.raw.users.update_one({"_id": MODERATOR}, {"$set": {"roles": ["user"]}})
        await worker.raw.posts.update_one({"_id": 1}, {"$set": {"title": "FORBIDDEN"}})
        await worker.caught_up()
        client.resume()
        await client.received("ready", 2)
        await worker.truth(client, "1")
        check_change_of_rights(client, ["lagging", "access_changed"])


def check_change_of_rights(client: Client, reasons: list[str]) -> None:
    """The resets, in order; and after the one for the rights, nothing of the view that they gave."""
    resets = client.of_type("reset")
    assert [frame["reason"] for frame in resets] == reasons
    assert len({frame["view"] for frame in resets}) == 1, "all are of the view with the old rights"
    after = client.frames[client.frames.index(resets[-1]) + 1 :]
    views = {frame["view"] for frame in after if "view" in frame}
    assert views == {client.connection.subscriptions["1"].view.id}
    assert views.isdisjoint({resets[-1]["view"]})
    assert "FORBIDDEN" not in "".join(frame.text for frame in client.raw)


async def test_second_subscription_while_rights_change(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that another subscription is about to come to is taken already, so no event can come twice."""
    monkeypatch.setattr(worker.manager, "_outbox_max_bytes", 20_000)
    async with connected(worker, PRINCIPALS["moderator"]) as client:
        client.subscribe(worker.query({}))
        await client.received("ready")
        client.connection.move(Principal(MODERATOR, "moderator", frozenset({"user"})))
        with pytest.raises(Refused) as refused:
            client.subscribe(worker.query({}), id="2")
        assert refused.value.code is ErrorCode.ALREADY_SUBSCRIBED


async def test_deactivated_user(worker: Worker) -> None:
    """The connection is closed at the change's own position: not one event above it, not even while it drains."""
    async with connected(worker, PRINCIPALS["moderator"]) as client:
        client.subscribe(worker.query({}))
        await client.received("ready")
        client.pause()
        worker.source.close()
        await worker.raw.posts.update_one({"_id": 1}, {"$set": {"title": "waiting"}})
        await worker.raw.users.update_one({"_id": MODERATOR}, {"$set": {"is_active": False}})
        await worker.raw.posts.update_one({"_id": 1}, {"$set": {"title": "FORBIDDEN"}})
        await worker.caught_up()
        assert client.connection.closing.result() is CloseCode.FORBIDDEN
        client.connection.beat()
        client.subscribe(worker.query({"status": "hidden"}), id="2")
        client.resume()
        assert client.connection.subscriptions.keys() == {"1"}
        await client.connection.outbox.below(0)
        assert "FORBIDDEN" not in "".join(frame.text for frame in client.raw)
        assert client.of_type("position") == []


async def test_query_by_a_field_that_may_no_longer_be_seen(worker: Worker) -> None:
    """The subscription ends: its results would tell what the field holds."""
    admin = Principal(MODERATOR, "moderator", frozenset({"admin"}))
    users = worker.registry["users"]
    async with connected(worker, admin) as client:
        client.subscribe(worker.query({"$or": [{"email": {"$startswith": "a"}}]}, resource=users), id="by email")
        client.subscribe(worker.query({"username": {"$ne": "x"}}, resource=users), id="by name")
        await client.received("ready", 2)
        await worker.raw.users.update_one({"_id": MODERATOR}, {"$set": {"roles": ["user"]}})
        gone = await client.received("unsubscribed")
        assert (gone["id"], gone["reason"]) == ("by email", "access_changed")
        await client.received("ready", 3)
        await worker.truth(client, "by name")


async def test_rights_change_while_they_are_read(worker: Worker) -> None:
    """What was read of a user before the feed brought a change is read again: no connection keeps old rights."""
    session = ObjectId()
    await worker.raw.sessions.insert_one({"_id": session, "user_id": OTHER, "ends_at": dt.datetime.now(dt.UTC)})
    await worker.caught_up()
    credentials = worker.principals._credentials
    read = credentials.standing
    reads = 0

    async def overtaken(credential: Credential) -> Standing | None:
        nonlocal reads
        reads += 1
        standing = await read(credential)
        if reads == 1:
            await promote("moderator")(worker)
            await worker.caught_up()
        return standing

    credentials.standing = overtaken  # type: ignore[method-assign]
    credential = Credential.of_session(str(OTHER), str(session))
    assert credential is not None
    found = await worker.principals.resolve(credential)
    assert found is not None
    assert found.principal.roles == {"user", "moderator"}
    assert reads == 2
    spelled = Credential.of_session(str(OTHER).upper(), str(session))
    assert spelled == credential
    assert await worker.principals.resolve(spelled) == found
    assert reads == 2  # from the cache, however the token spells it
    await worker.raw.sessions.update_one({"_id": session}, {"$set": {"ended_at": dt.datetime.now(dt.UTC)}})
    await worker.caught_up()
    assert await worker.principals.resolve(credential) is None
    assert Credential.of_session("nobody", "nothing") is None


async def test_users_collection_reset(worker: Worker) -> None:
    """When the feed cannot tell who changed, the database is asked about everybody who is connected."""
    session = ObjectId()
    await worker.raw.sessions.insert_one({"_id": session, "user_id": MODERATOR, "ends_at": dt.datetime.now(dt.UTC)})
    async with connected(worker, PRINCIPALS["moderator"]) as client, connected(worker) as anonymous:
        client.connection.credential = Credential("sessions", session, MODERATOR)
        client.subscribe(worker.query({}))
        await client.received("ready")
        await worker.raw.command("collMod", "users", changeStreamPreAndPostImages={"enabled": False})
        await worker.raw.users.update_one({"_id": MODERATOR}, {"$set": {"roles": ["user"]}})
        await client.received("ready", 2)
        assert client.of_type("reset")[0]["reason"] == "access_changed"
        await worker.truth(client, "1")
        await worker.raw.users.update_one({"_id": MODERATOR}, {"$set": {"is_active": False}})
        async with asyncio.timeout(PATIENCE):
            assert await client.connection.closing is CloseCode.FORBIDDEN
        assert not anonymous.connection.closing.done()


async def test_resuming(worker: Worker) -> None:
    """What was missed comes first, then `ready`: all of it or, when that cannot be, `reset` and a snapshot."""
    query = worker.query({"status": "published"})

    async def seen_by(connection: Connection) -> tuple[str, Position]:
        return connection.subscriptions["1"].view.id, await worker.caught_up()

    async with connected(worker, PRINCIPALS["other"]) as client:
        client.subscribe(query)
        since = await seen_by(client.connection)
    await WRITES[0](worker)
    await WRITES[2](worker)
    await worker.caught_up()
    async with connected(worker, PRINCIPALS["other"]) as client:
        client.subscribe(query, since=since)
        await client.received("ready")
        kinds = [frame["type"] for frame in client.frames]
        assert kinds == ["subscribed", "event", "event", "event", "ready"]
        assert client.frames[0]["recovered"] is True
        assert client.frames[-1]["position"] >= client.frames[-2]["position"]
    other_view = ("v" + "A" * 20, since[1])
    future = (since[0], Position(2**63, 1))
    for stale in (other_view, future, (since[0], Position.ZERO)):
        async with connected(worker, PRINCIPALS["other"]) as client:
            client.subscribe(query, since=stale)
            await client.received("ready")
            assert [f["type"] for f in client.frames] == ["subscribed", "reset", "snapshot", "ready"]
            assert client.frames[0]["recovered"] is False
            await worker.truth(client, "1")
    await promote("moderator")(worker)
    await promote()(worker)
    await worker.caught_up()
    async with connected(worker, PRINCIPALS["other"]) as client:
        client.subscribe(query, since=since)
        assert (await client.received("subscribed"))["recovered"] is False, "not across a change of rights"
    async with connected(worker) as client:
        client.subscribe(query)
        since = await seen_by(client.connection)
    await worker.raw.command("collMod", "posts", changeStreamPreAndPostImages={"enabled": False})
    await worker.raw.posts.update_one({"_id": 20}, {"$set": {"title": "untold"}})
    await worker.raw.command("collMod", "posts", changeStreamPreAndPostImages={"enabled": True})
    await worker.caught_up()
    async with connected(worker) as client:
        client.subscribe(query, since=since)
        await client.received("ready")
        assert client.frames[0]["recovered"] is False, "not across a reset"
        await worker.truth(client, "1")


async def test_reset_before_the_recovered_events(worker: Worker) -> None:
    """A subscription that is reset before it has recovered does not recover afterwards: it starts anew."""
    query = worker.query({"status": "published"})
    async with connected(worker) as client:
        client.subscribe(query)
        await client.received("ready")
        since = client.connection.subscriptions["1"].view.id, await worker.caught_up()
    await WRITES[0](worker)
    await worker.caught_up()
    async with connected(worker) as client:
        client.subscribe(query, since=since)
        subscription = client.connection.subscriptions["1"]
        subscription.reset(ResetReason.HISTORY_LOST)
        await client.received("ready")
        assert [f["type"] for f in client.frames] == ["subscribed", "reset", "snapshot", "ready"]
        await worker.truth(client, "1")
