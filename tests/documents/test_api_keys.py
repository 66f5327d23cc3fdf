"""API keys: what is made of a request for one, what is recognised as one, and what an edited document grants."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Any

import pytest
from bson import ObjectId

from documents import (
    ANONYMOUS,
    Accounts,
    ApiKeys,
    Credentials,
    DocumentRefused,
    Forbidden,
    Principal,
    TooMany,
    principal_from,
)
from documents.api_keys import MAX_KEYS
from tests.documents.classes import World

SECRET = b"the secret of the tests"
BODY: dict[str, Any] = {"name": "report", "scopes": ["posts:read"]}


@dataclass
class Owner:
    """A user with keys."""

    world: World
    principal: Principal
    keys: ApiKeys
    credentials: Credentials

    async def make(self, **changes: Any) -> tuple[ObjectId, str]:
        """A key's id, and the key."""
        found, key = await self.keys.create(self.principal, BODY | changes)
        return ObjectId(found.document["id"]), key

    async def scopes(self, key: str) -> frozenset[str] | None:
        """What the key grants now; None when it grants nothing at all."""
        credential = self.keys.credential_of(key)
        assert credential is not None
        standing = await self.credentials.standing(credential)
        return None if standing is None else standing.principal.scopes


@pytest.fixture
async def owner(contract: World) -> Owner:
    """An owner in each kind of database."""
    user = await Accounts(contract.database, contract.registry).register("ann", "ann@example.org", "hash")
    principal = principal_from(user)
    assert principal is not None
    credentials = Credentials(contract.database, contract.registry)
    return Owner(contract, principal, ApiKeys(contract.store, SECRET), credentials)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"scopes": []}, ("body", "scopes")),
        ({"scopes": "posts:read"}, ("body", "scopes")),
        ({"scopes": ["posts:read", "posts"]}, ("body", "scopes", 1)),
        ({"scopes": ["nope:read"]}, ("body", "scopes", 0)),
        ({"scopes": ["posts:delete"]}, ("body", "scopes", 0)),
        ({"scopes": ["users:write"]}, ("body", "scopes", 0)),
        ({"scopes": ["api_keys:read"]}, ("body", "scopes", 0)),
        ({"scopes": ["sessions:read"]}, ("body", "scopes", 0)),
        ({"scopes": [{"$ne": ""}]}, ("body", "scopes", 0, "$ne")),
        ({"scopes": [["posts:read"]]}, ("body", "scopes", 0)),
        ({"scopes": ["posts:read"] * 201}, ("body", "scopes")),
        ({"expires_at": "2020-01-01T00:00:00Z"}, ("body", "expires_at")),
        ({"expires_at": "2030-01-01T00:00:00"}, ("body", "expires_at")),
        ({"expires_at": "soon"}, ("body", "expires_at")),
        ({"expires_at": 4_000_000_000}, ("body", "expires_at")),
        ({"name": ""}, ("body", "name")),
        ({"name": None}, ("body", "name")),
        ({"user_id": "0" * 24}, ("body", "user_id")),
        ({"key_hash": "0"}, ("body", "key_hash")),
        ({"key": "hw_mine"}, ("body", "key")),
    ],
)
async def test_request_that_is_not_accepted(owner: Owner, change: dict[str, Any], place: tuple[object, ...]) -> None:
    """The place is named, and there is no key."""
    with pytest.raises(DocumentRefused) as refused:
        await owner.make(**change)
    assert [fault.loc for fault in refused.value.faults] == [place]
    assert await owner.world.database.raw["api_keys"].count_documents({}) == 0


async def test_anonymous_caller(owner: Owner) -> None:
    """Nobody's key cannot be made."""
    with pytest.raises(Forbidden):
        await owner.keys.create(ANONYMOUS, BODY)


async def test_key_that_is_made(owner: Owner) -> None:
    """32 random bytes and more; the database has its hash alone, and the answer has no hash."""
    found, key = await owner.keys.create(
        owner.principal, BODY | {"scopes": ["posts:write", "comments:read", "posts:write"], "expires_at": None}
    )
    assert key.startswith("hw_")
    assert len(base64.urlsafe_b64decode(key[3:])) == 12 + 12 + 32 + 16
    assert found.document["scopes"] == ["comments:read", "posts:write"]
    assert "key_hash" not in found.document
    stored = await owner.world.database.raw["api_keys"].find_one({})
    assert stored is not None
    assert stored["key_hash"] == hashlib.sha256(key.encode()).hexdigest()
    assert key[3:] not in str(stored)
    assert await owner.scopes(key) == frozenset({"comments:read", "posts:write"})
    assert key != (await owner.make())[1]


async def test_what_is_no_key_of_this_server(owner: Owner) -> None:
    """Is told without a query: other texts, a changed byte, another spelling, another server's."""
    _, key = await owner.make()
    other = ApiKeys(owner.world.store, b"another secret")
    raw = bytearray(base64.urlsafe_b64decode(key[3:]))
    raw[0] ^= 1
    changed = "hw_" + base64.urlsafe_b64encode(raw).decode()
    for text in (
        "",
        "hw_",
        "hw_" + "A" * 96,
        key[3:],
        key + " ",
        key + "A",
        key[:-1],
        "HW_" + key[3:],
        changed,
        "é",
        "\0",
    ):
        assert owner.keys.credential_of(text) is None
    assert other.credential_of(key) is None
    assert owner.keys.credential_of(key) is not None


async def test_more_keys_than_anybody_may_have(owner: Owner) -> None:
    """Twelve requests at once for the last ten places: ten keys, two refusals; one that is deleted makes room."""
    keys = owner.world.database.raw["api_keys"]
    await keys.insert_many(
        [{"user_id": owner.principal.user_id, "name": "n", "key_hash": f"{n}", "revision": 1, "scopes": ["posts:read"],
          "created_at": dt.datetime.now(dt.UTC), "updated_at": dt.datetime.now(dt.UTC)} for n in range(MAX_KEYS - 10)]
    )  # fmt: skip
    results = await asyncio.gather(*(owner.make() for _ in range(12)), return_exceptions=True)
    assert [type(result) for result in results if isinstance(result, Exception)] == [TooMany, TooMany]
    await keys.delete_one({"key_hash": "0"})
    await owner.make()
    with pytest.raises(TooMany):
        await owner.make()


@pytest.mark.parametrize(
    ("change", "scopes"),
    [
        ({"scopes": ["posts:read", "nope:read", "users:write", "api_keys:read", 5]}, {"posts:read"}),
        ({"scopes": "posts:read"}, set()),
        ({"scopes": None}, set()),
        ({"scopes": ["posts:write"]}, {"posts:write"}),
        ({"expires_at": "never"}, None),
        ({"expires_at": 5}, None),
        ({"expires_at": None}, {"posts:read"}),
        ({"key_hash": "other"}, None),
        ({"key_hash": None}, None),
        ({"user_id": ObjectId()}, None),
    ],
)
async def test_document_that_somebody_edited(owner: Owner, change: dict[str, Any], scopes: set[str] | None) -> None:
    """A document that was made into something else grants nothing more."""
    key_id, key = await owner.make()
    keys = owner.world.database.raw["api_keys"]
    options: dict[str, Any] = {} if owner.world.database.in_memory else {"bypass_document_validation": True}
    await keys.update_one({"_id": key_id}, {"$set": change}, **options)
    assert await owner.scopes(key) == (None if scopes is None else frozenset(scopes))


async def test_owner_who_is_gone(owner: Owner) -> None:
    """Deactivated, the keys speak for nobody; deleted, they can be deleted too, and nobody else's are."""
    _, key = await owner.make()
    stranger = Principal(ObjectId(), "bob", frozenset({"user"}))
    await owner.keys.create(stranger, BODY)
    users = owner.world.database.raw["users"]
    await users.update_one({}, {"$set": {"is_active": False}})
    assert await owner.scopes(key) is None
    await users.update_one({}, {"$set": {"is_active": True}})
    assert await owner.scopes(key) == frozenset({"posts:read"})
    assert owner.principal.user_id is not None
    await owner.keys.delete_all(owner.principal.user_id)
    assert await owner.scopes(key) is None
    assert await owner.world.database.raw["api_keys"].count_documents({}) == 1
