"""Reading and writing documents for a principal: rules, validation, revision, and no lost update.

Writes follow one path: read the document, check the caller's rights on it, compute and validate the whole new
document, check the rights on that, and write on the condition that the stored document is still exactly the one that
was read. When it is not, start again. So no write loses another one, from the API or from mongosh.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from documents.access import Principal
from documents.broken import BrokenDocuments
from documents.codec import Stored, decoded
from documents.contention import Attempts
from documents.database import Database, Session, driver_errors
from documents.derived import Derivations
from documents.editing import Editor
from documents.errors import ConditionMissing, DocumentRefused, Duplicate, Forbidden, NotFound, Stale
from documents.filters import NOTHING, DocumentTest
from documents.forms import Forms, forms_of
from documents.ids import new_id, parse_id, parse_new_id
from documents.input import parse_values, refuse_unknown, to_python
from documents.json_patches import JsonPatch
from documents.operators import OperatorPatch
from documents.patches import MergePatch, Patch, PatchKind
from documents.positions import Position
from documents.preconditions import NO_PRECONDITIONS, Preconditions
from documents.public import PublicForm, public_id
from documents.refusals import is_kept, masking, refusing
from documents.resources import Registry, ResourceClass
from documents.revisions import first_revision, is_revised, next_revision
from documents.transactions import Conflicted, Transaction

_PATCHES: dict[PatchKind, Callable[[Editor, Any], Patch]] = {
    PatchKind.MERGE: MergePatch,
    PatchKind.JSON: JsonPatch,
    PatchKind.OPERATORS: OperatorPatch,
}


@dataclass(frozen=True, slots=True)
class Found:
    """One document as a caller sees it: its public form, its entity tag, and the position that it reflects.

    `changed` is False after a change to what the document was already.
    """

    document: dict[str, Any]
    etag: str
    position: Position
    updated_at: dt.datetime | None
    changed: bool = True


class Store:
    """The documents of one database. Shared by all requests; holds no connection-specific state."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self.database = database
        self.registry = registry
        self._forms: dict[str, Forms] = {resource.name: forms_of(resource) for resource in registry}
        self.derivations = Derivations(database, registry)
        self.broken = BrokenDocuments(registry)
        self._public: dict[tuple[str, frozenset[str]], PublicForm] = {}
        # Writers of this process queue here instead of colliding in the database. Collisions with other processes
        # remain, and the conditional write settles them.
        self._writers: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = weakref.WeakValueDictionary()

    def forms(self, resource: ResourceClass) -> Forms:
        """The pydantic models of the resource's public forms."""
        return self._forms[resource.name]

    def public_form(self, resource: ResourceClass, roles: frozenset[str]) -> PublicForm:
        """How callers with `roles` see documents of `resource`."""
        key = (resource.name, roles)
        if (known := self._public.get(key)) is None:
            faults = partial(self.broken.faults, resource.name)
            known = self._public[key] = PublicForm(resource.visible(roles), faults)
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
                read = await self.database.readable(resource.name).find_one({"_id": document_id}, session=session)
            stored = None if read is None else decoded(read)
            if stored is None or not resource.allows("read", principal, stored):
                raise NotFound(f"there is no document {id_text} in {resource.name}")
            return self.found(resource, principal, stored, self.database.position(session))

    @staticmethod
    def check_create(resource: ResourceClass, principal: Principal) -> None:
        """Raise Forbidden when `principal` may create no document of `resource`, whatever it is."""
        if resource.rule("create", principal)[0] == NOTHING:
            raise Forbidden(f"you may not create this in {resource.name}")

    async def create(
        self,
        resource: ResourceClass,
        principal: Principal,
        body: Any,
        *,
        document_id: Any = None,
        within: Transaction | None = None,
    ) -> Found:
        """Create a document under a new id, or under `document_id`.

        Raises DocumentRefused, Forbidden, and Duplicate when a unique index (the id included) has the value already.
        """
        # First, because the body's faults are not the concern of somebody who may create nothing.
        self.check_create(resource, principal)
        values = self._parse(resource, principal, body)
        if document_id is None:
            document_id = new_id(resource)
        if document_id is not None:
            values["_id"] = document_id
        with masking(resource, principal):
            stored = first_revision(resource, principal, values)
        stored = await self.derivations.filled(resource, stored)
        if not resource.allows("create", principal, stored):
            raise Forbidden(f"you may not create this in {resource.name}")
        async with self._session(within) as session:
            with masking(resource, principal), refusing(resource):
                await self.database.insert(resource.name, stored, session)
            return self.found(resource, principal, stored, self.database.position(session))

    async def replace(
        self,
        resource: ResourceClass,
        id_text: str,
        principal: Principal,
        body: Any,
        preconditions: Preconditions = NO_PRECONDITIONS,
        *,
        within: Transaction | None = None,
    ) -> tuple[Found, bool]:
        """Set all client-writable fields from `body`; absent ones get their defaults. Returns (document, created).

        With `If-None-Match: *` the document is created under the client's id. Raises NotFound, Forbidden, Stale,
        DocumentRefused, Duplicate, Contended.
        """
        if preconditions.must_be_absent:
            document_id = parse_new_id(resource, id_text)
            return await self._create_under(resource, principal, body, document_id), True
        values = self._parse(resource, principal, body)
        writable = resource.writable(principal.roles)

        def replacement(stored: Stored) -> dict[str, Any]:
            kept = {name: value for name, value in stored.items() if name not in writable}
            return to_python(kept) | values

        return await self._update(resource, id_text, principal, preconditions, replacement, within=within), False

    async def _create_under(self, resource: ResourceClass, principal: Principal, body: Any, document_id: Any) -> Found:
        # What is wrong with the request itself, before what it meets.
        self.check_create(resource, principal)
        self._parse(resource, principal, body)
        with driver_errors():
            existing = await self.database.readable(resource.name, latest=True).find_one({"_id": document_id})
        if existing is not None and resource.allows("read", principal, decoded(existing)):
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
        patch = self.prepare(resource, principal, PatchKind.MERGE, patch)
        return await self.patch(resource, id_text, principal, patch, preconditions)

    def prepare(self, resource: ResourceClass, principal: Principal, kind: PatchKind, content: Any) -> Patch:
        """The patch that a client's `content` describes. Raises DocumentRefused for one that no document could take."""
        roles = principal.roles
        form = self.public_form(resource, roles)
        editor = Editor(resource.visible(roles), resource.writable(roles), form, self._forms[resource.name].update)
        return _PATCHES[kind](editor, content)

    async def patch(
        self,
        resource: ResourceClass,
        id_text: str,
        principal: Principal,
        patch: Patch,
        preconditions: Preconditions = NO_PRECONDITIONS,
        *,
        only: DocumentTest | None = None,
        within: Transaction | None = None,
    ) -> Found:
        """Apply `patch`, which `prepare` made for the same caller, to one document that is as `only` demands.

        Raises as `replace` does, and Inapplicable where a JSON Patch does not fit the document.
        """
        return await self._update(resource, id_text, principal, preconditions, patch.apply, only=only, within=within)

    async def act(
        self,
        resource: ResourceClass,
        action: str,
        id_text: str,
        principal: Principal,
        compute: Callable[[Stored], dict[str, Any]],
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> Found:
        """Apply `compute` to one document by the rule of `action` (see `documents.performance`). Raises as `replace`
        does."""
        return await self._update(resource, id_text, principal, preconditions, compute, action=action)

    async def delete(
        self,
        resource: ResourceClass,
        id_text: str,
        principal: Principal,
        preconditions: Preconditions = NO_PRECONDITIONS,
        *,
        only: DocumentTest | None = None,
        within: Transaction | None = None,
    ) -> Position:
        """Delete one document that is as `only` demands; returns the position that includes the deletion.

        Raises NotFound, Forbidden, Stale, Contended.
        """
        document_id = parse_id(resource, id_text)
        async with self._writing(resource, document_id, within) as (session, attempts):
            while True:
                stored = await self._read_for_write(resource, document_id, principal, preconditions, session, only)
                if not resource.allows("delete", principal, stored):
                    raise Forbidden(f"you may not delete this document of {resource.name}")
                with refusing(resource):
                    if await self.database.delete_if_unchanged(resource.name, stored, session):
                        return self.database.position(session)
                await attempts.pause()

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
        only: DocumentTest | None,
    ) -> Stored:
        with driver_errors():
            collection = self.database.readable(resource.name, latest=True)
            read = await collection.find_one({"_id": document_id}, session=session)
        stored = None if read is None else decoded(read)
        if stored is None or not resource.allows("read", principal, stored) or (only and not only(stored)):
            raise NotFound(f"there is no such document in {resource.name}")
        if resource.declared.conditional and preconditions.if_match is None:
            raise ConditionMissing(f"documents of {resource.name} are changed with If-Match")
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
        *,
        only: DocumentTest | None = None,
        within: Transaction | None = None,
        action: str | None = None,
    ) -> Found:
        """Read, `compute` the new values from the stored document, validate, and write if it is unchanged; or retry.

        Where the values are those that are there, the document stays as it is, its revision too.
        A cancellation during the write leaves it to the server whether it happened, as a lost connection does.
        """
        document_id = parse_id(resource, id_text)
        async with self._writing(resource, document_id, within) as (session, attempts):
            while True:
                stored = await self._read_for_write(resource, document_id, principal, preconditions, session, only)
                if not resource.allows(action or "update", principal, stored):
                    raise Forbidden(f"you may not change this document of {resource.name}")
                # What `compute` refuses are the caller's own values, so there is nothing to mask.
                values = compute(stored)
                with masking(resource, principal):
                    new = next_revision(resource, principal, stored, values)
                new = await self.derivations.filled(resource, new, stored)
                if action is None and not resource.allows("update", principal, new):
                    raise Forbidden("you may not change the document into this")
                changed = is_revised(resource, stored, new)
                with masking(resource, principal):
                    # What is the same is written, too. The server records nothing of it, but tells whether it is still
                    # there, and answers when that cannot be undone any more.
                    written = await self._replace(resource, stored, new if changed else stored, session, within)
                if written is not None:
                    found = self.found(resource, principal, written, self.database.position(session))
                    return replace(found, changed=changed)
                await attempts.pause()

    async def _replace(
        self, resource: ResourceClass, read: Stored, new: Stored, session: Session, within: Transaction | None
    ) -> Stored | None:
        """Write `new` if the stored document still is `read`; returns what was written, None when it is not.

        Fields that the class does not declare are kept: another version of the class may have written them, or a
        program that knows nothing of classes. Where the collection's validator refuses nothing but those, which are
        stored already, it is passed over.
        """
        candidate = new | {name: value for name, value in read.items() if name not in resource.fields}
        key = (resource.name, public_id(read["_id"], resource.id_kind))
        unvalidated = within is not None and key in within.unvalidated
        try:
            with refusing(resource):
                written = await self.derivations.replace_if_unchanged(
                    resource.name, read, candidate, session, unvalidated=unvalidated
                )
            return candidate if written else None
        except DocumentRefused as refused:
            if unvalidated or not all(is_kept(fault, read, candidate) for fault in refused.faults):
                raise
        if within is not None:  # the refusal has ended it
            within.unvalidated.add(key)
            raise Conflicted
        with refusing(resource):
            written = await self.derivations.replace_if_unchanged(
                resource.name, read, candidate, session, unvalidated=True
            )
        return candidate if written else None

    @contextlib.asynccontextmanager
    async def _session(self, within: Transaction | None) -> AsyncIterator[Session]:
        if within is not None:
            yield within.session
        else:
            async with self.database.session() as session:
                yield session

    @contextlib.asynccontextmanager
    async def _writing(
        self, resource: ResourceClass, document_id: Any, within: Transaction | None
    ) -> AsyncIterator[tuple[Session, Attempts | Transaction]]:
        """The session of a write, and what to do when another writer was faster. A transaction has its locks."""
        if within is not None:
            yield within.session, within
        else:
            async with self.alone(resource, [document_id]), self.database.session() as session:
                yield session, Attempts()

    @contextlib.asynccontextmanager
    async def alone(self, resource: ResourceClass, document_ids: Iterable[Any]) -> AsyncIterator[None]:
        """Hold back this process's other writers of these documents."""
        async with contextlib.AsyncExitStack() as held:
            # In one order for everybody, so that two who want several never wait for each other.
            for id_text in sorted({public_id(document_id, resource.id_kind) for document_id in document_ids}):
                lock = self._writers.setdefault((resource.name, id_text), asyncio.Lock())
                await held.enter_async_context(lock)
            yield
