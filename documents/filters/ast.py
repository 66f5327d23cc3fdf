"""The filter language's abstract syntax: what clients' filters and access rules both become.

There is one syntax tree and two compilers: `documents.filters.query` (to a MongoDB query, for REST and
snapshots) and `documents.filters.predicate` (to a test of one image, for live events). They must always
agree.

Values in the tree are BSON values: ObjectId, aware datetime in UTC cut to milliseconds, Decimal128, int,
float, str, bool, bytes, UUID, None, and lists of those.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class Operator(enum.StrEnum):
    """Operators on one path. The values are the names that clients write."""

    EQ = "$eq"
    NE = "$ne"
    GT = "$gt"
    GTE = "$gte"
    LT = "$lt"
    LTE = "$lte"
    IN = "$in"
    NIN = "$nin"
    EXISTS = "$exists"
    ALL = "$all"
    SIZE = "$size"
    CONTAINS = "$contains"
    STARTSWITH = "$startswith"


class Filter:
    """Base of all nodes. Nodes are immutable, compared by `canonical`, and safe to share."""

    __slots__ = ()

    def __and__(self, other: Filter) -> Filter:
        return conjunction([self, other])

    def __or__(self, other: Filter) -> Filter:
        return disjunction([self, other])


@dataclass(frozen=True, slots=True)
class Everything(Filter):
    """Matches every document."""


@dataclass(frozen=True, slots=True)
class Nothing(Filter):
    """Matches no document."""


@dataclass(frozen=True, slots=True)
class Compare(Filter):
    """One operator on one path. `path` is the stored, dotted path (`_id`, `address.city`, `tags.0`)."""

    path: str
    operator: Operator
    value: Any


@dataclass(frozen=True, slots=True)
class NotCompare(Filter):
    """`{path: {$not: {...}}}`: not all of `operands`, which share one path, match.

    Over an array each operand may be satisfied by another element, exactly as MongoDB has it. It is kept
    apart from `Not` because only this form may stand in the condition of a scalar `ElementMatch`.
    """

    operands: tuple[Compare | ElementMatch, ...]


@dataclass(frozen=True, slots=True)
class ElementMatch(Filter):
    """`{path: {$elemMatch: ...}}`: one element of the array satisfies all conditions.

    With `scalar` the conditions are operators on the element itself (their `path` is empty); otherwise
    `condition` speaks of the fields of an element that is a document.
    """

    path: str
    condition: Filter
    scalar: bool


@dataclass(frozen=True, slots=True)
class And(Filter):
    """All parts match. At least two parts; built by `conjunction`."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """At least one part matches. At least two parts; built by `disjunction`."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """The part does not match (`$nor` with one part)."""

    part: Filter


EVERYTHING = Everything()
NOTHING = Nothing()


def conjunction(parts: list[Filter]) -> Filter:
    """All of `parts`, flattened and simplified; EVERYTHING when there are none."""
    flat: list[Filter] = []
    for part in parts:
        if part == NOTHING:
            return NOTHING
        if part == EVERYTHING:
            continue
        flat.extend(part.parts if isinstance(part, And) else [part])
    unique = _without_repeats(flat)
    if not unique:
        return EVERYTHING
    return unique[0] if len(unique) == 1 else And(tuple(unique))


def disjunction(parts: list[Filter]) -> Filter:
    """Any of `parts`, flattened and simplified; NOTHING when there are none."""
    flat: list[Filter] = []
    for part in parts:
        if part == EVERYTHING:
            return EVERYTHING
        if part == NOTHING:
            continue
        flat.extend(part.parts if isinstance(part, Or) else [part])
    unique = _without_repeats(flat)
    if not unique:
        return NOTHING
    return unique[0] if len(unique) == 1 else Or(tuple(unique))


def _without_repeats(parts: list[Filter]) -> list[Filter]:
    # By their repr and not by ==, for which 1 and True are the same value.
    return list({repr(part): part for part in parts}.values())
