"""The public form: nothing undeclared, any BSON value, and entity tags that tell contents apart."""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from documents import PublicForm, ResourceClass, changed_fields, encode_json, public_id, public_value, rfc3339
from documents.codec import CODEC
from documents.input import to_python
from documents.shapes import Kind, fields_of
from documents.sorting import order_key
from tests.documents.classes import ADMIN, ANN, Note, Specimen

NOTES, SPECIMENS = ResourceClass(Note), ResourceClass(Specimen)
FOR_ANN = PublicForm(NOTES.visible(ANN.roles))
ANYTHING = PublicForm(SPECIMENS.visible(ANN.roles))

_SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=20),
    st.builds(Binary, st.binary(max_size=17), st.sampled_from([0, 1, 2, 5, 6, 7, 128, 255])),
    st.builds(Binary, st.binary(min_size=16, max_size=16), st.sampled_from([3, 4])),
    st.uuids(),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.datetimes(timezones=st.just(dt.UTC)),
    st.integers(-(2**63), 2**63 - 1).map(DatetimeMS),
    st.decimals(allow_nan=True, places=3).map(lambda d: Decimal128(str(d))),
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.builds(Regex, st.text(max_size=4, alphabet="ab.*"), st.sampled_from([0, 2])),
    st.text(max_size=3, alphabet="ab").map(Code),
    st.builds(Code, st.just("f"), st.just({"x": 1})),
    st.just(MinKey()),
    st.just(MaxKey()),
    st.builds(DBRef, st.just("posts"), st.integers(0, 5)),
)
_KEYS = st.text(max_size=4, alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
BSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3), max_leaves=8
)


@pytest.mark.property
@given(value=BSON, field=st.sampled_from([f for f in SPECIMENS.fields if f != "_id"]))
def test_any_stored_value_is_served(value: Any, field: str) -> None:
    """Whatever type stands in whatever field: it becomes JSON, has a tag, can be sorted and handed to the class."""
    stored = bson.decode(bson.encode({"_id": 1, field: value}, codec_options=CODEC), CODEC)
    document = ANYTHING.document(stored)
    json.loads(encode_json(document))
    assert ANYTHING.etag(document) == ANYTHING.etag(ANYTHING.document(stored))
    assert changed_fields(document, ANYTHING.document(stored)) == []
    assert order_key(stored[field]) == order_key(stored[field])
    assert to_python(stored).keys() == stored.keys()
    again = bson.decode(bson.encode(stored, codec_options=CODEC), CODEC)
    # The condition of a write compares what is encoded again with what is stored.
    assert bson.encode(again, codec_options=CODEC) == bson.encode(stored, codec_options=CODEC)


def test_undeclared_and_hidden_fields_are_not_served() -> None:
    """Neither at the top nor in nested documents, lists, maps and unions, nor where the wrong shape is stored."""
    part = {"name": "a", "undeclared": 1}
    stored = {
        "_id": ObjectId(), "undeclared": 1, "hush": "x", "cost": 1, "part": part, "parts": [part, [part]],
        "by_name": {"k": part}, "shape": {"radius": 1.0, "width": 2.0, "undeclared": 3},
    }  # fmt: skip
    assert set(FOR_ANN.document(stored)) == {"id"}
    assert set(PublicForm(NOTES.visible(ADMIN.roles)).document(stored)) == {"id", "cost"}
    for variant in (
        stored,
        {**stored, "part": [part], "parts": part, "by_name": [{"k": part}], "shape": [stored["shape"]]},
    ):
        assert "undeclared" not in encode_json(ANYTHING.document(variant)).decode()
    assert ANYTHING.document(stored)["shape"] == {"radius": 1.0, "width": 2.0}


def test_a_tag_is_of_the_visible_content() -> None:
    """Bookkeeping does not enter it; a visible field does; one that the caller does not see does not."""
    stored = {"_id": ObjectId(), "title": "a", "revision": 1, "updated_at": dt.datetime.now(dt.UTC), "cost": 1}

    def tag(form: PublicForm, **changed: Any) -> str:
        return form.etag(form.document(stored | changed))

    later = {"revision": 2, "updated_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC), "updated_by": ObjectId()}
    assert tag(FOR_ANN) == tag(FOR_ANN, **later) == tag(FOR_ANN, cost=2, hush="y")
    assert tag(FOR_ANN) != tag(FOR_ANN, title="b")
    assert tag(FOR_ANN) != tag(FOR_ANN, score=0)
    for_admins = PublicForm(NOTES.visible(ADMIN.roles))
    assert tag(for_admins) != tag(for_admins, cost=2)
    assert tag(FOR_ANN).strip('"').isascii()


TIMES = {
    dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC): "2026-01-31T12:00:00.000Z",
    dt.datetime(2026, 1, 31, 12, 0, 0, 999_999, tzinfo=dt.timezone(dt.timedelta(hours=2))): "2026-01-31T10:00:00.999Z",
    dt.datetime(1, 1, 1, tzinfo=dt.UTC): "0001-01-01T00:00:00.000Z",
}
FAR_TIMES = {
    253_402_300_800_000: "+010000-01-01T00:00:00.000Z",
    253_402_300_799_999: "9999-12-31T23:59:59.999Z",
    -62_135_596_800_001: "0000-12-31T23:59:59.999Z",
    -62_198_755_200_000: "-000001-01-01T00:00:00.000Z",
    2**63 - 1: "+292278994-08-17T07:12:55.807Z",
}


def test_times_have_milliseconds_and_z() -> None:
    """RFC 3339 in UTC; years beyond four digits as ECMAScript writes them."""
    for moment, text in TIMES.items():
        assert rfc3339(moment) == public_value(moment) == text
    for milliseconds, text in FAR_TIMES.items():
        assert public_value(DatetimeMS(milliseconds)) == text


def test_times_that_python_has_not_are_read() -> None:
    """They decode as DatetimeMS and sort among the others."""
    read = bson.decode(bson.encode({"a": DatetimeMS(2**60), "b": DatetimeMS(0)}), CODEC)
    assert isinstance(read["a"], DatetimeMS)
    assert read["b"] == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert order_key(read["b"]) < order_key(read["a"])


def test_values_of_each_type() -> None:
    """Ids and decimals as texts, UUIDs in their own form, other binary as base64."""
    key = uuid.UUID("0b1f7e4e-5a0b-4a5c-9f5e-0c6a7d8e9f00")
    values: list[tuple[Any, Any]] = [
        (ObjectId("6b02c1e9c1e9111478612819"), "6b02c1e9c1e9111478612819"),
        (Decimal128("1.50"), "1.50"),
        (key, str(key)),
        (Binary(key.bytes, 4), str(key)),
        (Binary(b"\0", 4), "AA=="),
        (b"\0", "AA=="),
        (Int64(5), 5),
        (MinKey(), None),
        (Timestamp(0, 1), "1970-01-01T00:00:00.000Z"),
        (Regex("a"), "/a/"),
        (DBRef("posts", 1), "1"),
        (True, True),
    ]
    for value, public in values:
        assert public_value(value) == public
        assert type(public_value(value)) is type(public)
    assert encode_json(public_value([math.nan, math.inf])) == b"[null,null]"


def test_ids_are_strings_and_never_alike() -> None:
    """Whatever a direct write used as `_id`, two ids have two names."""
    ids = [
        ObjectId(), uuid.uuid4(), 5, "a", float("nan"), None, True, [1], [1, 2], {"a": 1}, Timestamp(1, 1), b"x", "5",
        "null", "~5", "a/b", "bulk", "", "..",
    ]  # fmt: skip
    ids += [str(ids[0]), str(ids[1])]
    for kind, plain in (
        (Kind.OBJECT_ID, [0]),
        (Kind.UUID, [1]),
        (Kind.INTEGER, [2]),
        (Kind.STRING, [3, 12, 13, 19, 20]),
    ):
        names = [public_id(id, kind) for id in ids]
        assert len(set(names)) == len(ids)
        assert [place for place, name in enumerate(names) if not name.startswith("~")] == plain
        assert all(names[place] == str(ids[place]) for place in plain)
        assert not any("/" in name for name in names)


def test_what_changed() -> None:
    """Names of visible fields without bookkeeping; NaN that stayed and another order of keys are no change."""
    before = {"a": 1, "b": math.nan, "c": {"x": 1, "y": 2}, "gone": 1, "revision": 1}
    after = {"a": 1.0, "b": math.nan, "c": {"y": 2, "x": 1}, "new": None, "revision": 2}
    assert changed_fields(before, after) == ["a", "new", "gone"]
    assert changed_fields({"a": True}, {"a": 1}) == ["a"]


class One(BaseModel):
    """One alternative."""

    a: int = 0


class Holder(BaseModel):
    """A union of shapes."""

    either: One | list[One] | dict[str, int] | str = ""


def test_unions_of_lists_and_documents() -> None:
    """Each shape of a union is served along its own declaration."""
    form = PublicForm(fields_of(Holder))
    assert form.document({"either": [{"a": 1, "x": 2}]}) == {"either": [{"a": 1}]}
    assert form.document({"either": {"k": 1}}) == {"either": {"k": 1}}
    assert form.document({"either": "text"}) == {"either": "text"}
