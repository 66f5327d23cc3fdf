"""Byte ranges of a representation (RFC 9110, section 14)."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

_ONE = re.compile(r"bytes=[ \t]*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))[ \t]*", re.ASCII | re.IGNORECASE)


class NotSatisfiable(Exception):
    """The range lies beyond the representation."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` to before `stop`, of `length`."""

    start: int
    stop: int
    length: int

    @property
    def content_range(self) -> str:
        """The value of `Content-Range`."""
        return f"bytes {self.start}-{self.stop - 1}/{self.length}"


def range_of(headers: Mapping[str, str], length: int, etag: str, modified: dt.datetime | None) -> ByteRange | None:
    """The range to answer with; None for the whole.

    A server may answer with the whole whatever it is asked (14.2): this one does to several ranges, other units, what
    is malformed, and where `If-Range` names another version. Raises NotSatisfiable.
    """
    found = _ONE.fullmatch(headers.get("range", ""))
    if found is None or not _is_same(headers.get("if-range"), etag, modified):
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        if not int(suffix):
            raise NotSatisfiable
        # The end of nothing is all of it, which no Content-Range can say.
        return ByteRange(max(length - int(suffix), 0), length, length) if length else None
    start = int(first)
    if last and int(last) < start:
        return None  # malformed (14.1.1)
    if start >= length:
        raise NotSatisfiable
    return ByteRange(start, min(int(last) + 1, length) if last else length, length)


def _is_same(if_range: str | None, etag: str, modified: dt.datetime | None) -> bool:
    """Whether `If-Range` (13.1.5) names this version: by the strong tag, or the exact date."""
    if if_range is None:
        return True
    if '"' in if_range:
        return bool(etag) and if_range.strip() == etag
    date = parse_date(if_range)
    return date is not None and modified is not None and date == modified.replace(microsecond=0)


def parse_date(header: str) -> dt.datetime | None:
    """An HTTP date (5.6.7); None for anything else, which a recipient must ignore."""
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date.replace(tzinfo=dt.UTC) if date.tzinfo is None else date
