"""JSON Patch (RFC 6902) of the public form.

A patch that does not fit the document as it stands (a failed `test`, a path that leads nowhere) is Inapplicable; one
that no document could take is refused when it is made. A field that the caller may not see is one that the class does
not have, so neither answer depends on what it holds.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import jsonpatch
import orjson

from documents.codec import Stored
from documents.editing import Edit, Editor, Loc
from documents.errors import DocumentRefused, Fault, Inapplicable
from documents.filters import Place
from documents.filters.traversal import is_index
from documents.input import MAX_DEPTH, faults_of

MAX_OPERATIONS: Final = 200
#: What all `copy` operations of one patch may add. Each can double the document, so 200 of them could fill any memory.
MAX_COPIED_BYTES: Final = 1024 * 1024

_OPERATIONS = frozenset({"add", "remove", "replace", "move", "copy", "test"})
_WITH_VALUE = frozenset({"add", "replace", "test"})
_WITH_FROM = frozenset({"move", "copy"})
#: RFC 6901, section 3.
_POINTER = re.compile(r"(?:/(?:[^/~]|~[01])*)*")

Segments = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Operation:
    name: str
    path: Segments
    source: Segments
    value: Any
    loc: Loc
    raw: dict[str, Any]


@dataclass(slots=True)
class _Copied:
    """How many bytes the copies of one application have added."""

    bytes: int = field(default=0)


class JsonPatch:
    """Operations, applied in order. Raises DocumentRefused for a patch that fits no document."""

    def __init__(self, editor: Editor, content: Any) -> None:
        self._editor = editor
        faults: list[Fault] = []
        if not isinstance(content, list):
            raise DocumentRefused([Fault(("body",), "a JSON array of operations is expected", "list_type")])
        if len(content) > MAX_OPERATIONS:
            raise DocumentRefused([Fault(("body",), f"more than {MAX_OPERATIONS} operations", "too_long")])
        self._operations: list[_Operation] = []
        for index, entry in enumerate(content):
            operation = _read(entry, ("body", index), faults)
            if operation is not None:
                faults.extend(self._faults(operation))
                self._operations.append(operation)
        if faults:
            raise DocumentRefused(faults)
        self._edits = [
            Edit(o.path, (*o.loc, "value") if "value" in o.raw else o.loc, given="value" in o.raw)
            for o in self._operations
            if o.name != "test"
        ]

    def apply(self, stored: Stored) -> dict[str, Any]:
        """See Patch. Raises Inapplicable, and DocumentRefused for values of a wrong type."""
        before = self._editor.open(stored)
        after: Any = copy.deepcopy(before)
        copied = _Copied()
        for operation in self._operations:
            after = _applied(operation, after, copied)
            if not operation.path and operation.name != "test":
                after = self._whole(operation, before, after)
        return self._editor.close(stored, before, after, self._edits)

    def _faults(self, operation: _Operation) -> Iterator[Fault]:
        """What is wrong with an operation whatever the document is."""
        name, loc = operation.name, operation.loc
        if name in _WITH_FROM:
            yield from self._faults_of_path(operation.source, (*loc, "from"), changed=name == "move")
            if name == "move" and len(operation.source) < len(operation.path):
                if operation.path[: len(operation.source)] == operation.source:
                    yield Fault((*loc, "path"), "a value cannot be moved into itself", "path")
            elif name == "move" and not operation.source:
                yield Fault((*loc, "from"), "the document as a whole cannot be moved", "path")
        faults = list(self._faults_of_path(operation.path, (*loc, "path"), changed=name != "test"))
        if name == "remove" and not operation.path:
            faults = [Fault((*loc, "path"), "the document as a whole cannot be removed; use DELETE", "path")]
        # What a value must be is not told of a field that the caller may not see, or may not set.
        yield from faults or (self._faults_of_value(operation) if name in _WITH_VALUE else ())

    def _faults_of_path(self, path: Segments, loc: Loc, *, changed: bool) -> Iterator[Fault]:
        if not path:
            return
        public = {f.public: f for f in self._editor.visible.values()}
        if path[0] not in public or (len(path) > 1 and self._place(path) is None):
            yield Fault(loc, "there is no such field", "extra_forbidden")
        elif changed and path[0] not in self._editor.writable:
            yield Fault(loc, "the server sets this field", "read_only")

    def _faults_of_value(self, operation: _Operation) -> Iterator[Fault]:
        loc, value = (*operation.loc, "value"), operation.value
        if operation.name == "test":
            yield from faults_of(value, None, loc, 0)
        elif operation.path:
            place = self._place(operation.path)
            yield from faults_of(value, place.type if place is not None else None, loc, len(operation.path))
        elif not isinstance(value, dict):
            yield Fault(loc, "a JSON object is expected", "object_type")
        else:
            public = {f.public: f for f in self._editor.visible.values()}
            for key, inner in value.items():
                if key not in public:
                    yield Fault((*loc, key), "there is no such field", "extra_forbidden")
                else:
                    yield from faults_of(inner, public[key].type, (*loc, key), 1)

    def _place(self, path: Segments) -> Place | None:
        if any("." in segment for segment in path):
            return None
        place = self._editor.place(".".join(path))
        if place is None and path[-1] == "-":  # the end of an array
            place = self._editor.place(".".join((*path[:-1], "0")))
        return place

    def _whole(self, operation: _Operation, before: dict[str, Any], after: Any) -> dict[str, Any]:
        """The document after an operation replaced it as a whole. Read-only fields stay, given or not."""
        loc = operation.loc
        if not isinstance(after, dict):
            raise DocumentRefused([Fault(loc, "the document would no longer be an object", "object_type")])
        public = {f.public for f in self._editor.visible.values()}
        faults = [Fault(loc, "there is no such field", "extra_forbidden") for name in after if name not in public]
        kept = {name: value for name, value in before.items() if name not in self._editor.writable}
        faults += [
            Fault((*loc, "value", name), "the server sets this field", "read_only")
            for name in after
            if name in public - self._editor.writable.keys() and not (name in kept and _equal(kept[name], after[name]))
        ]
        if faults:
            raise DocumentRefused(faults)
        return after | kept


def _read(entry: Any, loc: Loc, faults: list[Fault]) -> _Operation | None:
    """One operation. Members that RFC 6902 does not define are ignored, as it says."""
    if not isinstance(entry, dict):
        faults.append(Fault(loc, "a JSON object is expected", "object_type"))
        return None
    name = entry.get("op")
    if not isinstance(name, str) or name not in _OPERATIONS:
        faults.append(Fault((*loc, "op"), f"one of {', '.join(sorted(_OPERATIONS))} is expected", "enum"))
        return None
    path = _pointer(entry, "path", loc, faults)
    source = _pointer(entry, "from", loc, faults) if name in _WITH_FROM else ()
    if name in _WITH_VALUE and "value" not in entry:
        faults.append(Fault((*loc, "value"), "the member is required", "missing"))
        return None
    if path is None or source is None:
        return None
    members = ("op", "path", *(("from",) if name in _WITH_FROM else ()), *(("value",) if name in _WITH_VALUE else ()))
    return _Operation(name, path, source, entry.get("value"), loc, {member: entry[member] for member in members})


def _pointer(entry: dict[str, Any], member: str, loc: Loc, faults: list[Fault]) -> Segments | None:
    """A JSON Pointer (RFC 6901, sections 3 and 4) as its segments."""
    text = entry.get(member)
    if member not in entry:
        faults.append(Fault((*loc, member), "the member is required", "missing"))
    elif not isinstance(text, str) or not _POINTER.fullmatch(text):
        faults.append(Fault((*loc, member), "a JSON Pointer such as /title is expected", "json_pointer"))
    else:
        return tuple(segment.replace("~1", "/").replace("~0", "~") for segment in text.split("/")[1:])
    return None


def _applied(operation: _Operation, document: Any, copied: _Copied) -> Any:
    """`document`, changed in place, after one operation.

    The pointers are followed here first: the library takes the letters of a text for an array's elements, and some
    malformed indexes for numbers.
    """
    name, loc = operation.name, operation.loc
    if name == "test":
        if not _equal(_at(document, operation.path, (*loc, "path")), operation.value):
            raise Inapplicable([Fault((*loc, "value"), "the document has another value there", "test_failed")])
        return document
    if name in _WITH_FROM:
        moved = _at(document, operation.source, (*loc, "from"))
        _check_moved(operation, moved, copied)
        if name == "move" and operation.source == operation.path:
            return document
        if name == "move":
            _raw(document, op="remove", path=operation.raw["from"])
            _check_addable(document, operation)
            return _raw(document, op="add", path=operation.raw["path"], value=moved)
    if name in ("remove", "replace"):
        _at(document, operation.path, (*loc, "path"))
    else:
        _check_addable(document, operation)
    return _raw(document, **copy.deepcopy(operation.raw))


def _raw(document: Any, **operation: Any) -> Any:
    return jsonpatch.JsonPatch([operation]).apply(document, in_place=True)


def _check_addable(document: Any, operation: _Operation) -> None:
    if not operation.path:
        return
    *above, last = operation.path
    loc = (*operation.loc, "path")
    container = _at(document, tuple(above), loc)
    if isinstance(container, list):
        if last != "-" and not (is_index(last) and int(last) <= len(container)):
            raise _leads_nowhere(loc)
    elif not isinstance(container, dict):
        raise _leads_nowhere(loc)


def _check_moved(operation: _Operation, value: Any, copied: _Copied) -> None:
    if _depth(value) + len(operation.path) > MAX_DEPTH:
        raise DocumentRefused([Fault(operation.loc, f"nested deeper than {MAX_DEPTH} levels", "too_deep")])
    if operation.name == "copy":
        copied.bytes += len(orjson.dumps(value))
        if copied.bytes > MAX_COPIED_BYTES:
            msg = f"the patch copies more than {MAX_COPIED_BYTES} bytes"
            raise DocumentRefused([Fault(operation.loc, msg, "too_long")])


def _at(document: Any, path: Segments, loc: Loc) -> Any:
    """The value at `path`. Raises Inapplicable when there is none."""
    value = document
    for segment in path:
        if isinstance(value, dict) and segment in value:
            value = value[segment]
        elif isinstance(value, list) and is_index(segment) and int(segment) < len(value):
            value = value[int(segment)]
        else:
            raise _leads_nowhere(loc)
    return value


def _leads_nowhere(loc: Loc) -> Inapplicable:
    return Inapplicable([Fault(loc, "the document has nothing at this path", "no_such_path")])


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _equal(a: Any, b: Any) -> bool:
    """Equality as RFC 6902, section 4.6, has it: numbers by value; true is not 1, as it is in Python."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(value, b[name]) for name, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)
