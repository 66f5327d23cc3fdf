"""`multipart/form-data` (RFC 7578), taken apart while it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.bodies import check_length, check_media_type, too_large
from api.problems import Problem
from documents import Fault

MULTIPART = "multipart/form-data"

MAX_HEADERS = 8
MAX_HEADER_BYTES = 4_096

#: What is parsed at once: even of bytes that are made to be slow, this takes a few milliseconds.
_SLICE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """The head of a part. `filename` is None where it has none, which is how a text field is told from a file."""

    name: str
    filename: str | None


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is complete."""


Event = Part | bytes | PartEnd


class _Malformed(Exception):
    """What arrives is not multipart/form-data; the text says why."""


def boundary_of(request: Request) -> bytes:
    """The boundary that the request declares. Answers 415 for another media type and 400 for none or a long one."""
    check_media_type(request, (MULTIPART,))
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
        place = Fault(("header", "Content-Type"), "a boundary of 1 to 70 characters is expected", "boundary")
        raise Problem(400, "The Content-Type has no usable boundary.", errors=[place])
    return boundary


async def parts_of(request: Request, boundary: bytes, *, max_bytes: int) -> AsyncGenerator[Event, None]:
    """Each part's head, its bytes in pieces, and its end. The client is read no faster than this is.

    Answers 413 for a body beyond `max_bytes`, declared or counted, and 400 for one that is malformed or ends early.
    Raises ClientDisconnect when the client goes away.
    """
    check_length(request, max_bytes)
    reader, size = _Reader(boundary), 0
    try:
        async for data in request.stream():
            size += len(data)
            if size > max_bytes:
                raise too_large(max_bytes)
            for start in range(0, len(data), _SLICE):
                for event in reader.feed(data[start : start + _SLICE]):
                    yield event
                await asyncio.sleep(0)
        if not reader.ended:
            raise _Malformed("it ends before its last boundary")
    except (FormParserError, _Malformed) as error:
        # The parser's own words tell of its insides.
        reason = str(error) if isinstance(error, _Malformed) else "it breaks the format"
        place = Fault(("body",), f"not valid {MULTIPART}: {reason}", "multipart")
        raise Problem(400, f"The body is not valid {MULTIPART}.", errors=[place]) from None


class _Reader:
    """Turns the parser's callbacks into events."""

    def __init__(self, boundary: bytes) -> None:
        self.ended = False
        self._events: list[Event] = []
        self._name, self._value = bytearray(), bytearray()
        self._disposition: bytes | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_begin": self._on_header_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )

    def feed(self, data: bytes) -> list[Event]:
        """What `data` brings. Raises FormParserError and _Malformed."""
        self._parser.write(data)
        events, self._events = self._events, []
        return events

    def _on_part_begin(self) -> None:
        self._disposition = None

    def _on_header_begin(self) -> None:
        self._name, self._value = bytearray(), bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            if self._disposition is not None:
                raise _Malformed("a part has two dispositions")
            self._disposition = bytes(self._value)

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise _Malformed("a part does not say which field it is")
        filename = options.get(b"filename")
        self._events.append(Part(_text(options[b"name"]), None if filename is None else _text(filename)))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])

    def _on_part_end(self) -> None:
        self._events.append(PartEnd())

    def _on_end(self) -> None:
        self.ended = True


def _text(raw: bytes) -> str:
    """A name as browsers write it: UTF-8, with quotes and line ends percent-encoded (RFC 7578, 4.2)."""
    for code, character in ((b"%22", b'"'), (b"%0D", b"\r"), (b"%0A", b"\n")):
        raw = raw.replace(code, character)
    return raw.decode(errors="replace")
