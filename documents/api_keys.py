"""API keys: made once, shown once, and recognised without a query.

A key reads `hw_` and base64url of its document's id, its owner's id, 32 random bytes and a seal, which is a MAC with
the server's secret. So an invented key costs no query, and all keys end with the secret. Only the SHA-256 of a key is
stored.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
import hashlib
import hmac
import secrets
import weakref
from collections.abc import Callable
from typing import Any

from bson import ObjectId

from documents.access import Principal
from documents.credentials import API_KEYS, Credential
from documents.database import driver_errors
from documents.errors import DocumentRefused, Fault, Forbidden, TooMany
from documents.input import parse_values, refuse_unknown
from documents.resources import utc_now
from documents.revisions import first_revision
from documents.store import Found, Store

PREFIX = "hw_"
#: What one user may have at a time, expired ones included.
MAX_KEYS = 100
_ID_BYTES, _RANDOM_BYTES, _SEAL_BYTES = 12, 32, 16
_KEY_BYTES = 2 * _ID_BYTES + _RANDOM_BYTES + _SEAL_BYTES


class ApiKeys:
    """The keys of one database. `secret` is the server's; `clock` gives the present in UTC."""

    def __init__(self, store: Store, secret: bytes, clock: Callable[[], dt.datetime] = utc_now) -> None:
        self._store = store
        self._resource = store.registry[API_KEYS]
        self._key = hmac.digest(secret, b"headwater api keys", "sha256")
        self._clock = clock
        self._creating: weakref.WeakValueDictionary[ObjectId, asyncio.Lock] = weakref.WeakValueDictionary()

    async def create(self, principal: Principal, body: Any) -> tuple[Found, str]:
        """Create a key of `principal`'s from `{name, scopes, expires_at}`. Returns its document and the key in clear.

        Raises DocumentRefused, Forbidden for an anonymous caller, and TooMany.
        """
        user_id = principal.user_id
        if user_id is None:
            raise Forbidden("only users have keys")
        stored, key = self._made(principal, user_id, body)
        # Within this process the bound is exact; several processes at once may pass it by a few.
        async with self._creating.setdefault(user_id, asyncio.Lock()), self._store.database.session() as session:
            with driver_errors():
                keys = self._store.database.latest(API_KEYS)
                if await keys.count_documents({"user_id": user_id}, limit=MAX_KEYS) >= MAX_KEYS:
                    raise TooMany(f"you have {MAX_KEYS} keys already; delete one first")
                await self._store.database.insert(API_KEYS, stored, session)
            position = self._store.database.position(session)
            return self._store.found(self._resource, principal, stored, position), key

    def _made(self, principal: Principal, user_id: ObjectId, body: Any) -> tuple[dict[str, Any], str]:
        visible, writable = self._resource.visible(principal.roles), self._resource.writable(principal.roles)
        form = self._store.forms(self._resource).create
        values = parse_values(form, refuse_unknown(body, writable, visible))
        key_id = ObjectId()
        key = self._key_of(key_id, user_id)
        whole = values | {"_id": key_id, "user_id": user_id, "key_hash": _hash(key)}
        stored = first_revision(self._resource, principal, whole)
        known = self._store.registry.scopes
        faults = [
            Fault(("body", "scopes", index), "there is no such scope", "scope")
            for index, scope in enumerate(stored["scopes"])
            if scope not in known
        ]
        ends_at = stored.get("expires_at")
        if ends_at is not None and ends_at <= self._clock():
            faults.append(Fault(("body", "expires_at"), "a time in the future is expected", "not_future"))
        if faults:
            raise DocumentRefused(faults)
        return stored | {"scopes": sorted(set(stored["scopes"]))}, key

    async def delete_all(self, user_id: ObjectId) -> None:
        """Delete the keys of a user who is gone."""
        database = self._store.database
        with driver_errors():
            found = await database.latest(API_KEYS).find({"user_id": user_id}).to_list(None)
        async with database.session() as session:
            for stored in found:
                with driver_errors():
                    await database.delete_if_unchanged(API_KEYS, stored, session)

    def _key_of(self, key_id: ObjectId, user_id: ObjectId) -> str:
        content = key_id.binary + user_id.binary + secrets.token_bytes(_RANDOM_BYTES)
        return PREFIX + base64.urlsafe_b64encode(content + self._seal(content)).decode()

    def _seal(self, content: bytes) -> bytes:
        return hmac.digest(self._key, b"seal" + content, "sha256")[:_SEAL_BYTES]

    def credential_of(self, key: str) -> Credential | None:
        """The credential that a key is; None for what this server did not make. Needs no query, and proves nothing
        about whether the key still stands."""
        try:
            decoded = base64.b64decode(key.removeprefix(PREFIX).encode("ascii"), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        # Without a prefix, or with another spelling of the same bytes, it is not the key that was given out.
        if len(decoded) != _KEY_BYTES or PREFIX + base64.urlsafe_b64encode(decoded).decode() != key:
            return None
        content, seal = decoded[:-_SEAL_BYTES], decoded[-_SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(content)):
            return None
        key_id, user_id = content[:_ID_BYTES], content[_ID_BYTES : 2 * _ID_BYTES]
        return Credential(API_KEYS, ObjectId(key_id), ObjectId(user_id), _hash(key))


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
