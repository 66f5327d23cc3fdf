"""Claims of idempotency keys: a request that is sent again is not carried out again.

Source: draft-ietf-httpapi-idempotency-key-header-06. A claim is one document of `headwater_idempotency`, whose `_id` is
a hash of caller, method, path and key; so of several requests at once, on whatever workers, one gets it. It outlives a
crash: a request that is repeated after one finds the id under which the first attempt would have created its document.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bson import ObjectId
from pymongo import IndexModel

from documents.access import Principal
from documents.codec import Stored, decoded
from documents.database import Database, driver_errors
from documents.errors import Contended, Duplicate, InvalidInput, KeyHeld
from documents.filters import to_query
from documents.resources import Registry, utc_now

COLLECTION: Final = "headwater_idempotency"
#: How long an answer is kept.
KEPT = dt.timedelta(hours=24)
#: How long a claim holds without an answer. Whoever made it is taken for dead after that.
HELD = dt.timedelta(seconds=60)
#: Larger answers are not kept; what they were about still is.
MAX_ANSWER_BYTES = 256 * 1024
_ATTEMPTS = 20
_RUNNING, _RELEASED, _DONE = "running", "released", "done"


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt at a request, which holds its key."""

    id: str
    holder: ObjectId
    #: Counted from 1. From the second on, an earlier attempt may have written.
    attempt: int
    #: Under which the request creates its document, in each attempt.
    document_id: Any


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a request was answered with. `body` is None where it was too large to keep.

    `rights` are the caller's when it was given; `shows` names the documents that it shows, by collection and id.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None
    rights: str
    document_id: Any = None
    shows: Sequence[tuple[str, Any]] = ()


class Claims:
    """The claims of one database, shared by all of its workers. All methods raise DatabaseAway."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._registry = registry

    async def install(self) -> None:
        """Create the index that removes what has expired. May be repeated."""
        expiry = IndexModel("expires_at", name="expiry", expireAfterSeconds=0)
        with driver_errors():
            await self._database.latest(COLLECTION).create_indexes([expiry])

    async def claim(self, id: str, fingerprint: str, document_id: Any, *, repeatable: bool) -> Claim | KeptAnswer:
        """Claim the key `id` for a request whose content has `fingerprint`, or return the answer that was given.

        `document_id` is kept by the first claim and returned by all. A `repeatable` request may be attempted again
        when the holder has not answered within HELD; another one never is, because it may have been carried out.

        Raises InvalidInput when the key was used with another content, KeyHeld while another attempt holds it, and
        Contended. A cancellation may leave the claim behind, which then holds for HELD.
        """
        collection = self._database.latest(COLLECTION)
        for _ in range(_ATTEMPTS):
            now = utc_now()
            new = {
                "_id": id,
                "holder": ObjectId(),
                "state": _RUNNING,
                "attempt": 1,
                "fingerprint": fingerprint,
                "document_id": document_id,
                "claimed_at": now,
                "expires_at": now + KEPT,
            }
            try:
                with driver_errors():
                    await collection.insert_one(new)
                return _claim_of(new)
            except Duplicate:
                pass
            with driver_errors():
                stored = await collection.find_one({"_id": id})
            if stored is None:
                continue
            if stored["expires_at"] <= now:
                # The server removes expired documents once a minute.
                with driver_errors():
                    await collection.delete_one({"_id": id, "holder": stored["holder"]})
                continue
            if stored["fingerprint"] != fingerprint:
                raise key_reused()
            if stored["state"] == _DONE:
                return _answer_of(stored)
            if stored["state"] == _RUNNING:
                # Of another worker, whose clock may be ahead of this one's.
                left = min(HELD, stored["claimed_at"] + HELD - now)
                if left > dt.timedelta(0):
                    raise KeyHeld("a request with this key is being carried out", left)
                if not repeatable:
                    raise KeyHeld("a request with this key was interrupted, and may have been carried out", None)
            taken: dict[str, Any] = {"holder": ObjectId(), "state": _RUNNING, "claimed_at": now}
            with driver_errors():
                # Of those who find it abandoned, one matches.
                result = await collection.update_one(
                    {"_id": id, "holder": stored["holder"], "state": stored["state"]},
                    {"$set": taken, "$inc": {"attempt": 1}},
                )
            if result.matched_count:
                return _claim_of(stored | taken | {"attempt": stored["attempt"] + 1})
        raise Contended("the key kept changing hands; nothing was written")

    async def seed(self, id: str) -> ObjectId:
        """The seed of a key whose request creates documents under ids that follow from it. Raises Contended.

        It holds nothing: attempts at once, and repeated ones, find each other's documents by their ids.
        """
        collection = self._database.latest(COLLECTION)
        for _ in range(_ATTEMPTS):
            now = utc_now()
            seed = ObjectId()
            new = {"_id": id, "seed": seed, "claimed_at": now, "expires_at": now + KEPT}
            try:
                with driver_errors():
                    await collection.insert_one(new)
                return seed
            except Duplicate:
                pass
            with driver_errors():
                stored = await collection.find_one({"_id": id})
                if stored is not None and stored["expires_at"] > now:
                    return ObjectId(stored["seed"])
                await collection.delete_one({"_id": id, "expires_at": {"$lte": now}})
        raise Contended("the key kept changing hands; nothing was written")

    async def finish(self, claim: Claim, answer: KeptAnswer) -> None:
        """Keep `answer` for whoever repeats the request, unless another attempt holds the key by now."""
        body = answer.body if answer.body is not None and len(answer.body) <= MAX_ANSWER_BYTES else None
        kept = {
            "status": answer.status,
            "headers": dict(answer.headers),
            "body": body,
            "rights": answer.rights,
            "shows": [{"collection": name, "id": document_id} for name, document_id in answer.shows],
        }
        with driver_errors():
            await self._database.latest(COLLECTION).update_one(
                {"_id": claim.id, "holder": claim.holder}, {"$set": {"state": _DONE, "answer": kept}}
            )

    async def release(self, claim: Claim, *, forget: bool) -> None:
        """Let the request be attempted again at once: with `forget` as if it had never been made, else under the same
        document id, because this attempt may have written."""
        mine = {"_id": claim.id, "holder": claim.holder}
        collection = self._database.latest(COLLECTION)
        with driver_errors():
            if forget and claim.attempt == 1:
                await collection.delete_one(mine)
            else:
                await collection.update_one(mine, {"$set": {"state": _RELEASED}})

    async def readable(self, shown: Sequence[tuple[str, Any]], principal: Principal) -> bool:
        """Whether `principal` may read all of `shown` at present, and all of them are there."""
        for name in {name for name, _ in shown}:
            resource = self._registry.get(name)
            if resource is None:
                return False
            ids = [document_id for collection, document_id in shown if collection == name]
            rule = to_query(resource.rule("read", principal)[0])
            with driver_errors():
                found = (
                    await self._database.readable(name)
                    .find({"$and": [{"_id": {"$in": ids}}, rule]}, {"_id": 1})
                    .to_list(len(ids))
                )
            if {repr(decoded(document)["_id"]) for document in found} != {repr(document_id) for document_id in ids}:
                return False
        return True


def _claim_of(stored: Stored) -> Claim:
    return Claim(stored["_id"], stored["holder"], stored["attempt"], stored["document_id"])


def _answer_of(stored: Stored) -> KeptAnswer:
    kept = stored["answer"]
    shows = [(one["collection"], one["id"]) for one in kept["shows"]]
    return KeptAnswer(kept["status"], kept["headers"], kept["body"], kept["rights"], stored["document_id"], shows)


def key_reused() -> InvalidInput:
    """The error of a key that was used for another request."""
    msg = "the key was used with another body or query; use a new key"
    return InvalidInput.at("header", "Idempotency-Key", msg=msg, type="reused")
