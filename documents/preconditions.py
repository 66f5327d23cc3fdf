"""Conditional requests (RFC 9110, section 13) on one document."""

from __future__ import annotations

import re
from dataclasses import dataclass

from documents.errors import InvalidInput, Stale

_TAG = re.compile(r'\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')


@dataclass(frozen=True, slots=True)
class Preconditions:
    """`If-Match` and `If-None-Match`, parsed. None: the header was not sent; an empty tuple stands for `*`."""

    if_match: tuple[str, ...] | None = None
    if_none_match: tuple[str, ...] | None = None

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None

    @property
    def must_be_absent(self) -> bool:
        """`If-None-Match: *`: only when there is no document yet."""
        return self.if_none_match == ()

    def check(self, etag: str) -> None:
        """Raises Stale when the conditions do not hold for an existing document with `etag`."""
        if self.if_match is not None and self.if_match != () and etag not in self.if_match:
            raise Stale("the document has changed since you read it")
        if self.if_none_match is not None and (self.if_none_match == () or etag in self.if_none_match):
            raise Stale("the document exists as you know it")

    def is_known(self, etag: str) -> bool:
        """Whether a reader already has the document (`If-None-Match` on GET), which is answered with 304."""
        return self.if_none_match is not None and (self.if_none_match == () or etag in self.if_none_match)


NO_PRECONDITIONS = Preconditions()


def parse_tags(header: str | None, name: str) -> tuple[str, ...] | None:
    """Entity tags of an `If-Match` or `If-None-Match` header; `()` for `*`.

    A `W/` before a tag is ignored: some proxies put it there when they compress, and our tags are all strong.
    Raises InvalidInput, naming the header, for one that is malformed.
    """
    if header is None:
        return None
    if header.strip() == "*":
        return ()
    tags: list[str] = []
    at = 0
    while at < len(header):
        found = _TAG.match(header, at)
        if found is None or found.end() == at:
            raise InvalidInput.at("header", name, msg='entity tags are written "like this"', type="etag")
        tags.append(found.group(2))
        at = found.end()
    if not tags:
        raise InvalidInput.at("header", name, msg='entity tags are written "like this"', type="etag")
    return tuple(tags)
