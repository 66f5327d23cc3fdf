"""Clients' dotted paths, resolved along the declared types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from documents.filters.traversal import is_index
from documents.shapes import FieldType, Kind

MAX_SEGMENTS: Final = 20


@dataclass(frozen=True, slots=True)
class Place:
    """What a path names: `path` as stored, the type there, and whether an array was crossed on the way."""

    path: str
    type: FieldType
    in_array: bool


def resolve(path: str, scope: FieldType) -> Place | None:
    """The place of a public, dotted `path` below `scope`, or None where nothing is declared."""
    segments = path.split(".")
    if len(segments) > MAX_SEGMENTS or not all(map(_is_key, segments)):
        return None
    stored: list[str] = []
    types, in_array = [scope], False
    for segment in segments:
        in_array = in_array or any(type_.kind is Kind.ARRAY for type_ in types)
        steps = [step for type_ in types for step in _steps(segment, type_)]
        if not steps:
            return None
        # Alternatives of a union share a stored name: it differs from the public one for `_id` alone.
        stored.append(steps[0][0])
        types = [type_ for _, type_ in steps]
    return Place(".".join(stored), types[0] if len(types) == 1 else _union(types), in_array)


def has_kind(type_: FieldType, *kinds: Kind) -> bool:
    """Whether a value of this type can be of one of the kinds."""
    if type_.kind is Kind.UNION:
        return any(has_kind(alternative, *kinds) for alternative in type_.alternatives)
    return type_.kind in kinds or type_.kind is Kind.ANY


def items_of(type_: FieldType) -> FieldType:
    """The type of an array's elements."""
    if type_.kind is Kind.UNION:
        return _union([items_of(a) for a in type_.alternatives if a.kind in (Kind.ARRAY, Kind.ANY)])
    return (type_.item if type_.kind is Kind.ARRAY else None) or FieldType(Kind.ANY)


def _union(types: list[FieldType]) -> FieldType:
    return types[0] if len(types) == 1 else FieldType(Kind.UNION, alternatives=tuple(types))


def _is_key(segment: str) -> bool:
    try:
        segment.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return bool(segment) and segment[0] != "$" and "\0" not in segment


def _steps(segment: str, type_: FieldType) -> list[tuple[str, FieldType]]:
    """One segment down: the stored name and the type, for each way to understand it."""
    match type_.kind:
        case Kind.OBJECT:
            return [(f.name, f.type) for f in (type_.fields or {}).values() if f.public == segment]
        case Kind.MAP:
            return [(segment, type_.item or FieldType(Kind.ANY))]
        case Kind.ANY:
            return [(segment, type_)]
        case Kind.UNION:
            return [step for alternative in type_.alternatives for step in _steps(segment, alternative)]
        case Kind.ARRAY:
            item = type_.item or FieldType(Kind.ANY)
            if is_index(segment):
                return [(segment, item)]
            # Arrays in arrays are not traversed implicitly: they need an index.
            return [] if item.kind is Kind.ARRAY else _steps(segment, item)
    return []
