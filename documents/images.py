"""The image of a document after an update, computed from the image before it.

MongoDB reports an update as a difference (`updateDescription`). Applied to the image before, it gives exactly
the document that this update made, where looking the document up would give whatever it is by then.

Source: https://www.mongodb.com/docs/manual/reference/change-events/update/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: MongoDB refuses to pad an array by more than this ($set beyond its end).
_MAX_PADDING = 1_500_000

_Parts = Sequence[str | int]


class _Name(str):
    """A part that the server says is a field's name, even if it looks like an index."""

    __slots__ = ()


class ImageError(Exception):
    """The description does not fit the image, so the image after the update is unknown."""


def apply_update(before: Mapping[str, Any], update_description: Mapping[str, Any]) -> dict[str, Any]:
    """The document after an update; `before` is left as it is and shares all unchanged parts with the result.

    Changed fields keep their place and new ones come last. (An update by pipeline can reorder existing
    fields; the difference does not tell, so the result then has the same fields in another order.)

    Raises ImageError when the description speaks of something that the image does not have.
    """
    return _Update(before, update_description).apply(update_description)


class _Update:
    """One application: remembers which containers are already our own copies."""

    def __init__(self, before: Mapping[str, Any], description: Mapping[str, Any]) -> None:
        self._before = before
        self._after: dict[str, Any] = dict(before)
        # By id, holding the object too: an id alone could be given to another object meanwhile.
        self._owned: dict[int, Any] = {id(self._after): self._after}
        self._disambiguated: Mapping[str, Any] = description.get("disambiguatedPaths") or {}

    def apply(self, description: Mapping[str, Any]) -> dict[str, Any]:
        # The server's own order: an array is cut to its new length before elements of it are set, and fields
        # are removed before new ones are appended.
        for truncation in description.get("truncatedArrays") or ():
            self._truncate(truncation["field"], truncation["newSize"])
        for path in description.get("removedFields") or ():
            self._remove(path)
        for path, value in (description.get("updatedFields") or {}).items():
            self._set(path, value)
        return self._after

    def _truncate(self, path: str, size: int) -> None:
        parent, last = self._parent(path)
        array = self._own(parent, last, path)
        if not isinstance(array, list) or len(array) < size:
            raise ImageError(f"{path}: not an array of at least {size} elements")
        del array[size:]

    def _remove(self, path: str) -> None:
        parent, last = self._parent(path)
        key = _key(parent, last, path)
        if not isinstance(parent, dict) or key not in parent:
            raise ImageError(f"{path}: no such field to remove")
        del parent[key]

    def _set(self, path: str, value: Any) -> None:
        parent, last = self._parent(path)
        key = _key(parent, last, path)
        if isinstance(parent, list):
            missing = key - len(parent) + 1
            if missing > _MAX_PADDING:
                raise ImageError(f"{path}: {missing} elements beyond the array's end")
            parent.extend([None] * missing)
        parent[key] = value

    def _parent(self, path: str) -> tuple[Any, str | int]:
        """Our own copy of the container that holds the path's last part, and that part."""
        parts = self._parts(path)
        node: Any = self._after
        for part in parts[:-1]:
            node = self._own(node, part, path)
        return node, parts[-1]

    def _parts(self, path: str) -> _Parts:
        parts = self._disambiguated.get(path)
        if parts is not None:
            if not parts:
                raise ImageError(f"{path}: an empty path")
            return [_Name(part) if isinstance(part, str) else part for part in parts]
        if "." not in path:
            return (path,)
        if path in self._before:
            # A name with a dot that the server did not disambiguate: both readings are possible.
            raise ImageError(f"{path}: ambiguous")
        return path.split(".")

    def _own(self, node: Any, part: str | int, path: str) -> Any:
        """The child, copied once if it is still shared with the image before."""
        key = _key(node, part, path)
        try:
            child = node[key]
        except (KeyError, IndexError):
            raise ImageError(f"{path}: nothing at {part!r}") from None
        if id(child) in self._owned:
            return child
        if isinstance(child, list):
            copy: Any = list(child)
        elif isinstance(child, dict):
            copy = dict(child)
        else:
            raise ImageError(f"{path}: a value, not a container, at {part!r}")
        self._owned[id(copy)] = copy
        node[key] = copy
        return copy


def _key(node: Any, part: str | int, path: str) -> Any:
    """The part as a key of this container: a list takes an index, a document a name.

    Disambiguated paths give indexes as integers and names as strings. In plain paths the container decides.
    """
    if isinstance(node, list):
        if isinstance(part, int):
            return part
        leading_zero = part.startswith("0") and part != "0"
        if part.isascii() and part.isdecimal() and not leading_zero and not isinstance(part, _Name):
            return int(part)
        raise ImageError(f"{path}: {part!r} is not an index")
    if isinstance(node, dict) and isinstance(part, str):
        return str(part)
    raise ImageError(f"{path}: {part!r} does not fit a {type(node).__name__}")
