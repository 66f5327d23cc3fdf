"""Who is named as the author of what came over HTTP: every way to write, by a person and by a program."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import Server, User, wait_until

Mongo = Database[dict[str, Any]]
NDJSON = {"Content-Type": "application/x-ndjson"}


@dataclass(frozen=True)
class Program:
    """An API key of alice's, and its client."""

    name: str
    client: httpx.Client


@pytest.fixture(scope="module")
def program(server: Server, alice: User) -> Program:
    """A program that may write posts and files in alice's name."""
    made = alice.client.post("/api-keys", json={"name": "robot", "scopes": ["posts:write", "files:write"]}).json()
    return Program(f"key:{made['id']}", server.client(key=made["key"]))


def authors(mongo: Mongo, collection: str, **query: Any) -> tuple[Any, Any]:
    """Who created and who last wrote a document, as stored."""
    stored = mongo[collection].find_one(query)
    assert stored is not None
    return stored.get("created_by"), stored.get("updated_by")


Write = Callable[[httpx.Client, str], httpx.Response]


def patch(kind: str, content: Any) -> Write:
    """A patch of one document."""
    headers = {"Content-Type": f"application/{kind}+json"}
    return lambda client, id: client.patch(f"/posts/{id}", content=json.dumps(content), headers=headers)


def bulk(op: str, atomic: bool = False, **content: Any) -> Write:
    """One operation of many."""
    return lambda client, id: client.post(
        "/posts/bulk", json={"operations": [{"op": op, "id": id, **content}], "atomic": atomic}
    )


NEW = {"title": "new", "status": "published"}
CHANGES: dict[str, Write] = {
    "PUT": lambda client, id: client.put(f"/posts/{id}", json=NEW),
    "merge patch": patch("merge-patch", {"body": "new"}),
    "JSON patch": patch("json-patch", [{"op": "replace", "path": "/body", "value": "new"}]),
    "operators": patch("vnd.headwater.update", {"$set": {"body": "new"}}),
    "bulk update": bulk("update", patch={"body": "new"}),
    "bulk replace": bulk("replace", document=NEW),
    "atomic update": bulk("update", atomic=True, patch={"body": "new"}),
    "by filter": lambda client, id: client.patch(f"/posts?id={id}", json={"body": "new"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change(change: str, program: Program, alice: User, post: dict[str, Any], mongo: Mongo) -> None:
    """The one who changed it is named as the last, beside the one who made it."""
    answer = CHANGES[change](program.client, post["id"])
    assert answer.is_success, answer.text
    assert authors(mongo, "posts", _id=ObjectId(post["id"])) == (f"user:{alice.id}", program.name)
    shown = alice.client.get(f"/posts/{post['id']}")
    assert (shown.json()["created_by"], shown.json()["updated_by"]) == (f"user:{alice.id}", program.name)


def test_creation(program: Program, alice: User, title: str, mongo: Mongo) -> None:
    """Alone, under an id of one's own, in bulk, all together, and imported."""
    client, line = program.client, json.dumps({"title": title}) + "\n"
    operations = [{"op": "create", "document": {"title": title}}]
    answers = [
        client.post("/posts", json={"title": title}),
        client.put(f"/posts/{ObjectId()}", json={"title": title}, headers={"If-None-Match": "*"}),
        client.post("/posts/bulk", json={"operations": operations}),
        client.post("/posts/bulk", json={"operations": operations, "atomic": True}),
        client.post("/posts/import", content=line, headers=NDJSON),
    ]
    assert [answer.is_success for answer in answers] == [True] * 5
    made = list(mongo["posts"].find({"title": title}))
    assert [(one["created_by"], one["updated_by"]) for one in made] == [(program.name, program.name)] * 5
    # The program's posts are alice's, and can be found by who wrote them.
    assert {one["author_id"] for one in made} == {ObjectId(alice.id)}
    found = alice.client.get("/posts", params={"title": title, "created_by": program.name, "count": "exact"})
    assert found.json()["total"] == 5


def test_file_and_its_program(program: Program, mongo: Mongo) -> None:
    """An upload names who sent it; a key names whom it was made by, and the audit keeps that when it is gone."""
    (file,) = program.client.post("/files", files={"files": ("a.txt", b"a")}).json()["items"]
    assert (file["created_by"], file["updated_by"]) == (program.name, program.name)
    key_id = ObjectId(program.name.removeprefix("key:"))
    owner = authors(mongo, "api_keys", _id=key_id)[0]
    query = {"event": "key_created", "details.key_id": key_id}
    wait_until(lambda: mongo["headwater_audit"].find_one(query))
    entry = mongo["headwater_audit"].find_one(query)
    assert entry is not None
    assert owner == f"user:{entry['user_id']}"


def test_moderation(alice: User, moderator: User, post: dict[str, Any]) -> None:
    """An action names who did it, and a bare read of the change is no event of its own."""
    answer = moderator.client.post(f"/posts/{post['id']}/moderate", json={"status": "hidden", "reason": "x"})
    assert (answer.json()["created_by"], answer.json()["updated_by"]) == (f"user:{alice.id}", f"user:{moderator.id}")


def test_accounts(server: Server, mongo: Mongo) -> None:
    """Who registers has created themselves; the first admin is the system's."""
    user = server.register(f"u{uuid.uuid4().hex[:10]}")
    own = f"user:{user.id}"
    assert authors(mongo, "users", _id=ObjectId(user.id)) == (own, own)
    assert authors(mongo, "sessions", user_id=ObjectId(user.id)) == (own, own)
    assert authors(mongo, "users", username="admin")[0] == "system"


def test_etag_of_another_author(program: Program, alice: User, post: dict[str, Any]) -> None:
    """That somebody else has written the same is no change of the content."""
    before = alice.client.get(f"/posts/{post['id']}")
    # There and back: to write what is there already would be no change at all.
    program.client.patch(f"/posts/{post['id']}", json={"body": "Other."})
    after = program.client.patch(f"/posts/{post['id']}", json={"body": post["body"]})
    assert after.json()["updated_by"] == program.name != before.json()["updated_by"]
    assert after.headers["etag"] == before.headers["etag"]
