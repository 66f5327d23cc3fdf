"""Reading and writing documents for a principal: rules, validation, revision, and no lost update.

Writes follow one path: read the document, check the caller's rights on it, compute and validate the whole new
document, check the rights on that, and write on the condition that the stored document is still exactly the one that
was read. When it is not, start again. So no write loses another one, from the API or from mongosh.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import uuid
import weakref
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from bson import ObjectId
from bson.errors import InvalidDocument, InvalidId
from pymongo.errors import DocumentTooLarge, WriteError

from documents.access import Principal
from documents.database import Database, Session, Stored, driver_errors
from documents.errors import Contended, DocumentRefused, Duplicate, Fault, Forbidden, InvalidInput, NotFound, Stale
from documents.filters import NOTHING
from documents.forms import Forms, forms_of
from documents.input import MAX_INTEGER, masked, merge, parse_values, refuse_unknown, to_python, validate_whole
from documents.positions import Position
from documents.preconditions import NO_PRECONDITIONS, Preconditions
from documents.public import PublicForm
from documents.refusals import faults_of_refusal
from documents.resources import RESERVED_IDS, Registry, ResourceClass
from documents.shapes import FieldType, Kind

#: How long a write keeps trying while other writers change the document under it.
CONTENTION_TIMEOUT = dt.timedelta(seconds=10)
DOCUMENT_VALIDATION_FAILURE = 121

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Found:
    """One document as a caller sees it: its public form, its entity tag, and the position that it reflects."""

    document: dict[str, Any]
    etag: str
    position: Position
    updated_at: dt.datetime | None


class Store:
    """The documents of one database. Shared by all requests; holds no connection-specific state."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self.database = database
        self.registry = registry
        self._forms: dict[str, Forms] = {resource.name: forms_of(resource) for resource in registry}
        self._public: dict[tuple[str, frozenset[str]], PublicForm] = {}
        # Writers of this process queue here instead of colliding in the database. Collisions with other processes
        # remain, and the conditional write settles them.
        self._writers: weakref.WeakValueDictionary[tuple[str, Any], asyncio.Lock] = weakref.WeakValueDictionary()

    def forms(self, resource: ResourceClass) -> Forms:
        """The pydantic models of the resource's public forms."""
        return self._forms[resource.name]

    def public_form(self, resource: ResourceClass, roles: frozenset[str]) -> PublicForm:
        """How callers with `roles` see documents of `resource`."""
        key = (resource.name, roles)
        if (known := self._public.get(key)) is None:
            known = self._public[key] = PublicForm(resource.visible(roles))
        return known

    def found(self, resource: ResourceClass, principal: Principal, stored: Stored, position: Position) -> Found:
        """`stored` as `principal` sees it."""
        form = self.public_form(resource, principal.roles)
        document = form.document(stored)
        updated_at = stored.get("updated_at") if "updated_at" in document else None
        return Found(
            document,
            form.etag(document),
            position,
            updated_at if isinstance(updated_at, dt.datetime) else None,
        )

    async def get(self, resource: ResourceClass, id_text: str, principal: Principal) -> Found:
        """One document. Raises NotFound when it does not exist or the caller may not read it."""
        document_id = parse_id(resource, id_text)
        async with self.database.session() as session:
            with driver_errors():
                stored = await self.database.collection(resource.name).find_one({"_id": document_id}, session=session)
            if stored is None or not resource.allows("read", principal, stored):
                raise NotFound(f"there is no document {id_text} in {resource.name}")
            return self.found(resource, principal, stored, self.database.position(session))

    async def create(
        self, resource: ResourceClass, principal: Principal, body: Any, *, document_id: Any = None
    ) -> Found:
        """Create a document under a new id, or under `document_id`.

        Raises DocumentRefused, Forbidden, and Duplicate when a unique index (the id included) has the value already.
        """
        if resource.rule("create", principal)[0] == NOTHING:
            # Whatever the document is; so the body's faults are not this caller's concern.
            raise Forbidden(f"you may not create this in {resource.name}")
        values = self._parse(resource, principal, body)
        if document_id is None:
            document_id = _new_id(resource)
        if document_id is not None:
            values["_id"] = document_id
        for name, field in resource.fields.items():
            for marker in field.markers:
                value = getattr(marker, "value", None)
                if callable(value):
                    values[name] = value(principal)
        with _masking(resource, principal):
            stored = validate_whole(resource, values)
        now = stored["created_at"]
        stored |= {"updated_at": now, "revision": 1}
        if not resource.allows("create", principal, stored):
            raise Forbidden(f"you may not create this in {resource.name}")
        async with self.database.session() as session:
            with _masking(resource, principal):
                await self._write(resource, self.database.insert(resource.name, stored, session))
            return self.found(resource, principal, stored, self.database.position(session))

    async def replace(
        self,
        resource: ResourceClass,
        id_text: str,
        principal: Principal,
        body: Any,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> tuple[Found, bool]:
        """Set all client-writable fields from `body`; absent ones get their defaults. Returns (document, created).

        With `If-None-Match: *` the document is created under the client's id. Raises NotFound, Forbidden, Stale,
        DocumentRefused, Duplicate, Contended.
        """
        if preconditions.must_be_absent:
            document_id = parse_id(resource, id_text)
            if id_text in RESERVED_IDS:
                raise InvalidInput.at("path", "id", msg=f"`{id_text}` is never an id", type="reserved")
            return await self._create_under(resource, principal, body, document_id), True
        values = self._parse(resource, principal, body)
        writable = resource.writable(principal.roles)

        def replacement(stored: Stored) -> dict[str, Any]:
            kept = {name: value for name, value in stored.items() if name not in writable}
            return to_python(kept) | values

        return await self._update(resource, id_text, principal, preconditions, replacement), False

    async def _create_under(self, resource: ResourceClass, principal: Principal, body: Any, document_id: Any) -> Found:
        with driver_errors():
            existing = await self.database.latest(resource.name).find_one({"_id": document_id})
        if existing is not None and resource.allows("read", principal, existing):
            raise Stale("the document exists already")
        try:
            return await self.create(resource, principal, body, document_id=document_id)
        except Duplicate as error:
            if "id" not in error.fields:
                raise
            # Another writer was faster, or it is one that the caller may not read.
            raise Stale("the document exists already") from None

    async def merge_patch(
        self,
        resource: ResourceClass,
        id_text: str,
        principal: Principal,
        patch: Any,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> Found:
        """Apply a JSON Merge Patch (RFC 7396) to the document's public form. Raises as `replace` does."""
        visible, writable = resource.visible(principal.roles), resource.writable(principal.roles)
        checked = refuse_unknown(patch, writable, visible)
        form = self.public_form(resource, principal.roles)
        # Removing a field gives it its default again; where the class knows null, null is set.
        changes = {name: value for name, value in checked.items() if value is not None}
        nulls: dict[str, Any] = {n: None for n in checked if n not in changes and writable[n].type.nullable}
        # Anything fits into these, so what the patch leaves keeps its BSON types instead of passing through JSON.
        free = {name for name in changes if _is_free(writable[name].type)}

        def patched(stored: Stored) -> dict[str, Any]:
            current = form.document(stored)
            merged = {name: merge(current.get(name), value) for name, value in changes.items() if name not in free}
            values = parse_values(self._forms[resource.name].update, merged)
            kept = to_python({name: value for name, value in stored.items() if name not in checked or name in changes})
            freely = {name: merge(kept.get(name), changes[name]) for name in free}
            return kept | nulls | values | freely

        return await self._update(resource, id_text, principal, preconditions, patched)

    async def delete(
        self,
        resource: ResourceClass,
        id_text: str,
        principal: Principal,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> Position:
        """Delete one document; returns the position that includes the deletion.

        Raises NotFound, Forbidden, Stale, Contended.
        """
        document_id = parse_id(resource, id_text)
        async with self._lock(resource, document_id), self.database.session() as session:
            retry = _Retry()
            while True:
                stored = await self._read_for_write(resource, document_id, principal, preconditions, session)
                if not resource.allows("delete", principal, stored):
                    raise Forbidden(f"you may not delete this document of {resource.name}")
                if await self._write(resource, self.database.delete_if_unchanged(resource.name, stored, session)):
                    return self.database.position(session)
                await retry.pause()

    def _parse(self, resource: ResourceClass, principal: Principal, body: Any) -> dict[str, Any]:
        visible, writable = resource.visible(principal.roles), resource.writable(principal.roles)
        return parse_values(self._forms[resource.name].create, refuse_unknown(body, writable, visible))

    async def _read_for_write(
        self,
        resource: ResourceClass,
        document_id: Any,
        principal: Principal,
        preconditions: Preconditions,
        session: Session,
    ) -> Stored:
        with driver_errors():
            stored = await self.database.latest(resource.name).find_one({"_id": document_id}, session=session)
        if stored is None or not resource.allows("read", principal, stored):
            raise NotFound(f"there is no such document in {resource.name}")
        if preconditions:
            form = self.public_form(resource, principal.roles)
            preconditions.check(form.etag(form.document(stored)))
        return stored

    async def _update(
        self,
        resource: ResourceClass,
        id_text: str,
        principal: Principal,
        preconditions: Preconditions,
        compute: Callable[[Stored], dict[str, Any]],
    ) -> Found:
        """Read, `compute` the new values from the stored document, validate, and write if it is unchanged; or retry.

        A cancellation during the write leaves it to the server whether it happened, as a lost connection does.
        """
        document_id = parse_id(resource, id_text)
        async with self._lock(resource, document_id), self.database.session() as session:
            retry = _Retry()
            while True:
                stored = await self._read_for_write(resource, document_id, principal, preconditions, session)
                if not resource.allows("update", principal, stored):
                    raise Forbidden(f"you may not change this document of {resource.name}")
                with _masking(resource, principal):
                    new = self._next(resource, stored, compute(stored))
                if not resource.allows("update", principal, new):
                    raise Forbidden("you may not change the document into this")
                with _masking(resource, principal):
                    written = await self._replace(resource, stored, new, session)
                if written is not None:
                    return self.found(resource, principal, written, self.database.position(session))
                await retry.pause()

    @staticmethod
    def _next(resource: ResourceClass, stored: Stored, values: dict[str, Any]) -> Stored:
        """The whole new document: validated values and bookkeeping."""
        now = dt.datetime.now(dt.UTC)
        bookkeeping: dict[str, Any] = {"updated_at": now.replace(microsecond=now.microsecond // 1000 * 1000)}
        if not isinstance(stored.get("created_at"), dt.datetime):
            made = stored["_id"].generation_time if isinstance(stored["_id"], ObjectId) else now
            bookkeeping["created_at"] = made
        revision = stored.get("revision")
        usable = isinstance(revision, int) and not isinstance(revision, bool) and 0 < revision < MAX_INTEGER
        bookkeeping["revision"] = revision + 1 if isinstance(revision, int) and usable else 1
        return validate_whole(resource, values | bookkeeping)

    async def _replace(self, resource: ResourceClass, read: Stored, new: Stored, session: Session) -> Stored | None:
        """Write `new` if the stored document still is `read`; returns what was written, None when it is not.

        Fields that the class does not declare are kept, because a newer version of the class may have written them,
        as long as the collection's validator lets them stay.
        """
        undeclared = {name: value for name, value in read.items() if name not in resource.fields}
        candidates = [new | undeclared, new] if undeclared else [new]
        for candidate in candidates:
            try:
                if await self._write(
                    resource, self.database.replace_if_unchanged(resource.name, read, candidate, session)
                ):
                    return candidate
            except DocumentRefused:
                if candidate is candidates[-1]:
                    raise
            else:
                return None
        return None

    async def _write(self, resource: ResourceClass, write: Awaitable[_T]) -> _T:
        try:
            with driver_errors():
                return await write
        except WriteError as error:
            if error.code != DOCUMENT_VALIDATION_FAILURE:
                # Too large for the server, or something that an index cannot hold.
                raise DocumentRefused(
                    [Fault(("body",), f"the database cannot store the document (error {error.code})", "unstorable")]
                ) from None
            raise DocumentRefused(faults_of_refusal(error.details or {}, resource)) from None
        except (DocumentTooLarge, InvalidDocument, OverflowError) as error:
            raise DocumentRefused([Fault(("body",), f"the document cannot be stored: {error}", "unstorable")]) from None

    def _lock(self, resource: ResourceClass, document_id: Any) -> asyncio.Lock:
        return self._writers.setdefault((resource.name, document_id), asyncio.Lock())


@contextlib.contextmanager
def _masking(resource: ResourceClass, principal: Principal) -> Iterator[None]:
    """Errors inside tell nothing of fields that `principal` may not see."""
    visible = resource.visible(principal.roles)
    try:
        yield
    except DocumentRefused as refused:
        raise DocumentRefused(masked(refused.faults, visible)) from None
    except Duplicate as duplicate:
        public = {f.public for f in visible.values()}
        raise Duplicate([name for name in duplicate.fields if name.split(".")[0] in public]) from None


def _new_id(resource: ResourceClass) -> Any:
    """An id for a new document; None where the class makes its own."""
    field = resource.fields["_id"]
    match field.type.kind:
        case Kind.OBJECT_ID:
            return ObjectId()
        case _ if not field.required:
            return None
        case Kind.UUID:
            return uuid.uuid4()
        case Kind.STRING:
            return str(ObjectId())
    raise InvalidInput.at("body", "id", msg="choose an id and create the document with PUT", type="missing")


def _is_free(field_type: FieldType) -> bool:
    return field_type.kind is Kind.ANY or (
        field_type.kind is Kind.MAP and field_type.item is not None and field_type.item.kind is Kind.ANY
    )


class _Retry:
    """Pauses between attempts of a contended write, jittered so that writers do not march in step."""

    def __init__(self) -> None:
        self._attempt = 0
        self._deadline = asyncio.get_running_loop().time() + CONTENTION_TIMEOUT.total_seconds()

    async def pause(self) -> None:
        """Wait a little. Raises Contended after CONTENTION_TIMEOUT."""
        self._attempt += 1
        if asyncio.get_running_loop().time() > self._deadline:
            raise Contended("the document kept changing; nothing was written")
        await asyncio.sleep(random.uniform(0, min(0.05, 0.002 * 2**self._attempt)))  # noqa: S311 - jitter


def parse_id(resource: ResourceClass, text: str) -> Any:
    """An id from a URL, by the declared type of the class's `_id`. Raises InvalidInput for one it cannot be."""
    kind = resource.fields["_id"].type.kind
    try:
        match kind:
            case Kind.OBJECT_ID:
                return ObjectId(text)
            case Kind.UUID:
                # One form only, so that a document has one address.
                given = uuid.UUID(text)
                if str(given) != text.lower():
                    raise ValueError
                return given
            case Kind.INTEGER:
                number = int(text[:20])
                if abs(number) > MAX_INTEGER or str(number) != text:
                    raise ValueError
                return number
            case _:
                text.encode()  # half of a surrogate pair raises a ValueError
                if not text or len(text) > 200 or "\0" in text:
                    raise ValueError
                return text
    except (InvalidId, ValueError):
        raise InvalidInput.at("path", "id", msg=f"the id is not a valid {kind}", type="id") from None
