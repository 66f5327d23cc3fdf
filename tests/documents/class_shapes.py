"""Random document classes: for each field, values that its type accepts and values that it refuses, with the reason."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import GenericAlias
from typing import Annotated, Any, Literal, Optional

from beanie import PydanticObjectId
from bson import Binary, Decimal128, Int64, ObjectId
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, create_model

from documents import LiveDocument

Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class Refused:
    """A stored value that breaks its type's rules, where below the value, and the keyword that says so.

    `by_class`: whether pydantic refuses the value too, rather than to convert it.
    """

    value: Any
    keyword: str
    loc: Loc = ()
    by_class: bool = True


@dataclass(frozen=True)
class Shape:
    """A type as an annotation, what is stored of it, and what is refused. `kinds` are the BSON types."""

    annotation: Any
    good: st.SearchStrategy[Any]
    bad: st.SearchStrategy[Refused]
    kinds: frozenset[str]


def _wrong_type(*values: Any) -> st.SearchStrategy[Refused]:
    return st.sampled_from(values).map(lambda value: Refused(value, "bsonType", by_class=False))


def _breaks(values: st.SearchStrategy[Any], keyword: str) -> st.SearchStrategy[Refused]:
    return values.map(lambda value: Refused(value, keyword))


# What ends a text matters: `$` and `\z` differ there.
_LETTERS = st.sampled_from("abé\n 😀")


def _text_of(smallest: int, largest: int) -> st.SearchStrategy[str]:
    return st.text(_LETTERS, min_size=smallest, max_size=largest)


@st.composite
def _texts(draw: st.DrawFn) -> Shape:
    least = draw(st.integers(0, 3))
    most = draw(st.integers(least, 5))
    bad = [_wrong_type(5, True, None, ObjectId()), _breaks(_text_of(most + 1, most + 3), "maxLength")]
    if least:
        bad.append(_breaks(_text_of(0, least - 1), "minLength"))
    annotation = Annotated[str, Field(min_length=least, max_length=most)]
    return Shape(annotation, _text_of(least, most), st.one_of(bad), frozenset({"string"}))


_PATTERNS = (
    (r"^[a-z]{1,3}$", ("a", "abc"), ("A", "abcd", "ab\n", "", "é")),
    (r"^[a-z0-9]+(-[a-z0-9]+)*$", ("a-1", "x"), ("-a", "a-", "a-1\n")),
    (r"b", ("abc", "b\n"), ("a", "")),
    (r"^cost \$$", ("cost $",), ("cost $\n", "cost ")),
)


@st.composite
def _patterns(draw: st.DrawFn) -> Shape:
    pattern, good, bad = draw(st.sampled_from(_PATTERNS))
    annotation = Annotated[str, Field(pattern=pattern)]
    refused = _breaks(st.sampled_from(bad), "pattern") | _wrong_type(1)
    return Shape(annotation, st.sampled_from(good), refused, frozenset({"string"}))


@st.composite
def _integers(draw: st.DrawFn) -> Shape:
    low = draw(st.integers(-5, 5))
    high = draw(st.integers(low + 2, low + 9))
    exclusive = draw(st.booleans())
    limits = Field(gt=low, lt=high) if exclusive else Field(ge=low, le=high)
    good = st.integers(low + exclusive, high - exclusive)
    bad = st.one_of(
        _breaks(st.integers(low - 5, low - 1 + exclusive), "minimum"),
        _breaks(st.integers(high + 1 - exclusive, high + 5).map(Int64), "maximum"),
        _wrong_type(1.5, float(low), "1", True, Decimal128("1")),
    )
    return Shape(Annotated[int, limits], good | good.map(Int64), bad, frozenset({"int", "long"}))


@st.composite
def _multiples(draw: st.DrawFn) -> Shape:
    step = draw(st.integers(2, 7))
    good = st.integers(-9, 9).map(lambda n: n * step)
    bad = _breaks(st.integers(-9, 9).map(lambda n: n * step + 1), "multipleOf")
    return Shape(Annotated[int, Field(multiple_of=step)], good, bad, frozenset({"int", "long"}))


@st.composite
def _numbers(draw: st.DrawFn) -> Shape:
    low = draw(st.floats(-5, 5, width=16))
    good = st.floats(low, low + 100) | st.integers(int(low) + 1, 200)
    bad = _breaks(st.floats(low - 100, low, exclude_max=True), "minimum") | _wrong_type("1.5", Decimal128("200"), True)
    return Shape(Annotated[float, Field(ge=low)], good, bad, frozenset({"double", "int", "long"}))


def _plain(annotation: Any, kind: str, good: st.SearchStrategy[Any], *wrong: Any) -> st.SearchStrategy[Shape]:
    return st.just(Shape(annotation, good, _wrong_type(*wrong), frozenset({kind})))


_MOMENTS = st.integers(0, 4 * 10**12).map(lambda ms: dt.datetime.fromtimestamp(ms // 1000, dt.UTC))


@st.composite
def _choices(draw: st.DrawFn) -> Shape:
    if draw(st.booleans()):
        return Shape(
            Literal["red", "blue"],
            st.sampled_from(["red", "blue"]),
            _breaks(st.sampled_from(["green", "RED", ""]), "enum"),
            frozenset({"string"}),
        )
    return Shape(Literal[1, 2], st.sampled_from([1, 2]), _breaks(st.integers(3, 9), "enum"), frozenset({"int", "long"}))


_SCALARS = st.one_of(
    _texts(),
    _patterns(),
    _integers(),
    _multiples(),
    _numbers(),
    _choices(),
    # Limits of decimals are not among them: the embedded server does not compare decimals.
    _plain(Decimal, "decimal", st.decimals(-1000, 1000, places=3).map(Decimal128), 1, 1.5, "1"),
    _plain(bool, "bool", st.booleans(), 0, 1, "true"),
    _plain(dt.datetime, "date", _MOMENTS, "2026-01-01T00:00:00Z", 5),
    _plain(PydanticObjectId, "objectId", st.builds(ObjectId), "6b02c1e9c1e9111478612819", 5),
    _plain(uuid.UUID, "binData", st.uuids().map(Binary.from_uuid), "6b02c1e9", 5),
    _plain(bytes, "binData", st.binary(max_size=5), "text", 5),
)


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[Shape]) -> Shape:
    item = draw(inner)
    least = draw(st.integers(0, 2))
    most = draw(st.integers(least + 1, 4))

    @st.composite
    def with_bad_item(draw: st.DrawFn) -> Refused:
        items = draw(st.lists(item.good, min_size=max(least - 1, 0), max_size=most - 1))
        # The server tells of the first item that does not fit.
        refused = draw(item.bad)
        return Refused([*items, refused.value], refused.keyword, (len(items), *refused.loc), refused.by_class)

    bad = [
        _breaks(st.lists(item.good, min_size=most + 1, max_size=most + 2), "maxItems"),
        _wrong_type("text", 5),
        with_bad_item(),
    ]
    if least:
        bad.append(_breaks(st.lists(item.good, max_size=least - 1), "minItems"))
    of: Any = GenericAlias(list, (item.annotation,))
    return Shape(
        Annotated[of, Field(min_length=least, max_length=most)],
        st.lists(item.good, min_size=least, max_size=most),
        st.one_of(bad),
        frozenset({"array"}),
    )


def _sets() -> st.SearchStrategy[Shape]:
    # A class makes one value of two that are equal, and refuses nothing.
    twice = st.sampled_from([[1, 1], [1, 2, 1]]).map(lambda value: Refused(value, "uniqueItems", by_class=False))
    good = st.lists(st.integers(-9, 9), unique=True, max_size=4)
    return st.just(Shape(set[int], good, twice | _wrong_type("a"), frozenset({"array"})))


@st.composite
def _maps(draw: st.DrawFn, inner: st.SearchStrategy[Shape]) -> Shape:
    value, most = draw(inner), draw(st.integers(1, 3))
    keys = st.text("xyzé", min_size=1, max_size=3)

    @st.composite
    def with_bad_value(draw: st.DrawFn) -> Refused:
        key, refused = draw(keys), draw(value.bad)
        return Refused({key: refused.value}, refused.keyword, (key, *refused.loc), refused.by_class)

    bad = st.one_of(
        _breaks(st.dictionaries(keys, value.good, min_size=most + 1, max_size=most + 2), "maxProperties"),
        with_bad_value(),
        _wrong_type([], "text"),
    )
    of: Any = GenericAlias(dict, (str, value.annotation))
    return Shape(
        Annotated[of, Field(max_length=most)],
        st.dictionaries(keys, value.good, max_size=most),
        bad,
        frozenset({"object"}),
    )


@st.composite
def _nullable(draw: st.DrawFn, inner: st.SearchStrategy[Shape]) -> Shape:
    shape = draw(inner)
    bad = shape.bad.filter(lambda refused: refused.value is not None)
    return Shape(Optional[shape.annotation], st.none() | shape.good, bad, shape.kinds | {"null"})  # noqa: UP045


@st.composite
def _unions(draw: st.DrawFn) -> Shape:
    first = draw(_integers())
    second = draw(_texts())
    bad = st.sampled_from([[], ObjectId(), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)])
    annotation = first.annotation | second.annotation
    return Shape(annotation, first.good | second.good, _breaks(bad, "anyOf"), first.kinds | second.kinds)


@dataclass(frozen=True)
class Member:
    """A field of a class: whether it must be there, and how it is described."""

    shape: Shape
    required: bool
    info: dict[str, Any] = field(default_factory=dict)


@st.composite
def _members(draw: st.DrawFn, inner: st.SearchStrategy[Shape]) -> Mapping[str, Member]:
    names = draw(st.lists(st.sampled_from(["alpha", "beta", "gamma_id", "delta"]), min_size=1, max_size=4, unique=True))
    described = st.sampled_from([{}, {"description": "What it is for."}, {"title": "Name", "description": "é: x"}])
    return {name: Member(draw(inner), draw(st.booleans()), draw(described)) for name in names}


def _declared(draw: st.DrawFn, members: Mapping[str, Member]) -> dict[str, Any]:
    declared = {}
    for name, member in members.items():
        given = dict(member.info)
        if not member.required:
            default = _in_python(draw(member.shape.good))
            given["default_factory"] = lambda default=default: default
        declared[name] = (member.shape.annotation, Field(**given))
    return declared


def documents_of(members: Mapping[str, Member]) -> st.SearchStrategy[dict[str, Any]]:
    """Stored documents that the members accept."""
    return st.fixed_dictionaries(
        {name: member.shape.good for name, member in members.items() if member.required},
        optional={name: member.shape.good for name, member in members.items() if not member.required},
    )


@st.composite
def broken_documents(draw: st.DrawFn, members: Mapping[str, Member]) -> Refused:
    """A stored document with one fault."""
    document = draw(documents_of(members))
    required = [name for name, member in members.items() if member.required]
    fault = draw(st.sampled_from(["value", "value", "extra", *(["missing"] if required else [])]))
    if fault == "extra":
        return Refused(document | {"omega": draw(st.none() | st.just(1))}, "additionalProperties", ("omega",))
    if fault == "missing":
        name = draw(st.sampled_from(required))
        return Refused({key: value for key, value in document.items() if key != name}, "required", (name,))
    name = draw(st.sampled_from(sorted(members)))
    refused = draw(members[name].shape.bad)
    return Refused(document | {name: refused.value}, refused.keyword, (name, *refused.loc), refused.by_class)


_STRICT = ConfigDict(extra="forbid", val_json_bytes="base64")


@st.composite
def _nested(draw: st.DrawFn, inner: st.SearchStrategy[Shape]) -> Shape:
    members = draw(_members(inner))
    model = create_model("Nested", __config__=_STRICT, **_declared(draw, members))
    bad = broken_documents(members) | _wrong_type("text", [])
    return Shape(model, documents_of(members), bad, frozenset({"object"}))


_LEAVES = _SCALARS | _nullable(_SCALARS) | _unions() | _sets()
_SHAPES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(_arrays(inner), _maps(inner), _nested(inner), _nullable(_nested(inner))),
    max_leaves=4,
)


class _Shaped(LiveDocument):
    class Settings:
        name = "shapes"


@dataclass(frozen=True)
class Declared:
    """A random document class, and a pydantic model with the same fields to ask what the class accepts."""

    document_class: type[LiveDocument]
    twin: type[BaseModel]
    members: Mapping[str, Member]

    def accepts(self, stored: Mapping[str, Any]) -> bool:
        """Whether the class takes the document as it is stored."""
        try:
            self.twin.model_validate(_in_python(dict(stored)))
        except ValueError:
            return False
        return True


@st.composite
def document_classes(draw: st.DrawFn) -> Declared:
    """Classes of one collection."""
    members = draw(_members(_SHAPES))
    declared = _declared(draw, members)
    doc = draw(st.sampled_from(["", "A random class.\n\nWith more to say."]))
    made = create_model("Shaped", __base__=_Shaped, __doc__=doc, **declared)
    return Declared(made, create_model("Twin", __config__=_STRICT, **declared), members)


def _in_python(stored: Any) -> Any:
    if isinstance(stored, Decimal128):
        return stored.to_decimal()
    if isinstance(stored, Binary) and stored.subtype == 4:
        return stored.as_uuid()
    if isinstance(stored, dict):
        return {key: _in_python(value) for key, value in stored.items()}
    if isinstance(stored, list):
        return [_in_python(value) for value in stored]
    return stored
