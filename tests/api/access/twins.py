"""Two servers with one secret, on two databases that differ only in what a principal may not read.

Both databases have the same id, users and sessions, so that tokens, views, positions' signatures and cursors are the
same bytes. What is left that may differ is normalised: positions, request ids, the times of the API's own writes, and
the entity tags of documents written then, which are renamed in the order of their appearance. Everything else that the
principal receives must be equal.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from bson import ObjectId
from pymongo.database import Database

from documents import Position, PositionCodec
from tests.api.servers import SECRET, Live, Server

Stored = dict[str, Any]

#: The time of everything that is written past the API. Times of other years are those of the API's writes.
THEN = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
FAR = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
READER, MODERATOR, OTHER = (ObjectId(f"{n:024x}") for n in (0xA1, 0xA2, 0xA3))
USERS = {READER: ("reader", ["user"]), MODERATOR: ("mo", ["user", "moderator"]), OTHER: ("other", ["user"])}

_TIME = re.compile(r"20(?!01-)\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_POSITION = re.compile(r"\b[0-9a-f]{48}\b")
_TAG = re.compile(r'\\?"[A-Za-z0-9_-]{20}\\?"')
_REQUEST = re.compile(r'"request_id":"[^"]*"')
_IGNORED = ("date", "x-position", "x-request-id", "ratelimit", "retry-after")


@dataclass(repr=False)
class Twin:
    """One of the two: its server and database, and how its answers are read."""

    server: Server
    mongo: Database[Stored]
    clients: dict[ObjectId | None, httpx.Client]
    tokens: dict[ObjectId | None, str | None]
    tags: dict[str, str] = field(default_factory=dict)

    def normal(self, text: str) -> str:
        """What of a text must be equal in both worlds."""
        text = _REQUEST.sub("", _POSITION.sub("POSITION", _TIME.sub("TIME", text)))
        return _TAG.sub(lambda found: self._renamed(found.group()), text)

    def _renamed(self, tag: str) -> str:
        bare = tag.strip('\\"')
        return tag.replace(bare, self.tags.setdefault(bare, f"TAG {len(self.tags)}"))

    def ask(self, who: ObjectId | None, method: str, path: str, **options: Any) -> str:
        """Everything that the answer tells."""
        answer = self.clients[who].request(method, path, **options)
        # How well something is compressed depends on the times in it.
        ignored = (*_IGNORED, "content-length") if "content-encoding" in answer.headers else _IGNORED
        headers = [
            (name, "HTTP TIME" if name == "last-modified" and "2001" not in value else value)
            for name, value in answer.headers.multi_items()
            if not name.startswith(ignored)
        ]
        return self.normal(json.dumps([answer.status_code, headers]) + answer.text)

    def walk(self, who: ObjectId | None, path: str) -> str:
        """All pages of a list, with the cursors between them."""
        told, query = "", ""
        for _ in range(20):
            answer = self.clients[who].get(path + query)
            told += self.normal(answer.text)
            if answer.status_code != 200 or not answer.json()["has_next"]:
                return told
            query = f"&cursor={answer.json()['next_cursor']}"
        return told

    def snapshot_of_stream(self, who: ObjectId | None, path: str) -> str:
        """What an event stream says up to `ready`."""
        told = ""
        with self.clients[who].stream("GET", path, headers={"Accept": "text/event-stream"}) as answer:
            for line in answer.iter_lines():
                told += line + "\n"
                if line == "event: ready":
                    break
        return self.normal(told)

    def frames(self, connection: Live) -> list[str]:
        """The frames that a connection got of all writes so far."""
        connection.send(type="ping", id="sync", position=position_of(self.mongo))
        frames = [json.dumps(frame) for frame in connection.receive_until("pong")]
        # Views are told side by side, in no order between them.
        return [self.normal(text) for text in sorted(frames, key=lambda text: _TAG.sub("", _TIME.sub("", text)))]

    def events(self, lines: Iterator[str], beacon: str) -> list[str]:
        """What an event stream says up to the next event of `beacon`."""
        told: list[str] = []
        for line in lines:
            # Ids are positions, and heartbeats come when they come.
            if not line.startswith(("event: ", "data: ")) or line == "event: position" or '"as_of"' in line:
                continue
            told.append(self.normal(line))
            if '"op":"update"' in line and f'"id":"{beacon}"' in line:
                return told
        raise AssertionError("the stream ended")

    def begin(self) -> None:
        """The world as each example finds it."""
        self.tags.clear()
        for name in ("posts", "comments", "api_keys", "files"):
            self.mongo[name].delete_many({})
        self.mongo.sessions.delete_many({"user_id": OTHER, "_id": {"$ne": OTHER}})
        for id, (name, roles) in USERS.items():
            self.mongo.users.replace_one({"_id": id}, user(id, name, roles), upsert=True)
            session = {"_id": id, "user_id": id, "ends_at": FAR, **stamps()}
            self.mongo.sessions.replace_one({"_id": id}, session, upsert=True)


def position_of(mongo: Database[Stored]) -> str:
    """A position that includes every write to this database so far.

    Not taken from an answer: one from the cache reflects what it was read at, which is right and may be earlier.
    """
    database = mongo.headwater_meta.find_one({"_id": "database"})
    assert database is not None
    with mongo.client.start_session() as session:
        mongo.posts.find_one({}, session=session)
        moment = session.operation_time
    assert moment is not None
    return PositionCodec(SECRET.encode(), database["database_id"]).encode(Position.end_of(moment))


def stamps() -> Stored:
    """The bookkeeping of a document that was written past the API."""
    return {"created_at": THEN, "updated_at": THEN, "revision": 1}


def user(id: ObjectId, name: str, roles: list[str]) -> Stored:
    """A stored user."""
    email = f"{name}@example.org"
    return {
        "_id": id, "username": name, "username_key": name, "email": email, "email_key": email, "roles": roles,
        "is_active": True, "password_hash": "none", **stamps(),
    }  # fmt: skip


def post(id: ObjectId, status: str, word: str, author: ObjectId = OTHER) -> Stored:
    """A stored post that says `word`."""
    return {
        "_id": id, "title": f"title {word}", "slug": f"s-{id}", "body": f"{word} body", "tags": [word],
        "status": status, "author_id": author, **stamps(),
    }  # fmt: skip


def comment(id: ObjectId, status: str, word: str, post_id: ObjectId, author: ObjectId = OTHER) -> Stored:
    """A stored comment that says `word`."""
    return {"_id": id, "post_id": post_id, "body": word, "status": status, "author_id": author, **stamps()}
