"""Scopes on live views: what a narrowed connection shares with its user, and what a change of rights leaves narrow."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from bson import ObjectId

from documents import Principal
from tests.realtime.test_access import user
from tests.realtime.test_subscribe_path import SEEDS
from tests.realtime.worker import Worker, connected, working

OWNER = Principal(ObjectId(), "owner", frozenset({"user"}))
READER = OWNER.within(frozenset({"posts:read"}))
STRANGER = OWNER.within(frozenset({"comments:write"}))


@pytest.fixture
async def worker(mongodb_url: str, database_name: str) -> AsyncIterator[Worker]:
    """A worker over posts, some of them drafts of the owner's."""
    async with working(mongodb_url, database_name) as worker:
        await worker.raw.posts.insert_many([seed | {"author_id": OWNER.user_id} for seed in SEEDS])
        await worker.raw.posts.update_many({"_id": {"$lt": 4}}, {"$set": {"status": "draft"}})
        await worker.raw.users.insert_one(user(OWNER))
        await worker.caught_up()
        yield worker


async def test_narrowed_views(worker: Worker) -> None:
    """With the scope: the view of the full user. Without: one of its own, which stays empty whatever happens."""
    async with (
        connected(worker, STRANGER) as stranger,
        connected(worker, OWNER) as owner,
        connected(worker, READER) as reader,
    ):
        for client in (stranger, owner, reader):
            client.subscribe(worker.query({}))
            await client.received("ready")
        views = [client.connection.subscriptions["1"].view for client in (stranger, owner, reader)]
        assert views[1] is views[2]
        assert views[0] is not views[1]
        await worker.raw.posts.update_one({"_id": 1}, {"$set": {"title": "news"}})
        position = await worker.caught_up()
        for client in (stranger, owner, reader):
            await worker.truth(client, "1", position)
        assert stranger.of_type("event") == []
        assert stranger.of_type("snapshot")[0]["items"] == []
        assert len(owner.of_type("event")) == len(reader.of_type("event")) == 1


async def test_role_granted_to_a_narrowed_connection(worker: Worker) -> None:
    """The connection gets the new role within its scopes: those survive every change of the user."""
    async with connected(worker, STRANGER) as stranger, connected(worker, READER) as reader:
        for client in (stranger, reader):
            client.subscribe(worker.query({"status": "draft"}))
            await client.received("ready")
        await worker.raw.users.update_one({"_id": OWNER.user_id}, {"$set": {"roles": ["user", "moderator"]}})
        await reader.received("ready", 2)
        assert reader.connection.principal.scopes == READER.scopes
        assert stranger.connection.principal.scopes == STRANGER.scopes
        assert stranger.connection.principal.roles == {"user", "moderator"}
        position = await worker.caught_up()
        await worker.truth(stranger, "1", position)
        assert stranger.of_type("reset", "event") == []
