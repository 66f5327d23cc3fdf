"""MongoDB's query semantics, case by case, as its manual and its matcher have them. No database is needed."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from bson import Binary, DatetimeMS, Decimal128, Int64, MaxKey, ObjectId

from documents.filters import (
    EVERYTHING,
    NOTHING,
    And,
    Compare,
    ElementMatch,
    Filter,
    Not,
    NotCompare,
    Operator,
    canonical,
    compile_predicate,
    to_query,
)

NAN = float("nan")
NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
OID = ObjectId("65a000000000000000000001")

COMPARISONS: list[tuple[str, str, Any, Any, bool]] = [
    # equality to null: missing fields, and MongoDB's subtleties below arrays and scalars
    ("a", "$eq", None, {}, True),
    ("a", "$eq", None, {"a": None}, True),
    ("a", "$eq", None, {"a": [1, None]}, True),
    ("a", "$eq", None, {"a": []}, False),
    ("a", "$eq", None, {"a": MaxKey()}, False),
    ("a.b", "$eq", None, {"a": 5}, True),
    ("a.b", "$eq", None, {"a": {}}, True),
    ("a.b", "$eq", None, {"a": []}, False),
    ("a.b", "$eq", None, {"a": [5]}, False),
    ("a.b", "$eq", None, {"a": [5, {}]}, True),
    ("a.b", "$eq", None, {"a": [{"b": 1}, {"c": 1}]}, True),
    ("a.b", "$eq", None, {"a": [[{"c": 1}]]}, False),
    ("a.b", "$ne", None, {"a": [5]}, True),
    ("a.1", "$eq", None, {"a": [5]}, False),
    ("a.0", "$eq", None, {"a": [{"b": 1}]}, True),
    ("a", "$in", [None, 3], {}, True),
    ("a", "$nin", [None], {}, False),
    ("a", "$ne", 1, {}, True),
    ("a", "$gte", None, {}, True),
    ("a", "$gt", None, {"a": None}, False),
    # negation speaks of the whole array
    ("a", "$ne", 1, {"a": [1, 2]}, False),
    ("a", "$nin", [3], {"a": [1, 2]}, True),
    ("a", "$in", [], {"a": 1}, False),
    ("a", "$nin", [], {}, True),
    # types are compared with their like only
    ("a", "$gt", 3, {"a": "4"}, False),
    ("a", "$gt", 0, {"a": True}, False),
    ("a", "$eq", 1, {"a": True}, False),
    ("a", "$eq", True, {"a": 1}, False),
    ("a", "$gt", False, {"a": True}, True),
    ("a", "$lt", "b", {"a": "B"}, True),
    ("a", "$lt", "\U0001f600", {"a": "\uffff"}, True),
    ("a", "$gt", 3, {}, False),
    ("a", "$lt", 3, {"a": None}, False),
    # numbers by their exact value
    ("a", "$eq", 1, {"a": Decimal128("1.0")}, True),
    ("a", "$eq", 1, {"a": Int64(1)}, True),
    ("a", "$eq", Decimal128("0.1"), {"a": 0.1}, False),
    ("a", "$gt", Decimal128("0.1"), {"a": 0.1}, True),
    ("a", "$eq", float(2**53), {"a": Int64(2**53 + 1)}, False),
    ("a", "$lt", float("inf"), {"a": Int64(2**62)}, True),
    ("a", "$eq", float("inf"), {"a": Decimal128("Infinity")}, True),
    ("a", "$eq", NAN, {"a": Decimal128("NaN")}, True),
    ("a", "$gte", NAN, {"a": NAN}, True),
    ("a", "$lt", 5, {"a": NAN}, False),
    ("a", "$lt", Decimal128("5"), {"a": NAN}, False),
    ("a", "$lt", 5, {"a": Decimal128("NaN")}, False),
    ("a", "$gt", NAN, {"a": 5}, False),
    ("a", "$in", [NAN], {"a": NAN}, True),
    # dates, ids, binary
    ("a", "$eq", NOON, {"a": NOON.astimezone(dt.timezone(dt.timedelta(hours=2)))}, True),
    ("a", "$gt", NOON, {"a": DatetimeMS(253402300800000)}, True),
    ("a", "$gt", NOON, {"a": 10**15}, False),
    ("a", "$eq", OID, {"a": str(OID)}, False),
    ("a", "$gte", OID, {"a": OID}, True),
    ("a", "$eq", b"x", {"a": Binary(b"x", 5)}, False),
    ("a", "$lt", b"xx", {"a": b"z"}, True),
    ("a", "$eq", uuid.UUID(int=7), {"a": Binary.from_uuid(uuid.UUID(int=7))}, True),
    # arrays: elements, the whole, indexes
    ("a", "$eq", [1, 2], {"a": [1, 2]}, True),
    ("a", "$eq", [1, 2], {"a": [2, 1]}, False),
    ("a", "$eq", [1, 2], {"a": [0, [1.0, Decimal128("2")]]}, True),
    ("a", "$eq", [1], {"a": [True]}, False),
    ("a", "$in", [[1, 2]], {"a": [1, 2]}, True),
    ("a", "$gt", [1, 2], {"a": [1, 3]}, True),
    ("a", "$gt", [1, 2], {"a": [1]}, False),
    ("a", "$lt", [1, 2], {"a": [1, 2, 0]}, False),
    ("a", "$lt", ["x"], {"a": [5]}, True),
    ("a", "$gt", 5, {"a": [1, 9]}, True),
    ("a.0", "$eq", 1, {"a": [1]}, True),
    ("a.0", "$eq", 1, {"a": {"0": 1}}, True),
    ("a.0", "$eq", 1, {"a": [{"0": 1}]}, True),
    ("a.0", "$eq", 1, {"a": [[1]]}, False),
    ("a.0.0", "$eq", 1, {"a": [[1]]}, True),
    ("a.00", "$eq", 1, {"a": [1]}, False),
    ("a.0.b", "$eq", 1, {"a": [[{"b": 1}]]}, True),
    ("a.b", "$eq", 1, {"a": [[{"b": 1}]]}, False),
    ("a.b.c", "$eq", 1, {"a": [{"b": [{"c": 2}, {"c": 1}]}]}, True),
    ("a", "$all", [1, 2], {"a": [2, 1, 3]}, True),
    ("a", "$all", [1, 4], {"a": [2, 1, 3]}, False),
    ("a", "$all", [1], {"a": 1}, True),
    ("a", "$all", [], {"a": []}, False),
    ("a", "$all", [[1, 2]], {"a": [1, 2]}, True),
    ("a.b", "$all", [1, 2], {"a": [{"b": 1}, {"b": 2}]}, True),
    ("a", "$size", 2, {"a": [1, [2]]}, True),
    ("a", "$size", 2, {"a": [[1, 2]]}, False),
    ("a", "$size", 0, {"a": {}}, False),
    ("a.b", "$size", 2, {"a": [{"b": [1, 2]}]}, True),
    ("a", "$exists", True, {"a": None}, True),
    ("a", "$exists", True, {"a": []}, True),
    ("a.b", "$exists", True, {"a": [1, {"b": None}]}, True),
    ("a.b", "$exists", False, {"a": [1]}, True),
    ("a.1", "$exists", False, {"a": [1]}, True),
    # text
    ("a", "$contains", "B.c", {"a": "xAb.Cx"}, True),
    ("a", "$contains", "b.c", {"a": "abxc"}, False),
    ("a", "$contains", "É", {"a": "café"}, True),
    ("a", "$contains", "ss", {"a": "Straße"}, False),
    ("a", "$contains", "a", {"a": ["x", "BA"]}, True),
    ("a", "$contains", "1", {"a": 1}, False),
    ("a", "$startswith", "b", {"a": "a\nb"}, False),
    ("a", "$startswith", "[A", {"a": "[ab"}, True),
]


@pytest.mark.parametrize(("path", "operator", "value", "image", "matches"), COMPARISONS, ids=repr)
def test_comparison_follows_mongodb(path: str, operator: str, value: Any, image: Any, matches: bool) -> None:
    """One operator on one path gives MongoDB's answer."""
    assert compile_predicate(Compare(path, Operator(operator), value))(image) is matches


def element(condition: Filter, *, scalar: bool) -> ElementMatch:
    return ElementMatch("a", condition, scalar)


BETWEEN = And((Compare("", Operator.GT, 2), Compare("", Operator.LT, 5)))

NODES: list[tuple[Filter, Any, bool]] = [
    (EVERYTHING, {}, True),
    (NOTHING, {"a": 1}, False),
    (Not(EVERYTHING), {}, False),
    # two elements may satisfy the two operators of $not, but one must satisfy both of $elemMatch
    (NotCompare((Compare("a", Operator.GT, 5), Compare("a", Operator.LT, 3))), {"a": [1, 9]}, False),
    (NotCompare((Compare("a", Operator.GT, 5),)), {}, True),
    (element(BETWEEN, scalar=True), {"a": [1, 9]}, False),
    (element(BETWEEN, scalar=True), {"a": [1, 3]}, True),
    (element(Compare("", Operator.EQ, 1), scalar=True), {"a": 1}, False),
    (element(Compare("", Operator.EQ, 1), scalar=True), {"a": [[1]]}, False),
    (element(Compare("", Operator.NE, 1), scalar=True), {"a": [1, 2]}, True),
    (element(ElementMatch("", Compare("", Operator.GT, 1), scalar=True), scalar=True), {"a": [[2]]}, True),
    (element(Compare("b", Operator.EQ, 1), scalar=False), {"a": {"b": 1}}, False),
    (element(And((Compare("b", Operator.EQ, 1), Compare("c", Operator.EQ, 2))), scalar=False),
     {"a": [{"b": 1, "c": 0}, {"b": 0, "c": 2}]}, False),
    (element(Compare("b", Operator.EQ, None), scalar=False), {"a": [5]}, False),
    (element(Compare("0", Operator.EQ, 1), scalar=False), {"a": [[1]]}, True),
]  # fmt: skip


@pytest.mark.parametrize(("filter", "image", "matches"), NODES, ids=repr)
def test_structure_follows_mongodb(filter: Filter, image: Any, matches: bool) -> None:
    """`$not`, `$elemMatch` and the constants give MongoDB's answer."""
    assert compile_predicate(filter)(image) is matches


def test_queries_are_written_out() -> None:
    """Every value stands under an operator, so that none can be taken for one."""
    text = (Compare("", Operator.CONTAINS, "a"), Compare("", Operator.STARTSWITH, "1"))
    assert to_query(Compare("a", Operator.EQ, "x")) == {"a": {"$eq": "x"}}
    assert to_query(NOTHING) == {"_id": {"$in": []}}
    assert to_query(EVERYTHING) == {}
    assert to_query(Compare("a", Operator.STARTSWITH, "b.1")) == {"a": {"$regex": r"^[Bb]\.1"}}
    assert to_query(element(And(text), scalar=True)) == {"a": {"$elemMatch": {"$regex": r"^(?=[\s\S]*[Aa])(?=1)"}}}
    assert to_query(Compare("a", Operator.EQ, uuid.UUID(int=7))) == {"a": {"$eq": Binary.from_uuid(uuid.UUID(int=7))}}


def test_canonical_tells_types_apart() -> None:
    """Values that MongoDB tells apart give different views; order and repetition do not."""
    values = [
        1,
        "1",
        True,
        None,
        OID,
        str(OID),
        NOON,
        NOON.isoformat(),
        Decimal128("1"),
        [1],
        ["1"],
        b"1",
        1.5,
        [],
        "",
    ]
    encodings = {canonical(Compare("a", Operator.EQ, value)) for value in values}
    assert len(encodings) == len(values)
    first, second = Compare("a", Operator.IN, [1, 2, 1]), Compare("b", Operator.EQ, 3)
    assert canonical(And((first, second))) == canonical(And((second, Compare("a", Operator.IN, [2, 1]))))
    assert canonical(Compare("a", Operator.EQ, [1, 2])) != canonical(Compare("a", Operator.EQ, [2, 1]))
    assert canonical(Compare("a", Operator.EQ, 3)) == canonical(Compare("a", Operator.EQ, 3.0))
