"""Many writes in one request: one after the other, or all in one transaction.

Each operation is a single write of `documents.store`, with its rules, validation, masking and revision.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from documents.access import Principal
from documents.errors import DatabaseAway, DocumentsError, InvalidInput
from documents.ids import parse_id, parse_new_id
from documents.patches import PatchKind
from documents.positions import Position
from documents.preconditions import NO_PRECONDITIONS, Preconditions
from documents.resources import ResourceClass
from documents.store import Found, Store
from documents.transactions import Transaction, transact

#: After this, what is left of a request is not tried any more.
TIME_LIMIT = dt.timedelta(seconds=60)


class Verb(enum.StrEnum):
    """What an operation does."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Operation:
    """One write. `content` is the document or the patch; `id_text` is None only where the server makes the id."""

    verb: Verb
    id_text: str | None = None
    content: Any = None
    preconditions: Preconditions = NO_PRECONDITIONS


#: The document as it is then; the position of a deletion; or why the operation was refused.
Outcome = Found | Position | DocumentsError


class OperationFailed(DocumentsError):
    """An operation of an atomic request was refused, so nothing was changed. `error` says why."""

    def __init__(self, index: int, error: DocumentsError) -> None:
        self.index, self.error = index, error
        super().__init__(f"operation {index} failed: {error}")


class OutOfTime(DatabaseAway):
    """The request has taken so long that this part of it was not tried."""

    def __init__(self) -> None:
        super().__init__(f"this was not tried, because the request had taken {TIME_LIMIT.seconds} seconds")


class Deadline:
    """When a request of many writes gives up."""

    def __init__(self) -> None:
        self._at = asyncio.get_running_loop().time() + TIME_LIMIT.total_seconds()

    def check(self) -> None:
        """Raises OutOfTime when it has passed."""
        if asyncio.get_running_loop().time() > self._at:
            raise OutOfTime


class Bulk:
    """Runs the operations of one request."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def each(
        self, resource: ResourceClass, principal: Principal, operations: Sequence[Operation]
    ) -> AsyncIterator[Outcome]:
        """The outcome of each operation, one after the other and in their order: a later one sees what an earlier one
        has written. Once the database is away, or the time is up, the rest is not tried."""
        deadline, away = Deadline(), None
        for operation in operations:
            # What is refused before the database is asked leaves no other moment to the event loop.
            await asyncio.sleep(0)
            outcome: Outcome
            try:
                if away is not None:
                    raise away
                deadline.check()
                outcome = await self._one(resource, principal, operation, None)
            except DocumentsError as error:
                away = error if isinstance(error, DatabaseAway) else None
                outcome = error
            yield outcome

    async def atomic(
        self, resource: ResourceClass, principal: Principal, operations: Sequence[Operation]
    ) -> list[Outcome]:
        """The outcomes of all operations, which happen together or not at all.

        Raises OperationFailed for the first that is refused; DatabaseAway; Contended when others kept writing the same
        documents; InvalidInput for a database without transactions.
        """
        ids = []
        for index, operation in enumerate(operations):
            try:
                ids.append(_id_of(resource, operation))
            except InvalidInput as error:
                raise OperationFailed(index, error) from None

        async def attempt(within: Transaction) -> list[Outcome]:
            outcomes: list[Outcome] = []
            for index, operation in enumerate(operations):
                await asyncio.sleep(0)
                deadline.check()
                try:
                    outcomes.append(await self._one(resource, principal, operation, within))
                except DatabaseAway:
                    raise
                except DocumentsError as error:
                    raise OperationFailed(index, error) from None
            return outcomes

        async with self._store.alone(resource, [document_id for document_id in ids if document_id is not None]):
            deadline = Deadline()
            outcomes, position = await transact(self._store.database, attempt)
        # Only the commit has a position.
        return [replace(made, position=position) if isinstance(made, Found) else position for made in outcomes]

    async def _one(
        self, resource: ResourceClass, principal: Principal, operation: Operation, within: Transaction | None
    ) -> Found | Position:
        store, content, conditions = self._store, operation.content, operation.preconditions
        document_id, id_text = _id_of(resource, operation), operation.id_text or ""
        match operation.verb:
            case Verb.CREATE:
                return await store.create(resource, principal, content, document_id=document_id, within=within)
            case Verb.REPLACE:
                found, _ = await store.replace(resource, id_text, principal, content, conditions, within=within)
                return found
            case Verb.UPDATE:
                patch = store.prepare(resource, principal, PatchKind.of(content), content)
                return await store.patch(resource, id_text, principal, patch, conditions, within=within)
            case Verb.DELETE:
                return await store.delete(resource, id_text, principal, conditions, within=within)


def _id_of(resource: ResourceClass, operation: Operation) -> Any:
    """The id that the operation names; None for none. Raises InvalidInput."""
    if operation.id_text is None:
        return None
    parse = parse_new_id if operation.verb is Verb.CREATE else parse_id
    return parse(resource, operation.id_text)
