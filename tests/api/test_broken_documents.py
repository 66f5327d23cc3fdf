"""Documents that the real mongosh breaks while validators only warn: listed, fetched, pushed, counted and repaired."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from documents import public_id, shapes
from tests.api.servers import Server, User, live, serving, wait_until
from tests.mongosh import database_url, mongosh

Mongo = Database[dict[str, Any]]
MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass(frozen=True)
class Kind:
    """A way to break a post: what is typed for which fields, the fields that are told of, and what repairs them."""

    typed: str
    invalid: tuple[str, ...]
    repair: dict[str, Any] = field(default_factory=lambda: {"body": "right"})


TITLE = {"title": "right"}
KINDS: dict[str, Kind] = {
    "missing": Kind("{title: DELETE}", ("title",), TITLE),
    "missing author": Kind("{author_id: DELETE}", ("author_id",)),
    # Nothing tells of what nobody declared.
    "extra": Kind("{extra: 'whispered'}", ()),
    "wrong type": Kind("{title: 5}", ("title",), TITLE),
    "wrong choice": Kind("{status: 'publishd'}", ("status",), {"status": "published"}),
    "huge": Kind("{body: 'x'.repeat(2000000)}", ("body",)),
    "nested wrong": Kind("{tags: ['broken', {a: 1}]}", ("tags",), {"tags": ["broken"]}),
    "null": Kind("{title: null}", ("title",), TITLE),
    "undefined": Kind("{title: undefined}", ("title",), TITLE),
    "text for a time": Kind("{created_at: '2026-01-01'}", ("created_at",)),
    "NaN": Kind("{revision: NaN}", ("revision",)),
    "decimal for an integer": Kind("{revision: NumberDecimal('1.5')}", ("revision",)),
    # In JSON it is not exact, but as an integer it breaks no rule of the collection.
    "integer beyond 2^53": Kind("{revision: NumberLong('9007199254740993')}", ()),
    "array for text": Kind("{title: ['b', 'a', 5]}", ("title",), TITLE),
    "text for an array": Kind("{tags: 'broken'}", ("tags",), {"tags": ["broken"]}),
    "dotted keys": Kind("{title: {'a.b': 1, '': 2}}", ("title",), TITLE),
    "deep": Kind("{body: deep(80)}", ("body",)),
    "binary": Kind("{title: BinData(0, 'aGk=')}", ("title",), TITLE),
    "UUID of three bytes": Kind("{title: BinData(4, 'aGlp')}", ("title",), TITLE),
    "undeclared UUID of two bytes": Kind("{extra: [BinData(4, 'aGk=')]}", ()),
    "regular expression": Kind("{title: /a.*b/i}", ("title",), TITLE),
    "least key": Kind("{title: MinKey()}", ("title",), TITLE),
    "timestamp": Kind("{updated_at: Timestamp(1767225600, 1)}", ("updated_at",)),
    "code": Kind("{title: Code('1 + 1')}", ("title",), TITLE),
    "author's name": Kind("{created_by: 'ann', updated_by: 7}", ("created_by", "updated_by")),
    "text for an id": Kind("{author_id: 'ann'}", ("author_id",)),
    "several": Kind("{title: 1, slug: 2, body: 3, tags: 4}", ("title", "slug", "body", "tags"),
                    {"title": "right", "slug": None, "body": "right", "tags": ["broken"]}),
    "wrong id": Kind("{_id: 42}", ("id",)),
    "a document as id": Kind("{_id: {a: 1}}", ("id",)),
    "UUID of two bytes as id": Kind("{_id: BinData(4, 'aGk=')}", ("id",)),
}  # fmt: skip
#: An id never changes; such a document is put right in mongosh.
WITHOUT_REPAIR = ("wrong id", "a document as id", "UUID of two bytes as id")
REPAIRABLE = [name for name in KINDS if name not in WITHOUT_REPAIR]
IDS = {name: f"{0xB0:08x}{number:016x}" for number, name in enumerate(KINDS)}

TYPED = """
const DELETE = Symbol();
function deep(levels) {{ return levels ? {{a: deep(levels - 1)}} : 'bottom'; }}
function put(id, number, fields) {{
  const post = {{_id: ObjectId(id), title: 'title ' + number, slug: 's-' + number, body: '', tags: ['broken'],
    status: 'published', author_id: ObjectId('{author}'), created_at: new Date(), updated_at: new Date(), revision: 1,
    ...fields}};
  for (const name of Object.keys(post)) if (post[name] === DELETE) delete post[name];
  db.posts.insertOne(post);
}}
"""


@dataclass
class Site:
    """A server whose validators warn, a moderator there, and all that a subscriber of theirs was told."""

    server: Server
    mongo: Mongo
    moderator: User
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)

    def id(self, kind: str) -> str:
        """The public id of the document of a kind."""
        return {
            "wrong id": '~{"$numberInt": "42"}',
            "a document as id": '~{"a": {"$numberInt": "1"}}',
            "UUID of two bytes as id": '~{"$binary": {"base64": "aGk=", "subType": "04"}}',
        }.get(kind, IDS[kind])

    def put_back(self, kind: str) -> None:
        """Break the document again, as it was."""
        stored = self.stored[kind]
        self.mongo["posts"].replace_one({"_id": stored["_id"]}, stored, upsert=True)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    server_settings: Callable[..., dict[str, str]],
    free_port: Callable[[], int],
    mongodb_url: str,
) -> Iterator[Site]:
    """Every kind, written in mongosh while somebody watches."""
    settings = server_settings(schema_action="warn")
    name = settings["HEADWATER_DATABASE"]
    with (
        serving(tmp_path_factory.mktemp("warn"), free_port(), settings) as server,
        MongoClient[dict[str, Any]](mongodb_url) as client,
        mongosh(database_url(mongodb_url, name), tmp_path_factory.mktemp("home")) as shell,
    ):
        site = Site(server, client[name], server.register("mo"))
        site.mongo["users"].update_one({"username": "mo"}, {"$set": {"roles": ["user", "moderator"]}})
        wait_until(lambda: "moderator" in site.moderator.client.get("/users/me").json()["roles"])
        with live(server, site.moderator.token, max_size=None) as watching:
            watching.subscribe("1")
            shell.run(TYPED.format(author=site.moderator.id))
            puts = [f"put('{IDS[kind]}', {n}, {how.typed});" for n, (kind, how) in enumerate(KINDS.items())]
            said = shell.run("\n".join(puts))
            assert "rror" not in said, said
            for kind in KINDS:
                event = watching.receive()
                assert (event["op"], event["id"]) == ("create", site.id(kind))
                site.events[kind] = event
        for stored in site.mongo["posts"].find():
            site.stored[
                next(kind for kind in KINDS if site.id(kind) == public_id(stored["_id"], shapes.Kind.OBJECT_ID))
            ] = stored
        yield site
        server.stop()
        server.check_log()


def marked(document: dict[str, Any]) -> tuple[str, ...]:
    """The fields that a document is said to be invalid in."""
    return tuple(document.get("invalid", ()))


def fine(answer: httpx.Response) -> httpx.Response:
    """An answer that is what was asked for."""
    assert answer.status_code == 200, answer.text[:500]
    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_pushed(site: Site, kind: str) -> None:
    """A subscriber was sent it with its mark, and REST answers the same, with the same tag."""
    event = site.events[kind]
    assert marked(event["document"]) == KINDS[kind].invalid
    answer = fine(site.moderator.client.get(f"/posts/{site.id(kind)}"))
    assert answer.json() == event["document"]
    assert answer.headers["etag"] == event["etag"]


@pytest.mark.parametrize("kind", REPAIRABLE)
def test_repaired(site: Site, kind: str) -> None:
    """A patch of the fields in question makes it right, and so does a replacement; a subscriber is told of both."""
    path, client = f"/posts/{site.id(kind)}", site.moderator.client
    replacement = {"title": "whole", "status": "published", "tags": ["broken"]}
    repairs: list[Callable[[], httpx.Response]] = [
        lambda: client.patch(path, content=json.dumps(KINDS[kind].repair), headers=MERGE),
        lambda: client.put(path, json=replacement),
    ]
    with live(site.server, site.moderator.token, max_size=None) as watching:
        watching.subscribe("1", filter={"id": site.id(kind)})
        try:
            for repair in repairs:
                answer = fine(repair())
                assert marked(answer.json()) == ()
                event = watching.receive()
                assert (event["op"], event["document"]) == ("update", answer.json())
                assert not KINDS[kind].invalid or set(event["changed"])
                assert fine(client.get(path)).json() == answer.json()
                site.put_back(kind)
                event = watching.receive()
                assert (event["op"], marked(event["document"])) == ("update", KINDS[kind].invalid)
        finally:
            site.put_back(kind)


def test_patch_that_leaves_a_field_wrong(site: Site) -> None:
    """It is refused with the places of the others, and changes nothing."""
    client, path = site.moderator.client, f"/posts/{IDS['several']}"
    before = fine(client.get(path)).json()
    answer = client.patch(path, json={"title": "right"})
    assert answer.status_code == 422
    assert {tuple(error["loc"]) for error in answer.json()["errors"]} == {
        ("body", "slug"), ("body", "body"), ("body", "tags")
    }  # fmt: skip
    assert fine(client.get(path)).json() == before


@pytest.mark.parametrize(
    "sort", ["", "title", "-title", "revision", "-revision", "created_at", "updated_at,-title", "status", "author_id"]
)
def test_walks(site: Site, sort: str) -> None:
    """A list in any order, page by page, has each of them once."""
    found: list[str] = []
    query: dict[str, str] = {"limit": "3"} | ({"sort": sort} if sort else {})
    while True:
        page = fine(site.moderator.client.get("/posts", params=query)).json()
        for document in page["items"]:
            kind = next(kind for kind in KINDS if site.id(kind) == document["id"])
            assert marked(document) == KINDS[kind].invalid, kind
            found.append(document["id"])
        if not page["has_next"]:
            break
        query["cursor"] = page["next_cursor"]
    assert sorted(found) == sorted(map(site.id, KINDS))


READS = [
    "?search=title", "?search=x", "?tags=broken", "?title[gt]=a", "?title[exists]=false", "?status=publishd",
    '?filter={"title":{"$contains":"a"}}', '?filter={"revision":{"$gte":1}}', '?filter={"tags":{"$size":2}}',
    '?filter={"created_by":{"$startswith":"user:"}}', "?expand=author_id", "?fields=title", "?count=exact",
    "?page=2&page_size=5", "/distinct/title", "/distinct/tags?count=exact", "/distinct/revision", "/distinct/status",
    "/distinct/created_at", "/distinct/id", "/reports/tags", "/reports/tags?since=2020-01-01T00:00:00Z",
]  # fmt: skip


@pytest.mark.parametrize("query", READS)
def test_reads(site: Site, query: str) -> None:
    """Whatever else can be asked over them is answered."""
    refused = query == "?status=publishd"  # no such choice
    answer = site.moderator.client.get(f"/posts{query}")
    assert answer.status_code == (422 if refused else 200), answer.text[:500]


def test_selected_fields(site: Site) -> None:
    """The mark is of what was selected."""
    (shown,) = fine(site.moderator.client.get(f"/posts?id={IDS['several']}&fields=title,status")).json()["items"]
    assert shown == {"id": IDS["several"], "title": 1, "status": "published", "invalid": ["title"]}
    (shown,) = fine(site.moderator.client.get(f"/posts?id={IDS['several']}&fields=status")).json()["items"]
    assert shown == {"id": IDS["several"], "status": "published"}


def test_exports(site: Site) -> None:
    """A line for each, marked in both forms."""
    client = site.moderator.client
    lines = fine(client.get("/posts", headers={"Accept": "application/x-ndjson"})).text.splitlines()
    assert {d["id"]: marked(d) for d in map(json.loads, lines)} == {site.id(k): how.invalid for k, how in KINDS.items()}
    table = fine(client.get("/posts?sort=-title", headers={"Accept": "text/csv"})).text
    assert table.splitlines()[0].endswith(",revision,invalid")
    assert '"[""title"",""slug"",""body"",""tags""]"' in table


def test_live_list(site: Site) -> None:
    """A snapshot has them all, over a socket and as server-sent events."""
    with live(site.server, site.moderator.token, max_size=None) as socket:
        socket.send(type="subscribe", id="1", resource="posts", snapshot=True, sort=["-title"])
        frames = socket.receive_until("ready")
    items = [item["document"] for frame in frames if frame["type"] == "snapshot" for item in frame["items"]]
    assert {d["id"]: marked(d) for d in items} == {site.id(k): how.invalid for k, how in KINDS.items()}
    with site.moderator.client.stream("GET", "/posts?fields=title", headers={"Accept": "text/event-stream"}) as answer:
        text = ""
        for line in answer.iter_lines():
            text += line
            if line == "event: ready":
                break
    assert all(site.id(kind) in text.replace("\\", "") for kind in KINDS)


def test_what_others_are_told(site: Site) -> None:
    """Of fields that the caller does not see, nothing: neither their names nor that one is wrong."""
    comment = {"_id": ObjectId(), "post_id": ObjectId(IDS["extra"]), "body": "x", "status": "published"}
    comment |= {"author_id": ObjectId(site.moderator.id), "post_hidden": 0, "secret": "s"}
    site.mongo["comments"].insert_one(comment)
    path = f"/comments/{comment['_id']}"
    assert marked(fine(site.moderator.client.get(path)).json()) == ("post_hidden",)
    other = fine(site.server.client().get(path)).json()
    assert other == {
        "id": str(comment["_id"]), "post_id": IDS["extra"], "body": "x", "status": "published",
        "author_id": site.moderator.id,
    }  # fmt: skip
    # The server puts right what it alone sets.
    repaired = fine(site.moderator.client.patch(path, json={"body": "y"})).json()
    assert (repaired["post_hidden"], marked(repaired)) == (False, ())


def test_counted_and_logged(site: Site) -> None:
    """Each is named once in the log, with its fields and without what stands in them."""
    wait_until(lambda: site.id("several") in site.server.log)
    for kind, how in KINDS.items():
        lines = [
            line for line in site.server.log.splitlines() if f"{IDS[kind]}'" in line and "breaks the rules" in line
        ]
        # What was put back is the revision that it was; what is extra stays in the next one.
        expected = {"extra": 2}.get(kind, 1 if how.invalid else 0)
        assert kind in WITHOUT_REPAIR or 0 < len(lines) <= expected or not how.invalid, (kind, lines)
    assert "'extra'" in site.server.log
    assert "whispered" not in site.server.log
    counted = httpx.get(f"{site.server.url}/metrics").text
    assert 'headwater_broken_documents_total{resource="posts"}' in counted


@pytest.mark.parametrize("kind", KINDS)
def test_author_of_a_repair(site: Site, kind: str) -> None:
    """Who repairs a post is named, also where nobody's name or somebody's nonsense stood."""
    if kind in WITHOUT_REPAIR:
        answer = site.moderator.client.put(f"/posts/{site.id(kind)}", json={"title": "whole"})
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "id"])
        return
    try:
        path = f"/posts/{site.id(kind)}"
        repaired = fine(site.moderator.client.put(path, json={"title": "whole", "status": "published"})).json()
        assert (repaired.get("created_by"), repaired["updated_by"]) == (None, f"user:{site.moderator.id}")
        assert repaired["author_id"] == site.moderator.id
    finally:
        site.put_back(kind)
