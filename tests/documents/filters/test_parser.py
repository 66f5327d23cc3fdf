"""What clients may ask, and what they are told when they may not."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from bson import Decimal128, ObjectId

from documents.errors import FilterRefused
from documents.filters import (
    EVERYTHING,
    And,
    Compare,
    ElementMatch,
    Not,
    NotCompare,
    Operator,
    Or,
    parse_filter,
    parse_short,
)
from tests.documents.filters.samples import FIELDS, MOMENTS, OBJECT_IDS, TOKEN


def nested(depth: int) -> Any:
    data: Any = {"score": 1}
    for _ in range(depth):
        data = {"$and": [data]}
    return data


HOSTILE: list[tuple[Any, tuple[str | int, ...], str]] = [
    ([], (), "type_error"),
    ("status", (), "type_error"),
    (None, (), "type_error"),
    ({"$where": "sleep(1000)"}, ("$where",), "unknown_operator"),
    ({"$expr": {"$gt": ["$a", 1]}}, ("$expr",), "unknown_operator"),
    ({"title": {"$function": {}}}, ("title", "$function"), "unknown_operator"),
    ({"title": {"$regex": "^(a+)+$"}}, ("title", "$regex"), "unknown_operator"),
    ({"title": {"$options": "i"}}, ("title", "$options"), "unknown_operator"),
    ({"id": {"$oid": str(OBJECT_IDS[0])}}, ("id", "$oid"), "unknown_operator"),
    ({"$not": {"score": 1}}, ("$not",), "unknown_operator"),
    ({"score": {"$or": [1, 2]}}, ("score", "$or"), "unknown_operator"),
    ({"score": {"$not": {"$not": {"$gt": 1}}}}, ("score", "$not", "$not"), "unknown_operator"),
    ({"score": {"$gt": 1, "plain": 2}}, ("score", "plain"), "unknown_operator"),
    ({"password_hash": "x"}, ("password_hash",), "unknown_field"),
    ({"_id": str(OBJECT_IDS[0])}, ("_id",), "unknown_field"),
    ({"": 1}, ("",), "unknown_field"),
    ({"extra..a": 1}, ("extra..a",), "unknown_field"),
    ({"extra.$a": 1}, ("extra.$a",), "unknown_field"),
    ({"extra.\0": 1}, ("extra.\0",), "unknown_field"),
    ({"extra.\ud800": 1}, ("extra.\ud800",), "unknown_field"),
    ({"extra" + ".a" * 20: 1}, ("extra" + ".a" * 20,), "unknown_field"),
    ({"title.length": 1}, ("title.length",), "unknown_field"),
    ({"address.street": "x"}, ("address.street",), "unknown_field"),
    ({"address": {"city": "x"}}, ("address",), "type_error"),
    ({"address": {}}, ("address",), "type_error"),
    ({"extra": {"$eq": {"a": 1}}}, ("extra", "$eq"), "type_error"),
    ({"items": {"$in": [{"name": "x"}]}}, ("items", "$in", 0), "type_error"),
    ({"extra": [[1]]}, ("extra", 0), "type_error"),
    ({"$or": [{"title": "a"}, {"score": {"$gte": "x"}}]}, ("$or", 1, "score", "$gte"), "type_error"),
    ({"$or": []}, ("$or",), "type_error"),
    ({"$or": {"title": "a"}}, ("$or",), "type_error"),
    ({"$and": [1]}, ("$and", 0), "type_error"),
    ({"score": True}, ("score",), "type_error"),
    ({"score": 2**53}, ("score",), "value_error"),
    ({"extra": -(2**53)}, ("extra",), "value_error"),
    ({"ratio": float("nan")}, ("ratio",), "value_error"),
    ({"ratio": {"$lt": float("inf")}}, ("ratio", "$lt"), "value_error"),
    ({"cost": "NaN"}, ("cost",), "type_error"),
    ({"cost": "1e7000"}, ("cost",), "type_error"),
    ({"cost": "1" * 35}, ("cost",), "type_error"),
    ({"title": 5}, ("title",), "type_error"),
    ({"title": "\ud800"}, ("title",), "value_error"),
    ({"title": {"$contains": ""}}, ("title", "$contains"), "value_error"),
    ({"title": {"$contains": "a\0"}}, ("title", "$contains"), "value_error"),
    ({"title": {"$startswith": "\udfff"}}, ("title", "$startswith"), "value_error"),
    ({"title": {"$contains": "a" * 121}}, ("title", "$contains"), "too_long"),
    ({"score": {"$contains": "1"}}, ("score", "$contains"), "not_applicable"),
    ({"title": {"$gt": None}}, ("title", "$gt"), "type_error"),
    ({"tags": {"$all": [None]}}, ("tags", "$all", 0), "type_error"),
    ({"tags": {"$gt": ["a"]}}, ("tags", "$gt"), "type_error"),
    ({"tags": ["a", 1]}, ("tags", 1), "type_error"),
    ({"title": {"$all": ["a"]}}, ("title", "$all"), "not_applicable"),
    ({"title": {"$size": 1}}, ("title", "$size"), "not_applicable"),
    ({"title": {"$elemMatch": {"$eq": "a"}}}, ("title", "$elemMatch"), "not_applicable"),
    ({"tags": {"$elemMatch": {"name": "a"}}}, ("tags", "$elemMatch"), "not_applicable"),
    ({"tags": {"$elemMatch": {}}}, ("tags", "$elemMatch"), "type_error"),
    ({"tags": {"$size": -1}}, ("tags", "$size"), "type_error"),
    ({"tags": {"$size": True}}, ("tags", "$size"), "type_error"),
    ({"title": {"$exists": 1}}, ("title", "$exists"), "type_error"),
    ({"title": {"$in": "a"}}, ("title", "$in"), "type_error"),
    ({"score": {"$in": [1, "x"]}}, ("score", "$in", 1), "type_error"),
    ({"score": {"$in": [1] * 101}}, ("score", "$in"), "too_many_values"),
    ({"tags": ["a"] * 101}, ("tags",), "too_many_values"),
    ({"status": "deleted"}, ("status",), "value_error"),
    ({"id": "nonsense"}, ("id",), "type_error"),
    ({"due": "2024-05-01T12:00:00"}, ("due",), "type_error"),
    ({"due": "2024-05-01"}, ("due",), "type_error"),
    ({"due": "2024-02-30T12:00:00Z"}, ("due",), "type_error"),
    ({"due": "0001-01-01T00:00:00+14:00"}, ("due",), "type_error"),
    ({"due": 1714564800}, ("due",), "type_error"),
    ({"token": "1234"}, ("token",), "type_error"),
    ({"blob": "é"}, ("blob",), "type_error"),
    ({"blob": "eA"}, ("blob",), "type_error"),
    ({"mixed": True}, ("mixed",), "type_error"),
    (nested(6), ("$and", 0) * 5 + ("$and",), "too_deep"),
    ({"$or": [{"score": n} for n in range(40)]}, ("$or", 39, "score"), "too_many_nodes"),
    ({"$and": [{}] * 5000}, ("$and", 39), "too_many_nodes"),
]


@pytest.mark.parametrize(("data", "loc", "type_"), HOSTILE, ids=lambda value: repr(value)[:50])
def test_hostile_filter_is_refused_with_its_place(data: Any, loc: tuple[str | int, ...], type_: str) -> None:
    """Each malformed filter is refused, and the fault names the exact place and kind."""
    with pytest.raises(FilterRefused) as refused:
        parse_filter(data, FIELDS)
    assert [(fault.loc, fault.type) for fault in refused.value.faults] == [(("filter", *loc), type_)]


def test_very_deep_json_is_refused_without_recursion() -> None:
    """Nesting far beyond the limit, of operators or of lists, is an ordinary refusal."""
    lists: Any = 1
    for _ in range(5000):
        lists = [lists]
    for data in (nested(5000), {"extra": lists}, {"extra": {"$in": lists}}):
        with pytest.raises(FilterRefused):
            parse_filter(data, FIELDS)


def test_invisible_field_is_refused_like_an_unknown_one() -> None:
    """The refusal does not tell whether a field exists that the caller may not see."""
    visible = {name: field for name, field in FIELDS.items() if name != "cost"}
    messages = []
    for name in ("cost", "coat"):
        filters: list[Any] = [{name: "1"}, {name: {"$gt": {}}}, {f"{name}.x": 1}, {"$nor": [{name: None}]}]
        for data in filters:
            with pytest.raises(FilterRefused) as refused:
                parse_filter(data, visible)
            messages.append(json.dumps([str(refused.value), refused.value.faults[0].msg]).replace(name, "?"))
    assert messages[:4] == messages[4:]


def test_several_faults_are_reported_together() -> None:
    """One answer names every bad field, so that a client can mend them at once; at most twenty."""
    with pytest.raises(FilterRefused) as refused:
        parse_filter({"nope": 1, "score": "x", "title": {"$like": 1}, "status": "published"}, FIELDS)
    assert [fault.loc[1] for fault in refused.value.faults] == ["nope", "score", "title"]
    with pytest.raises(FilterRefused) as refused:
        parse_filter({f"nope{n}": 1 for n in range(30)}, FIELDS)
    assert len(refused.value.faults) == 20


def test_refused_choice_is_answered_with_the_choices() -> None:
    """The message lists what the field can hold; the order operators take any string."""
    with pytest.raises(FilterRefused, match="draft, published, hidden"):
        parse_filter({"status": {"$in": ["x"]}}, FIELDS)
    assert parse_filter({"status": {"$gt": "e"}}, FIELDS) == Compare("status", Operator.GT, "e")


def test_limits_themselves_are_allowed() -> None:
    """Depth 5, 40 conditions and 100 values pass."""
    assert parse_filter(nested(5), FIELDS) == Compare("score", Operator.EQ, 1)
    assert isinstance(parse_filter({"$or": [{"score": n} for n in range(39)]}, FIELDS), Or)
    parse_filter({"score": {"$in": list(range(100))}}, FIELDS)


@pytest.mark.parametrize(
    ("data", "path", "value"),
    [
        ({"id": str(OBJECT_IDS[0]).upper()}, "_id", OBJECT_IDS[0]),
        ({"due": "2024-05-01t14:00:00.123999+02:00"}, "due", MOMENTS[0]),
        ({"due": None}, "due", None),
        ({"cost": "1.50"}, "cost", Decimal128("1.50")),
        ({"cost": 0.1}, "cost", Decimal128("0.1")),
        ({"score": 1.5}, "score", 1.5),
        ({"token": str(TOKEN)}, "token", TOKEN),
        ({"blob": "eHk="}, "blob", b"xy"),
        ({"tags": "a"}, "tags", "a"),
        ({"tags": ["a", None]}, "tags", ["a", None]),
        ({"grid.0.1": 5}, "grid.0.1", 5),
        ({"grid": [[1], [2]]}, "grid", [[1], [2]]),
        ({"items.0.name": "x"}, "items.0.name", "x"),
        ({"items.marks": 1}, "items.marks", 1),
        ({"labels.en": "x"}, "labels.en", "x"),
        ({"address.place.latitude": 1}, "address.place.latitude", 1),
        ({"mixed": "2024-05-01T12:00:00Z"}, "mixed", dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)),
        ({"mixed": "soon"}, "mixed", "soon"),
        ({"extra.any.thing": True}, "extra.any.thing", True),
    ],
    ids=repr,
)  # fmt: skip
def test_value_takes_the_declared_type(data: Any, path: str, value: Any) -> None:
    """The public path becomes the stored one and the value what the database holds."""
    parsed = parse_filter(data, FIELDS)
    assert parsed == Compare(path, Operator.EQ, value)
    assert isinstance(parsed, Compare)
    assert type(parsed.value) is type(value)


def test_structure_follows_mongodb() -> None:
    """Operators on one path, `$not`, `$nor` and both forms of `$elemMatch` become their nodes."""
    above, below = Compare("scores", Operator.GT, 1), Compare("scores", Operator.LT, 5)
    assert parse_filter({}, FIELDS) == EVERYTHING
    assert parse_filter({"scores": {"$gt": 1, "$lt": 5}}, FIELDS) == And((above, below))
    assert parse_filter({"scores": {"$not": {"$gt": 1, "$lt": 5}}}, FIELDS) == NotCompare((above, below))
    assert parse_filter({"$nor": [{"scores": {"$gt": 1}}, {"scores": {"$lt": 5}}]}, FIELDS) == Not(Or((above, below)))
    assert parse_filter({"scores": {"$elemMatch": {"$gt": 1}}}, FIELDS) == ElementMatch(
        "scores", Compare("", Operator.GT, 1), scalar=True
    )
    assert parse_filter({"items": {"$elemMatch": {"$or": [{"name": "a"}, {"quantity": 1}]}}}, FIELDS) == ElementMatch(
        "items", Or((Compare("name", Operator.EQ, "a"), Compare("quantity", Operator.EQ, 1))), scalar=False
    )


def test_true_and_one_stay_two_values() -> None:
    """Simplification of `$or` does not take 1 and true for the same value, as Python does."""
    assert isinstance(parse_filter({"$or": [{"extra": 1}, {"extra": True}]}, FIELDS), Or)


@pytest.mark.parametrize(
    ("name", "text", "type_"),
    [
        ("nope", "1", "unknown_field"),
        ("score[gte", "1", "unknown_field"),
        ("[gte]", "1", "unknown_field"),
        ("score[where]", "1", "unknown_operator"),
        ("score[$gte]", "1", "unknown_operator"),
        ("score[]", "1", "unknown_operator"),
        ("score", "one", "type_error"),
        ("score", "9007199254740992", "value_error"),
        ("score", "1e999", "value_error"),
        ("score[gte]", "null", "type_error"),
        ("done", "yes", "type_error"),
        ("done[exists]", "1", "type_error"),
        ("tags[size]", "x", "type_error"),
        ("title[contains]", "", "value_error"),
    ],
)
def test_hostile_parameter_is_refused_with_its_name(name: str, text: str, type_: str) -> None:
    """A bad short form is refused, and the fault names the parameter as it was written."""
    with pytest.raises(FilterRefused) as refused:
        parse_short([("status", "published"), (name, text)], FIELDS)
    assert [(fault.loc, fault.type) for fault in refused.value.faults] == [(("query", name), type_)]


@pytest.mark.parametrize(
    ("name", "text", "same"),
    [
        ("status", "published", {"status": "published"}),
        ("title", "null", {"title": "null"}),
        ("title", "true", {"title": "true"}),
        ("due", "null", {"due": None}),
        ("done", "true", {"done": True}),
        ("score[gte]", "3", {"score": {"$gte": 3}}),
        ("ratio[lt]", "-1.5e1", {"ratio": {"$lt": -15.0}}),
        ("cost", "1.50", {"cost": "1.50"}),
        ("tags[in]", "a,b", {"tags": {"$in": ["a", "b"]}}),
        ("scores[all]", "1,2", {"scores": {"$all": [1, 2]}}),
        ("score[nin]", "1,null", {"score": {"$nin": [1, None]}}),
        ("tags[size]", "2", {"tags": {"$size": 2}}),
        ("due[exists]", "false", {"due": {"$exists": False}}),
        ("title[contains]", "a,b", {"title": {"$contains": "a,b"}}),
        ("items.name[startswith]", "x", {"items.name": {"$startswith": "x"}}),
        ("id[ne]", str(ObjectId("65a000000000000000000001")), {"id": {"$ne": "65a000000000000000000001"}}),
        ("mixed", "5", {"mixed": 5}),
        ("mixed", "null", {"mixed": "null"}),
        ("extra", "5", {"extra": 5}),
        ("extra", "five", {"extra": "five"}),
    ],
)
def test_short_form_means_the_same_as_the_filter(name: str, text: str, same: Any) -> None:
    """The text takes the type of its field and means what the JSON form means."""
    assert repr(parse_short([(name, text)], FIELDS)) == repr(parse_filter(same, FIELDS))


def test_several_parameters_must_all_hold() -> None:
    """Parameters are joined, also two of one name."""
    params = [("score[gte]", "1"), ("score[lt]", "5"), ("tags", "a"), ("tags", "b")]
    assert parse_short(params, FIELDS) == parse_filter(
        {"$and": [{"score": {"$gte": 1, "$lt": 5}}, {"tags": "a"}, {"tags": "b"}]}, FIELDS
    )
    assert parse_short([], FIELDS) == EVERYTHING
