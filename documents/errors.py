"""The exceptions that `documents` raises.

    DocumentsError
    ├── DeclarationError        a document class is declared wrongly; raised at start, never by a request
    ├── DatabaseRefused         the database cannot be used (standalone server, wrong URL, schema differs)
    ├── BackupRefused           (documents.backups) a backup's folder or its target cannot be used like this
    ├── DatabaseAway            the database does not answer now; the same call may succeed later
    │   └── QueryTooSlow        the query ran into its time limit; it needs an index or a narrower filter
    ├── HistoryLost             the change stream cannot continue from the stored position
    ├── InvalidInput            a client's value is refused; names the place of each fault
    │   ├── FilterRefused       in a filter, sort, field selection or cursor
    │   └── DocumentRefused     in a document, by the class or by the collection's validator
    ├── NotFound                no such document, or none that the caller may read
    │   └── ContentLost         a file's bytes are not all there, or no longer
    ├── Forbidden               the caller may read the document but not do this to it
    ├── RefreshRefused          no refresh token of a session that stands
    │   └── RefreshReused       one that was spent before, which has ended its session
    ├── ResetRefused            no token that resets a password, or not any more
    ├── LastAdmin               the change would leave nobody who is an admin
    ├── TooMany                 the caller has as many of these as anybody may have
    ├── Inapplicable            a JSON Patch does not fit the document as it is
    ├── Stale                   If-Match (or If-None-Match: *) does not hold
    ├── ConditionMissing        the class wants If-Match, and there is none
    ├── Duplicate               a unique index refuses the value; names the fields
    ├── KeyHeld                 another attempt at the request holds its idempotency key
    ├── OperationFailed         (documents.bulk) an operation of an atomic request was refused, so nothing was changed
    ├── TooManyMatch            (documents.selection) more documents match than one request may change
    └── Contended               the document kept changing while we tried; nothing was written

No driver exception leaves this folder: `documents.database.driver_errors` maps them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass


class DocumentsError(Exception):
    """Base of all errors of this folder."""


class DeclarationError(DocumentsError):
    """A document class, its access rules or its settings are declared wrongly."""


class DatabaseRefused(DocumentsError):
    """The database cannot be used as it is; the message says what to change."""


class DatabaseAway(DocumentsError):
    """The database does not answer. Trying again later may succeed."""


class QueryTooSlow(DatabaseAway):
    """The query was stopped at its time limit. It needs an index, or a narrower filter."""


class HistoryLost(DocumentsError):
    """The server no longer holds the changes after the given token (ChangeStreamHistoryLost, error 286)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in a client's input: `loc` is the path to it, `type` a stable word for programs."""

    loc: tuple[str | int, ...]
    msg: str
    type: str


class InvalidInput(DocumentsError):
    """A client's value is refused. `faults` has at least one entry."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{'.'.join(map(str, f.loc))}: {f.msg}" for f in self.faults))

    @classmethod
    def at(cls, *loc: str | int, msg: str, type: str = "value_error") -> InvalidInput:
        """An error with one fault."""
        return cls([Fault(loc, msg, type)])


class FilterRefused(InvalidInput):
    """A filter, sort, field selection or cursor is refused."""


class DocumentRefused(InvalidInput):
    """A document is refused by its class or by the collection's validator."""


class NotFound(DocumentsError):
    """There is no such document for this caller."""


class ContentLost(NotFound):
    """A file's bytes are not all in the database: it was deleted meanwhile, or somebody removed some by hand."""


class Forbidden(DocumentsError):
    """The caller may not do this."""


class RefreshRefused(DocumentsError):
    """The refresh token is not one, or its session has ended."""


class RefreshReused(RefreshRefused):
    """A refresh token came back after it had been exchanged: somebody stole it, or its successor.

    `user_id` (an ObjectId) is whose session has ended by that.
    """

    def __init__(self, user_id: object) -> None:
        super().__init__("the refresh token was used before; its session has ended")
        self.user_id = user_id


class ResetRefused(DocumentsError):
    """The token to reset a password is not one, was used, has expired, or the account has changed since."""

    def __init__(self) -> None:
        super().__init__("the token is not valid, was used before, or has expired")


class LastAdmin(DocumentsError):
    """The change would leave the database without an admin who can sign in."""


class TooMany(DocumentsError):
    """The caller has as many of these as anybody may have."""


class Inapplicable(DocumentsError):
    """A patch does not fit the document as it is: a `test` fails, or a path leads nowhere. `faults` says where."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("the patch does not fit the document as it is")


class Stale(DocumentsError):
    """A precondition on the document's entity tag does not hold."""


class ConditionMissing(DocumentsError):
    """The class's documents are changed only by who names the version that they have seen."""


class Duplicate(DocumentsError):
    """A unique index refuses the document. `fields` are the public names of the index's fields."""

    def __init__(self, fields: Sequence[str]) -> None:
        self.fields = tuple(fields)
        super().__init__(f"another document has the same {', '.join(self.fields) or 'value'}")


class KeyHeld(DocumentsError):
    """Another attempt at the request holds its idempotency key. `left` is for how long at most; None: for good."""

    def __init__(self, message: str, left: dt.timedelta | None) -> None:
        self.left = left
        super().__init__(message)


class Contended(DocumentsError):
    """Other writers changed the document each time before this write could be made. Nothing was written."""
