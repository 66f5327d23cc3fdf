"""The predicate and the database give the same answer, for random filters on random documents.

The answer is MongoDB's, by its manual and its matcher. The embedded server differs from it in a few places;
the cases are left out here, and nothing else:

1. A double such as 0.1 beside a Decimal128: the embedded server takes it for Decimal128("0.1"), MongoDB
   compares the exact values. The samples hold binary fractions only.
2. The order of binary data: MongoDB's is by length, then subtype, then content, the embedded server's by
   content alone. The samples have the same order by both.
3. `$elemMatch` with fields, over an array in the array: MongoDB treats the inner array as a document with
   the fields "0", "1", ...; the embedded server passes it by (`has_nested_array`).
4. Null at a numeric index beyond the array's end, or below a scalar element: MongoDB's path yields nothing
   there, the embedded server yields a missing value (`asks_for_null_at_index`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pymongo.collection import Collection

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
    Or,
    canonical,
    compile_predicate,
    conjunction,
    disjunction,
    parse_filter,
    to_query,
)
from tests.documents.filters.samples import FIELDS, FOREIGN, MOMENTS, OBJECT_IDS, SCALARS, STRINGS, TOKEN

Document = dict[str, Any]

_DOCUMENTS, _FILTERS = 14, 10

scalars = st.sampled_from(SCALARS)
#: Arrays that operands and documents have in common often enough to be found equal.
arrays = st.sampled_from([[], [1], [1, 2], ["a"], [None]])
stored_scalars = st.sampled_from((*SCALARS, *FOREIGN))
values = st.recursive(
    st.one_of(stored_scalars, stored_scalars, arrays),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=2),
    max_leaves=5,
)
documents = st.fixed_dictionaries({}, optional={"a": values, "b": values, "c": scalars})

paths = st.sampled_from(
    ["a", "b", "c", "a.a", "a.b", "b.a", "a.0", "a.1", "a.b.a", "a.0.b", "a.b.0", "b.0.0", "a.0.a.b"]
)
operands = st.one_of(scalars, scalars, st.lists(scalars, max_size=2), arrays)
_LISTS = (Operator.IN, Operator.NIN, Operator.ALL)
_TEXTS = (Operator.CONTAINS, Operator.STARTSWITH)


def comparisons(path: str) -> st.SearchStrategy[Compare]:
    """Any one operator at the path."""

    def of(op: Operator) -> st.SearchStrategy[Compare]:
        operand: st.SearchStrategy[Any] = operands
        if op in _LISTS:
            operand = st.lists(operands, max_size=3)
        elif op in _TEXTS:
            operand = st.sampled_from([text for text in STRINGS if text])
        elif op is Operator.EXISTS:
            operand = st.booleans()
        elif op is Operator.SIZE:
            operand = st.integers(0, 3)
        return operand.map(lambda value: Compare(path, op, value))

    return st.sampled_from(list(Operator)).flatmap(of)


def conditions(path: str) -> st.SearchStrategy[Filter]:
    """What can stand under a path: one operator, `$not` or `$elemMatch`."""
    several = st.lists(comparisons(path), min_size=1, max_size=2, unique_by=lambda part: part.operator)
    negated = several.map(lambda parts: NotCompare(tuple(parts)))
    of_element = st.lists(comparisons(""), min_size=1, max_size=2, unique_by=lambda part: part.operator)
    scalar = of_element.map(lambda parts: ElementMatch(path, conjunction(list(parts)), scalar=True))
    not_scalar = of_element.map(lambda parts: ElementMatch(path, NotCompare(tuple(parts)), scalar=True))
    fields = st.sampled_from(["a", "b", "a.b"]).flatmap(comparisons)
    subdocument = (
        fields | st.lists(fields, min_size=2, max_size=2).map(lambda parts: disjunction(list(parts))) | fields.map(Not)
    ).map(lambda condition: ElementMatch(path, condition, scalar=False))
    plain = comparisons(path)
    return st.one_of(plain, plain, negated, scalar, not_scalar, subdocument)


filters: st.SearchStrategy[Filter] = st.recursive(
    st.one_of(*[paths.flatmap(conditions)] * 4, st.sampled_from([EVERYTHING, NOTHING])),
    lambda inner: (
        st.lists(inner, min_size=2, max_size=3).map(conjunction)
        | st.lists(inner, min_size=2, max_size=3).map(disjunction)
        | inner.map(Not)
    ),
    max_leaves=4,
)

# --- the same through the parser: documents of the declared shape, more or less, and filters in JSON

_json_operands: dict[str, st.SearchStrategy[Any]] = {
    "id": st.sampled_from([str(value) for value in OBJECT_IDS]),
    "title": st.sampled_from(STRINGS),
    "status": st.sampled_from(["draft", "published", "hidden"]),
    "score": st.sampled_from([0, 1, 2, -1, 1.5, 2**53 - 1]),
    "ratio": st.sampled_from([0, 1.5, 2, -0.0]),
    "cost": st.sampled_from(["1.5", "2.00", 2, 1.5, "9007199254740993"]),
    "done": st.booleans(),
    "due": st.sampled_from([MOMENTS[0].isoformat(), "2024-05-01T14:00:00.1239+02:00", "1969-12-31T00:00:00Z"]),
    "owner_id": st.sampled_from([str(value) for value in OBJECT_IDS]),
    "token": st.just(str(TOKEN)),
    "blob": st.sampled_from(["eA==", "eHk="]),
    "tags": st.sampled_from(STRINGS),
    "tags.0": st.sampled_from(STRINGS),
    "scores": st.sampled_from([0, 1, 2]),
    "address.city": st.sampled_from(STRINGS),
    "address.place.latitude": st.sampled_from([0, 1.5]),
    "address.codes": st.sampled_from([0, 1, 2]),
    "items.name": st.sampled_from(STRINGS),
    "items.quantity": st.sampled_from([0, 1, 2]),
    "items.0.quantity": st.sampled_from([0, 1, 2]),
    "items.marks": st.sampled_from([0, 1, 2]),
    "labels.en": st.sampled_from(STRINGS),
    "mixed": st.sampled_from([1, 2, "a", "1969-12-31T00:00:00Z"]),
    "extra": st.sampled_from([0, 1.5, "a", True]),
    "extra.a": st.sampled_from([0, 1.5, "a", False]),
}
_TEXT_PATHS = (
    "title",
    "status",
    "tags",
    "tags.0",
    "address.city",
    "items.name",
    "labels.en",
    "mixed",
    "extra",
)


def json_operators(path: str, *, of_element: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """One to three operators on a path, or on one element of its array, as clients write them."""
    operand = _json_operands[path]
    several = st.lists(operand, max_size=3)
    indexed = any(segment.isdigit() for segment in path.split("."))
    nullable = operand if indexed else operand | st.none()
    optional: dict[str, st.SearchStrategy[Any]] = {
        **dict.fromkeys(("$eq", "$ne"), nullable),
        **dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), operand),
        **dict.fromkeys(("$in", "$nin"), st.lists(nullable, max_size=3)),
        "$exists": st.booleans(),
    }
    if path in _TEXT_PATHS:
        optional |= dict.fromkeys(("$contains", "$startswith"), st.sampled_from([t for t in STRINGS if t]))
    if path in ("tags", "scores", "address.codes", "items.marks", "extra") and not of_element:
        optional |= {"$all": several, "$size": st.integers(0, 2), "$eq": several | operand}
    names = st.lists(st.sampled_from(sorted(optional)), min_size=1, max_size=3, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: optional[name] for name in chosen}))


def json_conditions(path: str) -> st.SearchStrategy[dict[str, Any]]:
    operators = json_operators(path)
    under: st.SearchStrategy[Any] = st.one_of(
        operators, operators, _json_operands[path], operators.map(lambda inner: {"$not": inner})
    )
    if path in ("tags", "scores", "address.codes", "items.marks"):
        under |= json_operators(path, of_element=True).map(lambda inner: {"$elemMatch": inner})
    return under.map(lambda condition: {path: condition})


json_filters: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.sampled_from(sorted(_json_operands)).flatmap(json_conditions),
        st.sampled_from(["items.quantity", "items.name"])
        .flatmap(json_conditions)
        .map(lambda inner: {"items": {"$elemMatch": {k.removeprefix("items."): v for k, v in inner.items()}}}),
    ),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from(["$and", "$or", "$nor"]).map(lambda name: {name: parts})
    ),
    max_leaves=4,
)

_sub_values = stored_scalars | st.lists(scalars, max_size=3)
_subdocuments = st.fixed_dictionaries(
    {},
    optional={
        "name": scalars,
        "quantity": scalars,
        "marks": _sub_values,
        "city": scalars,
        "codes": _sub_values,
    },
)
declared_documents = st.fixed_dictionaries(
    {},
    optional={
        **{name: _sub_values for name in FIELDS if name not in ("_id", "address", "items", "labels")},
        "address": _subdocuments | scalars | st.lists(_subdocuments, max_size=2),
        "items": st.lists(_subdocuments | scalars, max_size=3) | scalars | _subdocuments,
        "labels": st.dictionaries(st.sampled_from(["en", "de"]), scalars) | scalars,
    },
)


# --- the cases that are left out


def is_about_subdocuments(filter: Filter) -> bool:
    """Whether a `$elemMatch` with fields occurs in the filter."""
    match filter:
        case ElementMatch(_, condition, scalar):
            return not scalar or is_about_subdocuments(condition)
        case And(parts) | Or(parts) | NotCompare(parts):
            return any(map(is_about_subdocuments, parts))
        case Not(part):
            return is_about_subdocuments(part)
    return False


def has_nested_array(value: object) -> bool:
    """Whether an array stands directly in an array."""
    if isinstance(value, dict):
        return any(map(has_nested_array, value.values()))
    if isinstance(value, list):
        return any(isinstance(element, list) or has_nested_array(element) for element in value)
    return False


def asks_for_null_at_index(filter: Filter) -> bool:
    """Whether null is compared at a path with a numeric segment."""
    match filter:
        case Compare(path, op, value):
            members = value if op in _LISTS else [value]
            return any(segment.isdigit() for segment in path.split(".")) and None in members
        case ElementMatch(_, condition):
            return asks_for_null_at_index(condition)
        case And(parts) | Or(parts) | NotCompare(parts):
            return any(map(asks_for_null_at_index, parts))
        case Not(part):
            return asks_for_null_at_index(part)
    return False


# --- the tests


def rewritten(filter: Filter) -> Filter:
    """The same filter, with its parts and list members in another order and repeated."""
    match filter:
        case And(parts):
            return And((*map(rewritten, reversed(parts)), parts[0]))
        case Or(parts):
            return Or((*map(rewritten, reversed(parts)), parts[0]))
        case Not(part):
            return Not(rewritten(part))
        case Compare(path, op, value) if op in _LISTS:
            return Compare(path, op, [*reversed(value), *value[:1]])
    return filter


class Referee:
    """Puts each batch of documents into the database and compares the two answers to each filter."""

    def __init__(self, collection: Collection[Document]) -> None:
        self.collection = collection
        self.cases = 0
        self.matches = 0

    def judge(self, batch: list[Document], filters: list[Filter]) -> None:
        self.collection.delete_many({})
        self.collection.insert_many([{"_id": number, **document} for number, document in enumerate(batch)])
        images = list(self.collection.find())
        for filter in filters:
            if asks_for_null_at_index(filter):
                continue
            judged = [image for image in images if not (is_about_subdocuments(filter) and has_nested_array(image))]
            query = to_query(filter)
            stored = {image["_id"] for image in self.collection.find(query, {"_id": 1})}
            expected = [image for image in judged if image["_id"] in stored]
            matches = compile_predicate(filter)
            found = [image for image in judged if matches(image)]
            differing = [image for image in judged if (image in found) != (image in expected)]
            assert not differing, f"the database disagrees on {query} over {differing}"
            self._judge_rewritten(filter, found, judged)
            self.cases += len(judged)
            self.matches += len(found)

    def _judge_rewritten(self, filter: Filter, found: list[Document], judged: list[Document]) -> None:
        other = rewritten(filter)
        assert canonical(other) == canonical(filter)
        matches = compile_predicate(other)
        assert [image["_id"] for image in judged if matches(image)] == [image["_id"] for image in found]


@pytest.fixture
def referee(mongodb_url: str, database_name: str) -> Iterator[Referee]:
    """A referee over an empty collection, dropped afterwards."""
    client: pymongo.MongoClient[Document] = pymongo.MongoClient(mongodb_url, tz_aware=True)
    collection = client[database_name]["agreement"]
    yield Referee(collection)
    client.drop_database(database_name)
    client.close()


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> int:
    """How many (document, filter) pairs each test judges at least: `--filter-cases`, else 4,000."""
    return int(request.config.getoption("--filter-cases", default=4000) or 4000)


def _sized(cases: int) -> settings:
    # Some filters are left out, so more examples are drawn than the cases need. The suite judges the same
    # cases every time; a longer run looks for new ones.
    return settings(
        max_examples=cases // (_DOCUMENTS * _FILTERS) * 3,
        derandomize=cases <= 4000,
        phases=[Phase.generate],  # shrinking takes minutes; the message names the query and the documents
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def test_random_filters_select_what_the_database_selects(referee: Referee, cases: int) -> None:
    """Trees that no client writes, over documents of no declared shape, match alike in both compilers."""

    @_sized(cases)
    @given(
        st.lists(documents, min_size=_DOCUMENTS, max_size=_DOCUMENTS),
        st.lists(filters, min_size=_FILTERS, max_size=_FILTERS),
    )
    def agree(batch: list[Document], drawn: list[Filter]) -> None:
        referee.judge(batch, drawn)

    agree()
    assert referee.cases >= cases
    assert 0.1 < referee.matches / referee.cases < 0.9


def test_clients_filters_select_what_the_database_selects(referee: Referee, cases: int) -> None:
    """Filters in JSON, over documents that break their declared types here and there, match alike in both."""

    @_sized(cases)
    @given(
        st.lists(declared_documents, min_size=_DOCUMENTS, max_size=_DOCUMENTS),
        st.lists(json_filters, min_size=_FILTERS, max_size=_FILTERS),
    )
    def agree(batch: list[Document], drawn: list[Any]) -> None:
        referee.judge(batch, [parse_filter(data, FIELDS) for data in drawn])

    agree()
    assert referee.cases >= cases
    assert 0.1 < referee.matches / referee.cases < 0.9
