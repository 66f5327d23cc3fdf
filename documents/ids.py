"""Documents' ids: read from URLs, and made for new documents."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import Any

from bson import ObjectId
from bson.errors import InvalidId

from documents.errors import InvalidInput
from documents.input import MAX_INTEGER
from documents.resources import ResourceClass
from documents.shapes import Kind


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


def parse_id(resource: ResourceClass, text: str) -> Any:
    """An id from a URL, by the declared type of the class's `_id`. Raises InvalidInput for one it cannot be."""
    kind = resource.fields["_id"].type.kind
    try:
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
                if not text or len(text) > 200 or "\0" in text:
                    raise ValueError
                return text
    except (InvalidId, ValueError):
        raise InvalidInput.at("path", "id", msg=f"the id is not a valid {kind}", type="id") from None
