"""Request bodies: size, media type and JSON, with the place of the fault."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from python_multipart.multipart import parse_options_header

from api.problems import Problem
from documents import DocumentRefused, Fault, InvalidInput, PatchKind

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
OPERATORS = "application/vnd.headwater.update+json"
FORM = "application/x-www-form-urlencoded"

#: Decoding this much takes about a millisecond; larger bodies are decoded off the event loop.
_LARGE = 64 * 1024
#: What text that is UTF-8 may be called; ASCII is a part of it.
_CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
#: What BSON can hold; what a document may hold is decided by its class.
_INT64 = range(-(2**63), 2**63)

#: The ways to write a patch. Plain JSON is taken as a merge patch.
PATCHES = {
    MERGE_PATCH: PatchKind.MERGE,
    JSON_PATCH: PatchKind.JSON,
    OPERATORS: PatchKind.OPERATORS,
    JSON: PatchKind.MERGE,
}

_MAX_FORM_FIELDS = 20

Loc = tuple[str | int, ...]


class Body(BaseModel):
    """Base of the bodies that are not documents: unknown fields are refused, and texts are texts."""

    model_config = ConfigDict(extra="forbid", strict=True)


_B = TypeVar("_B", bound=BaseModel)


async def read_json(request: Request, accepted: tuple[str, ...], *, max_bytes: int) -> Any:
    """The decoded JSON body. Answers 415, 413 or 400 otherwise, and 422 as `decode_json` raises it."""
    return await decode_body(await _read(request, accepted, max_bytes))


async def decode_body(content: bytes) -> Any:
    """`content` decoded as JSON. Answers 400 otherwise, and 422 as `decode_json` raises it."""
    text = _text_of(content)
    try:
        return await asyncio.to_thread(decode_json, text, "body") if len(text) > _LARGE else decode_json(text, "body")
    except json.JSONDecodeError as error:
        place = Fault(("body", error.lineno, error.colno), f"not valid JSON: {error.msg}", "json_invalid")
        raise Problem(400, "The body is not valid JSON.", errors=[place]) from None


async def read_form(request: Request, accepted: tuple[str, ...], *, max_bytes: int) -> dict[str, str]:
    """The fields of a form (URL-encoded). Answers 415, 413 or 400 otherwise, and 422 for a field that occurs twice."""
    text = _text_of(await _read(request, accepted, max_bytes))
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FORM_FIELDS)
    except UnicodeDecodeError:
        raise Problem(400, "The form is not UTF-8.", errors=[Fault(("body",), "not valid UTF-8", "unicode")]) from None
    except ValueError:
        raise InvalidInput.at("body", msg=f"more than {_MAX_FORM_FIELDS} fields", type="too_long") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise InvalidInput.at("body", msg="a field occurs twice", type="repeated")
    return fields


def media_type(request: Request) -> str:
    """The body's media type, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_body(model: type[_B], content: object) -> _B:
    """`content` as a `model`. Raises DocumentRefused; what was given, which may be a secret, is not repeated."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = [Fault(("body", *entry["loc"]), *_told(entry)) for entry in error.errors()]
        raise DocumentRefused(faults) from None


def _told(entry: ErrorDetails) -> tuple[str, str]:
    # Pydantic's words name the class, which is nothing to a client.
    if entry["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "a JSON object is expected", "object_type"
    return entry["msg"], entry["type"]


def check_media_type(request: Request, accepted: tuple[str, ...]) -> None:
    """Answer 415 to a body of another type, of another charset than UTF-8, or in a content coding."""
    listed = {"Accept-Patch" if request.method == "PATCH" else "Accept": ", ".join(accepted)}
    if media_type(request) not in accepted:
        raise Problem(415, f"The body must be {' or '.join(accepted)}.", headers=listed)
    kind, parameters = parse_options_header(request.headers["content-type"])
    if not kind.startswith(b"multipart/") and parameters.get(b"charset", b"utf-8").lower() not in _CHARSETS:
        raise Problem(415, "The body must be UTF-8.", headers=listed)
    codings = ",".join(request.headers.getlist("content-encoding")).split(",")
    if any(coding.strip().lower() not in ("", "identity") for coding in codings):
        # RFC 9110, 15.5.16: which codings would have been accepted.
        raise Problem(415, "The body must not be compressed.", headers={"Accept-Encoding": "identity"})


def check_length(request: Request, max_bytes: int) -> None:
    """Answer 413 to a body that declares too great a length."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large(max_bytes)


async def _read(request: Request, accepted: tuple[str, ...], max_bytes: int) -> bytes:
    """The body. One that declares too great a length is refused unread; otherwise bytes are counted while they
    arrive."""
    check_media_type(request, accepted)
    check_length(request, max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large(max_bytes)
    return bytes(body)


def _text_of(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        place = Fault(("body", error.start), "not valid UTF-8", "unicode")
        raise Problem(400, "The body is not UTF-8.", errors=[place]) from None


def too_large(max_bytes: int) -> Problem:
    """The answer to a body that is too large."""
    return Problem(413, f"The body is larger than {max_bytes} bytes.")


def decode_json(text: str, *loc: str | int) -> Any:
    """`text` decoded, with what RFC 8259 leaves open refused: repeated names, NaN, infinities, lone surrogates.

    Raises json.JSONDecodeError for what is not JSON, and InvalidInput, with places that begin with `loc`, for JSON
    that is not accepted.
    """
    reader = _Reader()
    try:
        value = reader.decode(text)
    except RecursionError:
        raise InvalidInput.at(*loc, msg="the JSON is nested too deeply", type="too_deep") from None
    # A decoder does not know where it is, so faults are left in the value and their places found afterwards. Text that
    # was valid UTF-8 has surrogates only from escapes.
    if reader.refused or _SURROGATE.search(text):
        faults = list(_faults_of(value, loc))
        if faults:
            raise InvalidInput(faults)
    return value


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands in a decoded value where something was that is not accepted."""

    name: str | None
    msg: str
    type: str


class _Reader:
    """Decodes one text, and leaves `_Refused` where something is not accepted."""

    def __init__(self) -> None:
        self.refused = False
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=self._float,
            parse_constant=self._constant,
        )

    def decode(self, text: str) -> Any:
        return self._decoder.decode(text)

    def _refuse(self, name: str | None, msg: str, type: str) -> _Refused:
        self.refused = True
        return _Refused(name, msg, type)

    def _object(self, pairs: list[tuple[str, Any]]) -> Any:
        content = dict(pairs)
        if len(content) == len(pairs):
            return content
        left = iter(content)  # in the order of first occurrence
        repeated = next((name for name, _ in pairs if name != next(left, None)), None)
        return self._refuse(repeated, "the name occurs twice in its object", "repeated")

    def _integer(self, digits: str) -> Any:
        # The length first: converting a million digits takes long, and Python refuses to.
        if len(digits) < 22 and (number := int(digits)) in _INT64:
            return number
        return self._refuse(None, "the integer is beyond ±(2^53-1)", "int_range")

    def _float(self, digits: str) -> Any:
        number = float(digits)
        return number if math.isfinite(number) else self._constant(digits)

    def _constant(self, _name: str) -> _Refused:
        return self._refuse(None, "a finite number is expected", "finite_number")


def _faults_of(value: Any, loc: Loc) -> Iterator[Fault]:
    match value:
        case _Refused():
            place = loc if value.name is None else (*loc, _printable(value.name))
            yield Fault(place, value.msg, value.type)
        case str() if not _is_text(value):
            yield Fault(loc, "the text contains half of a surrogate pair", "surrogate")
        case list():
            for index, inner in enumerate(value):
                yield from _faults_of(inner, (*loc, index))
        case dict():
            for name, inner in value.items():
                if not _is_text(name):
                    yield Fault((*loc, _printable(name)), "the name contains half of a surrogate pair", "surrogate")
                yield from _faults_of(inner, (*loc, _printable(name)))


def _is_text(text: str) -> bool:
    return text.isascii() or _printable(text) == text


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
