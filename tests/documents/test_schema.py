"""Validators, indexes and images in the database: what they refuse, what they accept, and installing them."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import itertools
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
from bson import Binary, ObjectId
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo.errors import OperationFailure, WriteError

from documents import (
    DatabaseAway,
    DatabaseRefused,
    LiveDocument,
    Registry,
    ResourceClass,
    bind_classes,
    install,
    install_one,
    json_schema,
    open_database,
    schema,
)
from documents.refusals import faults_of_refusal
from tests.documents.classes import ANN, Note, Specimen, World
from tests.documents.test_input import EVERYTHING

AUTHOR = ObjectId()


async def refusal(world: World, name: str, document: dict[str, Any]) -> WriteError:
    with pytest.raises(WriteError) as refused:
        await world.database.raw[name].insert_one(document)
    assert refused.value.code == 121
    return refused.value


BAD: dict[str, tuple[dict[str, Any], tuple[str | int, ...]]] = {
    "an unknown field": ({"nope": 1}, ("nope",)),
    "a missing field": ({"must": ...}, ("must",)),
    "a number for text": ({"text": 5}, ("text",)),
    "text that is too long": ({"text": "x" * 41}, ("text",)),
    "an empty text": ({"text": ""}, ("text",)),
    "text against its pattern": ({"code": "A1"}, ("code",)),
    "a double for an integer": ({"whole": 1.5}, ("whole",)),
    "an integer out of range": ({"whole": 2**60}, ("whole",)),
    "a double for a decimal": ({"money": 1.5}, ("money",)),
    # Bounds on decimals are left out: the embedded server ignores them, where MongoDB refuses what lies beyond.
    "text for a time": ({"at": "2026-01-01"}, ("at",)),
    "text for an id": ({"other_id": "6b02c1e9c1e9111478612819"}, ("other_id",)),
    "text for a UUID": ({"key": "x"}, ("key",)),
    "an unknown choice": ({"colour": "green"}, ("colour",)),
    "an unknown number": ({"level": 3}, ("level",)),
    "null for text": ({"text": None}, ("text",)),
    "a number in a list": ({"words": ["a", 1]}, ("words", 1)),
    "a value twice in a set": ({"labels": ["a", "a"]}, ("labels",)),
    "an unknown nested field": ({"part": {"name": "a", "x": 1}}, ("part", "x")),
    "a missing nested field": ({"part": {}}, ("part", "name")),
    "a fault below a list": ({"parts": [{"name": "a"}, {"name": ""}]}, ("parts", 1, "name")),
    "text in a map of integers": ({"counts": {"a": "x"}}, ("counts", "a")),
    "none of the alternatives": ({"either": 1.5}, ("either",)),
    "a revision below one": ({"revision": 0}, ("revision",)),
    "null for the id": ({"_id": None}, ("_id",)),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_direct_write_that_breaks_the_rules_is_refused(world: World, case: str) -> None:
    """The validator refuses it, and what the server explains gives the place of the fault."""
    fields, loc = BAD[case]
    document = {key: value for key, value in ({"must": 1} | fields).items() if value is not ...}
    error = await refusal(world, "specimens", document)
    faults = faults_of_refusal(error.details or {}, world.registry["specimens"])
    places = [f.loc for f in faults]
    # Of maps and alternatives the server tells no more than the field.
    assert [("body", *loc)] == places or [("body", loc[0])] == places


async def test_the_reason_names_the_field(world: World) -> None:
    """A person in mongosh reads in `errInfo` which property failed (MongoDB adds its description)."""
    error = await refusal(world, "posts", {"title": "", "author_id": AUTHOR})
    (rule,) = (error.details or {})["errInfo"]["details"]["schemaRulesNotSatisfied"]
    (entry,) = rule["propertiesNotSatisfied"]
    assert entry["propertyName"] == "title"
    assert json_schema(world.registry["posts"])["properties"]["title"]["description"] == "The headline."


async def test_a_hidden_field_is_left_out_of_the_faults(world: World) -> None:
    """The API's answer tells of hidden fields nothing; it still has a fault."""
    error = await refusal(world, "notes", {"title": "a", "hush": 5})
    (fault,) = faults_of_refusal(error.details or {}, world.registry["notes"])
    assert fault.loc == ("body",)


async def test_a_plain_insert_by_hand_is_accepted(world: World) -> None:
    """Nobody has to write bookkeeping or defaults by hand; the API serves and changes the document."""
    made = await world.database.raw["posts"].insert_one(
        {"title": "by hand", "status": "published", "author_id": AUTHOR}
    )
    posts, id_text = world.registry["posts"], str(made.inserted_id)
    found = await world.store.get(posts, id_text, ANN)
    assert found.document == {
        "id": id_text, "title": "by hand", "status": "published", "author_id": str(AUTHOR),
    }  # fmt: skip


async def test_a_plain_insert_gets_its_bookkeeping_with_the_first_write(world: World) -> None:
    """The time of creation comes from the id, the revision begins at one."""
    made = await world.database.raw["counters"].insert_one({})
    patched = await world.store.merge_patch(world.registry["counters"], str(made.inserted_id), ANN, {"by_api": 1})
    assert patched.document["created_at"].startswith(made.inserted_id.generation_time.isoformat()[:19])
    assert patched.document["revision"] == 1


async def test_the_validator_accepts_what_the_api_writes(world: World) -> None:
    """A document with every type passes, Unicode words in a pattern with shorthands included."""
    specimens = world.registry["specimens"]
    await world.store.create(specimens, ANN, EVERYTHING)
    assert "pattern" not in json_schema(specimens)["properties"]["word"]
    assert json_schema(specimens)["properties"]["code"]["pattern"] == r"^[a-z]+\z"


_PARTS = st.fixed_dictionaries(
    {"name": st.text(min_size=1, max_size=20, alphabet=st.characters(exclude_categories=["Cs"]))},
    optional={"weight": st.decimals(-1000, 1000, places=2).map(str), "made": st.none()},
)
# Naive, as hypothesis wants its bounds; a day from the edges, where no offset leaves the calendar.
_FIRST, _LAST = dt.datetime(1, 1, 4), dt.datetime(9999, 12, 28)  # noqa: DTZ001
_BODIES = st.fixed_dictionaries(
    # The greatest integer less one: `made` is made one greater.
    {"must": st.none() | st.integers(-(2**53) + 1, 2**53 - 2)},
    optional={
        "text": st.text(min_size=1, max_size=40, alphabet=st.characters(exclude_categories=["Cs"])),
        "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5),
        "money": st.decimals(
            allow_nan=False, allow_infinity=False, places=3, min_value=-(10**20), max_value=10**20
        ).map(str),
        "share": st.decimals(0, 1, places=4).map(str),
        "at": st.datetimes(_FIRST, _LAST).map(lambda moment: moment.isoformat() + "Z"),
        "data": st.binary(max_size=4).map(lambda data: base64.b64encode(data).decode()),
        "labels": st.lists(st.text(max_size=3, alphabet="abé"), max_size=4),
        "parts": st.lists(_PARTS, max_size=2),
        "by_name": st.dictionaries(st.text(max_size=3, alphabet="xyz"), _PARTS, max_size=2),
        "shape": st.sampled_from([{"radius": 1}, {"width": 1.5, "height": 2}, None]),
        "either": st.one_of(st.integers(-9, 9), st.text(max_size=3, alphabet="1a"), st.none()),
        "anything": st.recursive(
            st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3, alphabet="ab"),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2, alphabet="ab"), inner, max_size=2)
            ),
        ),
    },
)


@pytest.mark.property
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=_BODIES)
async def test_what_the_class_accepts_the_database_keeps(world: World, body: dict[str, Any]) -> None:
    """A valid body is created, read back the same, and replaced by what was read without a change of content."""
    specimens = world.registry["specimens"]
    created = await world.store.create(specimens, ANN, body)
    read = await world.store.get(specimens, created.document["id"], ANN)
    assert (read.document, read.etag) == (created.document, created.etag)
    writable = specimens.writable(ANN.roles)
    sent = {key: value for key, value in read.document.items() if key in writable}
    replaced, _ = await world.store.replace(specimens, read.document["id"], ANN, sent)
    assert replaced.etag == read.etag


async def options_of(world: World, name: str) -> dict[str, Any]:
    found = await (await world.database.raw.list_collections(filter={"name": name})).to_list(1)
    return dict(found[0]["options"])


async def test_what_is_installed(world: World) -> None:
    """Validator, images for the change stream, and indexes under their names."""
    options = await options_of(world, "posts")
    assert options["changeStreamPreAndPostImages"] == {"enabled": True}
    assert options["validator"] == {"$jsonSchema": json_schema(world.registry["posts"])}
    indexes = await world.database.raw["posts"].index_information()
    assert {"slug_unique", "status_newest", "author_newest"} <= set(indexes)


async def test_installing_again_changes_nothing(world: World) -> None:
    """Repeated, and after a person dropped the collection."""
    before = await options_of(world, "notes")
    await install(world.database, world.registry, "error")
    assert await options_of(world, "notes") == before
    await world.database.raw.drop_collection("notes")
    await install_one(world.database, world.registry["notes"], "error")
    assert await options_of(world, "notes") == before
    assert "slug_unique" in await world.database.raw["notes"].index_information()


async def test_a_changed_class_replaces_its_validator(world: World) -> None:
    """The next start installs the new rules over the old ones."""

    class Wider(LiveDocument):
        """The class of notes, one version later."""

        title: str
        added: int = 0

        class Settings:
            name = "notes"

    await install_one(world.database, ResourceClass(Wider), "error")
    await world.database.raw["notes"].insert_one({"title": "a", "added": 1})
    await refusal(world, "notes", {"title": "a", "slug": "gone"})


async def test_warn_and_off(world: World) -> None:
    """`warn` lets a bad write pass; `off` leaves the validator that is there alone."""
    await install(world.database, world.registry, "off")
    await refusal(world, "notes", {"title": 5})
    await install(world.database, world.registry, "warn")
    await world.database.raw["notes"].insert_one({"title": 5})
    await install(world.database, world.registry, "error")
    await refusal(world, "notes", {"title": 6})


async def test_off_installs_no_validator(mongodb_url: str, database_name: str) -> None:
    """On a fresh database there are images and indexes only."""
    database = await open_database(mongodb_url, database_name)
    try:
        await install(database, Registry([Note]), "off")
        await database.raw["notes"].insert_one({"title": 5})
        found = await (await database.raw.list_collections(filter={"name": "notes"})).to_list(1)
        assert found[0]["options"]["changeStreamPreAndPostImages"] == {"enabled": True}
        await database.raw.client.drop_database(database_name)
    finally:
        await database.close()


async def test_an_index_that_cannot_be_built_names_its_collection(world: World) -> None:
    """A unique index over data that is not unique is refused at start, in one line."""
    raw = world.database.raw
    await raw["notes"].drop_index("slug_unique")
    await raw["notes"].insert_many([{"title": "a", "slug": "s"}, {"title": "b", "slug": "s"}])
    with pytest.raises(DatabaseRefused, match=r"^notes: an index cannot be created"):
        await install_one(world.database, world.registry["notes"], "error")


async def test_what_cannot_be_installed_keeps_nothing_else_away(world: World) -> None:
    """Everything else is installed, also of the same class; then each refusal is said, with its index and reason."""
    raw = world.database.raw
    before = {name: set(await raw[name].index_information()) for name in ("notes", "posts", "comments")}
    await raw["notes"].drop_indexes()
    await raw["notes"].insert_many([{"title": "a", "slug": "s"}, {"title": "b", "slug": "s"}])
    await raw["posts"].drop_indexes()
    await raw["posts"].create_index([("slug", -1)], name="slug_unique")
    await raw["comments"].drop_indexes()
    await raw.command("collMod", "comments", validator={})
    with pytest.raises(DatabaseRefused) as refused:
        await install(world.database, world.registry, "error")
    of_notes, of_posts = sorted(str(refused.value).splitlines())
    assert of_notes.startswith("notes: an index cannot be created (slug_unique: E11000 duplicate key error")
    assert of_posts == (
        "posts: an index cannot be created (slug_unique: another one has its name or its fields, which `schema diff` "
        "shows)"
    )
    after = {name: set(await raw[name].index_information()) for name in before}
    assert after == before | {"notes": before["notes"] - {"slug_unique"}}
    await refusal(world, "comments", {"body": 5})


def failing(monkeypatch: pytest.MonkeyPatch, codes: Iterator[int]) -> None:
    """Let the next commands that modify a collection fail with these codes, as on a cluster where others do so too."""
    real = AsyncIOMotorDatabase.command

    async def command(self: Any, what: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(what, dict) and "collMod" in what and (code := next(codes, None)) is not None:
            raise OperationFailure("busy", code)
        return await real(self, what, *arguments, **options)

    monkeypatch.setattr(AsyncIOMotorDatabase, "command", command)
    monkeypatch.setattr(schema, "_PAUSE", dt.timedelta(0))


async def test_nothing_to_change(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start on a database that is as wanted modifies no collection, which would hold up its writers."""
    failing(monkeypatch, iter([13]))
    await install(world.database, world.registry, "error")


async def test_a_laxer_level_is_made_strict_again(world: World) -> None:
    """Rules hold for documents that broke them before, too."""
    await world.database.raw.command({"collMod": "notes", "validationLevel": "moderate"})
    await install_one(world.database, world.registry["notes"], "error")
    assert (await options_of(world, "notes")).get("validationLevel", "strict") == "strict"


async def test_somebody_creates_the_collection_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules are put on the one that is there; what else the server says is no collection."""
    await world.database.raw.command({"collMod": "notes", "validator": {}})

    async def absent(*_: object) -> None:
        return None

    monkeypatch.setattr(schema, "_options", absent)
    await install_one(world.database, world.registry["notes"], "error")
    await refusal(world, "notes", {"title": 5})

    async def refused(*_: object, **__: object) -> None:
        raise OperationFailure("not allowed", 13)

    monkeypatch.setattr(AsyncIOMotorDatabase, "create_collection", refused)
    with pytest.raises(DatabaseRefused, match=r"^notes: the schema cannot be installed \(not allowed\)"):
        await install_one(world.database, world.registry["notes"], "error")


async def test_an_index_is_built_by_others_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again until it is there."""
    await world.database.raw["notes"].drop_indexes()
    real, codes = AsyncIOMotorCollection.create_indexes, iter([117, 117])

    async def create_indexes(self: Any, indexes: Any) -> Any:
        if (code := next(codes, None)) is not None:
            raise OperationFailure("busy", code)
        return await real(self, indexes)

    monkeypatch.setattr(AsyncIOMotorCollection, "create_indexes", create_indexes)
    monkeypatch.setattr(schema, "_PAUSE", dt.timedelta(0))
    await install_one(world.database, world.registry["notes"], "error")
    assert "slug_unique" in await world.database.raw["notes"].index_information()


async def test_the_schema_is_changed_by_others_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again until it is installed."""
    failing(monkeypatch, iter([117, 46, 26]))
    await install(world.database, world.registry, "warn")
    assert (await options_of(world, "posts"))["validationAction"] == "warn"


async def test_the_schema_is_changed_by_others_without_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying ends; who asked may try later."""
    failing(monkeypatch, itertools.repeat(117))
    with pytest.raises(DatabaseAway, match="somebody else keeps changing the schema"):
        await install(world.database, world.registry, "warn")


async def test_the_schema_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no matter of others is said at once, with the collection."""
    failing(monkeypatch, iter([13]))
    with pytest.raises(DatabaseRefused, match=r"^\w+: the schema cannot be installed \(busy\)"):
        await install(world.database, world.registry, "warn")


def _install_in_process(url: str, name: str) -> None:
    async def installed() -> None:
        database = await open_database(url, name)
        registry = Registry([Note, Specimen])
        await bind_classes(database, registry)
        await install(database, registry, "error")
        await database.close()

    asyncio.run(installed())


async def test_two_processes_install_at_once(mongodb_url: str, database_name: str) -> None:
    """Workers that start together do not stand in each other's way."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_install_in_process, args=(mongodb_url, database_name)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        await asyncio.to_thread(worker.join)
    assert [worker.exitcode for worker in workers] == [0, 0]
    database = await open_database(mongodb_url, database_name)
    try:
        with pytest.raises(WriteError):
            await database.raw["notes"].insert_one({"title": 5})
        await database.raw.client.drop_database(database_name)
    finally:
        await database.close()


async def test_a_binary_of_any_subtype_is_one(world: World) -> None:
    """The validator does not look at a binary's subtype, and the API serves each."""
    made = await world.database.raw["specimens"].insert_one(
        {"must": 1, "data": Binary(b"ab", 128), "key": Binary(b"x", 3)}
    )
    found = await world.store.get(world.registry["specimens"], str(made.inserted_id), ANN)
    assert (found.document["data"], found.document["key"]) == ("YWI=", "eA==")
