"""The matrix's world: one client for each persona, and documents of every class in each kind."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
from bson import ObjectId
from pymongo.database import Database

from documents import Registry
from tests.api.access.twins import position_of
from tests.api.servers import SECRET, Server, wait_until

Stored = dict[str, Any]
FAR = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


@dataclass
class Persona:
    """Somebody who tries everything."""

    name: str
    client: httpx.Client
    id: str | None = None
    roles: frozenset[str] = frozenset()
    token: str | None = None
    key: str | None = None

    @property
    def auth_message(self) -> dict[str, Any] | None:
        """How an open socket is told who this is."""
        shown = {"token": self.token, "api_key": self.key}
        return (
            {"type": "auth"} | {name: value for name, value in shown.items() if value} if any(shown.values()) else None
        )


@dataclass
class Subject:
    """A document that is tried. Its words occur nowhere else: who hears one has seen the document.

    `public_word` stands in what everybody sees who may read the document, `secret_word` in what only admins do (or, in
    classes without such fields, in the document as well).
    """

    collection: str
    kind: str
    document: Stored
    public_word: str
    secret_word: str
    search_word: str = ""

    @property
    def id(self) -> str:
        """As it stands in addresses."""
        return str(self.document["_id"])

    @property
    def path(self) -> str:
        """The address of its class."""
        return f"/{self.collection.replace('_', '-')}"


@dataclass
class World:
    """Personas and subjects on one server."""

    server: Server
    mongo: Database[Stored]
    registry: Registry
    personas: dict[str, list[Persona]] = field(default_factory=dict)
    subjects: dict[tuple[str, str], Subject] = field(default_factory=dict)
    beacons: dict[str, Stored] = field(default_factory=dict)
    _turns: int = 0

    def stored(self, subject: Subject) -> Stored | None:
        """The document as it is now."""
        return self.mongo[subject.collection].find_one({"_id": subject.document["_id"]})

    def restore(self, subject: Subject) -> None:
        """Bring the document back as it was."""
        id = subject.document["_id"]
        self.mongo[subject.collection].replace_one({"_id": id}, subject.document, upsert=True)
        if subject.collection == "files":
            self.mongo["files.files"].replace_one({"_id": id}, {"length": 0, "chunkSize": 261_120}, upsert=True)

    def remove(self, collection: str, id: str) -> None:
        """Delete a document past the API."""
        self.mongo[collection].delete_one({"_id": ObjectId(id)})
        if collection == "files":
            self.mongo["files.files"].delete_one({"_id": ObjectId(id)})
            self.mongo["files.chunks"].delete_many({"files_id": ObjectId(id)})

    def count(self, collection: str) -> int:
        """How many documents there are."""
        return self.mongo[collection].count_documents({})

    def touch(self, subject: Subject) -> None:
        """Change what every reader sees of a document, and none of its words."""
        self._change(subject.collection, subject.document)

    def signal(self, collection: str) -> None:
        """Change a document that everybody may read."""
        self._change(collection, self.beacons[collection])

    def _change(self, collection: str, document: Stored) -> None:
        self._turns += 1
        name, value = {
            "posts": ("tags", [f"turn {self._turns}"]),
            "comments": ("post_id", ObjectId()),
            "users": ("username", f"{document.get('username')}.{self._turns}"),
            "sessions": ("ends_at", FAR + dt.timedelta(seconds=self._turns)),
            "api_keys": ("scopes", [f"turn:{self._turns}"]),
            "files": ("size", self._turns),
        }[collection]
        self.mongo[collection].update_one({"_id": document["_id"]}, {"$set": {name: value}})

    def refer_to(self, subject: Subject) -> Stored:
        """A new comment on a post, by the post's author. Others may read it unless the post is hidden."""
        comment = _comment("published", subject.document["author_id"])
        return _insert(self, "comments", comment | {"post_id": subject.document["_id"]})

    def position(self) -> str:
        """A position that includes every write so far."""
        return position_of(self.mongo)

    def secret_values(self, subject: Subject) -> dict[str, Any]:
        """Values of the document's fields that only admins may see, by name."""
        visible = self.registry[subject.collection].visible(frozenset({"user"})).keys()
        names = self.registry[subject.collection].visible(frozenset({"admin"})).keys() - visible
        values = {name: subject.document.get(name) for name in names & {"email", "is_active"}}
        return {name: value for name, value in values.items() if value is not None}

    def new_body(self, subject: Subject) -> dict[str, Any]:
        """A whole new content for the document."""
        if subject.collection == "posts":
            status = subject.document["status"]
            return {"title": "new", "slug": f"new-{uuid.uuid4().hex}", "status": status}
        if subject.collection == "api_keys":
            return {"name": "new", "scopes": ["posts:read"]}
        return {"post_id": str(ObjectId()), "body": "new", "status": subject.document["status"]}

    def patch(self, subject: Subject) -> dict[str, Any]:
        """A change of the document."""
        return {"roles": ["user", "moderator"]} if subject.collection == "users" else {"body": "new"}


def build(server: Server, mongo: Database[Stored], registry: Registry) -> World:
    """Register the personas and put the documents in place."""
    world = World(server, mongo, registry)
    suffix = uuid.uuid4().hex[:6]
    users = {name: server.register_for_hours(f"{name}.{suffix}") for name in ("user", "other", "moderator", "gone")}
    mongo.users.update_one({"_id": ObjectId(users["moderator"].id)}, {"$set": {"roles": ["user", "moderator"]}})
    mongo.users.update_one({"_id": ObjectId(users["gone"].id)}, {"$set": {"is_active": False}})
    admin = mongo.users.find_one({"username": "admin"})
    assert admin is not None
    tokens = {name: user.token for name, user in users.items()} | {"admin": server.login("admin")}
    ids = {name: user.id for name, user in users.items()} | {"admin": str(admin["_id"])}
    roles = {"user": {"user"}, "other": {"user"}, "moderator": {"user", "moderator"}, "admin": set(admin["roles"])}
    world.personas["anonymous"] = [Persona("anonymous", server.client())]
    for name, held in roles.items():
        client = server.client(tokens[name])
        world.personas[name] = [Persona(name, client, ids[name], frozenset(held), tokens[name])]
    scopes = [f"{name}:read" for name in ("posts", "comments", "users", "files")]
    key = server.client(tokens["user"]).post("/api-keys", json={"name": "reads only", "scopes": scopes}).json()["key"]
    world.personas["key"] = [Persona("key", server.client(key=key), ids["user"], frozenset({"user"}), key=key)]
    claims = jwt.decode(tokens["user"], SECRET, algorithms=["HS256"], audience="headwater-api")
    revoked = server.sign_in(f"user.{suffix}")
    server.client().post("/auth/logout", json={"refresh_token": revoked["refresh_token"]})
    dead = {
        "expired token": jwt.encode(claims | {"exp": claims["iat"] - 1}, SECRET, algorithm="HS256"),
        "revoked session": revoked["access_token"],
        "deactivated user": tokens["gone"],
    }
    world.personas["dead"] = [
        Persona(name, server.client(token), ids["user"], frozenset({"user"}), token) for name, token in dead.items()
    ]
    for persona in world.personas["dead"]:
        wait_until(lambda client=persona.client: client.get("/users/me").status_code == 401)  # type: ignore[misc]
    moderator = world.personas["moderator"][0]
    wait_until(lambda: "moderator" in moderator.client.get("/users/me").json()["roles"])
    _documents(world, ObjectId(ids["user"]), ObjectId(users["gone"].id))
    return world


def _documents(world: World, user: ObjectId, somebody: ObjectId) -> None:
    for status in ("draft", "published", "hidden"):
        _add(world, "posts", status, _post(status, user), search=True)
        if status != "draft":
            _add(world, "comments", status, _comment(status, user), search=True)
    for collection in ("posts", "comments"):
        document = (_post if collection == "posts" else _comment)("published", somebody)
        world.beacons[collection] = _insert(world, collection, document)
    world.beacons["users"] = _insert(world, "users", _user())
    own = world.mongo.users.find_one({"_id": user})
    assert own is not None
    world.subjects["users", "own"] = Subject("users", "own", own, own["username"], own["email"])
    _add(world, "users", "other's", _user())
    for kind, owner in (("own", user), ("other's", somebody)):
        _add(world, "sessions", kind, {"user_id": owner, "ends_at": FAR})
        key = {"name": _word(), "user_id": owner, "scopes": ["posts:read"], "key_hash": uuid.uuid4().hex}
        _add(world, "api_keys", kind, key)
        values = {"filename": _word(), "content_type": "a/b", "size": 0, "sha256": uuid.uuid4().hex * 2}
        _add(world, "files", kind, values | {"owner_id": owner})
        world.restore(world.subjects["files", kind])  # with its content


def _add(world: World, collection: str, kind: str, document: Stored, *, search: bool = False) -> None:
    stored = _insert(world, collection, document)
    texts = [value for name, value in stored.items() if name in ("title", "username", "name", "filename", "body")]
    public = texts[0] if texts else str(stored["_id"])
    secret = stored.get("email") or stored.get("body", public).split()[0]
    world.subjects[collection, kind] = Subject(
        collection, kind, stored, public, secret, stored["body"].split()[-1] if search else "word"
    )


def _insert(world: World, collection: str, document: Stored) -> Stored:
    now = FAR
    # The greatest ids, so that a walk from the end of the list is short.
    id = ObjectId("ff" * 4 + uuid.uuid4().hex[:16])
    stored = {"_id": id} | document | {"created_at": now, "updated_at": now, "revision": 1}
    world.mongo[collection].insert_one(stored)
    # As it comes back from the database, to be compared with what is there later.
    return world.mongo[collection].find_one({"_id": id}) or {}


def _word() -> str:
    return f"w{uuid.uuid4().hex[:15]}"


def _post(status: str, author: ObjectId) -> Stored:
    title, word = _word(), _word()
    return {
        "title": title, "slug": _word(), "body": f"{word} {_word()}", "tags": [f"{title} {word}"], "status": status,
        "author_id": author,
    }  # fmt: skip


def _comment(status: str, author: ObjectId) -> Stored:
    return {"post_id": ObjectId(), "body": f"{_word()} {_word()}", "status": status, "author_id": author}


def _user() -> Stored:
    name, email = _word(), f"{_word()}@example.org"
    return {
        "username": name, "username_key": name, "email": email, "email_key": email, "roles": ["user"],
        "is_active": True, "password_hash": "none",
    }  # fmt: skip
