"""Changing or deleting all documents that match a filter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from documents.access import Principal
from documents.bulk import Deadline
from documents.codec import decoded
from documents.database import driver_errors
from documents.errors import ConditionMissing, DatabaseAway, DocumentsError, Forbidden, InvalidInput, NotFound
from documents.filters import EVERYTHING, NOTHING, DocumentTest, Filter, compile_predicate, conjunction, to_query
from documents.lists import QUERY_TIME_LIMIT_MS
from documents.patches import Patch
from documents.positions import Position
from documents.public import public_id
from documents.resources import ResourceClass
from documents.store import Store

MAX_DOCUMENTS: Final = 10_000
#: How many of the refused documents are named; all are counted.
MAX_NAMED: Final = 100
#: How many documents of one request are written at the same time.
_WRITERS: Final = 4


@dataclass(slots=True)
class Selected:
    """What became of the documents that matched when they were looked for.

    What changed meanwhile, so that it no longer matched or could no longer be changed by the caller, is neither
    modified nor failed; nor is what was already as the patch has it. `failed` are the first of those that were refused,
    by id, `failures` is how many there are.
    """

    matched: int
    position: Position
    modified: int = 0
    failures: int = 0
    failed: list[tuple[str, DocumentsError]] = field(default_factory=list)


class TooManyMatch(DocumentsError):
    """More documents match than one request may change. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_DOCUMENTS:,} documents match; nothing was changed")


class Selection:
    """Writes all documents that match a filter, each by the single-document path of the store.

    `found` is told how many match before the first is written; what it raises ends the request.
    """

    def __init__(self, store: Store, found: Callable[[int], Awaitable[None]] | None = None) -> None:
        self._store = store
        self._found = found

    async def update(self, resource: ResourceClass, principal: Principal, filter: Filter, patch: Patch) -> Selected:
        """Apply `patch`, which the store prepared for the same caller.

        Only documents that the caller may read and change are looked at. Raises Forbidden for a caller who may change
        none, InvalidInput for a filter that excludes nothing, and TooManyMatch.
        """

        async def write(id_text: str, only: DocumentTest) -> tuple[Position, bool]:
            found = await self._store.patch(resource, id_text, principal, patch, only=only)
            return found.position, found.changed

        return await self._each(resource, principal, filter, "update", write)

    async def delete(self, resource: ResourceClass, principal: Principal, filter: Filter) -> Selected:
        """Delete them; otherwise as `update`."""

        async def write(id_text: str, only: DocumentTest) -> tuple[Position, bool]:
            return await self._store.delete(resource, id_text, principal, only=only), True

        return await self._each(resource, principal, filter, "delete", write)

    async def _each(
        self,
        resource: ResourceClass,
        principal: Principal,
        filter: Filter,
        operation: str,
        write: Callable[[str, DocumentTest], Awaitable[tuple[Position, bool]]],
    ) -> Selected:
        rule, _ = resource.rule(operation, principal)
        if rule == NOTHING:
            raise Forbidden(f"you may not {operation} documents of {resource.name}")
        if resource.declared.conditional:
            raise ConditionMissing(f"documents of {resource.name} are changed one by one, with If-Match")
        if filter == EVERYTHING:
            raise InvalidInput.at("query", "filter", msg="a filter that selects documents is needed", type="missing")
        condition = conjunction([resource.rule("read", principal)[0], rule, filter])
        ids, position = await self._ids(resource, condition)
        if self._found is not None:
            await self._found(len(ids))
        selected, deadline, only = Selected(len(ids), position), Deadline(), compile_predicate(condition)
        left = iter(ids)

        async def work(ids: Iterator[Any]) -> None:
            for document_id in ids:
                id_text = public_id(document_id, resource.id_kind)
                # Patches compute without waiting for anything, and others want the event loop too.
                await asyncio.sleep(0)
                try:
                    deadline.check()
                    position, changed = await write(id_text, only)
                    selected.position = max(selected.position, position)
                    selected.modified += changed
                except NotFound:
                    continue
                except DocumentsError as error:
                    selected.failures += 1
                    if len(selected.failed) < MAX_NAMED:
                        selected.failed.append((id_text, error))
                    if isinstance(error, DatabaseAway):
                        # What is left would wait for the same database.
                        for other in ids:
                            selected.failures += 1
                            if len(selected.failed) < MAX_NAMED:
                                selected.failed.append((public_id(other, resource.id_kind), error))

        async with asyncio.TaskGroup() as group:
            for _ in range(_WRITERS):
                group.create_task(work(left))
        return selected

    async def _ids(self, resource: ResourceClass, condition: Filter) -> tuple[list[Any], Position]:
        """The ids of all that match, in their order."""
        database = self._store.database
        async with database.session() as session:
            with driver_errors():
                found = (
                    database.readable(resource.name)
                    .find(to_query(condition), {"_id": 1}, session=session)
                    .sort([("_id", 1)])
                    .limit(MAX_DOCUMENTS + 1)
                    .max_time_ms(QUERY_TIME_LIMIT_MS)
                )
                documents = await found.to_list(MAX_DOCUMENTS + 1)
            if len(documents) > MAX_DOCUMENTS:
                raise TooManyMatch
            return [decoded(document)["_id"] for document in documents], database.position(session)
