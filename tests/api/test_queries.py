"""Query strings of lists where a class's fields are named like parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import httpx
import pytest

from api.queries import RESERVED, parse_distinct_query, parse_export, parse_list, parse_live, query_items
from documents import (
    ANONYMOUS,
    BY_ID,
    EVERYTHING,
    Access,
    Fault,
    FilterRefused,
    LiveDocument,
    Registry,
    Resource,
    anyone,
    parse_filter,
)


class Awkward(LiveDocument):
    """Fields that are also parameters."""

    limit: int = 0
    sort: str = ""
    search: str = ""

    class Settings:
        name = "awkward"

    resource = Resource(access=Access(read=anyone), search=("search",))


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The class alone."""
    return Registry([Awkward])


Items = list[tuple[str, str]]


def faults_of(parse: Callable[[Items], object], items: Items) -> Sequence[Fault]:
    """The faults that a query string has; none when it is accepted."""
    try:
        parse(items)
    except FilterRefused as refused:
        return refused.faults
    return ()


def test_field_named_like_a_parameter(registry: Registry) -> None:
    """The parameter wins; `filter`, `sort` and `fields` still reach the field."""
    resource = registry["awkward"]
    items = query_items(b'limit=7&sort=-sort&fields=limit&filter={"limit":3}&search=a')
    asked = parse_list(resource, registry, ANONYMOUS, items, page_size_max=100)
    assert asked.query.limit == 7
    assert [(key.path, key.descending) for key in asked.query.sort] == [("sort", True), ("_id", True)]
    assert asked.fields == ("limit",)
    expected = parse_filter({"$and": [{"limit": 3}, {"search": {"$contains": "a"}}]}, resource.fields)
    assert asked.query.filter == expected
    assert parse_list(resource, registry, ANONYMOUS, [("limit", "3")], page_size_max=100).query.filter == EVERYTHING


def test_short_form_of_a_field_named_like_a_parameter(registry: Registry) -> None:
    """With an operator in brackets it is another name, and so the field."""
    resource = registry["awkward"]
    asked = parse_list(resource, registry, ANONYMOUS, query_items(b"limit[gte]=3"), page_size_max=100)
    assert asked.query.filter == parse_filter({"limit": {"$gte": 3}}, resource.fields)
    assert asked.query.limit == 25


def test_parameters_of_each_kind_of_list(registry: Registry) -> None:
    """Every reserved name means something somewhere, and is a fault where it means nothing."""
    resource = registry["awkward"]
    values = {"filter": "{}", "search": "a", "sort": "id", "fields": "id", "limit": "1", "cursor": "x", "count": "none"}
    values |= {"page": "1", "page_size": "1", "expand": "limit", "since": "x", "snapshot": "true"}
    assert set(values) == RESERVED
    kinds: dict[str, Callable[[Items], object]] = {
        "list": lambda given: parse_list(resource, registry, ANONYMOUS, given, page_size_max=100),
        "export": lambda given: parse_export(resource, ANONYMOUS, given),
        "live": lambda given: parse_live(resource, ANONYMOUS, given, None, snapshot_max=100),
        "distinct": lambda given: parse_distinct_query(resource, ANONYMOUS, given),
    }
    refused: dict[str, set[str | int]] = {
        kind: {fault.loc[1] for name, value in values.items() for fault in faults_of(parse, [(name, value)])}
        for kind, parse in kinds.items()
    }
    pages = {"cursor", "page", "page_size"}
    assert refused == {
        "list": {"since", "snapshot", "expand"},  # nothing here can be expanded
        "export": pages | {"count", "expand", "since", "snapshot"},
        "live": pages | {"count", "expand"},
        "distinct": pages | {"sort", "fields", "expand", "since", "snapshot"},
    }
    assert parse_export(resource, ANONYMOUS, []).query.sort == BY_ID


@pytest.mark.parametrize("query", ["search={0}", "title[contains]={0}", "title[startswith]={0}", "search={0}%20{0}"])
def test_long_text(anonymous: httpx.Client, query: str) -> None:
    """What is allowed can be looked for; what is too long for a pattern of the database is refused."""
    assert anonymous.get(f"/posts?{query.format('Ab' * 60)}").status_code == 200
    answer = anonymous.get(f"/posts?{query.format('a' * 121)}")
    assert (answer.status_code, answer.json()["errors"][0]["type"]) == (422, "too_long")


def test_long_texts_in_one_value(anonymous: httpx.Client) -> None:
    """Texts that are too long together are refused as well."""
    several = [{"$contains": letter * 120} for letter in "abc"]
    wanted = {"tags": {"$elemMatch": {"$and": several}}}
    answer = anonymous.get("/posts", params={"filter": json.dumps(wanted)})
    assert answer.status_code == 422, answer.text
