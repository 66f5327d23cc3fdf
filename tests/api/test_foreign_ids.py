"""Documents that somebody stored under an `_id` of another type than their class declares: reachable all the same."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any
from urllib.parse import quote

import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Timestamp
from pymongo.database import Database

from tests.api.servers import Server, User, live

Mongo = Database[dict[str, Any]]

#: Made anew for each test: the shared database keeps them for as long as it lasts.
IDS: dict[str, Any] = {
    "a text": lambda: f"key-{uuid.uuid4().hex}",
    "a text like an id": lambda: str(ObjectId()),
    "a text with a slash": lambda: f"a/b?c#{uuid.uuid4().hex}",
    "an integer": lambda: Int64(uuid.uuid4().int % 2**60),
    "a double": lambda: (uuid.uuid4().int % 2**40) + 0.5,
    "a decimal": lambda: Decimal128(f"{uuid.uuid4().int % 10**20}.5"),
    "a time": lambda: dt.datetime.fromtimestamp(uuid.uuid4().int % 10**9, dt.UTC),
    "a timestamp": lambda: Timestamp(uuid.uuid4().int % 2**31, 7),
    "a UUID": lambda: Binary.from_uuid(uuid.uuid4()),
    "bytes": lambda: b"\xff\xfe" + uuid.uuid4().bytes,
    "a document": lambda: {"year": 2026, "number": uuid.uuid4().int % 2**40},
}


def stored(mongo: Mongo, alice: User, document_id: Any, title: str) -> None:
    """A published post of alice's under this id, past the validator."""
    post = {"_id": document_id, "title": title, "status": "published", "author_id": ObjectId(alice.id)}
    mongo.get_collection("posts").insert_one(post, bypass_document_validation=True)


@pytest.mark.parametrize("case", IDS)
def test_a_document_under_an_id_of_another_type(
    server: Server, mongo: Mongo, alice: User, title: str, case: str
) -> None:
    """It is listed, pushed, got and deleted under one id; a change is refused, since the id would have to change."""
    with live(server) as socket:
        socket.subscribe("1", filter={"title": title})
        stored(mongo, alice, IDS[case](), title)
        event = socket.receive()
        (listed,) = alice.client.get("/posts", params={"title": title}).json()["items"]
        assert listed["id"] == event["id"] == event["document"]["id"]
        assert listed["id"].startswith("~")
        address = f"/posts/{quote(listed['id'], safe='')}"

        got = alice.client.get(address)
        assert (got.status_code, got.json()) == (200, listed)
        assert alice.client.head(address).headers["ETag"] == got.headers["ETag"] == event["etag"]
        assert alice.client.get(address, headers={"If-None-Match": got.headers["ETag"]}).status_code == 304
        changed = alice.client.patch(address, json={"body": "new"})
        assert changed.status_code == 422, changed.text
        assert changed.json()["errors"][0]["loc"] == ["body", "id"]
        assert alice.client.get(address).json() == listed

        assert alice.client.delete(address).status_code == 204
        assert (socket.receive()["op"], alice.client.get(address).status_code) == ("delete", 404)


@pytest.mark.parametrize(
    "text",
    [
        "~", "~nope", "~{", "~[1]", '~{"$gt":""}', '~{"a":{"$gt":""}}', '~{"$ref":"posts","$id":1}', "~1", "~ null",
        '~{"$regularExpression":{"pattern":"","options":""}}', '~{"$oid":"6b02c1e9c1e9111478612819"}', "~NaN",
        '~{"$numberDecimal":"x"}', '~{"$date":{"$numberLong":"x"}}', '~{"$binary":{"base64":"!","subType":"00"}}',
        '~{"$code":"x"}', "~" + "[" * 3_000, '~"' + "x" * 5_000 + '"', '~{"$undefined":true}', '~{"$uuid":"x"}',
    ],
)  # fmt: skip
def test_what_is_the_id_of_no_document(alice: User, text: str) -> None:
    """Operators, patterns, other spellings and nonsense are refused with the place, by every method."""
    address = f"/posts/{quote(text, safe='')}"
    for answer in (
        alice.client.get(address),
        alice.client.delete(address),
        alice.client.patch(address, json={"body": "x"}),
        alice.client.put(address, json={"title": "x"}, headers={"If-None-Match": "*"}),
    ):
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["loc"] == ["path", "id"]


def test_nobody_creates_a_document_under_such_an_id(alice: User) -> None:
    """Neither with PUT nor in a bulk."""
    text = f'~"{uuid.uuid4().hex}"'
    made = alice.client.put(f"/posts/{quote(text, safe='')}", json={"title": "x"}, headers={"If-None-Match": "*"})
    assert (made.status_code, made.json()["errors"][0]["loc"]) == (422, ["path", "id"])
    operation = {"op": "create", "id": text, "document": {"title": "x"}}
    answer = alice.client.post("/posts/bulk", json={"operations": [operation]})
    assert [result["status"] for result in answer.json()["results"]] == [422]


def test_the_rules_hold_for_it(mongo: Mongo, alice: User, bob: User, title: str) -> None:
    """Another user sees neither a draft, nor what is published may they delete."""
    published, draft = (f"key-{uuid.uuid4().hex}" for _ in range(2))
    stored(mongo, alice, published, title)
    post = {"_id": draft, "title": title, "status": "draft", "author_id": ObjectId(alice.id)}
    mongo.get_collection("posts").insert_one(post, bypass_document_validation=True)
    of_published, of_draft = (f"/posts/{quote(f'~{json.dumps(key)}', safe='')}" for key in (published, draft))
    assert (bob.client.get(of_published).status_code, bob.client.delete(of_published).status_code) == (200, 403)
    assert (bob.client.get(of_draft).status_code, bob.client.delete(of_draft).status_code) == (404, 404)
    assert alice.client.get(of_draft).status_code == 200
