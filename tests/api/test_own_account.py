"""Changing one's own account and password."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.mailbox import files_to, text_of
from tests.api.servers import PASSWORD, Server, live, wait_until
from tests.api.test_accounts import registration, status_of
from tests.api.test_errors import places, problem
from tests.waiting import promptly

Mongo = Database[dict[str, Any]]
NEW = "brook-pebble-43"


def user_of(server: Server) -> tuple[httpx.Client, dict[str, str]]:
    """A new user's client and registration."""
    body = registration()
    server.secrets.append(NEW)
    return server.register(body["username"]).client, body


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"roles": ["admin"]}, ["body", "roles"]),
        ({"is_active": False}, ["body", "is_active"]),
        ({"id": "0" * 24}, ["body", "id"]),
        ({"username_key": "x"}, ["body", "username_key"]),
        ({"password_hash": "x"}, ["body", "password_hash"]),
        ({"password": NEW}, ["body", "password"]),
        ({"username": None}, ["body", "username"]),
        ({"username": {"$ne": ""}}, ["body", "username"]),
        ({"username": "a b"}, ["body", "username"]),
        ({"email": None}, ["body", "email"]),
        ({"email": ["a@example.org"]}, ["body", "email"]),
        ({"email": "nobody"}, ["body", "email"]),
        ({"email": "ünï@example.org", "current_password": PASSWORD}, ["body", "email"]),
        ({"email": "other@example.org"}, ["body", "current_password"]),
        ({"email": "other@example.org", "username": "other"}, ["body", "current_password"]),
        ({"email": "other@example.org", "current_password": None}, ["body", "current_password"]),
        ({"email": "other@example.org", "current_password": {"$ne": ""}}, ["body", "current_password"]),
        ([], ["body"]),
    ],
)
def test_change_that_is_not_accepted(server: Server, change: Any, place: list[str]) -> None:
    """Mass assignment, operators and what is no name: refused, and nothing is changed."""
    client, _ = user_of(server)
    before = client.get("/users/me").json()
    assert places(client.patch("/users/me", json=change)) == [place]
    assert client.get("/users/me").json() == before


def test_change_by_nobody(anonymous: httpx.Client) -> None:
    """401 for somebody without a token."""
    problem(anonymous.patch("/users/me", json={"username": "somebody"}), 401, "unauthorized")
    body = {"current_password": PASSWORD, "new_password": NEW}
    problem(anonymous.post("/users/me/password", json=body), 401, "unauthorized")


def test_changing_names(server: Server, anonymous: httpx.Client, mongo: Mongo) -> None:
    """Username and address, alone or together; signing in goes by the new ones, and the session stays."""
    client, old = user_of(server)
    new = registration()
    answer = client.patch("/users/me", json={"username": new["username"].upper()})
    assert answer.status_code == 200
    assert (answer.json()["username"], answer.json()["email"]) == (new["username"].upper(), old["email"])
    headers = {"Content-Type": "application/merge-patch+json"}
    body = {"email": new["email"].upper(), "current_password": PASSWORD}
    answer = client.patch("/users/me", json=body, headers=headers)
    assert answer.status_code == 200
    assert answer.json() == client.patch("/users/me", json={}).json() == client.get("/users/me").json()
    server.login(new["username"])
    server.login(new["email"])
    for name in (old["username"], old["email"]):
        answer = anonymous.post("/auth/login", json={"username": name, "password": PASSWORD})
        problem(answer, 401, "unauthorized")
    stored = mongo["users"].find_one({"_id": ObjectId(client.get("/users/me").json()["id"])})
    assert stored is not None
    assert (stored["username_key"], stored["email_key"]) == (new["username"], new["email"])
    assert stored["revision"] == 3


@pytest.mark.parametrize("name", ["username", "email"])
def test_name_of_somebody_else(server: Server, name: str) -> None:
    """In any case: 409, which names it. One's own in another case is free."""
    client, own = user_of(server)
    _, other = user_of(server)
    answer = client.patch("/users/me", json={name: other[name].upper(), "current_password": PASSWORD})
    assert places(answer, 409, "duplicate") == [["body", name]]
    assert client.get("/users/me").json()[name] == own[name]
    assert client.patch("/users/me", json={name: own[name].upper()}).status_code == 200


def test_address_set_by_somebody_who_has_only_the_token(server: Server, anonymous: httpx.Client) -> None:
    """A wrong password is 403, and nothing is changed: mail that resets the password goes where it went."""
    client, own = user_of(server)
    body = {"email": f"x{own['email']}", "username": f"x{own['username']}", "current_password": NEW}
    problem(client.patch("/users/me", json=body), 403, "forbidden")
    account = client.get("/users/me").json()
    assert (account["username"], account["email"]) == (own["username"], own["email"])
    answer = anonymous.post("/auth/login", json={"username": body["email"], "password": PASSWORD})
    problem(answer, 401, "unauthorized")


def test_domain_that_folds_to_the_same(server: Server) -> None:
    """`straße.example` and `strasse.example` are two domains with two owners, so the password is asked for."""
    client, own = user_of(server)
    name = own["username"]
    first = {"email": f"{name}@strasse-{name}.org", "current_password": PASSWORD}
    assert client.patch("/users/me", json=first).status_code == 200
    change = {"email": f"{name}@straße-{name}.org"}
    assert places(client.patch("/users/me", json=change)) == [["body", "current_password"]]
    assert client.patch("/users/me", json=change | {"current_password": PASSWORD}).json()["email"] == change["email"]


def test_address_that_was_changed(server: Server, mongo: Mongo) -> None:
    """The former one is told, the new one is not; the audit knows both. What changes nothing leaves no trace."""
    client, own = user_of(server)
    mail = server.log_path.parent / "data" / "mail"
    user_id = ObjectId(client.get("/users/me").json()["id"])
    new = f"x{own['email']}"
    for _ in range(2):
        assert client.patch("/users/me", json={"email": new, "current_password": PASSWORD}).json()["email"] == new
    wait_until(lambda: files_to(mail, own["email"], "address_changed"))
    (letter,) = files_to(mail, own["email"], "address_changed")
    assert new not in text_of(letter)
    assert files_to(mail, new, "address_changed") == []
    about = {"event": "account_changed", "user_id": user_id}
    wait_until(lambda: mongo["headwater_audit"].find_one(about))
    (entry,) = mongo["headwater_audit"].find(about)
    assert entry["by"] == user_id
    assert entry["details"] == {"changed": ["email"], "before": {"email": own["email"]}, "after": {"email": new}}
    stored = mongo["users"].find_one({"_id": user_id})
    assert stored is not None
    assert stored["revision"] == 2


def test_race_for_one_name(server: Server) -> None:
    """Four users who take it at once: one has it."""
    clients = [user_of(server)[0] for _ in range(4)]
    name = registration()["username"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda client: client.patch("/users/me", json={"username": name}), clients))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"current_password": None}, "current_password"),
        ({"current_password": {"$ne": ""}}, "current_password"),
        ({"new_password": "seven77"}, "new_password"),
        ({"new_password": "x" * 129}, "new_password"),
        ({"new_password": "Password123"}, "new_password"),
        ({"new_password": 12345678}, "new_password"),
        ({"user_id": "x"}, "user_id"),
    ],
)
def test_new_password_that_is_not_accepted(server: Server, change: dict[str, Any], place: str) -> None:
    """The rules of a registration; what was given is not repeated, and the old password stays."""
    client, own = user_of(server)
    body = {"current_password": PASSWORD, "new_password": NEW} | change
    answer = client.post("/users/me/password", json=body)
    assert places(answer) == [["body", place]]
    assert PASSWORD not in answer.text
    assert str(body["new_password"]) not in answer.text
    server.login(own["username"])


def test_new_password_that_is_a_name_of_the_account(server: Server) -> None:
    """Is refused in any case, for the username and the address."""
    client, own = user_of(server)
    for name in (own["username"].upper(), own["email"]):
        answer = client.post("/users/me/password", json={"current_password": PASSWORD, "new_password": name})
        assert places(answer) == [["body", "new_password"]]
    server.login(own["username"])


def test_wrong_current_password(server: Server) -> None:
    """403: the token is right, so it is not 401. Other sessions stay."""
    client, own = user_of(server)
    other = server.login(own["username"])
    answer = client.post("/users/me/password", json={"current_password": NEW, "new_password": NEW})
    problem(answer, 403, "forbidden")
    assert status_of(server, other) == 200
    server.login(own["username"])


def test_setting_a_new_password(server: Server, anonymous: httpx.Client) -> None:
    """All other sessions end, with their sockets, within a second; the one that set it goes on."""
    client, own = user_of(server)
    other = server.sign_in(own["username"])
    present = client.headers["Authorization"].removeprefix("Bearer ")
    with live(server, other["access_token"]) as ended, live(server, present) as kept:
        with promptly(seconds=2):  # two hashes and a second
            answer = client.post("/users/me/password", json={"current_password": PASSWORD, "new_password": NEW})
            assert (answer.status_code, answer.content) == (204, b"")
            assert ended.close_code() == 4503
        assert kept.answers_ping()
    assert client.get("/users/me").status_code == 200
    wait_until(lambda: status_of(server, other["access_token"]) == 401, seconds=1)
    problem(anonymous.post("/auth/refresh", json={"refresh_token": other["refresh_token"]}), 401, "unauthorized")
    answer = anonymous.post("/auth/login", json={"username": own["username"], "password": PASSWORD})
    problem(answer, 401, "unauthorized")
    server.login(own["username"], NEW)


def test_sessions_that_start_while_the_password_changes(server: Server) -> None:
    """A sign-in with the old password at the same moment is refused, or its session is ended."""
    client, own = user_of(server)

    def sign_in(_: int) -> httpx.Response:
        body = {"username": own["username"], "password": PASSWORD}
        return httpx.post(f"{server.url}/api/v1/auth/login", json=body, timeout=30)

    with ThreadPoolExecutor(6) as pool:
        started = [pool.submit(sign_in, number) for number in range(12)]
        changed = client.post("/users/me/password", json={"current_password": PASSWORD, "new_password": NEW})
        answers = [one.result() for one in started]
    assert changed.status_code == 204
    tokens = [answer.json()["access_token"] for answer in answers if answer.status_code == 200]
    server.secrets += tokens
    assert {answer.status_code for answer in answers} <= {200, 401}
    wait_until(lambda: all(status_of(server, token) == 401 for token in tokens))
