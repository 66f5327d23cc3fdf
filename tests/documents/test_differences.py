"""What differs between the classes and the database: nothing after a start, and each planted difference by name."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pymongo import TEXT, IndexModel

from documents import Difference, bind_classes, differences, install, json_schema, open_database
from documents.differences import same_index
from documents.resources import Registry
from tests.documents.classes import Note, World


async def found(world: World, action: Any = "error") -> list[Difference]:
    return await differences(world.database, world.registry, action)


async def test_nothing_differs_after_a_start(world: World) -> None:
    """Of any class, and by each action."""
    assert await found(world) == []
    assert await found(world, "off") == []
    await install(world.database, world.registry, "warn")
    assert await found(world, "warn") == []


async def test_an_empty_database_lacks_every_collection(mongodb_url: str, database_name: str) -> None:
    """Each is named, and asking creates none."""
    database = await open_database(mongodb_url, database_name)
    try:
        registry = Registry([Note])
        await bind_classes(database, registry)
        lacking = Difference("notes", "collection", "", "the collection does not exist", settled_by_apply=True)
        assert await differences(database, registry, "error") == [lacking]
        assert "notes" not in await database.raw.list_collection_names()
    finally:
        await database.raw.client.drop_database(database_name)
        await database.close()


Rules = dict[str, Any]


def rules(change: Callable[[Rules], Any]) -> Callable[[World], Awaitable[None]]:
    """Plant other rules for posts: the class's, changed by `change`."""

    async def plant(world: World) -> None:
        planted = copy.deepcopy(json_schema(world.registry["posts"]))
        change(planted)
        await world.database.raw.command({"collMod": "posts", "validator": {"$jsonSchema": planted}})

    return plant


def modified(**options: Any) -> Callable[[World], Awaitable[None]]:
    async def plant(world: World) -> None:
        await world.database.raw.command({"collMod": "posts", **options})

    return plant


def created(**options: Any) -> Callable[[World], Awaitable[None]]:
    """Plant another collection of counters, which then gets all that the class wants and that it can have."""

    async def plant(world: World) -> None:
        raw = world.database.raw
        await raw.drop_collection("counters")
        await raw.create_collection("counters", **options)
        if "viewOn" not in options and "timeseries" not in options:
            await install(world.database, world.registry, "error")

    return plant


def indexed(name: str, key: list[tuple[str, int]], *dropped: str, **options: Any) -> Callable[[World], Awaitable[None]]:
    async def plant(world: World) -> None:
        posts = world.database.raw["posts"]
        for index in dropped:
            await posts.drop_index(index)
        if key:
            await posts.create_index(key, name=name, **options)

    return plant


def _properties(planted: Rules) -> Rules:
    properties: Rules = planted["properties"]
    return properties


async def _condition(world: World) -> None:
    validator = {"$jsonSchema": json_schema(world.registry["posts"]), "score": {"$gt": 0}}
    await world.database.raw.command({"collMod": "posts", "validator": validator})


async def _dropped(world: World) -> None:
    await world.database.raw.drop_collection("posts")


async def _bucket(world: World) -> None:
    await world.database.raw["files.chunks"].drop_index("files_id_1_n_1")


async def _no_bucket(world: World) -> None:
    await world.database.raw.drop_collection("files.files")


Planted = tuple[Callable[[World], Awaitable[None]], list[tuple[str, str, str, str, bool]]]

PLANTED: dict[str, Planted] = {
    "the collection dropped": (_dropped, [("posts", "collection", "", "does not exist", True)]),
    "a view": (
        created(viewOn="notes", pipeline=[]),
        [("counters", "collection", "", "this is a view, where a collection is wanted", False)],
    ),
    "a time series": (
        created(timeseries={"timeField": "at"}),
        [("counters", "collection", "", "this is a timeseries", False)],
    ),
    "a capped collection": (
        created(capped=True, size=100_000),
        [("counters", "option", "capped", "capped: true", False), ("counters", "option", "size", "100000", False)],
    ),
    "a collation": (
        created(collation={"locale": "de"}),
        [("counters", "option", "collation", 'collation: {"locale": "de"}', False)],
    ),
    "no images": (
        modified(changeStreamPreAndPostImages={"enabled": False}),
        [("posts", "images", "changeStreamPreAndPostImages", "images before changes are off", True)],
    ),
    "no validator": (modified(validator={}), [("posts", "validator", "", "there is no validator", True)]),
    "a condition besides the rules": (_condition, [("posts", "validator", "score", "condition on score", True)]),
    "another level": (
        modified(validationLevel="moderate"),
        [("posts", "validator", "validationLevel", "moderate in the database and strict here", True)],
    ),
    "another action": (
        modified(validationAction="warn"),
        [("posts", "validator", "validationAction", "warn in the database and error here", True)],
    ),
    "another limit": (
        rules(lambda planted: _properties(planted)["title"].update(maxLength=100)),
        [("posts", "validator", "title", "maxLength is 100 in the database and 200 in the class", True)],
    ),
    "a limit too many": (
        rules(lambda planted: _properties(planted)["body"].update(minLength=1)),
        [("posts", "validator", "body", "minLength is 1 in the database and not set in the class", True)],
    ),
    "no limit, in an array": (
        rules(lambda planted: _properties(planted)["tags"]["items"].pop("maxLength")),
        [("posts", "validator", "tags[]", "maxLength is not set in the database and 40 in the class", True)],
    ),
    "another type": (
        rules(lambda planted: _properties(planted)["author_id"].update(bsonType="string")),
        [("posts", "validator", "author_id", 'bsonType is "string" in the database and "objectId"', True)],
    ),
    "another choice": (
        rules(lambda planted: _properties(planted)["status"]["enum"].append("gone")),
        [("posts", "validator", "status", 'enum is ["draft", "published", "hidden", "gone"]', True)],
    ),
    "another description": (
        rules(lambda planted: _properties(planted)["title"].update(description="Old.")),
        [("posts", "validator", "title", 'description is "Old." in the database and "The headline."', True)],
    ),
    "a field too many": (
        rules(lambda planted: _properties(planted).update(old={"bsonType": "int"})),
        [("posts", "validator", "old", "the class has not", True)],
    ),
    "a field too few": (
        rules(lambda planted: _properties(planted).pop("tags")),
        [("posts", "validator", "tags", "the rules in the database do not have the field", True)],
    ),
    "fields required otherwise": (
        rules(lambda planted: planted.update(required=["title", "body"])),
        [
            ("posts", "validator", "author_id", "the class requires the field", True),
            ("posts", "validator", "body", "the database requires the field", True),
        ],
    ),
    "fields that nobody declared allowed": (
        rules(lambda planted: planted.pop("additionalProperties")),
        [("posts", "validator", "", "additionalProperties is not set in the database and false", True)],
    ),
    "an index dropped": (
        indexed("", [], "status_newest"),
        [("posts", "index", "status_newest", "(status 1, created_at -1) is missing", True)],
    ),
    "an index on other fields": (
        indexed("status_newest", [("created_at", -1), ("status", 1)], "status_newest"),
        [("posts", "index", "status_newest", "(created_at -1, status 1) in the database", False)],
    ),
    "an index with other options": (
        indexed("slug_unique", [("slug", 1)], "slug_unique", unique=True),
        [
            (
                "posts",
                "index",
                "slug_unique",
                'in the database and on (slug 1) with {"sparse": true, "unique": true}',
                False,
            )
        ],
    ),
    "an index with a collation": (
        indexed("author_newest", [("author_id", 1), ("created_at", -1)], "author_newest", collation={"locale": "de"}),
        [("posts", "index", "author_newest", '"locale": "de"', False)],
    ),
    "an index under another name": (
        indexed("mine", [("status", 1), ("created_at", -1)], "status_newest"),
        [
            ("posts", "index", "status_newest", "has another name, mine", False),
            ("posts", "index", "mine", "declared by no class", False),
        ],
    ),
    "an index that nobody declared": (
        indexed("by_hand", [("body", 1)]),
        [("posts", "index", "by_hand", "(body 1) is declared by no class, and not used", False)],
    ),
    "no index of the bucket": (_bucket, [("files.chunks", "index", "files_id_1_n_1", "is missing", True)]),
    "no bucket": (_no_bucket, [("files.files", "collection", "", "does not exist", True)]),
}


@pytest.mark.parametrize("case", PLANTED)
async def test_a_planted_difference_is_named(world: World, case: str) -> None:
    """Nothing else is; what applying settles is gone afterwards, and the rest is left as it is."""
    plant, expected = PLANTED[case]
    await plant(world)
    named = await found(world)
    assert [(d.collection, d.kind, d.name, d.settled_by_apply) for d in named] == [
        (collection, kind, name, settled) for collection, kind, name, _, settled in expected
    ]
    for difference, (_, _, _, message, _) in zip(named, expected, strict=True):
        assert message in difference.message
    if all(difference.settled_by_apply for difference in named):
        await install(world.database, world.registry, "error")
        assert await found(world) == []


async def test_validators_are_not_compared_when_they_are_off(world: World) -> None:
    """Nobody installs them then; the rest is compared all the same."""
    await modified(validator={}, validationAction="warn", changeStreamPreAndPostImages={"enabled": False})(world)
    assert [difference.kind for difference in await found(world, "off")] == ["images"]


def test_a_text_index_is_recognised() -> None:
    """MongoDB lists its fields apart, with their weights; the embedded server has none, so this is what it lists."""
    declared = IndexModel([("status", 1), ("title", TEXT), ("body", TEXT)], name="words", weights={"title": 5}).document
    held = {
        "v": 2, "key": {"status": 1, "_fts": "text", "_ftsx": 1}, "name": "words", "weights": {"body": 1, "title": 5},
        "default_language": "english", "language_override": "language", "textIndexVersion": 3,
    }  # fmt: skip
    assert same_index(held, declared)
    assert not same_index(held | {"weights": {"body": 1, "title": 1}}, declared)


def test_option_that_is_false_is_none() -> None:
    """The server lists no option that was given as false."""
    assert same_index({"v": 2, "key": {"a": 1}, "name": "a"}, {"key": {"a": 1}, "name": "a", "unique": False})
    assert not same_index({"v": 2, "key": {"a": 1}, "name": "a"}, {"key": {"a": 1}, "name": "a", "unique": True})
