"""Where a change stands in the database's history.

A position is MongoDB's cluster time plus an ordinal for the changes that share one. It is durable, and every
worker finds the same one for the same change.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import ClassVar

from bson import Timestamp

from documents.errors import InvalidInput

_TS_BITS = 64
_ORDINAL_BITS = 32
_LAST_ORDINAL = (1 << _ORDINAL_BITS) - 1

#: Hexadecimal digits of a position (64 + 32 bits) and of its signature (96 bits).
_VALUE_DIGITS = (_TS_BITS + _ORDINAL_BITS) // 4
_SIGNATURE_DIGITS = 24


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """A place in the order of all committed changes; the greater one is later.

    `ts` is a BSON Timestamp as 64 bits (seconds << 32 | increment), `ordinal` counts the changes of one
    cluster time from 1; 0 is kept for a reset that precedes them all.
    """

    ts: int
    ordinal: int

    ZERO: ClassVar[Position]

    @classmethod
    def of(cls, timestamp: Timestamp, ordinal: int) -> Position:
        """The position of the `ordinal`-th change at a cluster time."""
        return cls(timestamp.time << 32 | timestamp.inc, ordinal)

    @classmethod
    def end_of(cls, timestamp: Timestamp) -> Position:
        """After everything at a cluster time: what a reply with this `operationTime` reflects at least."""
        return cls.of(timestamp, _LAST_ORDINAL)

    @property
    def timestamp(self) -> Timestamp:
        """The cluster time."""
        return Timestamp(self.ts >> 32, self.ts & 0xFFFFFFFF)


#: Before every change.
Position.ZERO = Position(0, 0)


class PositionCodec:
    """Writes positions for clients and reads them back, refusing those that it did not write itself.

    The text is 48 hexadecimal digits: 24 of the position, so that the later position is the greater string,
    then 24 of an HMAC-SHA256 (RFC 2104, truncated to 96 bits). The key includes the database's id, so a
    position of another database is refused like a forged one.
    """

    def __init__(self, secret: bytes, database_id: str) -> None:
        key = hmac.digest(secret, b"headwater position of " + database_id.encode(), "sha256").ljust(64, b"\0")
        # The two keyed halves of HMAC, computed once: copying them is half the cost of hmac.digest, and a
        # position is signed for every event.
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))

    def encode(self, position: Position) -> str:
        """The position as text, safe in URLs and in the `id` of a Server-Sent Event."""
        value = f"{position.ts << _ORDINAL_BITS | position.ordinal:024x}"
        inner = self._inner.copy()
        inner.update(value.encode())
        outer = self._outer.copy()
        outer.update(inner.digest())
        return value + outer.hexdigest()[:_SIGNATURE_DIGITS]

    def decode(self, text: str, *loc: str | int) -> Position:
        """The position that `encode` wrote.

        Raises InvalidInput, with the fault at `loc` (`position` if none is given), for anything else.
        """
        if len(text) == _VALUE_DIGITS + _SIGNATURE_DIGITS and text.isascii():
            try:
                value = int(text[:_VALUE_DIGITS], 16)
            except ValueError:
                value = -1
            if value >= 0:
                position = Position(value >> _ORDINAL_BITS, value & _LAST_ORDINAL)
                # Compared as a whole, so that other spellings of the same number ("+1", "1_0", "AB") fail
                # too.
                if hmac.compare_digest(self.encode(position), text):
                    return position
        raise InvalidInput.at(*(loc or ("position",)), msg="not a position of this database", type="position")
