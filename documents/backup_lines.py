"""One stored document as one line of a backup, and back, byte for byte.

A line is canonical extended JSON (MongoDB Extended JSON v2), which a person can read and any MongoDB tool can load.
What that form cannot hold exactly (types that BSON has given up, text that is not UTF-8, fields that look like the
form's own, a field twice) stands as `{"$bson": "<base64>"}`: each line is read back before it is believed.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from bson import decode, encode, json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from bson.json_util import JSONMode, JSONOptions
from bson.raw_bson import RawBSONDocument

#: Nothing is turned into a Python value that holds less: times stay numbers, UUIDs bytes.
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
_JSON = JSONOptions(
    json_mode=JSONMode.CANONICAL, datetime_conversion=DatetimeConversion.DATETIME_MS, document_class=dict
)
#: Documents as the server sends them, undecoded.
RAW_CODEC: Final[CodecOptions[RawBSONDocument]] = CodecOptions(
    document_class=RawBSONDocument,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    # For reading the `_id` of documents with other text that is not UTF-8; their bytes stay as they are.
    unicode_decode_error_handler="replace",
)
_RAW: Final = "$bson"
_FAULTS = (BSONError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


class NotALine(Exception):
    """The text is no line of a backup."""


def to_line(raw: bytes) -> bytes:
    """The line of a document in BSON, without its line feed."""
    try:
        document = decode(raw, _CODEC)
        text = json_util.dumps(document, json_options=_JSON, separators=(",", ":"), ensure_ascii=False)
        if _RAW not in document and _encoded(text) == raw:
            return text.encode()
    except _FAULTS:
        pass
    return json.dumps({_RAW: base64.b64encode(raw).decode()}).encode()


def from_line(line: bytes) -> RawBSONDocument:
    """The document of a line. Raises NotALine."""
    try:
        parsed = json.loads(line)
        if not isinstance(parsed, dict):
            raise NotALine("it is not a JSON object")
        raw = base64.b64decode(parsed[_RAW], validate=True) if _RAW in parsed else _encoded(line.decode())
        # Of base64 this looks at the frame alone: what is in it is the server's to judge, as when it was first stored.
        return RawBSONDocument(raw, codec_options=RAW_CODEC)
    except _FAULTS as error:
        raise NotALine(f"it is not extended JSON ({type(error).__name__})") from None


def id_of(document: RawBSONDocument) -> Any:
    """The document's `_id`, for a query. Raises NotALine."""
    try:
        return document["_id"]
    except (BSONError, KeyError) as error:
        raise NotALine(f"it has no _id that can be read ({type(error).__name__})") from None


def _encoded(text: str) -> bytes:
    return encode(json_util.loads(text, json_options=_JSON), codec_options=_CODEC)
