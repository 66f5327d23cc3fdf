"""Lines of an export, on their way back: what the server sets of a document is left aside."""

from __future__ import annotations

from typing import Any

from documents.access import Principal
from documents.errors import DocumentRefused, Fault, InvalidInput
from documents.ids import parse_new_id
from documents.markers import SetOnCreate
from documents.public import INVALID
from documents.resources import RESERVED_IDS, ResourceClass
from documents.shapes import Field


def as_new(resource: ResourceClass, principal: Principal, line: Any) -> tuple[Any, Any]:
    """The id that a line of an import names (None: none), and the rest of it that a client may set.

    Bookkeeping, `invalid`, and what else only the server sets are of the document that was exported, not of the one
    that is about to be created. But a field that says whose the document is must say that it is `principal`'s:
    otherwise it is left in, to be refused, because nobody's document becomes another's in silence. Raises
    DocumentRefused for an id that no document of the class can have.
    """
    if not isinstance(line, dict):
        return None, line
    writable = resource.writable(principal.roles)
    kept_by_server = {f.public: f for name, f in resource.visible(principal.roles).items() if name not in writable}
    document_id, body = None, {}
    for name, value in line.items():
        if name == "id":
            document_id = _id_of(resource, value)
        elif name == INVALID:
            continue
        elif name not in kept_by_server or _is_of_another(kept_by_server[name], principal, value):
            body[name] = value
    return document_id, body


def _id_of(resource: ResourceClass, value: Any) -> Any:
    try:
        if isinstance(value, str) and value not in RESERVED_IDS:
            return parse_new_id(resource, value)
    except InvalidInput as error:
        raise DocumentRefused([Fault(("body", "id"), fault.msg, fault.type) for fault in error.faults]) from None
    raise DocumentRefused([Fault(("body", "id"), "this is never an id", "id")])


def _is_of_another(field: Field, principal: Principal, value: Any) -> bool:
    owners = [marker.value(principal) for marker in field.markers if isinstance(marker, SetOnCreate)]
    return principal.user_id in owners and value != str(principal.user_id)
