"""Documents' ids: read from URLs, and made for new documents."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from bson import Binary, DatetimeMS, Decimal128, MaxKey, MinKey, ObjectId, Timestamp, json_util
from bson.binary import UuidRepresentation
from bson.errors import BSONError

from documents.errors import InvalidInput
from documents.input import MAX_INTEGER
from documents.public import EXTENDED_JSON, FOREIGN_ID, public_id
from documents.resources import MAX_ID, RESERVED_IDS, ResourceClass
from documents.shapes import Kind

_MAX_FOREIGN = 4_000
_BINARY_UUIDS = EXTENDED_JSON.with_options(uuid_representation=UuidRepresentation.UNSPECIFIED)
_ID_TYPES = (
    str, bool, int, float, bytes, ObjectId, uuid.UUID, dt.datetime, DatetimeMS, Decimal128, Binary, Timestamp, MinKey,
    MaxKey, type(None),
)  # fmt: skip


def new_id(resource: ResourceClass) -> Any:
    """An id for a new document; None where the class makes its own.

    Raises InvalidInput where the client must choose one.
    """
    return _fitting(resource, ObjectId(), uuid.uuid4())


def allotted_id(resource: ResourceClass) -> Any:
    """An id for a document that is to be created later, by the class where it makes its own. Raises as `new_id`."""
    made = new_id(resource)
    if made is None:
        return resource.document_class.model_fields["id"].get_default(call_default_factory=True)
    return made


def repeatable_ids(resource: ResourceClass, seed: ObjectId) -> Callable[[int, bytes], Any] | None:
    """Ids that follow from `seed`, the number of a line (below 2^24) and its content; ordered as the lines are.

    None where the class makes its own. Raises InvalidInput where the client must choose them.
    """

    def id_of(line: int, content: bytes) -> Any:
        place = (line % 2**24).to_bytes(3, "big")
        digest = hashlib.sha256(seed.binary + place + content).digest()
        # Four bytes of time in front, as in every ObjectId.
        made = ObjectId(seed.binary[:4] + place + digest[:5])
        return _fitting(resource, made, uuid.UUID(bytes=digest[:16], version=4))

    return None if new_id(resource) is None else id_of


def _fitting(resource: ResourceClass, object_id: ObjectId, other: uuid.UUID) -> Any:
    field = resource.fields["_id"]
    match field.type.kind:
        case Kind.OBJECT_ID:
            return object_id
        case _ if not field.required:
            return None
        case Kind.UUID:
            return other
        case Kind.STRING:
            return str(object_id)
    raise InvalidInput.at("body", "id", msg="choose an id and create the document with PUT", type="missing")


def parse_new_id(resource: ResourceClass, text: str) -> Any:
    """An id from a URL for a document that is to be created under it. Raises InvalidInput for one it cannot have."""
    if text in RESERVED_IDS:
        raise InvalidInput.at("path", "id", msg=f"`{text}` is never an id", type="reserved")
    if text.startswith(FOREIGN_ID):
        raise InvalidInput.at("path", "id", msg=f"the id of a new document is a valid {resource.id_kind}", type="id")
    return parse_id(resource, text)


def parse_id(resource: ResourceClass, text: str) -> Any:
    """An id from a URL: of the type that the class declares, or in the form that `public_id` gives to all others.

    Raises InvalidInput for one that no document can have.
    """
    kind = resource.id_kind
    try:
        if text.startswith(FOREIGN_ID):
            return _foreign(text, kind)
        match kind:
            case Kind.OBJECT_ID:
                return ObjectId(text)
            case Kind.UUID:
                # One form only, so that a document has one address.
                given = uuid.UUID(text)
                if str(given) != text.lower():
                    raise ValueError
                return given
            case Kind.INTEGER:
                number = int(text[:20])
                if abs(number) > MAX_INTEGER or str(number) != text:
                    raise ValueError
                return number
            case _:
                text.encode()  # half of a surrogate pair raises a ValueError
                if not text or len(text) > MAX_ID or "\0" in text:
                    raise ValueError
                return text
    except (BSONError, ValueError):
        raise InvalidInput.at("path", "id", msg=f"the id is not a valid {kind}", type="id") from None


def _foreign(text: str, kind: Kind) -> Any:
    """The id of another type than `kind` that `text` is the public form of. Raises ValueError."""
    if len(text) > _MAX_FOREIGN:
        raise ValueError
    try:
        value = _parsed(text.removeprefix(FOREIGN_ID))
        # One address for each id, and none for what would be an operator or a pattern in a query.
        if not _can_be_id(value) or public_id(value, kind) != text:
            raise ValueError
    except (TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        raise ValueError from None
    return value


def _parsed(text: str) -> Any:
    """A value of extended JSON. What says that it is a UUID and is none stays what it is."""
    try:
        return json_util.loads(text, json_options=EXTENDED_JSON)
    except ValueError:
        return json_util.loads(text, json_options=_BINARY_UUIDS)


def _can_be_id(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(not name.startswith("$") and _can_be_id(inner) for name, inner in value.items())
    return isinstance(value, _ID_TYPES)
