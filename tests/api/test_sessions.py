"""Signing in by a form, refreshing and signing out, over HTTP and as live sockets feel it."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jwt
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import PASSWORD, Server, User, live
from tests.api.test_accounts import status_of
from tests.api.test_errors import places, problem
from tests.waiting import promptly

Mongo = Database[dict[str, Any]]
FORM = {"grant_type": "password", "username": "alice", "password": PASSWORD}


def session_of(access_token: str) -> ObjectId:
    """The id of a token's session."""
    return ObjectId(jwt.decode(access_token, options={"verify_signature": False})["sid"])


def refreshed(server: Server, client: httpx.Client, refresh_token: str) -> dict[str, Any]:
    """The tokens that a refresh answers with."""
    answer = client.post("/auth/refresh", json={"refresh_token": refresh_token})
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    server.secrets += [tokens["access_token"], tokens["refresh_token"]]
    return tokens


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"grant_type": None}, ["body", "grant_type"]),
        ({"grant_type": "authorization_code"}, ["body", "grant_type"]),
        ({"username": None}, ["body", "username"]),
        ({"username": ""}, ["body", "username"]),
        ({"password": None}, ["body", "password"]),
        ({"password": [PASSWORD, "x"]}, ["body"]),
        ({"username": None, "username[$ne]": ""}, ["body", "username"]),
        ({"more": ["x"] * 30}, ["body"]),
    ],
)
def test_form_that_is_not_accepted(anonymous: httpx.Client, changes: dict[str, Any], place: list[str]) -> None:
    """The fault is named, and the password not repeated."""
    form = {name: value for name, value in (FORM | changes).items() if value is not None}
    answer = anonymous.post("/auth/login", data=form)
    assert places(answer) == [place]
    assert PASSWORD not in answer.text


def test_form_that_is_no_form(anonymous: httpx.Client) -> None:
    """Bytes that are not UTF-8, a multipart form, JSON under a form's name, and a form in the query string."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    problem(anonymous.post("/auth/login", content=b"username=%ff", headers=headers), 400, "bad_request")
    problem(anonymous.post("/auth/login", content=b"username=\xff", headers=headers), 400, "bad_request")
    problem(anonymous.post("/auth/login", content=b"{}", headers=headers), 422, "invalid")
    problem(anonymous.post("/auth/login", params=FORM), 415, "unsupported_media_type")
    problem(anonymous.post("/auth/login", files={"username": b"alice"}), 415, "unsupported_media_type")
    problem(anonymous.post("/auth/login", data=FORM | {"password": "wrong"}), 401, "unauthorized")


def test_signing_in_as_the_documentation_pages_do(server: Server, anonymous: httpx.Client, alice: User) -> None:
    """By OAuth2's password form, with the parameters and the empty client that *Authorize* adds."""
    answer = anonymous.post("/auth/login", data=FORM | {"scope": "", "client_id": ""}, auth=("", ""))
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    server.secrets += [tokens["access_token"], tokens["refresh_token"]]
    assert tokens["token_type"] == "bearer"  # noqa: S105 - a kind, not a token
    own = anonymous.get("/users/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert own.json()["id"] == alice.id


def test_where_the_documentation_pages_sign_in(server: Server) -> None:
    """OpenAPI names the address, and the bearer scheme besides."""
    schemes = httpx.get(f"{server.url}/openapi.json").json()["components"]["securitySchemes"]
    assert schemes["password"]["flows"]["password"]["tokenUrl"] == "/api/v1/auth/login"
    assert schemes["bearer"]["scheme"] == "bearer"


@pytest.mark.parametrize("path", ["/auth/refresh", "/auth/logout"])
@pytest.mark.parametrize("token", [None, 5, True, "", [], ["x"], {"$ne": ""}, {"$gt": ""}, "x" * 513])
def test_refresh_token_that_is_no_text(anonymous: httpx.Client, path: str, token: Any) -> None:
    """Operators and objects are refused where a text is expected."""
    assert places(anonymous.post(path, json={"refresh_token": token})) == [["body", "refresh_token"]]


def test_refresh_token_in_the_wrong_place(server: Server, anonymous: httpx.Client, alice: User) -> None:
    """In the query string, or as an access token, it is good for nothing; nor is an access token for a refresh."""
    tokens = server.sign_in("alice")
    assert anonymous.post(f"/auth/refresh?refresh_token={tokens['refresh_token']}").status_code == 415
    assert status_of(server, tokens["refresh_token"]) == 401
    answer = anonymous.post("/auth/refresh", json={"refresh_token": tokens["access_token"]})
    refused = problem(answer, 401, "unauthorized")
    assert refused["detail"] == "The refresh token is not valid, or its session has ended."
    assert answer.headers["www-authenticate"] == "Bearer"
    assert tokens["access_token"] not in answer.text
    assert alice.client.get("/users/me").status_code == 200


def test_refreshing(server: Server, anonymous: httpx.Client, alice: User, mongo: Mongo) -> None:
    """A new pair of tokens in the same session; the access token before stays good until it expires."""
    first = server.sign_in("alice")
    second = refreshed(server, anonymous, first["refresh_token"])
    assert set(second) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert second["expires_in"] == 900
    assert session_of(second["access_token"]) == session_of(first["access_token"])
    assert second["refresh_token"] != first["refresh_token"]
    assert [status_of(server, tokens["access_token"]) for tokens in (first, second)] == [200, 200]
    assert refreshed(server, anonymous, first["refresh_token"])["refresh_token"] == second["refresh_token"]
    stored = mongo["sessions"].find_one({"_id": session_of(first["access_token"])})
    assert stored is not None
    assert stored["user_id"] == ObjectId(alice.id)
    remaining = stored["ends_at"].replace(tzinfo=dt.UTC) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=29, hours=23) < remaining <= dt.timedelta(days=30)


def test_access_token_at_the_end_of_its_session(server: Server, anonymous: httpx.Client, mongo: Mongo) -> None:
    """It is not valid longer than the session."""
    first = server.sign_in("alice")
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    mongo["sessions"].update_one({"_id": session_of(first["access_token"])}, {"$set": {"ends_at": soon}})
    assert 0 < refreshed(server, anonymous, first["refresh_token"])["expires_in"] <= 60


def test_race_of_two_tabs(server: Server, alice: User) -> None:
    """Eight refreshes at once with one token: eight answers, one successor."""
    token = server.sign_in(alice.username)["refresh_token"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: refreshed(server, server.client(), token), range(8)))
    assert len({answer["refresh_token"] for answer in answers}) == 1


def test_stolen_refresh_token(server: Server, anonymous: httpx.Client, alice: User, mongo: Mongo) -> None:
    """Used again after the window: the family is revoked, and its socket closes within a second; others stay."""
    first = server.sign_in("alice")
    second = refreshed(server, anonymous, first["refresh_token"])
    session_id = session_of(first["access_token"])
    with live(server, second["access_token"]) as thief, live(server, alice.token) as other:
        thief.subscribe("1")
        before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=10)
        mongo["sessions"].update_one({"_id": session_id}, {"$set": {"spent_tokens.0.at": before}})
        with promptly():
            problem(
                anonymous.post("/auth/refresh", json={"refresh_token": first["refresh_token"]}), 401, "unauthorized"
            )
            assert thief.close_code() == 4503
        assert other.answers_ping()
    answer = anonymous.post("/auth/refresh", json={"refresh_token": second["refresh_token"]})
    problem(answer, 401, "unauthorized")
    assert [status_of(server, tokens["access_token"]) for tokens in (first, second)] == [401, 401]


def test_signing_out(server: Server, anonymous: httpx.Client, alice: User, mongo: Mongo) -> None:
    """The session's sockets close within a second and its tokens are refused; the user's other sessions stay."""
    tokens = server.sign_in("alice")
    with live(server, tokens["access_token"]) as socket, live(server) as late, live(server, alice.token) as other:
        late.send(type="auth", token=tokens["access_token"])
        assert late.receive()["type"] == "authenticated"
        socket.subscribe("1")
        with promptly():
            answer = anonymous.post("/auth/logout", json={"refresh_token": tokens["refresh_token"]})
            assert (answer.status_code, answer.content) == (204, b"")
            assert [socket.close_code(), late.close_code()] == [4503, 4503]
        assert other.answers_ping()
    assert status_of(server, tokens["access_token"]) == 401
    problem(anonymous.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}), 401, "unauthorized")
    stored = mongo["sessions"].find_one({"_id": session_of(tokens["access_token"])})
    assert stored is not None
    assert stored["ended_at"] is not None


def test_signing_out_with_any_text(anonymous: httpx.Client, server: Server, alice: User) -> None:
    """The answer does not tell whether the token was one."""
    tokens = server.sign_in("alice")
    answers = [
        anonymous.post("/auth/logout", json={"refresh_token": text})
        for text in ("nobody's", tokens["access_token"], tokens["refresh_token"], tokens["refresh_token"])
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(204, b"")}
    assert alice.client.get("/users/me").status_code == 200
