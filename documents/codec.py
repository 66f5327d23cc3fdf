"""How values stand in BSON, and what Python gets for what is stored.

What is stored may be the work of another program, past every validator; and the driver refuses a whole reply for one
value that it cannot represent. So documents that others may have written are read raw (`Database.readable`) and
`decoded` here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from bson import Binary, decode, decode_iter
from bson.binary import UUID_SUBTYPE, UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion, TypeDecoder, TypeRegistry
from bson.raw_bson import RawBSONDocument

Stored = dict[str, Any]

#: Times come back aware and in UTC, those beyond Python's years as `DatetimeMS`; UUIDs are stored as BSON subtype 4.
#: Text that is not UTF-8, which the server takes from other programs, is read as far as it can be.
CODEC: Final[CodecOptions[Stored]] = CodecOptions(
    tz_aware=True,
    tzinfo=dt.UTC,
    uuid_representation=UuidRepresentation.STANDARD,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
#: The same for what is sent; what comes is not looked at.
RAW_CODEC: Final = CODEC.with_options(document_class=RawBSONDocument)


class _Uuids(TypeDecoder):
    """A UUID has 16 bytes. What has others, and says that it is one, stays what it is."""

    bson_type = Binary

    def transform_bson(self, value: Binary) -> Any:
        return value.as_uuid() if value.subtype == UUID_SUBTYPE and len(value) == 16 else value


_LENIENT: Final[CodecOptions[Stored]] = CODEC.with_options(
    uuid_representation=UuidRepresentation.UNSPECIFIED, type_registry=TypeRegistry([_Uuids()])
)


def decoded(document: Mapping[str, Any]) -> Stored:
    """A document as it came from `Database.readable`. No value that BSON can hold is refused."""
    if isinstance(document, RawBSONDocument):
        return decode_stored(document.raw)
    return cast("Stored", document)


def decode_stored(data: bytes | memoryview) -> Stored:
    """One BSON document. Raises bson.errors.BSONError for what is not one."""
    return decode(data, _LENIENT)


def decode_all_stored(data: bytes) -> Iterator[Stored]:
    """BSON documents that stand one after another. Raises bson.errors.BSONError at what is not one."""
    return decode_iter(data, _LENIENT)
