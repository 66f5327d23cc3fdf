"""List cursors: where a page ended, signed and bound to the list it belongs to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Any

from bson import encode
from bson.errors import BSONError

from documents.codec import CODEC, decode_stored
from documents.errors import FilterRefused
from documents.sorting import Sort

_MAC_BYTES = 12


class CursorCodec:
    """Encodes the sort values of a page's last document as an opaque string.

    The string is signed with `secret` and bound to the list's identity (resource, filter, sort, caller), so that a
    cursor made by hand or taken from another list is refused instead of giving a wrong page.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.blake2b(b"headwater list cursor", key=secret[:64]).digest()

    def encode(self, values: list[Any], identity: bytes) -> str:
        """An opaque, URL-safe cursor."""
        body = encode({"v": values}, codec_options=CODEC)
        return base64.urlsafe_b64encode(self._mac(body, identity) + body).decode("ascii").rstrip("=")

    def decode(self, text: str, sort: Sort, identity: bytes) -> list[Any]:
        """The sort values that `encode` was given. Raises FilterRefused for any other string."""
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            raw = b""
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body, identity)):
            raise FilterRefused.at("query", "cursor", msg="the cursor does not belong to this list", type="cursor")
        try:
            decoded = decode_stored(body)
        except BSONError:  # pragma: no cover - a signed body is one that we encoded
            raise FilterRefused.at("query", "cursor", msg="the cursor is damaged", type="cursor") from None
        values: list[Any] = decoded["v"]
        if len(values) != len(sort):
            raise FilterRefused.at("query", "cursor", msg="the cursor belongs to another sort order", type="cursor")
        return values

    def _mac(self, body: bytes, identity: bytes) -> bytes:
        return hmac.digest(self._key, hashlib.sha256(identity).digest() + body, "sha256")[:_MAC_BYTES]
