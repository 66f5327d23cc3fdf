"""How a dotted path walks an image: MongoDB's implicit traversal of arrays and its numeric indexes.

A test of single values ("is it greater than 3?") becomes a test of whole documents: it holds when it holds
for one of the values that the path yields. What a path yields follows the server's `BSONElementIterator`:

- an array at the end of the path yields its elements and then itself, or only itself when the operator is
  about arrays (`$size`, `$elemMatch`);
- an array on the way is searched in all its elements that are documents, and in the element that a numeric
  segment points at; that element itself is yielded as it is, even when it is an array;
- a field that is absent yields MISSING, also below a scalar; an array that has no documents yields nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from documents.filters.ordering import MISSING

#: A test of one value; MISSING stands for an absent field.
ValueTest = Callable[[Any], bool]
#: A test of a document.
DocumentTest = Callable[[Mapping[str, Any]], bool]
#: A test of an array on the way.
ArrayTest = Callable[[list[Any]], bool]


def at_path(path: str, test: ValueTest, *, into_leaf: bool = True) -> DocumentTest:
    """A test of documents: does a value at the dotted `path` pass `test`?

    Without `into_leaf` an array at the end of the path is tested as a whole only.
    """
    # From the path's end to its start, so that every segment is compiled once, however long the path is.
    *outer, last = path.split(".")
    in_document = _in_field(last, test) if into_leaf else _in_whole_field(last, test)
    in_array = _in_array(last, in_document, test)
    absent = test(MISSING)
    for name in reversed(outer):
        at_index = _at_index(in_document, in_array)
        in_document = _below_field(name, in_document, in_array, absent)
        in_array = _in_array(name, in_document, at_index)
    return in_document


def _in_field(name: str, test: ValueTest) -> DocumentTest:
    def walk(document: Mapping[str, Any]) -> bool:
        value = document.get(name, MISSING)
        if type(value) is list:
            for element in value:
                if test(element):
                    return True
        return test(value)

    return walk


def _in_whole_field(name: str, test: ValueTest) -> DocumentTest:
    return lambda document: test(document.get(name, MISSING))


def _below_field(name: str, in_document: DocumentTest, in_array: ArrayTest, absent: bool) -> DocumentTest:
    def walk(document: Mapping[str, Any]) -> bool:
        value = document.get(name, MISSING)
        if isinstance(value, dict):
            return in_document(value)
        if isinstance(value, list):
            return in_array(value)
        return absent

    return walk


def _in_array(name: str, in_document: DocumentTest, at_index: ValueTest) -> ArrayTest:
    """The elements that are documents are searched for `name` too, when `name` is also an index."""
    if not is_index(name):
        return lambda array: any(in_document(element) for element in array if isinstance(element, dict))
    index = int(name)

    def walk(array: list[Any]) -> bool:
        if index < len(array) and at_index(array[index]):
            return True
        return any(in_document(element) for element in array if isinstance(element, dict))

    return walk


def _at_index(in_document: DocumentTest, in_array: ArrayTest) -> ValueTest:
    """The rest of the path, from the element that an index points at; below a scalar there is nothing."""

    def walk(element: Any) -> bool:
        if isinstance(element, dict):
            return in_document(element)
        return isinstance(element, list) and in_array(element)

    return walk


def is_index(segment: str) -> bool:
    """Whether a path's segment can mean an array's element: up to nine digits, no leading zeros."""
    return segment.isascii() and segment.isdigit() and (segment == "0" or segment[0] != "0") and len(segment) < 10
