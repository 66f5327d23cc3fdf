"""Several writes that happen together or not at all.

As the driver asks of whoever commits by hand: an attempt that failed for a passing reason is made again as a whole, a
commit whose outcome is unknown is repeated
(https://www.mongodb.com/docs/manual/core/transactions-in-applications/).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from documents.contention import Attempts
from documents.database import MAJORITY, Database, Session, driver_errors
from documents.errors import DatabaseAway, InvalidInput
from documents.positions import Position

_T = TypeVar("_T")

#: How long the server may take for a commit before it answers that its outcome is unknown.
_COMMIT_TIME_LIMIT_MS = 10_000


class Conflicted(Exception):
    """This attempt of a transaction cannot succeed; another one may. Never leaves `documents`."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One attempt. `unvalidated` are documents whose undeclared fields the validator has refused in an earlier one."""

    session: Session
    unvalidated: set[tuple[str, str]] = field(default_factory=set)

    async def pause(self) -> None:
        """A single write of a transaction cannot be made again by itself. Raises Conflicted."""
        raise Conflicted


async def transact(database: Database, work: Callable[[Transaction], Awaitable[_T]]) -> tuple[_T, Position]:
    """What `work` returns, and the position that includes all its writes.

    `work` is called for each attempt, with a session of its own; what it raises for good aborts the transaction, as a
    cancellation does. Raises InvalidInput for a database without transactions, and Contended when no attempt
    succeeded for long enough.
    """
    if database.in_memory:
        raise InvalidInput.at("body", "atomic", msg="a database in memory has no transactions", type="unsupported")
    attempts, unvalidated = Attempts(), set[tuple[str, str]]()
    while True:
        try:
            # Leaving the session's block ends a transaction that is still open.
            async with database.session() as session:
                assert session is not None  # noqa: S101 - only a database in memory has no sessions
                session.start_transaction(
                    read_concern=ReadConcern("snapshot"),
                    write_concern=MAJORITY,
                    max_commit_time_ms=_COMMIT_TIME_LIMIT_MS,
                )
                result = await work(Transaction(session, unvalidated))
                await _commit(session, attempts)
                return result, database.position(session)
        except Conflicted:
            pass
        except DatabaseAway as away:
            if not _has_label(away, "TransientTransactionError"):
                raise
        await attempts.pause()


async def _commit(session: Session, attempts: Attempts) -> None:
    assert session is not None  # noqa: S101 - see `transact`
    while True:
        try:
            with driver_errors():
                await session.commit_transaction()
        except DatabaseAway as away:
            if not _has_label(away, "UnknownTransactionCommitResult"):
                raise
            await attempts.pause()
        else:
            return


def _has_label(error: DatabaseAway, label: str) -> bool:
    return isinstance(error.__cause__, PyMongoError) and error.__cause__.has_error_label(label)
