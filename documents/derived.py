"""Fields that are kept equal to something in a document that theirs refers to (`DerivedFrom`).

A rule reads one document. Where readers' rights to it hang on another one, the first carries a copy of what matters. A
copy can be wrong, so three things keep it right:

- a write of the API fills it in from the document referred to;
- a write of the API that changes what is copied carries it to all copies in the same transaction (one after the other
  in a database in memory, which has none);
- `Keeper` listens to the feed and corrects what those cannot see: writes by mongosh and other programs, and a document
  that was created at the very moment when the one it refers to changed.

Copies are no content: carrying one does not count as a write of the API (`revision`), and validators do not judge it,
so that a document somebody broke by hand does not keep others from being hidden.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from documents.changes import Change, Entry
from documents.codec import Stored, decoded
from documents.database import MAJORITY, Database, Session, driver_errors
from documents.errors import DeclarationError, DocumentsError
from documents.markers import DerivedFrom, References
from documents.resources import Registry, ResourceClass

logger = logging.getLogger("headwater.derived")

#: How often a commit whose outcome is unknown is asked for again.
_COMMITS = 3
#: Changed documents that wait to be looked at one by one; beyond it, all that refer to the same document are.
_MAX_ONES = 10_000
_BATCH = 500
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, eq=False)
class Derivation:
    """`collection.field` is `marker.compute(document)` of the document of `source` that `marker.reference` names.

    `default` is what the field counts as where it is absent.
    """

    collection: str
    field: str
    marker: DerivedFrom
    source: str
    default: Any

    def of(self, source: Mapping[str, Any] | None) -> Any:
        """The field's right value, given the document referred to (None: there is none)."""
        return self.marker.compute(source)

    def held(self, document: Mapping[str, Any]) -> Any:
        """The value that a document has."""
        return document.get(self.field, self.default)


class Derivations:
    """The derived fields of all classes, and the writes that keep them.

    Raises DeclarationError for a field that is derived from what no registered class is.
    """

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self.own: dict[str, list[Derivation]] = defaultdict(list)
        self.carried: dict[str, list[Derivation]] = defaultdict(list)
        for resource in registry:
            for derivation in _derivations_of(resource, registry):
                self.own[derivation.collection].append(derivation)
                self.carried[derivation.source].append(derivation)

    async def filled(self, resource: ResourceClass, new: Stored, read: Stored | None = None) -> Stored:
        """`new` with its derived fields as they are right now. `read` is the document that it replaces."""
        filled = new
        for derivation in self.own.get(resource.name, ()):
            reference = new.get(derivation.marker.reference)
            if (
                read is not None
                and derivation.field in read
                and read[derivation.field] == new.get(derivation.field)
                and read.get(derivation.marker.reference) == reference
            ):
                continue
            source = await self._source(derivation, reference)
            filled = filled | {derivation.field: derivation.default if reference is None else derivation.of(source)}
        return filled

    async def replace_if_unchanged(
        self, name: str, read: Stored, new: Stored, session: Session, *, unvalidated: bool = False
    ) -> bool:
        """As `Database.replace_if_unchanged`, and carry what others copy from the document.

        False also when another transaction was in the way: nothing was written, and trying again may succeed.
        """
        changed = [d for d in self.carried.get(name, ()) if d.of(read) != d.of(new)]
        if not changed:
            return await self._database.replace_if_unchanged(name, read, new, session, unvalidated=unvalidated)
        if session is None or _in_transaction(session):
            return await self._replace_and_carry(changed, name, read, new, session, unvalidated)
        session.start_transaction(read_concern=ReadConcern("snapshot"), write_concern=MAJORITY)
        try:
            if not await self._replace_and_carry(changed, name, read, new, session, unvalidated):
                return False
            await _commit(session)
            return True
        except PyMongoError as error:
            if error.has_error_label("TransientTransactionError"):
                return False
            raise
        finally:
            if _in_transaction(session):
                await session.abort_transaction()

    async def _replace_and_carry(
        self,
        changed: list[Derivation],
        name: str,
        read: Stored,
        new: Stored,
        session: Session,
        unvalidated: bool,
    ) -> bool:
        if not await self._database.replace_if_unchanged(name, read, new, session, unvalidated=unvalidated):
            return False
        for derivation in changed:
            query = {derivation.marker.reference: read["_id"]}
            await self._set(derivation, query, derivation.of(new), session)
        return True

    async def settle_all(self, derivation: Derivation, source_id: Any) -> None:
        """Correct every copy that is taken from one document. Those of a document that is gone stay as they are."""
        source = await self._source(derivation, source_id)
        if source is not None:
            await self._set(derivation, {derivation.marker.reference: source_id}, derivation.of(source), None)

    async def settle(self, derivation: Derivation, documents: Mapping[Any, Stored]) -> None:
        """Correct the copies in `documents`, which are given by id as they were stored a moment ago."""
        reference = derivation.marker.reference
        wanted = {document[reference] for document in documents.values() if document.get(reference) is not None}
        with driver_errors():
            found = self._database.readable(derivation.source).find({"_id": {"$in": list(wanted)}})
            sources = {source["_id"]: source for source in [decoded(one) async for one in found]}
        for document_id, document in documents.items():
            source = sources.get(document.get(reference))
            if source is not None and (right := derivation.of(source)) != derivation.held(document):
                await self._set(derivation, {"_id": document_id, reference: source["_id"]}, right, None)

    async def _source(self, derivation: Derivation, source_id: Any) -> Stored | None:
        if source_id is None:
            return None
        with driver_errors():
            source = await self._database.readable(derivation.source).find_one({"_id": source_id})
        return None if source is None else decoded(source)

    async def _set(self, derivation: Derivation, query: dict[str, Any], value: Any, session: Session) -> None:
        # An absent field counts as the default, and stays absent.
        wrong = {"$nin": [value, None]} if value == derivation.default else {"$ne": value}
        collection = self._database.latest(derivation.collection)
        matching = query | {derivation.field: wrong}
        if self._database.in_memory:
            # There, only the database's own methods are seen by the feed.
            for document in await collection.find(matching).to_list(None):
                new = document | {derivation.field: value}
                await self._database.replace_if_unchanged(derivation.collection, document, new, session)
            return
        await collection.update_many(
            matching, {"$set": {derivation.field: value}}, bypass_document_validation=True, session=session
        )


def _derivations_of(resource: ResourceClass, registry: Registry) -> list[Derivation]:
    found = []
    for name, field in resource.fields.items():
        for marker in field.markers:
            if not isinstance(marker, DerivedFrom):
                continue
            reference = resource.fields.get(marker.reference)
            sources = [m.resource for m in reference.markers if isinstance(m, References)] if reference else []
            if not sources or registry.get(sources[0]) is None:
                message = f"{resource.label}.{name}: {marker.reference!r} must refer to a class that is served"
                raise DeclarationError(message)
            default = resource.document_class.model_fields[name].get_default()
            found.append(Derivation(resource.name, name, marker, sources[0], default))
    return found


def _in_transaction(session: Session) -> bool:
    # Motor delegates the attribute, and its types call it a method.
    return bool(cast("Any", session).in_transaction)


async def _commit(session: Session) -> None:
    assert session is not None  # noqa: S101 - only a database in memory has no sessions
    for attempt in range(_COMMITS):
        try:
            await session.commit_transaction()
        except PyMongoError as error:
            if attempt + 1 == _COMMITS or not error.has_error_label("UnknownTransactionCommitResult"):
                raise
        else:
            return


class Keeper:
    """Corrects derived fields by what the feed reports. Each worker has one; what they write is the same.

    What a server that was down has missed is only seen as far as its feed resumes from where it ended.
    """

    def __init__(self, derivations: Derivations) -> None:
        self._derivations = derivations
        self._ones: dict[tuple[Derivation, Any], Stored] = {}
        self._all: set[tuple[Derivation, Any]] = set()
        self._waiting = asyncio.Event()

    def on_entry(self, entry: Entry) -> None:
        """A listener of the feed."""
        if not isinstance(entry, Change) or entry.after is None:
            return
        before, after = entry.before or {}, entry.after
        for derivation in self._derivations.own.get(entry.collection, ()):
            if not isinstance(after.get(derivation.marker.reference), Hashable):
                continue  # somebody put there what is no id
            names = (derivation.marker.reference, derivation.field)
            if any(before.get(name) != after.get(name) for name in names):
                if len(self._ones) < _MAX_ONES and isinstance(entry.document_id, Hashable):
                    self._ones[derivation, entry.document_id] = after
                else:
                    self._all.add((derivation, after.get(derivation.marker.reference)))
                self._waiting.set()
        if not isinstance(entry.document_id, Hashable):
            return  # nor does anybody refer to it
        for derivation in self._derivations.carried.get(entry.collection, ()):
            if derivation.of(entry.before) != derivation.of(after):
                self._all.add((derivation, entry.document_id))
                self._waiting.set()

    async def run(self) -> None:
        """Work until cancelled. What fails is logged and tried again."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            ones, self._ones = self._ones, {}
            every, self._all = self._all, set()
            try:
                await self._settle(ones, every)
            except Exception as error:
                # Whatever it is, the next turn may succeed; copies that nobody corrects must not go unnoticed.
                unknown = None if isinstance(error, DocumentsError | PyMongoError) else error
                logger.warning("derived fields are not corrected yet (%s)", type(error).__name__, exc_info=unknown)
                # Newer states of the same documents win.
                self._ones, self._all = ones | self._ones, every | self._all
                self._waiting.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _settle(self, ones: Mapping[tuple[Derivation, Any], Stored], every: set[tuple[Derivation, Any]]) -> None:
        grouped: dict[Derivation, list[tuple[Any, Stored]]] = defaultdict(list)
        for (derivation, document_id), document in ones.items():
            grouped[derivation].append((document_id, document))
        for derivation, documents in grouped.items():
            for start in range(0, len(documents), _BATCH):
                await self._derivations.settle(derivation, dict(documents[start : start + _BATCH]))
        for derivation, source_id in every:
            await self._derivations.settle_all(derivation, source_id)
