"""A forgotten password: the mail, the token, and what it is good for."""

from __future__ import annotations

import datetime as dt
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.mailbox import files_to, text_of
from tests.api.servers import PASSWORD, Server, live, wait_until
from tests.api.test_accounts import registration, status_of
from tests.api.test_errors import places, problem

Mongo = Database[dict[str, Any]]
NEW = "brook-pebble-43"
OTHER = "marsh-sedge-44"


@pytest.fixture
def mail(server: Server) -> Path:
    """Where the shared server writes its mail."""
    return server.log_path.parent / "data" / "mail"


def asked(server: Server, mail: Path, address: str, count: int = 1) -> str:
    """Ask for a mail; the token in it."""
    answer = httpx.post(f"{server.url}/api/v1/auth/password/forgot", json={"email": address}, timeout=30)
    assert (answer.status_code, answer.content) == (204, b"")
    wait_until(lambda: len(files_to(mail, address.lower(), "password_reset")) == count)
    found = re.search(r"/reset-password#token=(\S+)", text_of(files_to(mail, address.lower(), "password_reset")[-1]))
    assert found
    server.secrets += [found.group(1), NEW, OTHER]
    return found.group(1)


def reset(server: Server, token: str, password: str = NEW) -> httpx.Response:
    """Set a new password by a token."""
    body = {"token": token, "new_password": password}
    return httpx.post(f"{server.url}/api/v1/auth/password/reset", json=body, timeout=30)


def user_of(server: Server) -> dict[str, str]:
    """A new user's registration."""
    body = registration()
    server.register(body["username"])
    return body


@pytest.mark.parametrize("body", [{}, {"email": None}, {"email": {"$ne": ""}}, {"email": ["a@example.org"]}, [], ""])
def test_asking_for_nothing(anonymous: httpx.Client, body: Any) -> None:
    """Operators and what is no text are refused."""
    assert places(anonymous.post("/auth/password/forgot", json=body))[0][0] == "body"


@pytest.mark.parametrize("token", [None, {"$ne": ""}, {"$regex": "."}, ["x"], "", 7, "x" * 513])
def test_token_that_is_no_text(anonymous: httpx.Client, token: Any) -> None:
    """Is refused where it stands."""
    body = {"token": token, "new_password": NEW}
    assert places(anonymous.post("/auth/password/reset", json=body)) == [["body", "token"]]


@pytest.mark.parametrize("token", ["x", "0" * 43, "é", "$ne"])
def test_token_that_nobody_made(server: Server, token: str) -> None:
    """Is refused in the words of one that was used."""
    answer = reset(server, token)
    assert places(answer) == [["body", "token"]]
    assert answer.json()["errors"][0]["type"] == "reset_token"


def test_unknown_address(server: Server, mail: Path, anonymous: httpx.Client) -> None:
    """Gets the answer that a known one gets, as fast, and no mail."""
    own = ("x-request-id", "date", "ratelimit-remaining", "ratelimit-reset")
    seconds: dict[str, list[float]] = {"known": [], "unknown": []}
    # A hash takes some 30 ms, a query that finds something some 2 ms more than one that does not. Whatever else the
    # machine does falls on both, but not evenly: what always comes slower stays so, however often it is asked.
    for _ in range(40):
        # New ones each time: from the fourth on, one who is known is sent no mail either.
        addresses = {"known": user_of(server)["email"], "unknown": registration()["email"]}
        answers = {}
        for kind, address in addresses.items():
            started = time.perf_counter()
            answer = anonymous.post("/auth/password/forgot", json={"email": address})
            seconds[kind].append(time.perf_counter() - started)
            headers = {name: value for name, value in answer.headers.items() if name not in own}
            answers[kind] = (answer.status_code, answer.content, sorted(headers.items()))
        assert answers["known"] == answers["unknown"]
        assert answers["known"][0] == 204
        known, unknown = addresses.values()
        wait_until(partial(files_to, mail, known, "password_reset"))
        assert files_to(mail, unknown, "password_reset") == []
        if len(seconds["known"]) >= 8 and abs(min(seconds["known"]) - min(seconds["unknown"])) < 0.005:
            return
    pytest.fail(f"one of them is always answered later: {seconds}")


def test_asking_again_and_again(server: Server, mail: Path, anonymous: httpx.Client) -> None:
    """Three mails at most, of which the newest counts: nobody floods a mailbox, nor keeps its owner out."""
    address = user_of(server)["email"]
    first = asked(server, mail, address)
    asked(server, mail, address.upper(), 2)
    third = asked(server, mail, address, 3)
    for _ in range(5):
        anonymous.post("/auth/password/forgot", json={"email": address})
    # Its mail comes after all that was asked for before.
    other = user_of(server)["email"]
    asked(server, mail, other)
    assert len(files_to(mail, address, "password_reset")) == 3
    assert places(reset(server, first)) == [["body", "token"]]
    assert reset(server, third).status_code == 204


def test_deactivated_user(server: Server, mail: Path, mongo: Mongo, anonymous: httpx.Client) -> None:
    """Gets no mail, and a mail from before is void."""
    own = user_of(server)
    token = asked(server, mail, own["email"])
    mongo["users"].update_one({"username": own["username"]}, {"$set": {"is_active": False}})
    assert places(reset(server, token)) == [["body", "token"]]
    anonymous.post("/auth/password/forgot", json={"email": own["email"]})
    asked(server, mail, user_of(server)["email"])
    assert len(files_to(mail, own["email"], "password_reset")) == 1


@pytest.mark.parametrize("password", ["seven77", "x" * 129, "Password123", 12345678, None])
def test_password_that_is_not_accepted(server: Server, mail: Path, password: Any) -> None:
    """The rules of a registration; the token is not used up."""
    own = user_of(server)
    token = asked(server, mail, own["email"])
    answer = reset(server, token, password)
    assert places(answer) == [["body", "new_password"]]
    assert token not in answer.text
    server.login(own["username"])
    assert reset(server, token).status_code == 204


def test_password_that_is_a_name_of_the_account(server: Server, mail: Path) -> None:
    """Is refused; the token is not used up."""
    own = user_of(server)
    token = asked(server, mail, own["email"])
    for name in (own["username"].upper(), own["email"]):
        assert places(reset(server, token, name)) == [["body", "new_password"]]
    assert reset(server, token).status_code == 204


def test_token_twice_at_the_same_moment(server: Server, mail: Path, anonymous: httpx.Client) -> None:
    """One sets its password."""
    own = user_of(server)
    token = asked(server, mail, own["email"])
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda password: reset(server, token, password), [NEW, OTHER, NEW, OTHER]))
    assert sorted(answer.status_code for answer in answers) == [204, 422, 422, 422]
    won = [NEW, OTHER, NEW, OTHER][[answer.status_code for answer in answers].index(204)]
    server.login(own["username"], won)
    for password in {PASSWORD, NEW, OTHER} - {won}:
        answer = anonymous.post("/auth/login", json={"username": own["username"], "password": password})
        problem(answer, 401, "unauthorized")
    assert places(reset(server, token)) == [["body", "token"]]


def test_token_from_before_a_change(server: Server, mail: Path) -> None:
    """A password or an address that was changed since makes it void."""
    moved = {"current_password": PASSWORD}
    for change in ("password", "address"):
        own = user_of(server)
        client = server.client(server.login(own["username"]))
        token = asked(server, mail, own["email"])
        if change == "password":
            body = {"current_password": PASSWORD, "new_password": OTHER}
            assert client.post("/users/me/password", json=body).status_code == 204
        else:
            assert client.patch("/users/me", json=moved | {"email": f"x{own['email']}"}).status_code == 200
        assert places(reset(server, token)) == [["body", "token"]]
        server.login(own["username"], OTHER if change == "password" else PASSWORD)


def test_token_that_has_expired(server: Server, mail: Path, mongo: Mongo) -> None:
    """After 30 minutes it is void."""
    own = user_of(server)
    token = asked(server, mail, own["email"])
    resets = mongo["headwater_password_resets"]
    user = mongo["users"].find_one({"username": own["username"]})
    assert user is not None
    stored = resets.find_one({"_id": user["_id"]})
    assert stored is not None
    left = stored["expires_at"].replace(tzinfo=dt.UTC) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(minutes=29) < left <= dt.timedelta(minutes=30)
    resets.update_one({"_id": user["_id"]}, {"$set": {"expires_at": dt.datetime.now(dt.UTC)}})
    assert places(reset(server, token)) == [["body", "token"]]


def test_resetting(server: Server, mail: Path, mongo: Mongo, anonymous: httpx.Client) -> None:
    """All sessions end, with their sockets; the database holds no token; the audit knows of it."""
    own = user_of(server)
    tokens = server.sign_in(own["username"])
    token = asked(server, mail, own["email"])
    assert token not in str(list(mongo["headwater_password_resets"].find()))
    with live(server, tokens["access_token"]) as socket:
        answer = reset(server, token)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["cache-control"] == "no-store"
        assert socket.close_code() == 4503
    wait_until(lambda: status_of(server, tokens["access_token"]) == 401, seconds=1)
    problem(anonymous.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}), 401, "unauthorized")
    server.login(own["email"], NEW)
    user = mongo["users"].find_one({"username": own["username"]})
    assert user is not None
    wait_until(lambda: mongo["headwater_audit"].find_one({"event": "password_reset", "user_id": user["_id"]}))
    assert {index["name"] for index in mongo["headwater_password_resets"].list_indexes()} == {
        "_id_",
        "token",
        "expire_after_end",
    }


def test_audit_of_an_account(server: Server, mongo: Mongo, anonymous: httpx.Client) -> None:
    """Who registered, changed the password, got a role, was deactivated or deleted, and whose token came back."""
    admin = server.client(server.login("admin"))
    me = ObjectId(admin.get("/users/me").json()["id"])
    own = user_of(server)
    user = mongo["users"].find_one({"username": own["username"]})
    assert user is not None
    audit, about = mongo["headwater_audit"], user["_id"]

    def entry(event: str, **details: Any) -> dict[str, Any]:
        """The one entry of an event with these details."""
        query = {"event": event, "user_id": about} | {f"details.{name}": value for name, value in details.items()}
        wait_until(lambda: audit.find_one(query))
        (found,) = audit.find(query)
        return found

    assert entry("registered")["by"] is None
    client = server.client(server.login(own["username"]))
    server.secrets.append(NEW)
    client.post("/users/me/password", json={"current_password": PASSWORD, "new_password": NEW})
    assert entry("password_changed")["by"] == about
    spent = server.sign_in(own["username"], NEW)["refresh_token"]
    assert anonymous.post("/auth/refresh", json={"refresh_token": spent}).status_code == 200
    mongo["sessions"].update_many({"user_id": about}, {"$set": {"spent_tokens": []}})
    problem(anonymous.post("/auth/refresh", json={"refresh_token": spent}), 401, "unauthorized")
    assert "spent" in entry("session_revoked")["details"]["reason"]
    admin.patch(f"/users/{about}", json={"roles": ["user", "moderator"]})
    assert entry("user_changed", roles=["user", "moderator"])["by"] == me
    admin.patch(f"/users/{about}", json={"is_active": False})
    assert entry("user_changed", is_active=False)["by"] == me
    admin.delete(f"/users/{about}")
    assert entry("user_deleted")["by"] == me
    everything = str(list(audit.find({"user_id": about})))
    assert not re.search(f"{PASSWORD}|{NEW}|argon2", everything)
    assert {index["name"] for index in audit.list_indexes()} == {"_id_", "newest", "user_newest", "event_newest"}
