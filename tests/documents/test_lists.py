"""Lists: rules, filters, orders, cursors over values of any type, counts and search."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pytest
from bson import Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from documents import (
    ANONYMOUS,
    BY_ID,
    CursorCodec,
    FilterRefused,
    ListQuery,
    Page,
    Principal,
    Sort,
    SortKey,
    parse_filter,
    parse_sort,
    sort_documents,
    words_filter,
)
from tests.documents.classes import ADMIN, ANN, BOB, MODERATOR, World

EVERY_TYPE: list[Any] = [
    None,
    0,
    1,
    -1,
    1.0,
    1.5,
    Int64(2),
    Decimal128("1.5"),
    Decimal128("-0"),
    Decimal128("NaN"),
    math.nan,
    math.inf,
    -math.inf,
    "",
    "a",
    "A",
    "é",
    {},
    {"a": 1},
    {"b": 0},
    {"a": "x"},
    b"",
    b"ab",
    ObjectId("6b02c1e9c1e9111478612819"),
    True,
    False,
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    dt.datetime(1960, 1, 1, tzinfo=dt.UTC),
    Timestamp(5, 1),
    MinKey(),
    MaxKey(),
]
ABSENT = object()


def ids(page: Page) -> list[str]:
    return [str(item.document["id"]) for item in page.items]


async def walk(world: World, name: str, principal: Principal, **query: Any) -> list[str]:
    """Every page of a list, by cursor."""
    found: list[str] = []
    cursor: str | None = None
    for _ in range(200):
        page = await world.lists.page(world.registry[name], ListQuery(cursor=cursor, **query), principal)
        found += ids(page)
        if (cursor := page.next_cursor) is None:
            return found
    raise AssertionError("the list does not end")


async def fill(world: World, values: list[Any]) -> list[dict[str, Any]]:
    """Notes whose `score` is each of `values`, as a writer without a validator may leave them."""
    if not world.database.in_memory:
        await world.database.raw.command({"collMod": "notes", "validationLevel": "off"})
    documents = [
        {"_id": ObjectId(), "title": str(n), "hush": str(n)} | ({} if value is ABSENT else {"score": value})
        for n, value in enumerate(values)
    ]
    if documents:
        await world.database.raw["notes"].insert_many(documents)
    return documents


async def test_a_list_shows_what_the_rule_allows(contract: World) -> None:
    """Filter AND rule: a filter widens nothing."""
    posts, store = contract.registry["posts"], contract.store
    for author in (ANN, BOB):
        for status in ("draft", "published"):
            await store.create(posts, author, {"title": f"{author.username} {status}", "status": status})
    filter_ = parse_filter({"status": {"$in": ["draft", "published"]}}, posts.visible(frozenset()))
    seen = {}
    for caller in (ANONYMOUS, ANN, MODERATOR):
        page = await contract.lists.page(posts, ListQuery(filter=filter_, count="exact"), caller)
        assert page.total == len(page.items)
        seen[caller.username] = {item.document["title"] for item in page.items}
    assert seen[None] == {"ann published", "bob published"}
    assert seen["ann"] == seen[None] | {"ann draft"}
    assert len(seen["mod"]) == 4


@pytest.mark.parametrize("descending", [False, True])
async def test_a_cursor_walks_over_values_of_every_type(world: World, descending: bool) -> None:
    """Page by page gives exactly the whole list, in the server's order and in ours, with ties by id."""
    documents = await fill(world, [*EVERY_TYPE, *EVERY_TYPE, ABSENT, ABSENT])
    sort: Sort = (SortKey("score", descending), SortKey("_id", descending))
    order = [("score", -1 if descending else 1), ("_id", -1 if descending else 1)]
    by_server = [str(d["_id"]) async for d in world.database.collection("notes").find({}, {"_id": 1}).sort(order)]
    assert len(by_server) == len(documents)
    for limit in (1, 7):
        assert await walk(world, "notes", ANN, sort=sort, limit=limit) == by_server
    assert [str(d["_id"]) for d in sort_documents(documents, sort)] == by_server


SCALARS = st.one_of(
    st.just(ABSENT),
    st.sampled_from(EVERY_TYPE),
    st.integers(-3, 3),
    st.floats(allow_nan=True, width=16),
    st.text(max_size=2, alphabet="aAéz"),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 1) | st.text(max_size=1, alphabet="ab"), max_size=2),
)


@pytest.mark.property
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(values=st.lists(SCALARS, max_size=12), first=st.booleans(), second=st.booleans(), limit=st.integers(1, 5))
async def test_any_mixture_is_walked_exactly(
    world: World, values: list[Any], first: bool, second: bool, limit: int
) -> None:
    """The property behind the walk: random values in two sort keys, directions and page sizes."""
    collection = world.database.raw["notes"]
    await collection.delete_many({})
    documents = await fill(world, values)
    for place, document in enumerate(documents):
        document["group"] = "xy"[place % 2]
        await collection.update_one({"_id": document["_id"]}, {"$set": {"group": document["group"]}})
    sort: Sort = (SortKey("group", first), SortKey("score", second), SortKey("_id", second))
    order = [(key.path, -1 if key.descending else 1) for key in sort]
    by_server = [str(d["_id"]) async for d in world.database.collection("notes").find({}, {"_id": 1}).sort(order)]
    assert await walk(world, "notes", ANN, sort=sort, limit=limit) == by_server
    assert [str(d["_id"]) for d in sort_documents(documents, sort)] == by_server


@pytest.mark.parametrize("descending", [False, True])
async def test_arrays_where_none_belong_end_no_walk(world: World, descending: bool) -> None:
    """An array sorts by its least or greatest element; a walk passes it once."""
    documents = await fill(world, [1, [0, 9], 5, [], [3, "a"], "b", ABSENT, [None, 7], None, [5], [{"a": 1}]])
    sort: Sort = (SortKey("score", descending), SortKey("_id", descending))
    order = [("score", -1 if descending else 1), ("_id", -1 if descending else 1)]
    by_server = [str(d["_id"]) async for d in world.database.collection("notes").find({}, {"_id": 1}).sort(order)]
    assert [str(d["_id"]) for d in sort_documents(documents, sort)] == by_server
    for limit in (1, 4):
        assert await walk(world, "notes", ANN, sort=sort, limit=limit) == by_server


# mongomock knows neither lists of types nor comparisons of UUIDs, so cursors walk on the real server alone.
async def test_a_walk_over_text_and_uuid_keys(world: World) -> None:
    """Cursors hold values of every type that a sort key may have."""
    specimens = world.registry["specimens"]
    for number in range(5):
        await world.store.create(
            specimens, ANN, {"must": number, "key": f"0b1f7e4e-5a0b-4a5c-9f5e-00000000000{number % 3}", "money": "1.5"}
        )
    fields = specimens.visible(frozenset())
    for names in (["key"], ["-key"], ["money", "-must"], ["at"], ["either"]):
        walked = await walk(world, "specimens", ANN, sort=parse_sort(names, fields), limit=2)
        assert len(set(walked)) == len(walked) == 5


async def test_a_cursor_belongs_to_its_list(world: World) -> None:
    """Changed, foreign, empty and forged cursors are refused with their place."""
    notes = world.registry["notes"]
    await fill(world, [1, 2, 3])
    other = parse_filter({"score": {"$gt": 0}}, notes.fields)
    page = await world.lists.page(notes, ListQuery(limit=1), ANN)
    cursor = page.next_cursor
    assert cursor is not None
    by_score = (SortKey("score", False), SortKey("_id", False))
    changed = ("B" if cursor[0] == "A" else "A") + cursor[1:]
    attempts = [
        (ListQuery(limit=1, cursor=cursor, filter=other), ANN),
        (ListQuery(limit=1, cursor=cursor, sort=by_score), ANN),
        (ListQuery(limit=1, cursor=cursor), BOB),
        (ListQuery(limit=1, cursor=cursor), ANN.within(frozenset({"notes:read"}))),
        *((ListQuery(cursor=text), ANN) for text in ("", "a", "é", "====", "\ud800", cursor[:-2], changed)),
        (ListQuery(cursor=CursorCodec(b"another hush").encode([1], b"")), ANN),
    ]
    for query, caller in attempts:
        with pytest.raises(FilterRefused) as refused:
            await world.lists.page(notes, query, caller)
        assert refused.value.faults[0].loc == ("query", "cursor")
    following = await world.lists.page(notes, ListQuery(limit=1, cursor=cursor), ANN)
    assert ids(following) != ids(page)


async def test_pages_and_counts(contract: World) -> None:
    """Page numbers skip; counting is exact where anything narrows the list, and never done unasked."""
    notes = contract.registry["notes"]
    await fill(contract, list(range(7)))
    page = await contract.lists.page(notes, ListQuery(limit=3, page=3, count="exact"), ANN)
    assert (len(page.items), page.total, page.has_next) == (1, 7, False)
    assert (await contract.lists.page(notes, ListQuery(limit=3, page=9), ANN)).items == []
    assert (await contract.lists.page(notes, ListQuery(count="estimated"), ANN)).total == 7
    narrowed = ListQuery(filter=parse_filter({"score": {"$gt": 4}}, notes.fields), count="estimated", limit=1)
    page = await contract.lists.page(notes, narrowed, ANN)
    assert (page.total, page.has_next) == (2, True)
    assert (await contract.lists.page(notes, ListQuery(), ANN)).total is None


async def test_search_finds_all_words(contract: World) -> None:
    """Each word in any of the searchable fields that the caller sees, in either case, literally."""
    notes = contract.registry["notes"]
    for title in ("Red River", "red", "river (blue)", "r.d"):
        await contract.store.create(notes, ANN, {"title": title})
    visible = notes.visible(ANN.roles)

    async def titles(text: str) -> set[Any]:
        page = await contract.lists.page(notes, ListQuery(filter=words_filter(text, notes, visible)), ANN)
        return {item.document["title"] for item in page.items}

    assert await titles("river RED") == {"Red River"}
    assert await titles("(blue)") == {"river (blue)"}
    assert await titles("r.d") == {"r.d"}
    # The field `hush` is searchable by its class, hidden from everybody, and so not searched.
    assert await titles("quiet") == set()


@pytest.mark.parametrize("text", ["", "  ", "a " * 21, "a\0b", "x" * 1001, "\ud800"])
async def test_a_search_that_cannot_be_made(memory: World, text: str) -> None:
    """From 1 to 20 words that a regular expression can hold."""
    notes = memory.registry["notes"]
    with pytest.raises(FilterRefused):
        words_filter(text, notes, notes.visible(frozenset()))
    with pytest.raises(FilterRefused):
        words_filter("word", memory.registry["counters"], {})


@pytest.mark.parametrize(
    ("names", "type_"),
    [
        (["hush"], "unknown_field"),
        (["cost"], "unknown_field"),
        (["_id"], "unknown_field"),
        (["nope"], "unknown_field"),
        ([""], "unknown_field"),
        (["-"], "unknown_field"),
        (["--title"], "unknown_field"),
        (["title.x"], "unknown_field"),
        (["title", "-title"], "repeated"),
        (["title"] * 9, "too_long"),
    ],
)
async def test_an_order_that_cannot_be_asked_for(memory: World, names: list[str], type_: str) -> None:
    """Hidden fields, those of other roles, and unknown ones are one and the same to the caller."""
    with pytest.raises(FilterRefused) as refused:
        parse_sort(names, memory.registry["notes"].visible(ANN.roles))
    assert refused.value.faults[0].type == type_


async def test_orders_that_can_be_asked_for(memory: World) -> None:
    """Ties are broken by the id in the last key's direction; nested fields sort, lists and objects do not."""
    specimens = memory.registry["specimens"].fields
    assert parse_sort([], specimens) == BY_ID
    assert parse_sort(["-id"], specimens) == (SortKey("_id", True),)
    assert parse_sort(["text", "-part.name"], specimens)[1:] == (SortKey("part.name", True), SortKey("_id", True))
    assert parse_sort(["cost"], memory.registry["notes"].visible(ADMIN.roles))[0].path == "cost"
    for name in ("words", "part", "counts", "parts.name", "part.seal.x"):
        with pytest.raises(FilterRefused):
            parse_sort([name], specimens)
