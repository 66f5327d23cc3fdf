"""What a file is, found in its first bytes. Neither its name nor what the client says of it counts.

Text is judged before signatures: many signatures are two or three letters, with which any text may begin.
"""

from __future__ import annotations

import re
from typing import Final

import puremagic

#: How much of a file is looked at, in bytes. Nearly all signatures are in the first few.
HEAD_BYTES: Final = 4_096

#: What `images_only` accepts: pictures made of pixels. (An SVG is a document that can hold scripts.)
RASTER_IMAGES: Final = frozenset(
    {
        "image/avif",
        "image/gif",
        "image/heic",
        "image/heif",
        "image/jpeg",
        "image/jxl",
        "image/png",
        "image/tiff",
        "image/webp",
    }
)

UNKNOWN: Final = "application/octet-stream"

#: Shorter signatures match too much that is something else.
_MIN_SIGNATURE = 3
#: Containers of many formats, which by themselves say nothing of the one inside.
_CONTAINERS = {b"PK\x03\x04": "application/zip", b"RIFF": UNKNOWN}
#: Names as they are registered now.
_NAMES = {"application/x-gzip": "application/gzip", "audio/wave": "audio/wav"}
_TYPE = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]*")

_NOT_IN_TEXT = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
#: With these a browser takes a text for HTML (WHATWG MIME Sniffing, 7.1).
_HTML = re.compile(
    rb"<(?:!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P)[\s>/]|<!--", re.IGNORECASE
)
_SVG = re.compile(rb"<(?:[a-z]+:)?svg[\s>/]", re.IGNORECASE)


def content_type_of(head: bytes) -> str:
    """The media type of a file that begins with `head` (up to HEAD_BYTES of it).

    Takes about half a millisecond. What is not known is `text/plain` when it reads as UTF-8, else
    `application/octet-stream`.
    """
    head = head[:HEAD_BYTES]
    if not head:
        return UNKNOWN
    return _text_type(head) if _is_text(head) else _binary_type(head)


def _is_text(head: bytes) -> bool:
    if _NOT_IN_TEXT.search(head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # A character may be cut where the head ends.
        return len(head) == HEAD_BYTES and error.start > len(head) - 4 and error.reason == "unexpected end of data"
    return True


def _text_type(head: bytes) -> str:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"%PDF-"):
        return "application/pdf"
    if start.startswith(rb"{\rtf"):
        return "application/rtf"
    if start.startswith(b"<") and _SVG.search(start):
        return "image/svg+xml"
    if _HTML.match(start):
        return "text/html"
    return "application/xml" if start.startswith(b"<?xml") else "text/plain"


def _binary_type(head: bytes) -> str:
    try:
        matches = puremagic.magic_string(head)
    except puremagic.PureError:
        return UNKNOWN
    # Offsets below zero count from the end of the file, which is not here.
    usable = [m for m in matches if m.offset >= 0 and len(m.byte_match) >= _MIN_SIGNATURE and m.mime_type]
    if not usable:
        return UNKNOWN
    best = max(usable, key=lambda match: len(match.byte_match))
    if best.byte_match in _CONTAINERS:
        return _CONTAINERS[best.byte_match]
    name = _NAMES.get(best.mime_type, best.mime_type)
    return name if _TYPE.fullmatch(name) else UNKNOWN
