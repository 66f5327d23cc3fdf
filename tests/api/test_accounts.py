"""Registering and signing in, and what ends or changes a session."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import time
import uuid
from typing import Any

import httpx
import jwt
import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type
from bson import ObjectId
from pymongo.database import Database

from api import Passwords
from api.passwords import MAX_WAITING, WORKERS, Busy
from tests.api.servers import ADMIN_EMAIL, PASSWORD, SECRET, Server, User, wait_until
from tests.api.test_errors import places, problem

Mongo = Database[dict[str, Any]]


def registration(**changes: Any) -> dict[str, Any]:
    """A body that registers a new user."""
    name = f"u{uuid.uuid4().hex[:12]}"
    return {"username": name, "email": f"{name}@example.org", "password": PASSWORD} | changes


def claims(user: User, **changes: Any) -> dict[str, Any]:
    """The claims of a user's token, changed; a change to None leaves the claim out."""
    present = jwt.decode(user.token, SECRET, algorithms=["HS256"], audience="headwater-api")
    return {name: value for name, value in (present | changes).items() if value is not None}


def status_of(server: Server, token: str) -> int:
    """How a public read is answered with this token."""
    return httpx.get(f"{server.url}/api/v1/posts", headers={"Authorization": f"Bearer {token}"}).status_code


def test_registering(anonymous: httpx.Client, mongo: Mongo) -> None:
    """The answer is the account without any secret; in the database is a hash, and the keys that make names unique."""
    body = registration()
    answer = anonymous.post("/auth/register", json=body)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    account = answer.json()
    assert set(account) == {"id", "username", "email", "roles", "is_active", "created_at"}
    assert (account["username"], account["email"], account["roles"]) == (body["username"], body["email"], ["user"])
    assert account["created_at"].endswith("Z")
    stored = mongo["users"].find_one({"_id": ObjectId(account["id"])})
    assert stored is not None
    assert stored["username_key"] == body["username"].casefold()
    assert PASSWORD not in str(stored)


def test_strength_of_the_hash(alice: User, mongo: Mongo) -> None:
    """argon2id with at least 19 MiB and 2 passes, and a salt of its own."""
    stored = mongo["users"].find_one({"_id": ObjectId(alice.id)})
    assert stored is not None
    parameters = extract_parameters(stored["password_hash"])
    assert parameters.type is Type.ID
    assert parameters.memory_cost >= 19 * 1024
    assert parameters.time_cost >= 2
    assert parameters.salt_len >= 16
    assert PasswordHasher().verify(stored["password_hash"], PASSWORD)


@pytest.mark.parametrize("password", ["zzzzzzzzz", "Zzzzzzzzz", "HeadWater", "{username}", "{email}", "{local}"])
def test_registration_whose_password_is_guessed_first(anonymous: httpx.Client, password: str) -> None:
    """One character over and over, the service, or the account's own names, in any case."""
    body = registration()
    given = password.format(**body, local=body["email"].partition("@")[0])
    answer = anonymous.post("/auth/register", json=body | {"password": given})
    assert places(answer) == [["body", "password"]]
    assert answer.json()["errors"][0]["type"] == "common_password"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"username": "a"}, "username"),
        ({"username": "a b"}, "username"),
        ({"username": "a@b"}, "username"),
        ({"username": "x" * 41}, "username"),
        ({"username": "ab\n"}, "username"),
        ({"username": 7}, "username"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@b"}, "email"),
        ({"email": "ünï@exämple.org"}, "email"),
        ({"password": "seven77"}, "password"),
        ({"password": "x" * 129}, "password"),
        ({"password": "Password123"}, "password"),
        ({"password": None}, "password"),
        ({"roles": ["admin"]}, "roles"),
        ({"is_active": True}, "is_active"),
    ],
)
def test_registration_that_is_not_accepted(anonymous: httpx.Client, change: dict[str, Any], place: str) -> None:
    """The fault is named; what was given, which may be a password, is not repeated."""
    answer = anonymous.post("/auth/register", json=registration(**change))
    assert places(answer) == [["body", place]]
    if isinstance(change.get("password"), str):
        assert change["password"] not in answer.text


@pytest.mark.parametrize("name", ["username", "email"])
def test_name_that_is_taken(anonymous: httpx.Client, name: str) -> None:
    """A username or address that differs in case only is the same: 409, which names it."""
    first = registration()
    assert anonymous.post("/auth/register", json=first).status_code == 201
    again = anonymous.post("/auth/register", json=registration(**{name: first[name].upper()}))
    assert places(again, 409, "duplicate") == [["body", name]]


@pytest.mark.parametrize("spelled", ["alice", "ALICE", " alice ", "alice@example.org", "Alice@Example.org"])
def test_signing_in(anonymous: httpx.Client, alice: User, spelled: str) -> None:
    """By username or address, without regard to case; the token works."""
    answer = anonymous.post("/auth/login", json={"username": spelled, "password": PASSWORD})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    content = answer.json()
    assert set(content) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (content["token_type"], content["expires_in"]) == ("bearer", 900)
    own = anonymous.get("/users/me", headers={"Authorization": f"bearer {content['access_token']}"})
    assert own.json()["id"] == alice.id


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("alice", "heron-ford-43"),
        ("alice", PASSWORD.upper()),
        ("nobody", PASSWORD),
        ("", PASSWORD),
        ("a\0b", PASSWORD),
    ],
)
def test_wrong_name_or_password(anonymous: httpx.Client, alice: User, username: str, password: str) -> None:
    """One answer for all, which does not tell whether the user exists."""
    assert alice.username == "alice"
    answer = anonymous.post("/auth/login", json={"username": username, "password": password})
    if username == "":
        assert places(answer) == [["body", "username"]]
    else:
        assert problem(answer, 401, "unauthorized")["detail"] == "The username or the password is wrong."
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_unknown_user_costs_the_same_work() -> None:
    """The hash that stands in for an unknown user's has the parameters of real ones and is verified like them."""
    passwords = Passwords()
    try:
        stand_in = passwords._unknown_user
        assert not passwords.outdated(stand_in)
        real = extract_parameters(await passwords.hash(PASSWORD))
        assert extract_parameters(stand_in) == real
        started = time.thread_time()
        process = time.process_time()
        assert await passwords.verify(None, PASSWORD) is False
        # The hashing is done in another thread of this process: the process has worked, this thread has not.
        assert time.process_time() - process > 10 * (time.thread_time() - started)
        assert await passwords.verify(None, "the password of nobody") is False
    finally:
        passwords.close()


async def test_too_many_who_sign_in_at_once() -> None:
    """Past the bound of the pool's queue the next one is refused at once, and those before it are served."""
    passwords = Passwords()
    try:
        waiting = [asyncio.create_task(passwords.verify(None, PASSWORD)) for _ in range(WORKERS + MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await passwords.verify(None, PASSWORD)
        assert await asyncio.gather(*waiting) == [False] * len(waiting)
        assert await passwords.verify(None, PASSWORD) is False
    finally:
        passwords.close()


def test_inactive_user(server: Server, anonymous: httpx.Client, mongo: Mongo) -> None:
    """Deactivated in the database: cannot sign in, and the open session ends within a second."""
    user = server.register("inactive")
    assert user.client.get("/users/me").status_code == 200
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"is_active": False}})
    wait_until(lambda: status_of(server, user.token) == 401, seconds=1)
    answer = anonymous.post("/auth/login", json={"username": "inactive", "password": PASSWORD})
    problem(answer, 401, "unauthorized")
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"is_active": True}})
    wait_until(lambda: status_of(server, user.token) == 200)


def test_hash_of_weaker_parameters(server: Server, mongo: Mongo) -> None:
    """A sign-in replaces it by one of today's."""
    user = server.register("weak")
    weak = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash(PASSWORD)
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"password_hash": weak}})
    server.login("weak")
    stored = mongo["users"].find_one({"_id": ObjectId(user.id)})
    assert stored is not None
    assert extract_parameters(stored["password_hash"]).memory_cost == 19 * 1024
    server.login("weak")


@pytest.mark.parametrize("how", ["deleted", "ended"])
def test_session_that_ends_in_the_database(server: Server, alice: User, mongo: Mongo, how: str) -> None:
    """Its token is refused within a second; other sessions of the user stay."""
    token = server.login("alice")
    assert status_of(server, token) == 200
    session_id = ObjectId(jwt.decode(token, options={"verify_signature": False})["sid"])
    if how == "deleted":
        mongo["sessions"].delete_one({"_id": session_id})
    else:
        mongo["sessions"].update_one({"_id": session_id}, {"$set": {"ended_at": dt.datetime.now(dt.UTC)}})
    wait_until(lambda: status_of(server, token) == 401, seconds=1)
    assert status_of(server, alice.token) == 200


def test_role_that_changes_in_the_database(server: Server, mongo: Mongo, draft: dict[str, Any]) -> None:
    """It acts on REST within a second, with the token that was issued before."""
    user = server.register("promoted")
    url = f"/posts/{draft['id']}"
    assert user.client.get(url).status_code == 404
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"roles": ["user", "moderator"]}})
    wait_until(lambda: user.client.get(url).status_code == 200, seconds=1)
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"roles": ["user"]}})
    wait_until(lambda: user.client.get(url).status_code == 404, seconds=1)


def test_user_who_is_deleted_in_the_database(server: Server, mongo: Mongo) -> None:
    """The token is refused within a second."""
    user = server.register("deleted")
    assert status_of(server, user.token) == 200
    mongo["users"].delete_one({"_id": ObjectId(user.id)})
    wait_until(lambda: status_of(server, user.token) == 401, seconds=1)


def segment(content: bytes) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"nbf": 4_000_000_000},
        {"iat": 4_000_000_000},
        {"aud": "another"},
        {"iss": "another"},
        {"sub": "65f000000000000000000000"},
        {"sid": "65f000000000000000000000"},
        {"sub": 7},
        {"sid": ["a"]},
        {"exp": "soon"},
        {"exp": 10**30},
        *({name: None} for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "sid", "jti")),
    ],
)
def test_claims_that_are_not_right(server: Server, alice: User, changes: dict[str, Any]) -> None:
    """A token with the right signature over wrong, foreign or missing claims is refused."""
    token = jwt.encode(claims(alice, **changes) | ({"sub": 7} if changes.get("sub") == 7 else {}), SECRET)
    assert status_of(server, token) == 401


def test_token_made_with_the_secret(server: Server, alice: User) -> None:
    """The way in which the tests above make tokens makes valid ones when nothing is changed."""
    assert status_of(server, jwt.encode(claims(alice), SECRET, algorithm="HS256")) == 200


def test_signatures_that_are_not_right(server: Server, alice: User) -> None:
    """No signature, another secret's, another algorithm's, another token's, or a token that is no token."""
    content = claims(alice)
    head, payload, signature = alice.token.split(".")
    none = segment(json.dumps({"alg": "none", "typ": "JWT"}).encode())
    admin = segment(json.dumps(content | {"sub": "0" * 24}).encode())
    deep = segment(b"[" * 20_000)
    for token in (
        jwt.encode(content, "another-secret-of-32-bytes-length!", algorithm="HS256"),
        jwt.encode(content, SECRET, algorithm="HS512"),
        f"{none}.{payload}.",
        f"{none}.{payload}.{signature}",
        f"{head}.{admin}.{signature}",
        f"{head}.{payload}",
        f"{head}.{payload}.{signature[:-4]}AAAA",
        f"{deep}.{payload}.{signature}",
        f"{head}.{deep}.{signature}",
        "a.b.c",
        "..",
    ):
        assert status_of(server, token) == 401, token[:80]


def test_own_account(alice: User, anonymous: httpx.Client) -> None:
    """One's own account and nothing secret; 401 for somebody without a token."""
    answer = alice.client.get("/users/me")
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json()) == {"id", "username", "email", "roles", "is_active", "created_at"}
    refused = anonymous.get("/users/me")
    problem(refused, 401, "unauthorized")
    assert refused.headers["www-authenticate"] == 'Bearer realm="headwater"'


def test_first_admin(server: Server, mongo: Mongo) -> None:
    """It is made from the settings, and may do what admins may."""
    client = server.client(server.login(ADMIN_EMAIL))
    assert client.get("/users/me").json()["roles"] == ["user", "admin"]
    assert mongo["users"].count_documents({"roles": "admin"}) == 1
