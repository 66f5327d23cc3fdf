"""Users and sessions: duplicates, races, and user documents that were edited into something else."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest
from bson import ObjectId

from documents import (
    Accounts,
    Credential,
    Credentials,
    DocumentRefused,
    Duplicate,
    LastAdmin,
    Sessions,
    is_alive,
    parse_user_id,
    principal_from,
    public_user,
)
from tests.documents.classes import World

END = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def accounts(world: World) -> Accounts:
    return Accounts(world.database, world.registry)


@pytest.mark.parametrize(
    ("username", "email", "field"),
    [
        ("ANN", "other@example.org", "username"),
        ("other", "ANN@Example.ORG", "email"),
        ("aNn", "ann@example.org", None),
    ],
)
async def test_a_duplicate_in_another_case(accounts: Accounts, username: str, email: str, field: str | None) -> None:
    """Names and addresses are unique without regard to case, and the answer names which one it was."""
    await accounts.register("Ann", "Ann@example.org", "hash")
    with pytest.raises(Duplicate) as duplicate:
        await accounts.register(username, email, "hash")
    assert len(duplicate.value.fields) == 1
    assert duplicate.value.fields[0] == (field or duplicate.value.fields[0])
    assert duplicate.value.fields[0] in {"username", "email"}


async def test_letters_spelled_in_two_ways_are_one_name(accounts: Accounts) -> None:
    """A composed and a decomposed ü look the same and are the same."""
    await accounts.register("J\u00fcrgen", "a@example.org", "hash")
    assert await accounts.find("J\u00dcRGEN") is not None
    assert await accounts.find("ju\u0308rgen") is not None


async def test_registrations_at_once_give_one_user(accounts: Accounts, world: World) -> None:
    """The unique index decides: exactly one of eight succeeds, the others are Duplicate."""
    results = await asyncio.gather(
        *(accounts.register("ann", f"ann{n % 2}@example.org", "hash") for n in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, dict) for result in results) == 1
    assert sum(isinstance(result, Duplicate) for result in results) == 7
    assert await world.database.raw["users"].count_documents({}) == 1


@pytest.mark.parametrize(
    ("username", "email"),
    [("a", "a@example.org"), ("a b", "a@example.org"), ("ann", "ann"), ("ann@x", "a@example.org")],
)
async def test_a_name_or_address_that_cannot_be_one(accounts: Accounts, username: str, email: str) -> None:
    """A username holds no `@`, so that it is never another user's address."""
    with pytest.raises(DocumentRefused):
        await accounts.register(username, email, "hash")


async def test_finding_by_name_and_address(accounts: Accounts) -> None:
    """In any case, with spaces around; unknown and unwritable logins find nobody."""
    user = await accounts.register("Ann", "ann@example.org", "hash")
    for login in ("ann", " ANN ", "ANN@example.org"):
        account = await accounts.find(login)
        assert account is not None
        assert (account.principal.user_id, account.password_hash, account.is_active) == (user["_id"], "hash", True)
    for login in ("", "bob", "a\0b", "\ud800", "$ne", "x" * 100_000):
        assert await accounts.find(login) is None


async def test_a_session_needs_its_user(accounts: Accounts, world: World) -> None:
    """It speaks for nobody when it is ended or another's, and when the user is deactivated or deleted."""
    user = await accounts.register("ann", "ann@example.org", "hash", roles=("user", "admin"))
    sessions_of = Sessions(world.database, world.registry, b"hush", dt.timedelta(days=1))
    session = (await sessions_of.start(user["_id"])).session_id
    credentials = Credentials(world.database, world.registry)
    credential = Credential("sessions", session, user["_id"])
    standing = await credentials.standing(credential)
    assert standing is not None
    assert (standing.principal.roles, standing.principal.scopes) == (frozenset({"user", "admin"}), None)
    assert standing.ends_at is None
    assert await accounts.has_admin()
    assert await credentials.standing(Credential("sessions", ObjectId(), user["_id"])) is None
    assert await credentials.standing(Credential("sessions", session, ObjectId())) is None
    assert await credentials.standing(Credential("api_keys", session, user["_id"], "hash")) is None
    users, sessions = world.database.raw["users"], world.database.raw["sessions"]
    await users.update_one({}, {"$set": {"is_active": False}})
    assert await credentials.standing(credential) is None
    found = await accounts.find("ann")
    assert found is not None
    assert not found.is_active
    await users.update_one({}, {"$set": {"is_active": True}})
    await sessions.update_one({}, {"$set": {"ended_at": END}})
    assert await credentials.standing(credential) is None
    await sessions.update_one({}, {"$unset": {"ended_at": 1}})
    await users.delete_many({})
    assert await credentials.standing(credential) is None


async def test_processes_that_remove_admins_at_once(contract: World) -> None:
    """One after the other; the last admin is refused, and one who is no admin is not."""
    processes = [Accounts(contract.database, contract.registry) for _ in range(3)]
    users = [
        await processes[0].register(f"admin{n}", f"admin{n}@example.org", "hash", roles=("admin",)) for n in range(3)
    ]
    inside = 0

    async def remove(accounts: Accounts, user_id: ObjectId) -> None:
        nonlocal inside
        async with accounts.keeping_an_admin(user_id):
            inside += 1
            assert inside == 1
            await contract.database.raw["users"].update_one({"_id": user_id}, {"$set": {"roles": ["user"]}})
            inside -= 1

    removals = [remove(accounts, user["_id"]) for accounts, user in zip(processes, users, strict=True)]
    results = await asyncio.gather(*removals, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["LastAdmin", "NoneType", "NoneType"]
    (left,) = await contract.database.raw["users"].find({"roles": "admin"}).to_list(None)
    with pytest.raises(LastAdmin):
        await remove(processes[0], left["_id"])
    for user_id in (ObjectId(), None):
        async with processes[1].keeping_an_admin(user_id):
            inside += 1
    assert inside == 2


async def test_renaming(contract: World) -> None:
    """The keys follow; what is None stays; a user who is gone is None; a document that breaks the rules is refused."""
    accounts = Accounts(contract.database, contract.registry)
    user = await accounts.register("Ann", "ann@example.org", "hash")
    renamed = await accounts.rename(user, username="Bea")
    assert renamed is not None
    assert (renamed["username_key"], renamed["email_key"], renamed["revision"]) == ("bea", "ann@example.org", 2)
    assert await accounts.find("ann") is None
    assert await accounts.rename({"_id": ObjectId()}, username="cleo") is None
    assert not await accounts.change_password(user["_id"], "other", "new")
    assert await accounts.change_password(user["_id"], "hash", "new")
    assert await accounts.password_hash(user["_id"]) == "new"
    assert await accounts.password_hash(ObjectId()) is None


async def test_renaming_what_breaks_the_rules(accounts: Accounts, world: World) -> None:
    """A user whose document the validator refuses is told so."""
    user = await accounts.register("ann", "ann@example.org", "hash")
    users = world.database.raw["users"]
    await users.update_one({}, {"$set": {"roles": ["boss"]}}, bypass_document_validation=True)
    with pytest.raises(DocumentRefused):
        await accounts.rename(user, username="bea")


ODD: dict[str, Any] = {
    "no document": None,
    "inactive": {"is_active": False},
    "active by text": {"is_active": "false"},
    "active by number": {"is_active": 1},
    "active by null": {"is_active": None},
    "an id of another type": {"_id": "ann"},
}


@pytest.mark.parametrize("case", ODD)
def test_odd_users_sign_in_as_nobody(case: str) -> None:
    """A user document that was edited into something else grants nothing."""
    user = ODD[case]
    assert principal_from(user if user is None else {"_id": ObjectId(), "roles": ["admin"]} | user) is None


@pytest.mark.parametrize("roles", [None, "admin", {"admin": True}, [["admin"]], [5, "boss", None], []])
def test_odd_roles_grant_nothing(roles: Any) -> None:
    """Only a list of names that are roles counts."""
    principal = principal_from({"_id": ObjectId(), "username": 5, "roles": roles})
    assert principal is not None
    assert principal.roles == frozenset()


async def test_a_hash_is_renewed_unless_it_changed(accounts: Accounts, world: World) -> None:
    """A password changed meanwhile is not overwritten by the rehash of the old one."""
    user = await accounts.register("ann", "ann@example.org", "old")
    await accounts.set_password_hash(user["_id"], "other", "new")
    assert await world.database.raw["users"].count_documents({"password_hash": "old"}) == 1
    await accounts.set_password_hash(user["_id"], "old", "new")
    assert await world.database.raw["users"].count_documents({"password_hash": "new"}) == 1


async def test_what_a_user_is_told_of_themselves(accounts: Accounts) -> None:
    """No hash and no key."""
    user = await accounts.register("Ann", "ann@example.org", "hash")
    told = public_user(user)
    assert set(told) == {"id", "username", "email", "roles", "is_active", "created_at"}
    assert told["username"] == "Ann"


@pytest.mark.parametrize("text", ["", "x", "0" * 23, "\ud800", None, 5, b"12"])
def test_texts_that_are_no_user_id(text: Any) -> None:
    """Whatever stands in a token."""
    assert parse_user_id(text) is None
    assert not is_alive(None)
