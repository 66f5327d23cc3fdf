"""A person in the real mongosh beside a running server: live, refused with a reason, and never served stale."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api import gauges
from tests.api.servers import Live, Server, User, live, serving, wait_until
from tests.mongosh import Mongosh, database_url, mongosh


@pytest.fixture(scope="module")
def shell(shared: tuple[Server, str], mongodb_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongosh]:
    """A session on the shared server's database."""
    with mongosh(database_url(mongodb_url, shared[1]), tmp_path_factory.mktemp("home")) as session:
        yield session


@pytest.fixture
def tag() -> str:
    """A tag that no other test uses, to find one's own posts by."""
    return f"t{uuid.uuid4().hex[:12]}"


def written(alice: User, tag: str, title: str, **more: Any) -> str:
    """The fields of a published post, as somebody types them."""
    fields = {"title": title, "tags": [tag], "status": "published"} | more
    typed = ", ".join(f"{name}: {json.dumps(value)}" for name, value in fields.items())
    return f"{{{typed}, author_id: ObjectId('{alice.id}')}}"


def insert(shell: Mongosh, typed: str) -> str:
    """Insert a post; its id."""
    answer = shell.run(f"print(db.posts.insertOne({typed}).insertedId.toString())")
    assert len(answer) == 24, answer
    return answer


@pytest.fixture
def watched(server: Server, tag: str) -> Iterator[Live]:
    """A subscription to the posts with the tag."""
    with live(server) as socket:
        socket.subscribe("1", filter={"tags": tag})
        yield socket


def test_what_is_written_by_hand_is_seen(watched: Live, shell: Mongosh, alice: User, tag: str) -> None:
    """An insert, an update, a replacement that leaves the view, one that enters it, and a deletion: each one event."""
    post_id = insert(shell, written(alice, tag, "By hand"))
    created = watched.receive()
    assert (created["op"], created["id"], created["document"]["title"]) == ("create", post_id, "By hand")

    shell.run(f"db.posts.updateOne({{_id: ObjectId('{post_id}')}}, {{$set: {{title: 'By hand, again'}}}})")
    updated = watched.receive()
    assert (updated["op"], updated["changed"], updated["document"]["title"]) == ("update", ["title"], "By hand, again")
    assert updated["etag"] != created["etag"]

    shell.run(f"db.posts.replaceOne({{_id: ObjectId('{post_id}')}}, {written(alice, 'elsewhere', 'Gone')})")
    assert watched.receive()["op"] == "leave"
    shell.run(f"db.posts.replaceOne({{_id: ObjectId('{post_id}')}}, {written(alice, tag, 'Back')})")
    assert watched.receive()["op"] == "enter"

    shell.run(f"db.posts.deleteOne({{_id: ObjectId('{post_id}')}})")
    deleted = watched.receive()
    assert (deleted["op"], deleted["id"]) == ("delete", post_id)
    assert "document" not in deleted


def test_many_written_at_once_are_single_events(watched: Live, shell: Mongosh, alice: User, tag: str) -> None:
    """insertMany, updateMany, bulkWrite and deleteMany send one event for each document, in the order of the writes."""
    typed = ", ".join(written(alice, tag, f"Post {number}") for number in range(5))
    shell.run(f"db.posts.insertMany([{typed}])")
    created = [watched.receive() for _ in range(5)]
    assert [event["op"] for event in created] == ["create"] * 5
    assert [event["document"]["title"] for event in created] == [f"Post {number}" for number in range(5)]

    shell.run(f"db.posts.updateMany({{tags: '{tag}'}}, {{$set: {{body: 'Water.'}}}})")
    updated = [watched.receive() for _ in range(5)]
    assert {event["id"] for event in updated} == {event["id"] for event in created}
    assert all(event["op"] == "update" and event["changed"] == ["body"] for event in updated)

    first, second = (event["id"] for event in created[:2])
    changed = f"{{updateOne: {{filter: {{_id: ObjectId('{first}')}}, update: {{$set: {{title: 'x'}}}}}}}}"
    deleted = f"{{deleteOne: {{filter: {{_id: ObjectId('{second}')}}}}}}"
    shell.run(f"db.posts.bulkWrite([{changed}, {deleted}, {{insertOne: {written(alice, tag, 'y')}}}])")
    assert [watched.receive()["op"] for _ in range(3)] == ["update", "delete", "create"]

    shell.run(f"db.posts.deleteMany({{tags: '{tag}'}})")
    assert [watched.receive()["op"] for _ in range(5)] == ["delete"] * 5
    positions = [event["position"] for event in [*created, *updated]]
    assert positions == sorted(set(positions))


REFUSED = {
    "a missing field": ("{title: 'a'}", "missingProperties: [ 'author_id' ]", "required"),
    "a field that nobody declared": (
        "{title: 'a', colour: 'red', author_id: ID}",
        "[ 'colour' ]",
        "additionalProperties",
    ),
    "a wrong type": ("{title: 5, author_id: ID}", "propertyName: 'title'", "type did not match"),
    "an id as text": ("{title: 'a', author_id: 'x'}", "propertyName: 'author_id'", "type did not match"),
    "an unknown choice": ("{title: 'a', author_id: ID, status: 'gone'}", "propertyName: 'status'", "not found in enum"),
    "a text that is too long": (
        "{title: 'a'.repeat(201), author_id: ID}",
        "propertyName: 'title'",
        "string length was not satisfied",
    ),
    "an empty text": ("{title: '', author_id: ID}", "propertyName: 'title'", "string length was not satisfied"),
    "a text against its pattern": (
        "{title: 'a', slug: 'No slug', author_id: ID}",
        "propertyName: 'slug'",
        "expression did not match",
    ),
    "too many items": (
        "{title: 'a', tags: Array(21).fill('t'), author_id: ID}",
        "propertyName: 'tags'",
        "did not match specified length",
    ),
    "a wrong item": ("{title: 'a', tags: ['a', ''], author_id: ID}", "itemIndex: 1", "string length"),
    "a number below its limit": (
        "{title: 'a', author_id: ID, revision: 0}",
        "propertyName: 'revision'",
        "comparison failed",
    ),
    "null": ("{title: 'a', author_id: ID, body: null}", "propertyName: 'body'", "consideredType: 'null'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_write_that_breaks_the_rules_is_refused(shell: Mongosh, alice: User, case: str) -> None:
    """The shell prints the field and the reason."""
    typed, field, reason = REFUSED[case]
    shell.run(f"var ID = ObjectId('{alice.id}')")
    printed = shell.run(f"db.posts.insertOne({typed})")
    assert "Document failed validation" in printed
    assert field in printed
    assert reason in printed


def test_a_refused_change_of_many_changes_none_and_says_nothing(
    watched: Live, shell: Mongosh, alice: User, tag: str
) -> None:
    """Subscribers hear of what was stored only."""
    post_id = insert(shell, written(alice, tag, "Kept"))
    assert watched.receive()["op"] == "create"
    assert "Document failed validation" in shell.run(f"db.posts.updateMany({{tags: '{tag}'}}, {{$set: {{title: ''}}}})")
    shell.run(f"db.posts.updateOne({{_id: ObjectId('{post_id}')}}, {{$set: {{title: 'Changed'}}}})")
    assert watched.receive()["document"]["title"] == "Changed"


def test_etags_follow_what_is_written_by_hand(shell: Mongosh, alice: User, tag: str) -> None:
    """The old tag gets the new content, no longer 304, and no write under it is done; the new one is the event's."""
    post_id = insert(shell, written(alice, tag, "Tagged"))
    first = alice.client.get(f"/posts/{post_id}")
    old = first.headers["ETag"]
    assert alice.client.get(f"/posts/{post_id}", headers={"If-None-Match": old}).status_code == 304

    shell.run(f"db.posts.updateOne({{_id: ObjectId('{post_id}')}}, {{$set: {{title: 'Retagged'}}}})")
    again = alice.client.get(f"/posts/{post_id}", headers={"If-None-Match": old})
    assert (again.status_code, again.json()["title"]) == (200, "Retagged")
    assert again.headers["ETag"] != old
    stale = alice.client.patch(f"/posts/{post_id}", json={"body": "Mine."}, headers={"If-Match": old})
    assert stale.status_code == 412
    fresh = alice.client.patch(f"/posts/{post_id}", json={"body": "Mine."}, headers={"If-Match": again.headers["ETag"]})
    assert (fresh.status_code, fresh.json()["title"]) == (200, "Retagged")


def test_cursors_hold_while_posts_are_written_by_hand(shell: Mongosh, alice: User, tag: str) -> None:
    """What is inserted and deleted between two pages makes neither skip nor repeat a post that stayed."""
    titles = [f"P{number}" for number in range(6)]
    ids = [insert(shell, written(alice, tag, title)) for title in titles]
    query = {"tags": tag, "sort": "title", "limit": "2", "fields": "title"}
    first = alice.client.get("/posts", params=query).json()
    assert [item["title"] for item in first["items"]] == ["P0", "P1"]

    shell.run(f"db.posts.deleteOne({{_id: ObjectId('{ids[1]}')}})")
    insert(shell, written(alice, tag, "P0 and a half"))
    shell.run(f"db.posts.updateOne({{_id: ObjectId('{ids[2]}')}}, {{$set: {{body: 'Changed.'}}}})")
    second = alice.client.get("/posts", params=query | {"cursor": first["next_cursor"]}).json()
    assert [item["title"] for item in second["items"]] == ["P2", "P3"]
    third = alice.client.get("/posts", params=query | {"cursor": second["next_cursor"]}).json()
    assert [item["title"] for item in third["items"]] == ["P4", "P5"]


def test_a_user_changed_by_hand_has_other_rights_at_once(shell: Mongosh, server: Server) -> None:
    """Roles are not kept from before the write."""
    user = server.register(f"u{uuid.uuid4().hex[:10]}")
    assert user.client.get("/users/me").json()["roles"] == ["user"]
    shell.run(f"db.users.updateOne({{username: '{user.username}'}}, {{$push: {{roles: 'moderator'}}}})")
    wait_until(lambda: user.client.get("/users/me").json()["roles"] == ["user", "moderator"])
    shell.run(f"db.users.updateOne({{username: '{user.username}'}}, {{$set: {{is_active: false}}}})")
    wait_until(lambda: user.client.get("/users/me").status_code == 401)


def test_answers_from_memory_follow_what_is_written_by_hand(
    shell: Mongosh,
    server_settings: Callable[..., dict[str, str]],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    """A document and a list that were read again and again are read anew after a write in the shell."""
    settings = server_settings(documents=gauges.__name__)
    shell.run(f"var cached = db.getSiblingDB('{settings['HEADWATER_DATABASE']}')")
    with serving(tmp_path, free_port(), settings) as server:
        client = server.register("reader").client
        gauge = client.post("/gauges", json={"n": 1}).json()["id"]
        for _ in range(3):
            assert client.get(f"/gauges/{gauge}").json()["n"] == 1
            assert [item["n"] for item in client.get("/gauges").json()["items"]] == [1]
        shell.run(f"cached.gauges.updateOne({{_id: ObjectId('{gauge}')}}, {{$set: {{n: 2}}}})")
        wait_until(lambda: client.get(f"/gauges/{gauge}").json()["n"] == 2)
        wait_until(lambda: [item["n"] for item in client.get("/gauges").json()["items"]] == [2])
        shell.run("cached.gauges.deleteMany({})")
        wait_until(lambda: client.get(f"/gauges/{gauge}").status_code == 404)
        wait_until(lambda: client.get("/gauges").json()["items"] == [])
