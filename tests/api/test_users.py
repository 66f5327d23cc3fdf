"""Users as others see them, and what admins do to them, as REST and live sockets feel it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import ADMIN_EMAIL, PASSWORD, Server, User, live, wait_until
from tests.api.test_accounts import registration, status_of
from tests.api.test_errors import places, problem
from tests.waiting import promptly

Mongo = Database[dict[str, Any]]
STAMPS = {"created_at", "created_by", "updated_at", "updated_by", "revision"}
ALL = {"id", "username", "email", "roles", "is_active"} | STAMPS


@pytest.fixture(scope="module")
def admin(server: Server) -> httpx.Client:
    """The first admin's client."""
    return server.client(server.login(ADMIN_EMAIL))


@pytest.fixture
def user(server: Server) -> User:
    """A new user."""
    return server.register(registration()["username"])


@pytest.fixture
def second_admin(server: Server, mongo: Mongo, user: User) -> Iterator[User]:
    """A user who is an admin too, until the test ends."""
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"roles": ["admin"]}})
    wait_until(lambda: user.client.get("/users/me").json().get("roles") == ["admin"])
    yield user
    mongo["users"].delete_one({"_id": ObjectId(user.id)})
    wait_until(lambda: status_of(server, user.token) == 401)


def test_nobody(anonymous: httpx.Client, alice: User) -> None:
    """Without a token every route is 401, whatever the id and the body."""
    answers = [
        anonymous.get("/users"),
        anonymous.get("/users", headers={"Accept": "text/event-stream"}),
        anonymous.get(f"/users/{alice.id}"),
        anonymous.get("/users/x"),
        anonymous.patch(f"/users/{alice.id}", json={"roles": ["admin"]}),
        anonymous.patch(f"/users/{alice.id}", json={"x": 1}),
        anonymous.delete(f"/users/{alice.id}"),
    ]
    for answer in answers:
        problem(answer, 401, "unauthorized")


@pytest.mark.parametrize("who", ["alice", "moderator"])
def test_changes_by_those_who_are_no_admins(request: pytest.FixtureRequest, bob: User, who: str) -> None:
    """Forbidden, for others and for oneself, and nothing is changed."""
    caller: User = request.getfixturevalue(who)
    for id in (caller.id, bob.id, "0" * 24):
        problem(caller.client.patch(f"/users/{id}", json={"roles": ["user", "admin"]}), 403, "forbidden")
        problem(caller.client.patch(f"/users/{id}", json={"is_active": False}), 403, "forbidden")
        problem(caller.client.delete(f"/users/{id}"), 403, "forbidden")
    assert "admin" not in caller.client.get("/users/me").json()["roles"]
    assert bob.client.get("/users/me").json()["is_active"] is True
    problem(caller.client.post("/users", json=registration()), 405, "method_not_allowed")
    problem(caller.client.put(f"/users/{bob.id}", json={}), 405, "method_not_allowed")


def test_user_as_others_see_them(alice: User, bob: User, moderator: User, admin: httpx.Client) -> None:
    """The name; admins see all but secrets, and only they learn when something else was changed."""
    for caller in (alice, moderator):
        answer = caller.client.get(f"/users/{bob.id}")
        assert answer.json() == {"id": bob.id, "username": "bob"}
        assert "last-modified" not in answer.headers
    answer = admin.get(f"/users/{bob.id}")
    assert set(answer.json()) == ALL
    assert answer.json()["email"] == "bob@example.org"
    assert "last-modified" in answer.headers
    problem(alice.client.get("/users/" + "0" * 24), 404, "not_found")
    assert places(alice.client.get("/users/x")) == [["path", "id"]]


def test_change_that_others_may_not_see(alice: User, user: User, mongo: Mongo) -> None:
    """Their answer is the same to the byte, entity tag included."""
    before = alice.client.get(f"/users/{user.id}")
    change = {"$set": {"email": "new@example.org", "password_hash": "x"}, "$inc": {"revision": 1}}
    mongo["users"].update_one({"_id": ObjectId(user.id)}, change)
    after = alice.client.get(f"/users/{user.id}")
    assert (before.content, before.headers["etag"]) == (after.content, after.headers["etag"])


@pytest.mark.parametrize(
    "query",
    [
        "email=bob@example.org",
        "password_hash[startswith]=$argon",
        "created_at[gte]=2020-01-01T00:00:00Z",
        "revision=1",
        'filter={"roles":"admin"}',
        'filter={"$or":[{"email":"bob@example.org"}]}',
        'filter={"$nor":[{"is_active":false}]}',
        "sort=email",
        "sort=-password_hash",
        "fields=email",
        "search=bob",
    ],
)
def test_queries_for_what_others_may_not_see(alice: User, query: str) -> None:
    """Hidden fields can be neither filtered nor sorted nor selected."""
    problem(alice.client.get(f"/users?{query}"), 422, "invalid")


@pytest.mark.parametrize("name", ["password_hash", "username_key", "email_key"])
def test_queries_of_an_admin_for_secrets(admin: httpx.Client, name: str) -> None:
    """No role sees them."""
    for query in (f"{name}=x", f"sort={name}", f"fields={name}"):
        problem(admin.get(f"/users?{query}"), 422, "invalid")


def test_list_of_users(alice: User, bob: User, admin: httpx.Client) -> None:
    """Filter, sort, pages and counts as of any list; each caller gets what they may see."""
    query: dict[str, str | int] = {
        "filter": json.dumps({"username": {"$in": ["alice", "bob"]}}),
        "sort": "-username",
        "limit": 1,
    }
    first = alice.client.get("/users", params=query | {"count": "exact"})
    assert first.json()["items"] == [{"id": bob.id, "username": "bob"}]
    assert first.json()["total"] == 2
    second = alice.client.get("/users", params=query | {"cursor": first.json()["next_cursor"]}).json()
    assert (second["items"], second["has_next"]) == ([{"id": alice.id, "username": "alice"}], False)
    (found,) = admin.get("/users?email=bob@example.org&is_active=true").json()["items"]
    assert (found["id"], set(found)) == (bob.id, ALL)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"roles": None}, ["body", "roles"]),
        ({"roles": "admin"}, ["body", "roles"]),
        ({"roles": ["boss"]}, ["body", "roles", 0]),
        ({"roles": [{"$ne": "x"}]}, ["body", "roles", 0]),
        ({"roles": ["user"] * 11}, ["body", "roles"]),
        ({"is_active": None}, ["body", "is_active"]),
        ({"is_active": "false"}, ["body", "is_active"]),
        ({"is_active": 0}, ["body", "is_active"]),
        ({"email": "a@example.org"}, ["body", "email"]),
        ({"username": "x"}, ["body", "username"]),
        ({"password_hash": "x"}, ["body", "password_hash"]),
        ({"_id": "x"}, ["body", "_id"]),
        ([], ["body"]),
    ],
)
def test_admins_change_that_is_not_accepted(admin: httpx.Client, bob: User, change: Any, place: list[Any]) -> None:
    """Only roles and activity, and only as what they are."""
    before = admin.get(f"/users/{bob.id}").json()
    assert places(admin.patch(f"/users/{bob.id}", json=change)) == [place]
    assert admin.get(f"/users/{bob.id}").json() == before


def test_user_who_is_not_there(admin: httpx.Client, bob: User) -> None:
    """404, or 422 for what is no id; a stale tag is 412."""
    for id in ("0" * 24, "f" * 24):
        problem(admin.patch(f"/users/{id}", json={"is_active": False}), 404, "not_found")
        problem(admin.delete(f"/users/{id}"), 404, "not_found")
    problem(admin.delete("/users/me"), 405, "method_not_allowed")
    for id in ("x", "men", "Me", "0" * 23, "bulk"):
        assert places(admin.delete(f"/users/{id}")) == [["path", "id"]]
    stale = {"If-Match": '"stale"'}
    problem(admin.patch(f"/users/{bob.id}", json={"roles": []}, headers=stale), 412, "precondition_failed")
    problem(admin.delete(f"/users/{bob.id}", headers=stale), 412, "precondition_failed")


def test_role_that_an_admin_gives(server: Server, admin: httpx.Client, user: User, draft: dict[str, Any]) -> None:
    """It acts on requests and on the open socket within a second, both ways."""
    with live(server, user.token) as socket:
        view = socket.subscribe("1", filter={"title": draft["title"]}, snapshot=True)
        for roles, status, items in ((["user", "moderator"], 200, [draft["id"]]), (["user"], 404, [])):
            with promptly():
                answer = admin.patch(f"/users/{user.id}", json={"roles": roles})
                assert (answer.status_code, answer.json()["roles"]) == (200, roles)
                assert answer.headers["etag"] == admin.get(f"/users/{user.id}").headers["etag"]
                frames = socket.receive_until("ready")
            assert (frames[0]["type"], frames[0]["reason"], frames[0]["view"]) == ("reset", "access_changed", view)
            snapshot = [item["document"]["id"] for frame in frames for item in frame.get("items", [])]
            assert snapshot == items
            view = frames[-1]["view"]
            assert user.client.get(f"/posts/{draft['id']}").status_code == status


def test_deactivating(server: Server, anonymous: httpx.Client, admin: httpx.Client, user: User) -> None:
    """The sockets close with 4503 within a second, the tokens are refused, signing in and refreshing are too."""
    tokens = server.sign_in(user.username)
    with live(server, user.token) as socket:
        socket.subscribe("1")
        with promptly():
            assert admin.patch(f"/users/{user.id}", json={"is_active": False}).json()["is_active"] is False
            assert socket.close_code() == 4503
    assert status_of(server, user.token) == 401
    body = {"username": user.username, "password": PASSWORD}
    problem(anonymous.post("/auth/login", json=body), 401, "unauthorized")
    refresh = {"refresh_token": tokens["refresh_token"]}
    problem(anonymous.post("/auth/refresh", json=refresh), 401, "unauthorized")
    assert admin.patch(f"/users/{user.id}", json={"is_active": True}).status_code == 200
    fresh = server.login(user.username)
    wait_until(lambda: status_of(server, fresh) == 200, seconds=1)
    for token in (user.token, tokens["access_token"]):
        assert status_of(server, token) == 401
    problem(anonymous.post("/auth/refresh", json=refresh), 401, "unauthorized")


def test_sign_in_while_a_user_is_deactivated(server: Server, admin: httpx.Client, user: User, mongo: Mongo) -> None:
    """Is refused, or its session is ended: none stands when the user is active again."""

    def sign_in(_: int) -> int:
        body = {"username": user.username, "password": PASSWORD}
        return httpx.post(f"{server.url}/api/v1/auth/login", json=body, timeout=30).status_code

    with ThreadPoolExecutor(6) as pool:
        started = [pool.submit(sign_in, number) for number in range(12)]
        assert admin.patch(f"/users/{user.id}", json={"is_active": False}).status_code == 200
        statuses = {one.result() for one in started}
    assert statuses <= {200, 401}
    assert mongo["sessions"].count_documents({"user_id": ObjectId(user.id), "ended_at": None}) == 0


def test_change_that_names_nothing(admin: httpx.Client, user: User, mongo: Mongo) -> None:
    """Writes nothing and leaves no trace, but is answered as any change: 412 for a stale tag, 404 for nobody."""
    before = admin.get(f"/users/{user.id}")
    answer = admin.patch(f"/users/{user.id}", json={})
    assert (answer.status_code, answer.json()) == (200, before.json())
    assert answer.headers["etag"] == before.headers["etag"]
    problem(admin.patch(f"/users/{user.id}", json={}, headers={"If-Match": '"stale"'}), 412, "precondition_failed")
    problem(admin.patch("/users/" + "0" * 24, json={}), 404, "not_found")
    # Entries are written in order, so one of the empty change would be there before this one.
    assert admin.patch(f"/users/{user.id}", json={"roles": ["moderator", "user", "moderator"]}).status_code == 200
    about = {"event": "user_changed", "user_id": ObjectId(user.id)}
    wait_until(lambda: mongo["headwater_audit"].find_one(about | {"details.roles": ["user", "moderator"]}))
    assert mongo["headwater_audit"].count_documents(about) == 1
    after = admin.get(f"/users/{user.id}").json()
    assert (after["roles"], after["revision"]) == (["user", "moderator"], before.json()["revision"] + 1)


def test_deleting(server: Server, anonymous: httpx.Client, admin: httpx.Client, mongo: Mongo, user: User) -> None:
    """Gone, with sockets and sessions; the name is free again."""
    tokens = server.sign_in(user.username)
    with live(server, user.token) as socket, promptly():
        answer = admin.delete(f"/users/{user.id}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert socket.close_code() == 4503
    assert status_of(server, user.token) == 401
    refresh = {"refresh_token": tokens["refresh_token"]}
    problem(anonymous.post("/auth/refresh", json=refresh), 401, "unauthorized")
    assert mongo["sessions"].count_documents({"user_id": ObjectId(user.id), "ended_at": None}) == 0
    problem(admin.get(f"/users/{user.id}"), 404, "not_found")
    server.register(user.username)


def test_last_admin(admin: httpx.Client, mongo: Mongo, user: User) -> None:
    """Cannot be removed in any way, nor do admins count who cannot sign in."""
    own = admin.get("/users/me").json()["id"]
    mongo["users"].update_one({"_id": ObjectId(user.id)}, {"$set": {"roles": ["admin"], "is_active": False}})
    changes: tuple[dict[str, Any], ...] = (
        {"roles": ["user"]},
        {"roles": []},
        {"is_active": False},
        {"is_active": False, "roles": ["admin"]},
    )
    for change in changes:
        problem(admin.patch(f"/users/{own}", json=change), 409, "conflict")
    problem(admin.delete(f"/users/{own}"), 409, "conflict")
    assert admin.patch(f"/users/{own}", json={"roles": ["user", "admin"], "is_active": True}).status_code == 200
    assert admin.patch(f"/users/{user.id}", json={"roles": ["user"]}).status_code == 200


def test_admins_who_remove_each_other(admin: httpx.Client, mongo: Mongo, second_admin: User) -> None:
    """At the same moment, several times each: one of them stays."""
    own = admin.get("/users/me").json()["id"]

    def remove(number: int) -> int:
        client, id = ((admin, second_admin.id), (second_admin.client, own))[number % 2]
        return client.patch(f"/users/{id}", json={"roles": ["user"]}).status_code

    try:
        with ThreadPoolExecutor(6) as pool:
            statuses = list(pool.map(remove, range(6)))
        assert 200 in statuses
        assert set(statuses) <= {200, 403, 409}
        assert mongo["users"].count_documents({"roles": "admin", "is_active": True}) == 1
    finally:
        mongo["users"].update_one({"_id": ObjectId(own)}, {"$set": {"roles": ["user", "admin"]}})
        wait_until(lambda: "admin" in admin.get("/users/me").json()["roles"])


def test_users_live(server: Server, alice: User, admin: httpx.Client) -> None:
    """Others hear of names and nothing else; admins of roles too, and nobody of secrets."""
    name = registration()["username"]
    filter = {"username": {"$startswith": name}}
    own = server.login(ADMIN_EMAIL)
    with live(server, alice.token) as other, live(server, own) as watching:
        for socket in (other, watching):
            socket.subscribe("1", "users", filter=filter)
        user = server.register(name)
        assert other.receive()["document"] == {"id": user.id, "username": name}
        assert set(watching.receive()["document"]) == ALL
        assert admin.patch(f"/users/{user.id}", json={"roles": ["moderator"]}).status_code == 200
        event = watching.receive()
        assert (event["op"], event["changed"], event["document"]["roles"]) == ("update", ["roles"], ["moderator"])
        assert user.client.patch("/users/me", json={"username": f"{name}-2"}).status_code == 200
        event = other.receive()
        assert (event["op"], event["changed"]) == ("update", ["username"])
        assert event["document"] == {"id": user.id, "username": f"{name}-2"}
