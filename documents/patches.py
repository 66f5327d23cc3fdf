"""Patches of documents: what they have in common, and the JSON Merge Patch (RFC 7396)."""

from __future__ import annotations

import enum
from typing import Any, Protocol

from documents.codec import Stored
from documents.editing import Editor
from documents.input import merge, refuse_unknown
from documents.shapes import Kind

#: Where an object may be merged with what is there.
_MERGED = frozenset({Kind.OBJECT, Kind.MAP, Kind.UNION, Kind.ANY})


class Patch(Protocol):
    """A change of any document of one class by one caller. Making one checks all that needs no document; it may then
    be applied to any number of documents, and again to the same one."""

    def apply(self, stored: Stored) -> dict[str, Any]:
        """The new document as Python values by stored name, not yet validated as a whole. `stored` is not changed."""


class PatchKind(enum.StrEnum):
    """The ways to write a patch."""

    MERGE = "merge"
    JSON = "json"
    OPERATORS = "operators"

    @classmethod
    def of(cls, content: Any) -> PatchKind:
        """Which way `content` is written, where no media type says so: no merge patch begins a name with `$`."""
        if isinstance(content, list):
            return cls.JSON
        return cls.OPERATORS if isinstance(content, dict) and any(key[:1] == "$" for key in content) else cls.MERGE


class MergePatch:
    """Fields that `content` names are set, null removes a field. Raises DocumentRefused."""

    def __init__(self, editor: Editor, content: Any) -> None:
        self._editor = editor
        self._changes = refuse_unknown(content, editor.writable, editor.visible)
        editor.parse({name: value for name, value in self._changes.items() if self._is_whole(name, value)})

    def _is_whole(self, name: str, value: Any) -> bool:
        """Whether `value` is what the field will have, whatever the document has there."""
        return value is not None and not (isinstance(value, dict) and self._editor.writable[name].type.kind in _MERGED)

    def apply(self, stored: Stored) -> dict[str, Any]:
        """See Patch. Raises DocumentRefused for values of a wrong type."""
        before = self._editor.open(stored)
        after = dict(before)
        for name, value in self._changes.items():
            if value is not None:
                after[name] = merge(before.get(name), value)
            elif self._editor.writable[name].type.nullable:
                after[name] = None  # where the class knows null, null is set
            else:
                after.pop(name, None)
        return self._editor.close(stored, before, after)
