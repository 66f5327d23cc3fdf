"""The revisions of a document: what the server adds to a client's values, and what it puts right of its own."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from bson import ObjectId, encode

from documents.access import Principal
from documents.codec import CODEC, Stored
from documents.errors import DocumentRefused, Fault
from documents.input import MAX_INTEGER, to_python, validate_whole
from documents.markers import SetOnCreate
from documents.resources import BOOKKEEPING, ResourceClass, is_client_writable, utc_now
from documents.shapes import FieldType, Kind


def first_revision(resource: ResourceClass, principal: Principal, values: Mapping[str, Any]) -> Stored:
    """A new document of `principal`'s from the Python `values`: validated as a whole, with all that the server sets.

    Raises DocumentRefused.
    """
    authorship = {"created_by": principal.author, "updated_by": principal.author}
    stored = validate_whole(resource, {**values, **_set_on_create(resource, principal), **authorship})
    return stored | {"updated_at": stored["created_at"], "revision": 1}


def next_revision(
    resource: ResourceClass, principal: Principal, stored: Stored, values: Mapping[str, Any]
) -> dict[str, Any]:
    """The document that `principal` makes of `stored` by the Python `values`, which are all of the new one's.

    Fields that no client can set are put right where they break the rules, because nobody else could: one that is set
    on creation is set as if `principal` were creating the document now, others get their default. What nobody declared
    inside a field that stays as it is, stays too. Raises DocumentRefused.
    """
    now = utc_now()
    bookkeeping: dict[str, Any] = {"updated_at": now, "updated_by": principal.author}
    if not isinstance(stored.get("created_at"), dt.datetime):
        bookkeeping["created_at"] = stored["_id"].generation_time if isinstance(stored["_id"], ObjectId) else now
    bookkeeping["revision"] = stored["revision"] + 1 if _is_counted(stored) else 1
    whole = {**values, **bookkeeping}
    try:
        new = validate_whole(resource, whole)
    except DocumentRefused as refused:
        wrong = _of_server(resource, refused.faults)
        if not wrong:
            raise
        set_anew = {name: value for name, value in _set_on_create(resource, principal).items() if name in wrong}
        new = validate_whole(resource, {name: value for name, value in whole.items() if name not in wrong} | set_anew)
    if not _is_same_id(stored["_id"], new["_id"]):
        # A text, say, of which pydantic makes the ObjectId that it looks like.
        raise DocumentRefused([Fault(("body", "id"), "the stored `_id` has another type than the class's", "id")])
    before = to_python({name: value for name, value in stored.items() if name in new})
    return {
        name: _with_undeclared(stored[name], value, resource.fields[name].type)
        if name in before and before[name] == whole.get(name)
        else value
        for name, value in new.items()
    }


def _with_undeclared(stored: Any, new: Any, field_type: FieldType) -> Any:
    """`new`, which the class made of `stored`, with what nested documents hold besides their declared fields: another
    version of the class may have written it. In maps and unions the class decides."""
    match field_type:
        case FieldType(kind=Kind.OBJECT, fields=fields) if fields and isinstance(stored, Mapping):
            if not isinstance(new, Mapping):
                return new
            kept = {
                name: _with_undeclared(stored[name], value, fields[name].type) if name in stored else value
                for name, value in new.items()
            }
            return kept | {name: value for name, value in stored.items() if name not in fields}
        case FieldType(kind=Kind.ARRAY, item=FieldType() as item) if isinstance(stored, list):
            if isinstance(new, list) and len(new) == len(stored):
                return [_with_undeclared(old, value, item) for old, value in zip(stored, new, strict=True)]
    return new


def is_revised(resource: ResourceClass, stored: Stored, new: Stored) -> bool:
    """Whether `new`, made of `stored`, has more than other bookkeeping. BSON values are compared, and their types.

    Bookkeeping that somebody has broken is to be put right, too.
    """
    if not _is_counted(stored) or not isinstance(stored.get("updated_at"), dt.datetime):
        return True
    if "updated_by" in stored and not isinstance(stored["updated_by"], str):
        return True
    names = sorted(name for name in resource.fields if name not in BOOKKEEPING and (name in stored or name in new))
    if any(name not in stored or name not in new for name in names):
        return True
    before, after = ({name: document[name] for name in names} for document in (stored, new))
    return encode(before, codec_options=CODEC) != encode(after, codec_options=CODEC)


def _is_same_id(stored: Any, new: Any) -> bool:
    if isinstance(stored, int | float) and isinstance(new, int | float) and not isinstance(stored, bool):
        return stored == new  # MongoDB compares numbers by value
    return encode({"_id": stored}, codec_options=CODEC) == encode({"_id": new}, codec_options=CODEC)


def _is_counted(stored: Stored) -> bool:
    revision = stored.get("revision")
    return isinstance(revision, int) and not isinstance(revision, bool) and 0 < revision < MAX_INTEGER


def _set_on_create(resource: ResourceClass, principal: Principal) -> dict[str, Any]:
    return {
        name: marker.value(principal)
        for name, field in resource.fields.items()
        for marker in field.markers
        if isinstance(marker, SetOnCreate)
    }


def _of_server(resource: ResourceClass, faults: Sequence[Fault]) -> set[str]:
    """The fields that `faults` are about and that no client can set."""
    places = {fault.loc[1] for fault in faults if len(fault.loc) > 1}
    return {name for name, field in resource.fields.items() if name in places and not is_client_writable(field)}
