"""Nothing leaks: to a principal, two databases that differ only in what it may not read are one and the same.

The stated exceptions are unique values: a slug or an id that is taken is refused whoever has it. So the principals
choose their own.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo import MongoClient

from api import Tokens, secret_key
from tests.api.access.twins import FAR, MODERATOR, OTHER, READER, THEN, USERS, Stored, Twin, comment, post, stamps, user
from tests.api.conftest import Starter
from tests.api.servers import SECRET, live, serving

#: An example takes about half a second: some in the suite, many in `make fuzz`.
EXAMPLES = 20 if settings.default is None or settings.default.max_examples <= 100 else 1_000


def slots(kind: int, count: int = 3) -> list[ObjectId]:
    """Ids of documents of one kind."""
    return [ObjectId(f"{kind:012x}{n:012x}") for n in range(count)]


VISIBLE, HIDDEN, OWN = slots(1), slots(2), slots(3)
#: A draft, or no post at all, that comments of the reader's own refer to.
DRAFT = slots(6)[0]
COMMENTS, BEACON = slots(4), ObjectId("f" * 24)
WORDS = ("alpha", "beta", "gamma")
NO_ONE = ObjectId("e" * 24)

Operation = Callable[[list[Twin], "Who"], list[str]]
Who = ObjectId | None


@pytest.fixture(scope="module")
def twins(
    tmp_path_factory: pytest.TempPathFactory,
    server_settings: Starter,
    mongodb_url: str,
    free_port: Callable[[], int],
) -> Iterator[list[Twin]]:
    """Two servers that must look alike."""
    tokens = Tokens([secret_key(SECRET.encode())], dt.timedelta(hours=12))
    shown: dict[Who, str | None] = {None: None} | {id: tokens.issue(str(id), str(id), FAR)[0] for id in USERS}
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(MongoClient[Stored](mongodb_url, tz_aware=True))
        worlds: list[Twin] = []
        database_id = uuid.uuid4().hex
        for _ in range(2):
            configured = server_settings(rate_limit="1000000/minute")
            mongo = client[configured["HEADWATER_DATABASE"]]
            mongo.headwater_meta.insert_one({"_id": "database", "database_id": database_id, "created_at": THEN})
            mongo.users.insert_one(user(NO_ONE, "boss", ["user", "admin"]))
            server = stack.enter_context(serving(tmp_path_factory.mktemp("twin"), free_port(), configured))
            worlds.append(Twin(server, mongo, {who: server.client(shown[who]) for who in shown}, shown))
        yield worlds


def rest(method: str, path: str, **options: Any) -> Operation:
    """The same request in both worlds."""
    return lambda twins, who: [twin.ask(who, method, path, **options) for twin in twins]


def walk(path: str) -> Operation:
    """The same list, page by page."""
    return lambda twins, who: [twin.walk(who, path) for twin in twins]


def stream(path: str) -> Operation:
    """The same event stream, up to `ready`."""
    return lambda twins, who: [twin.snapshot_of_stream(who, path) for twin in twins]


def direct(collection: str, *documents: Stored | None) -> Operation:
    """A write past the API, which may differ: the documents are put in place, or deleted where None."""

    def write(twins: list[Twin], _: Who) -> list[str]:
        for twin, document in zip(twins, documents, strict=True):
            if document is not None:
                twin.mongo[collection].replace_one({"_id": document["_id"]}, document, upsert=True)
        return []

    return write


def removed(collection: str, id: ObjectId, *worlds: bool) -> Operation:
    """A deletion past the API in some of the worlds."""

    def delete(twins: list[Twin], _: Who) -> list[str]:
        for twin, chosen in zip(twins, worlds, strict=True):
            if chosen:
                twin.mongo[collection].delete_one({"_id": id})
        return []

    return delete


word, both = st.sampled_from(WORDS), st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS))
unseen = st.sampled_from(("draft", "hidden"))
any_post = st.sampled_from([*VISIBLE, *HIDDEN, *OWN])


def _unseen_post(id: ObjectId, words: tuple[str, str], status: str) -> Operation:
    return direct("posts", *(post(id, status, w) for w in words))


def _unseen_comment(id: ObjectId, words: tuple[str, str], on: ObjectId) -> Operation:
    return direct("comments", *(comment(id, "hidden", w, on) for w in words))


def _address(words: tuple[str, str]) -> Operation:
    return direct("users", *(user(OTHER, "other", ["user"]) | {"email": f"{w}@example.org"} for w in words))


def _roles(words: tuple[str, str]) -> Operation:
    return direct("users", *(user(OTHER, "other", ["user", *["moderator"][: len(w) - 4]]) for w in words))


def _session(first: bool) -> Operation:
    made = {"user_id": OTHER, "ends_at": FAR, **stamps()}
    return direct("sessions", *({"_id": ObjectId(), **made} if chosen else None for chosen in (first, not first)))


def _key(words: tuple[str, str]) -> Operation:
    made = {"user_id": OTHER, "scopes": ["posts:read"], "key_hash": "none", **stamps()}
    return direct("api_keys", *({"_id": HIDDEN[0], "name": w, **made} for w in words))


def _file(words: tuple[str, str]) -> Operation:
    made = {"content_type": "text/plain", "size": 1, "sha256": "0" * 64, "owner_id": OTHER, **stamps()}
    return direct("files", *({"_id": HIDDEN[0], "filename": w, **made} for w in words))


def _seen_post(id: ObjectId, w: str) -> Operation:
    return direct("posts", post(id, "published", w), post(id, "published", w))


def _seen_comment(id: ObjectId, w: str, on: ObjectId) -> Operation:
    return direct("comments", *(_comment(id, w, on) for _ in range(2)))


def _comment(id: ObjectId, w: str, on: ObjectId) -> Stored:
    """A comment as the API stores it. One on a draft or on no post at all is for its author alone."""
    if on != DRAFT:
        return comment(id, "published", w, on)
    return comment(id, "published", w, on, READER) | {"post_hidden": True}


_in_some = (st.booleans(), st.booleans())
#: What a reader must not notice: it differs between the worlds. A post that was visible is taken out of sight in both.
hidden_writes = st.one_of(
    st.builds(_unseen_post, st.sampled_from([*HIDDEN, *HIDDEN, *VISIBLE]), both, unseen),
    st.builds(lambda id, *worlds: removed("posts", id, *worlds), st.sampled_from(HIDDEN), *_in_some),
    st.builds(lambda id: removed("posts", id, True, True), st.sampled_from(HIDDEN)),
    st.builds(lambda words: _unseen_post(DRAFT, words, "draft"), both),
    st.builds(lambda *worlds: removed("posts", DRAFT, *worlds), *_in_some),
    st.builds(_unseen_comment, st.sampled_from(COMMENTS), both, any_post),
    st.builds(lambda id, *worlds: removed("comments", id, *worlds), st.sampled_from(COMMENTS), *_in_some),
)
#: What moderators must not notice either: what only admins see of users, and what belongs to others.
private_writes = st.one_of(
    st.builds(_address, both), st.builds(_roles, both), st.builds(_session, st.booleans()), st.builds(_key, both)
)
#: A moderator reads all files.
_files = st.builds(_file, both)
#: What everybody notices, the same in both.
visible_writes = st.one_of(
    st.builds(_seen_post, st.sampled_from(VISIBLE), word),
    st.builds(lambda id: removed("posts", id, True, True), st.sampled_from(VISIBLE)),
    st.builds(_seen_comment, st.sampled_from(slots(5)), word, st.sampled_from([BEACON, DRAFT])),
)


def _queries(name: str, w: str, id: ObjectId) -> list[str]:
    filters: list[dict[str, Any]] = [
        {}, {"status": "hidden"}, {"body": {"$contains": w}}, {"id": str(id)}, {"author_id": str(OTHER)},
        {"$nor": [{"status": "published"}]}, {"$or": [{"body": {"$startswith": w}}, {"id": {"$gt": str(id)}}]},
    ]  # fmt: skip
    queries = [f"filter={json.dumps(one)}&count=exact" for one in filters]
    if name == "posts":
        queries += [f"tags={w}", f"slug=s-{id}&count=exact", "sort=-title&limit=2&count=exact", "sort=tags"]
    return [*queries, f"search={w}", "sort=body&limit=1", "page=2&page_size=1", "fields=body", "password_hash=x"]


def _reading(name: str, w: str, id: ObjectId, on: ObjectId) -> list[Operation]:
    lists = [rest("GET", f"/{name}?{query}") for query in _queries(name, w, id)]
    lists += [rest("GET", f"/{name}?{query}", headers={"Accept": "text/csv"}) for query in (f"search={w}", "sort=-id")]
    lists += [rest("GET", f"/{name}?sort=body", headers={"Accept": "application/x-ndjson"})]
    lists += [
        walk(f"/{name}?sort=body,-id&limit=1"),
        stream(f"/{name}?search={w}&sort=-id"),
        stream(f"/{name}?limit=1"),
    ]
    lists += [rest("GET", f"/{name}/distinct/body"), rest("GET", f"/{name}/distinct/status?search={w}&count=exact")]
    ones = [rest(method, f"/{name}/{id}") for method in ("GET", "HEAD", "DELETE")]
    expanded = [
        rest("GET", "/comments?expand=post_id.author_id"),
        rest("GET", f"/comments?post_id={on}&expand=post_id"),
    ]
    return [*lists, *ones, *expanded, rest("GET", "/posts/reports/tags"), rest("GET", "/posts/reports/tags?most=1")]


def _writing(w: str, id: ObjectId) -> list[Operation]:
    url = f"/posts/{id}"
    body = {"title": w, "slug": f"own-{id}", "status": "published", "body": w}
    kinds: list[tuple[str, Any]] = [
        ("merge-patch", {"body": w}),
        ("json-patch", [{"op": "test", "path": "/body", "value": f"{w} body"}]),
        ("json-patch", [{"op": "add", "path": "/tags/-", "value": w}]),
        ("json-patch", [{"op": "copy", "from": "/title", "path": "/body"}]),
        ("vnd.headwater.update", {"$push": {"tags": w}}),
    ]  # fmt: skip
    patches = [
        rest("PATCH", url, content=json.dumps(patch), headers={"Content-Type": f"application/{kind}+json"})
        for kind, patch in kinds
    ]
    conditional = [rest(method, url, json=body, headers={"If-Match": '"x"'}) for method in ("PUT", "PATCH")]
    return [*patches, *conditional, rest("PUT", url, json=body)]


reads = st.builds(
    _reading, st.sampled_from(("posts", "comments")), word, st.sampled_from([*VISIBLE, *HIDDEN, *COMMENTS]), any_post
).flatmap(st.sampled_from)
_USERS_READS = (
    [
        rest("GET", f"/users?{query}")
        for query in ("", "count=exact", "sort=-username", "email=alpha@example.org", "sort=email", "roles=moderator",
                      f"filter={json.dumps({'id': str(OTHER)})}", "fields=username", "fields=email", "is_active=true")
    ]
    + [rest(method, f"/users/{OTHER}") for method in ("GET", "HEAD", "PATCH", "DELETE")]
    + [stream("/users"), rest("GET", "/posts?expand=author_id"), rest("GET", "/api-keys")]
    + [rest("GET", f"/files{path}") for path in ("", "?count=exact", f"/{HIDDEN[0]}", f"/{HIDDEN[0]}/content")]
    + [walk("/users?limit=1&sort=-id")]
)  # fmt: skip
users_reads = st.sampled_from(_USERS_READS)
writes = st.builds(_writing, word, any_post).flatmap(st.sampled_from)
own_writes = st.builds(
    lambda id, w, status: rest(
        "PUT", f"/posts/{id}", json={"title": w, "slug": f"own-{id}", "status": status, "body": w},
        headers={"If-None-Match": "*"},
    ),
    st.sampled_from(OWN), word, st.sampled_from(("draft", "published", "hidden")),
)  # fmt: skip

common = st.one_of(private_writes, visible_writes, reads, users_reads, writes, own_writes)
stories = st.lists(st.one_of(hidden_writes, hidden_writes, _files, common), min_size=4, max_size=12)
stories_of_moderators = st.lists(st.one_of(private_writes, private_writes, common), min_size=4, max_size=12)

FILTERS: dict[str, dict[str, Any]] = {
    "posts": {},
    "comments": {"body": {"$in": ["alpha", "beta"]}},
    "users": {},
    "sessions": {},
    "api_keys": {},
}


def _differ(twins: list[Twin]) -> None:
    """What each world begins with besides: one thing that only it has, and one that says something else there."""
    twins[1].mongo.posts.insert_many([post(NO_ONE, "hidden", "alpha"), post(DRAFT, "draft", "alpha")])
    for n, twin in enumerate(twins):
        twin.mongo.posts.insert_many(
            [post(HIDDEN[n], ("draft", "hidden")[n], "alpha"), post(HIDDEN[2], "hidden", WORDS[n])]
        )
        twin.mongo.comments.insert_many(
            [comment(COMMENTS[n], "hidden", "alpha", VISIBLE[0]), comment(COMMENTS[2], "hidden", WORDS[n], HIDDEN[n])]
        )


def tell(twins: list[Twin], who: Who, story: list[Operation]) -> None:
    """Tell a story in both worlds; after each step all that the principal has received must be equal."""
    for twin in twins:
        twin.begin()
        for n, id in enumerate(VISIBLE[:2]):
            twin.mongo.posts.insert_one(post(id, "published", WORDS[n]))
        twin.mongo.posts.insert_one(post(BEACON, "published", "beacon"))
        twin.mongo.comments.insert_one(_comment(slots(5)[0], "alpha", DRAFT))
    if who != MODERATOR:
        _differ(twins)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(live(twin.server, twin.tokens[who])) for twin in twins]
        streams = [
            stack.enter_context(twin.clients[who].stream("GET", "/posts", headers={"Accept": "text/event-stream"}))
            for twin in twins
        ]
        for number, (name, filter) in enumerate(FILTERS.items()):
            for connection in connections:
                connection.send(type="subscribe", id=str(number), resource=name, filter=filter)
        for number, step in enumerate([lambda _twins, _who: [], *story]):
            answers = step(twins, who)
            assert len(set(answers)) <= 1, f"step {number} answers differently"
            frames = [twin.frames(connection) for twin, connection in zip(twins, connections, strict=True)]
            assert frames[0] == frames[1], f"step {number} sends different frames"
        for twin in twins:
            twin.mongo.posts.update_one({"_id": BEACON}, {"$set": {"body": "end"}})
        ends = [twin.events(answer.iter_lines(), str(BEACON)) for twin, answer in zip(twins, streams, strict=True)]
        assert ends[0] == ends[1]


@pytest.mark.parametrize("who", [None, READER], ids=["anonymous", "reader"])
def test_every_question(twins: list[Twin], who: Who) -> None:
    """Each of them once, about what is in one world only and about what differs: no answer tells it."""
    story = [*_USERS_READS]
    for name, ids in (("posts", HIDDEN), ("comments", COMMENTS)):
        story += _reading(name, "alpha", ids[0], HIDDEN[2])
        story += _reading(name, "beta", ids[2], HIDDEN[1])
    for id in (*HIDDEN, VISIBLE[0]):
        story += _writing("alpha", id)
    tell(twins, who, story)


@pytest.mark.property
@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES)
@given(story=stories, who=st.sampled_from((None, READER)))
def test_what_readers_cannot_see(twins: list[Twin], who: Who, story: list[Operation]) -> None:
    """Drafts, hidden posts and comments, and whatever happens to them, make no difference to others."""
    tell(twins, who, story)


@pytest.mark.property
@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES // 2)
@given(story=stories_of_moderators)
def test_what_moderators_cannot_see(twins: list[Twin], story: list[Operation]) -> None:
    """Other people's addresses, roles, sessions and keys make no difference to a moderator."""
    tell(twins, MODERATOR, story)
