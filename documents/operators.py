"""Update operators in MongoDB's own form: `{"$inc": {"score": 1}, "$push": {"tags": {"$each": ["a", "b"]}}}`.

They act on the public form with the semantics of MongoDB's update operators
(https://www.mongodb.com/docs/manual/reference/operator/update/), with these differences: arithmetic on decimals that
would have to round, and on integers beyond ±(2^53-1), is refused; and what they make is validated as any write is.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from documents import arithmetic, arrays
from documents.codec import Stored
from documents.editing import Edit, Editor, Loc, bson_value, edited
from documents.errors import DocumentRefused, Fault
from documents.filters import Place
from documents.filters.ordering import MISSING
from documents.filters.traversal import is_index
from documents.filters.values import ValueRefused, coerce
from documents.input import faults_of
from documents.sorting import order_key

MAX_PATHS: Final = 200
#: How far beyond an array's end an index may be; what is between becomes null.
MAX_PADDING: Final = 1_000

#: From the value at the path (MISSING where there is none) to the new one (MISSING to remove it, or to leave nothing).
#: Raises ValueRefused.
Change = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Update:
    path: tuple[str, ...]
    loc: Loc
    change: Change
    creates: bool
    sets: bool = False
    unsets: bool = False


class OperatorPatch:
    """Operators, each on one or more dotted paths. Raises DocumentRefused for a patch that fits no document."""

    def __init__(self, editor: Editor, content: Any) -> None:
        self._editor = editor
        self._updates: list[_Update] = []
        faults = [fault for faults in self._read(content) for fault in faults]
        faults.extend(_conflicts(self._updates))
        if faults:
            raise DocumentRefused(faults)
        self._edits = [Edit(update.path, update.loc, given=update.sets) for update in self._updates]
        # No other operator has the same path, so these are what the fields will have.
        whole = [update for update in self._updates if update.sets and len(update.path) == 1]
        editor.parse({update.path[0]: update.change(MISSING) for update in whole}, self._edits)

    def apply(self, stored: Stored) -> dict[str, Any]:
        """See Patch. Raises DocumentRefused where an operator does not fit the value that it meets."""
        before = self._editor.open(stored)
        touched = {update.path[0] for update in self._updates}
        after = {name: copy.deepcopy(value) if name in touched else value for name, value in before.items()}
        faults: list[Fault] = []
        for update in self._updates:
            try:
                _apply(update, after)
            except ValueRefused as refused:
                faults.append(Fault((*update.loc, *refused.at), refused.msg, refused.type))
        if faults:
            raise DocumentRefused(faults)
        return self._editor.close(stored, before, after, self._edits)

    def _read(self, content: Any) -> Iterator[Iterator[Fault]]:
        if not isinstance(content, dict) or not content:
            yield iter([Fault(("body",), 'a JSON object such as {"$set": {"title": "…"}} is expected', "object_type")])
            return
        left = MAX_PATHS
        for operator, paths in content.items():
            loc: Loc = ("body", operator)
            if operator not in _OPERATORS:
                yield iter([Fault(loc, f"unknown operator; there are {', '.join(_OPERATORS)}", "unknown_operator")])
            elif not isinstance(paths, dict):
                yield iter([Fault(loc, "an object of paths is expected", "object_type")])
            elif len(paths) > left:
                yield iter([Fault(loc, f"more than {MAX_PATHS} paths", "too_long")])
                return
            else:
                left -= len(paths)
                for path, operand in paths.items():
                    yield self._read_one(operator, path, operand, (*loc, path))

    def _read_one(self, operator: str, path: str, operand: Any, loc: Loc) -> Iterator[Fault]:
        place = self._editor.place(path)
        segments = tuple(path.split("."))
        if place is None:
            yield Fault(loc, "there is no such field", "extra_forbidden")
            return
        if segments[0] not in self._editor.writable:
            yield Fault(loc, "the server sets this field", "read_only")
            return
        # Modifiers such as `$each` are no part of the document, nor are conditions.
        if operator not in ("$push", "$addToSet", "$pull", "$unset"):
            faults = list(faults_of(operand, place.type if operator == "$set" else None, loc, len(segments)))
            if faults:
                yield from faults
                return
        try:
            change = _OPERATORS[operator](operand, place, loc)
        except ValueRefused as refused:
            yield Fault((*loc, *refused.at), refused.msg, refused.type)
        except DocumentRefused as refused:
            yield from refused.faults
        else:
            creates = operator not in ("$unset", "$pull")
            self._updates.append(
                _Update(segments, loc, change, creates, sets=operator == "$set", unsets=operator == "$unset")
            )


def _conflicts(updates: list[_Update]) -> Iterator[Fault]:
    """MongoDB refuses paths of which one is or contains the other: the result would hang on their order."""
    ordered = sorted(updates, key=lambda update: update.path)
    for one, next_one in itertools.pairwise(ordered):
        if next_one.path[: len(one.path)] == one.path:
            msg = f"conflicts with {'.'.join(one.path)}, which the patch changes too"
            yield Fault(next_one.loc, msg, "conflicting_paths")


def _apply(update: _Update, document: dict[str, Any]) -> None:
    container: Any = document
    *above, last = update.path
    for segment in above:
        container = _step(container, segment, update)
        if container is MISSING:
            return
    held = _held(container, last, update)
    value = update.change(held)
    if value is MISSING:
        if isinstance(container, list) and held is not MISSING:
            container[int(last)] = None  # removing it would move the others
        elif isinstance(container, dict):
            container.pop(last, None)
    elif isinstance(container, list):
        _pad(container, int(last) + 1)
        container[int(last)] = value
    elif container is not MISSING:
        container[last] = value


def _step(container: Any, segment: str, update: _Update) -> Any:
    """What is in `container` at `segment`; a new object where nothing is and the operator creates."""
    held = _held(container, segment, update)
    if held is MISSING and update.creates:
        held = {}
        if isinstance(container, list):
            _pad(container, int(segment) + 1)
            container[int(segment)] = held
        else:
            container[segment] = held
    return held


def _held(container: Any, segment: str, update: _Update) -> Any:
    if isinstance(container, dict):
        return container.get(segment, MISSING)
    if isinstance(container, list) and is_index(segment):
        return container[int(segment)] if int(segment) < len(container) else MISSING
    if update.unsets:
        return MISSING
    raise ValueRefused("the path leads through a value that is neither an object nor an array", "path")


def _pad(array: list[Any], length: int) -> None:
    if length > len(array) + MAX_PADDING:
        raise ValueRefused(f"the index is more than {MAX_PADDING} beyond the array's end", "path")
    array.extend([None] * (length - len(array)))


def _set(operand: Any, _place: Place, _loc: Loc) -> Change:
    return lambda _: copy.deepcopy(operand)


def _unset(_operand: Any, _place: Place, _loc: Loc) -> Change:
    return lambda _: MISSING


def _inc(operand: Any, place: Place, _loc: Loc) -> Change:
    by = arithmetic.operand(operand, place.type)
    return lambda held: edited(by if held is MISSING else arithmetic.add(bson_value(held), by))


def _mul(operand: Any, place: Place, _loc: Loc) -> Change:
    by = arithmetic.operand(operand, place.type)
    return lambda held: edited(
        arithmetic.zero_like(by) if held is MISSING else arithmetic.multiply(bson_value(held), by)
    )


def _min(operand: Any, place: Place, _loc: Loc) -> Change:
    return _better(operand, place, lambda new, old: new < old)


def _max(operand: Any, place: Place, _loc: Loc) -> Change:
    return _better(operand, place, lambda new, old: new > old)


def _better(operand: Any, place: Place, better: Callable[[Any, Any], bool]) -> Change:
    bound = coerce(operand, place.type, choose=False, lists=False)
    key = order_key(bound)
    return lambda held: edited(bound) if held is MISSING or better(key, order_key(bson_value(held))) else held


_OPERATORS: dict[str, Callable[[Any, Place, Loc], Change]] = {
    "$set": _set,
    "$unset": _unset,
    "$inc": _inc,
    "$mul": _mul,
    "$min": _min,
    "$max": _max,
    "$push": arrays.push,
    "$addToSet": arrays.add_to_set,
    "$pull": arrays.pull,
}
