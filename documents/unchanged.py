"""The condition that a stored document is still exactly the one that was read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def unchanged(read: Mapping[str, Any], *, nan_is_itself: bool = True) -> dict[str, Any]:
    """A filter that matches the document with the id of `read` if it still is `read`.

    The whole document is compared and not `revision`, because mongosh does not touch `revision`.

    `nan_is_itself` says whether the server's `$eq` finds NaN equal to NaN, as MongoDB's does. The embedded server's
    does not, so a document that holds a double NaN would seem to change for ever: there, the fields that hold one are
    left out of the comparison.
    """
    if nan_is_itself or not _holds_nan(read):
        return {"_id": read["_id"], "$expr": {"$eq": ["$$ROOT", {"$literal": read}]}}
    same = [
        {"$eq": [{"$getField": {"field": {"$literal": name}, "input": "$$ROOT"}}, {"$literal": value}]}
        for name, value in read.items()
        if not _holds_nan(value)
    ]
    count = {"$eq": [{"$size": {"$objectToArray": "$$ROOT"}}, len(read)]}
    return {"_id": read["_id"], "$expr": {"$and": [count, *same]}}


def _holds_nan(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, Mapping):
        return any(_holds_nan(inner) for inner in value.values())
    if isinstance(value, list):
        return any(_holds_nan(inner) for inner in value)
    return False
