"""Backups: written, interrupted, damaged and put back, on a real server."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import resource
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
    encode,
)
from pymongo import MongoClient

from documents import (
    BackupRefused,
    Database,
    DatabaseRefused,
    Folder,
    abandon_import,
    export_backup,
    import_backup,
    open_database,
    refuse_half_imported,
    with_contents,
)
from documents.backup_lines import RAW_CODEC, NotALine, from_line, to_line

EVERY_TYPE: dict[str, Any] = {
    "_id": ObjectId("6b02cdcf7b9023d0311154b1"),
    "double": 1.5,
    "minus_zero": -0.0,
    "whole_double": 3.0,
    "infinite": float("-inf"),
    "text": 'line\nfeed, "quotes", \u2028, \x00 and 𝄞',
    "document": {"b": 1, "a": {"z": [1, [2, {}]]}},
    "array": [1, "two", None],
    "binary": Binary(b"\x00\xff", 0),
    "binary_of_a_user": Binary(b"\x01", 128),
    "uuid": Binary.from_uuid(uuid.UUID("12345678123456781234567812345678")),
    "old_uuid": Binary(bytes(range(16)), 3),
    "yes": True,
    "date": dt.datetime(2026, 11, 22, 12, 30, 1, 250_000, tzinfo=dt.UTC),
    "early": DatetimeMS(-(2**53)),
    "late": DatetimeMS(2**53),
    "null": None,
    "pattern": Regex("^a/b", "im"),
    "code": Code("f()"),
    "code_with_scope": Code("f(x)", {"x": 1}),
    "int32": 1,
    "int64": Int64(1),
    "large": 2**62,
    "timestamp": Timestamp(1_795_000_000, 7),
    "decimal": Decimal128("1.500"),
    "decimal_nan": Decimal128("NaN"),
    "reference": DBRef("posts", ObjectId("6b02cdcf7b9023d0311154b2")),
    "min": MinKey(),
    "max": MaxKey(),
}

#: What the embedded server does not take (docs/embedded.md); MongoDB does.
NOT_EMBEDDED = {"early", "late"}


def bson(*elements: bytes) -> bytes:
    """A document of elements that no driver would write."""
    body = b"".join(elements) + b"\0"
    return (len(body) + 4).to_bytes(4, "little") + body


STRANGE = {
    "undefined": bson(b"\x06u\0"),
    "symbol": bson(b"\x0es\0" + b"\x02\0\0\0a\0"),
    "pointer": bson(b"\x0cp\0" + b"\x02\0\0\0a\0" + bytes(12)),
    "a field twice": bson(b"\x10a\0\x01\0\0\0", b"\x10a\0\x02\0\0\0"),
    "text that is not UTF-8": bson(b"\x02t\0" + b"\x03\0\0\0\xff\xfe\0"),
    "what looks like extended JSON": encode({"value": {"$oid": "6b02cdcf7b9023d0311154b1"}}),
    "what looks like the other form": encode({"$bson": "AAAA"}),
    "a NaN with a payload": bson(b"\x01n\0" + bytes.fromhex("010000000000f87f")),
}


def test_types_that_extended_json_has() -> None:
    """Come back byte for byte from text that says what they are."""
    for name, value in EVERY_TYPE.items():
        raw = encode({name: value})
        line = to_line(raw)
        assert from_line(line).raw == raw, name
        assert b"\n" not in line
        assert "$bson" not in json.loads(line), name
    assert json.loads(to_line(encode({"n": Int64(1)}))) == {"n": {"$numberLong": "1"}}


@pytest.mark.parametrize("what", STRANGE)
def test_what_extended_json_does_not_have(what: str) -> None:
    """Comes back byte for byte all the same."""
    line = to_line(STRANGE[what])
    assert list(json.loads(line)) == ["$bson"]
    assert from_line(line).raw == STRANGE[what]


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"{", b"\xff", b'{"$bson": 1}', b'{"$bson": "AAAA"}', b'{"_id": {"$oid": "x"}}', b"9" * 5_000],
)
def test_what_is_no_line(line: bytes) -> None:
    """Is refused as such."""
    with pytest.raises(NotALine):
        from_line(line)


class Interrupted(Exception):
    """As by Ctrl-C."""


def silent(collection: str, done: int, total: int) -> None:
    """Somebody who looks away."""


def interrupting(at: str, documents: int) -> Callable[[str, int, int], None]:
    """Somebody who interrupts when so many documents of a collection are done."""

    def on_progress(collection: str, done: int, total: int) -> None:
        assert done <= total
        if collection == at and done >= documents:
            raise Interrupted

    return on_progress


@pytest.fixture
async def source(mongodb_url: str, database_name: str) -> AsyncIterator[Database]:
    """A database with some of everything."""
    database = await open_database(mongodb_url, database_name)
    try:
        raw = database.raw
        ids: list[Any] = [*range(300), *(f"id {n:04}" for n in range(300)), *(ObjectId() for _ in range(10))]
        await raw["mixed"].insert_many([{"_id": id, "n": n} for n, id in enumerate(ids)])
        await raw["types"].insert_one({name: value for name, value in EVERY_TYPE.items() if name not in NOT_EMBEDDED})
        await raw["files"].insert_one({"_id": 1, "filename": "a"})
        await raw["files.files"].insert_one({"_id": 1, "length": 300_000, "chunkSize": 261_120})
        await raw["files.chunks"].insert_one({"files_id": 1, "n": 0, "data": Binary(bytes(range(256)) * 1_000)})
        await raw["empty/name"].insert_one({"_id": 1})
        await raw["empty/name"].delete_one({"_id": 1})
        await raw["headwater_audit"].insert_one({"_id": 1, "event": "signed in"})
        await raw["headwater_checkpoints"].insert_one({"_id": 1})
        yield database
        await raw.client.drop_database(database_name)
    finally:
        await database.close()


@pytest.fixture
async def target(mongodb_url: str, database_name: str) -> AsyncIterator[Database]:
    """An empty database."""
    database = await open_database(mongodb_url, f"{database_name}_2")
    try:
        yield database
        await database.raw.client.drop_database(database.name)
    finally:
        await database.close()


async def contents(database: Database) -> dict[str, list[bytes]]:
    """Every document of every collection that is no server's own, in BSON."""
    found = {}
    for name in await database.raw.list_collection_names():
        if name == "headwater_audit" or not name.startswith("headwater_"):
            cursor = database.raw.get_collection(name, codec_options=RAW_CODEC).find().sort("_id", 1)
            documents: list[Any] = await cursor.to_list(None)
            if documents:
                found[name] = [bytes(document.raw) for document in documents]
    return found


async def test_round_trip(source: Database, target: Database, tmp_path: Path) -> None:
    """All collections come back byte for byte, the bytes of files too; what belongs to one server stays behind."""
    folder = Folder(tmp_path / "backup")
    manifest = await export_backup(source, folder, None, silent)
    assert manifest.complete
    assert "headwater_checkpoints" not in manifest.collections
    await import_backup(target, folder, None, silent)
    assert await contents(target) == await contents(source)
    assert len((await contents(target))["mixed"]) == 610
    assert target.id != source.id
    await refuse_half_imported(target)


async def test_who_can_read_it(source: Database, tmp_path: Path) -> None:
    """Nobody but its owner; and every file is inside the folder, whatever a collection is called."""
    folder = Folder(tmp_path / "backup")
    await export_backup(source, folder, None, silent)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.path.iterdir())
    assert os.listdir(tmp_path) == ["backup"]


async def test_one_resource(source: Database, target: Database, tmp_path: Path) -> None:
    """Is exported and imported alone; files with their bytes."""
    folder = Folder(tmp_path / "backup")
    files = with_contents(["files"])
    manifest = await export_backup(source, folder, files, silent)
    assert manifest.collections == ["files", "files.files", "files.chunks"]
    await import_backup(target, folder, files, silent)
    everything = await contents(source)
    assert await contents(target) == {name: everything[name] for name in files}
    with pytest.raises(BackupRefused, match="no collection mixed"):
        await import_backup(target, folder, ["mixed"], silent)
    with pytest.raises(BackupRefused, match="no collection nothing"):
        await export_backup(source, Folder(tmp_path / "other"), ["nothing"], silent)


@pytest.mark.parametrize("documents", [1, 201, 400, 601])
async def test_interrupted_export(source: Database, tmp_path: Path, documents: int) -> None:
    """Is no backup until a second run has gone on; then it is the one that it would have been, ids of all types too."""
    whole, folder = Folder(tmp_path / "whole"), Folder(tmp_path / "backup")
    await export_backup(source, whole, None, silent)
    with pytest.raises(Interrupted):
        await export_backup(source, folder, None, interrupting("mixed", documents))
    with pytest.raises(BackupRefused, match="not complete"):
        await import_backup(source, folder, None, silent, overwrite=True)
    with folder.file("mixed").open("ab") as file:
        file.write(b'{"_id":{"$numberInt":"99')
    await export_backup(source, folder, None, silent)
    for name in ("mixed", "types", "files.chunks"):
        assert folder.file(name).read_bytes() == whole.file(name).read_bytes()


async def test_full_disk(source: Database, tmp_path: Path) -> None:
    """An export that cannot write says which file, and goes on when there is room again."""
    folder = Folder(tmp_path / "backup")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(BackupRefused, match=r"files\.chunks\.ndjson cannot be written \(File too large\)"):
            await export_backup(source, folder, None, silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # In the way of the next manifest.
    (folder.path / ".manifest.json").mkdir()
    with pytest.raises(BackupRefused, match=r"manifest\.json cannot be written"):
        await export_backup(source, folder, None, silent)
    (folder.path / ".manifest.json").rmdir()
    await export_backup(source, folder, None, silent)
    whole = Folder(tmp_path / "whole")
    await export_backup(source, whole, None, silent)
    assert folder.file("files.chunks").read_bytes() == whole.file("files.chunks").read_bytes()


@pytest.mark.parametrize("documents", [0, 500, 610])
async def test_interrupted_import(source: Database, target: Database, tmp_path: Path, documents: int) -> None:
    """The database says so, and takes no other import, until the same one has gone on to its end."""
    folder, other = Folder(tmp_path / "backup"), Folder(tmp_path / "other")
    await export_backup(source, folder, None, silent)
    await export_backup(source, other, None, silent)
    with pytest.raises(Interrupted):
        await import_backup(target, folder, None, interrupting("mixed", documents))
    with pytest.raises(DatabaseRefused, match="has not ended: run the same"):
        await refuse_half_imported(target)
    with pytest.raises(DatabaseRefused, match="has not ended: run the same"):
        await export_backup(target, Folder(tmp_path / "half"), None, silent)
    for refused, overwrite in ((other, False), (folder, True)):
        with pytest.raises(BackupRefused, match="has not ended"):
            await import_backup(target, refused, None, silent, overwrite=overwrite)
    # Killed between a write and the mark that tells of it.
    await target.raw["headwater_meta"].update_one({"_id": "import"}, {"$set": {"done": []}})
    await import_backup(target, folder, None, silent)
    assert await contents(target) == await contents(source)
    await refuse_half_imported(target)


async def test_documents_that_break_a_rule(source: Database, target: Database, tmp_path: Path) -> None:
    """Are stored again as they were, also by an import that goes on, and by one that replaces."""
    folder = Folder(tmp_path / "backup")
    await export_backup(source, folder, ["mixed"], silent)
    await target.raw.create_collection("mixed", validator={"n": {"$lt": 100}})
    with pytest.raises(Interrupted):
        await import_backup(target, folder, None, interrupting("mixed", 500))
    await target.raw["headwater_meta"].update_one({"_id": "import"}, {"$set": {"done": []}})
    await import_backup(target, folder, None, silent)
    await import_backup(target, folder, None, silent, overwrite=True)
    assert (await contents(target))["mixed"] == (await contents(source))["mixed"]


@pytest.mark.parametrize("change", [{"insert": {"_id": "another"}}, {"delete": {"_id": 0}}], ids=["more", "fewer"])
async def test_somebody_else_writes_meanwhile(
    source: Database, target: Database, tmp_path: Path, mongodb_url: str, change: dict[str, dict[str, Any]]
) -> None:
    """An import does not end well when the database has not what the backup has; it can be run again."""
    folder = Folder(tmp_path / "backup")
    await export_backup(source, folder, ["mixed"], silent)
    with MongoClient[dict[str, Any]](mongodb_url) as client:
        other = client[target.name]["mixed"]

        def meddling(_: str, done: int, total: int) -> None:
            if done == total:
                if "insert" in change:
                    other.insert_one(change["insert"])
                else:
                    other.delete_one(change["delete"])

        with pytest.raises(BackupRefused, match=r"mixed has 6\d\d documents and should have 610: somebody else"):
            await import_backup(target, folder, None, meddling)
    with pytest.raises(DatabaseRefused):
        await refuse_half_imported(target)


async def test_database_with_documents(source: Database, target: Database, tmp_path: Path) -> None:
    """Is refused and left as it is; when told to, same ids are replaced and others stay."""
    folder = Folder(tmp_path / "backup")
    await export_backup(source, folder, None, silent)
    await target.raw["mixed"].insert_many([{"_id": 5, "n": "other"}, {"_id": 5_000}])
    with pytest.raises(BackupRefused, match="has documents in mixed"):
        await import_backup(target, folder, None, silent)
    assert list(await contents(target)) == ["mixed"]
    await refuse_half_imported(target)
    await import_backup(target, folder, None, silent, overwrite=True)
    expected = await contents(source)
    expected["mixed"].insert(300, encode({"_id": 5_000}))
    assert await contents(target) == expected


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-1],
        lambda text: text.replace(b'"n":{"$numberInt":"7"}', b'"n":{"$numberInt":"8"}', 1),
        lambda _: b"",
    ],
)
async def test_damaged_file(
    source: Database, target: Database, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Is found before anything is written."""
    folder = Folder(tmp_path / "backup")
    await export_backup(source, folder, None, silent)
    path = folder.file("mixed")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BackupRefused, match=r"mixed\.ndjson is not as it was written"):
        await import_backup(target, folder, None, silent)
    path.unlink()
    with pytest.raises(BackupRefused, match=r"mixed\.ndjson cannot be read"):
        await import_backup(target, folder, None, silent)
    assert await contents(target) == {}
    await refuse_half_imported(target)


async def test_unique_index(source: Database, target: Database, tmp_path: Path) -> None:
    """A line that an index refuses is named; the import is unfinished until somebody has mended that."""
    folder = Folder(tmp_path / "backup")
    await target.raw["mixed"].create_index("n", unique=True)
    await source.raw["mixed"].update_one({"_id": 299}, {"$set": {"n": 0}})
    await export_backup(source, folder, None, silent)
    refused = r"mixed\.ndjson, line 300: the database refuses it \(another document has the same n\)"
    with pytest.raises(BackupRefused, match=refused):
        await import_backup(target, folder, None, silent)
    await target.raw["mixed"].drop_index("n_1")
    await import_backup(target, folder, None, silent)
    assert await contents(target) == await contents(source)


async def test_documents_that_have_an_end(source: Database, target: Database, tmp_path: Path) -> None:
    """May be removed by the database while an import is under way, or interrupted; it ends well all the same."""
    folder = Folder(tmp_path / "backup")
    await source.raw["brief"].insert_many(
        [{"_id": n, "ends_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)} for n in range(3)]
    )
    await export_backup(source, folder, None, silent)
    await target.raw["brief"].create_index("ends_at", expireAfterSeconds=0)
    with pytest.raises(Interrupted):
        await import_backup(target, folder, None, interrupting("files", 1))
    await target.raw["brief"].delete_many({"_id": {"$gt": 0}})
    await import_backup(target, folder, None, silent)
    await refuse_half_imported(target)
    assert len((await contents(target))["mixed"]) == 610


async def test_giving_up(source: Database, target: Database, tmp_path: Path) -> None:
    """An import that cannot end: what it has written stays, and servers and other imports may begin."""
    folder = Folder(tmp_path / "backup")
    await export_backup(source, folder, None, silent)
    with pytest.raises(BackupRefused, match=r"no import into .* is under way"):
        await abandon_import(target)
    with pytest.raises(Interrupted):
        await import_backup(target, folder, None, interrupting("mixed", 500))
    with pytest.raises(DatabaseRefused, match="import --abandon"):
        await refuse_half_imported(target)
    await abandon_import(target)
    await refuse_half_imported(target)
    assert len((await contents(target))["mixed"]) >= 500
    await import_backup(target, folder, ["types"], silent)


async def test_folders_that_are_something_else(source: Database, tmp_path: Path) -> None:
    """A folder with other files, a file, a complete backup, a damaged manifest, another format: each is refused."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("Dear")
    (tmp_path / "file").write_text("")
    for name in ("other", "file"):
        with pytest.raises(BackupRefused):
            await export_backup(source, Folder(tmp_path / name), None, silent)
    with pytest.raises(BackupRefused, match="holds no backup"):
        await import_backup(source, Folder(tmp_path / "other"), None, silent)
    folder = Folder(tmp_path / "backup")
    await export_backup(source, folder, ["types"], silent)
    with pytest.raises(BackupRefused, match="holds a complete backup"):
        await export_backup(source, folder, ["types"], silent)
    manifest = folder.path / "manifest.json"
    for text in (manifest.read_text().replace('"format": 1', '"format": 2'), "[]", "{", '{"parts": {"a": 1}}'):
        manifest.write_text(text)
        with pytest.raises(BackupRefused):
            await import_backup(source, folder, None, silent, overwrite=True)
    manifest.write_bytes(b"\xff")
    with pytest.raises(BackupRefused, match="damaged"):
        await import_backup(source, folder, None, silent, overwrite=True)
    manifest.unlink()
    manifest.mkdir()
    with pytest.raises(BackupRefused, match="cannot be read"):
        await import_backup(source, folder, None, silent, overwrite=True)
    assert (tmp_path / "other" / "letter.txt").read_text() == "Dear"


def test_base64_is_not_taken_for_bson() -> None:
    """The other form is checked too: length and end."""
    for raw in (b"\x06\0\0\0\0", b"\x05\0\0\0\x01", b""):
        with pytest.raises(NotALine):
            from_line(json.dumps({"$bson": base64.b64encode(raw).decode()}).encode())
