"""Putting a backup into a database; a second run goes on where the first one ended.

While it is under way the database says so in `headwater_meta`, and no server starts on it: half of a backup never looks
like a whole one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import ReplaceOne
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure

from documents.backup_lines import RAW_CODEC, NotALine, from_line, id_of
from documents.backups import BackupRefused, Folder, Manifest, Progress, check_part, whole_lines
from documents.database import Database, driver_errors
from documents.errors import DatabaseRefused

_META: Final = "headwater_meta"
_MARK: Final = "import"
_ABANDON: Final = "`python main.py import --abandon`, which leaves there what it has written"
#: Lines and bytes in one write.
_BATCH_LINES: Final = 500
_BATCH_BYTES: Final = 8 << 20


async def import_backup(
    database: Database,
    folder: Folder,
    collections: Sequence[str] | None,
    on_progress: Progress,
    *,
    overwrite: bool = False,
) -> Manifest:
    """Put `collections` of the backup (None: all) into the database, whose schema must be installed.

    Validators are passed over: what was stored is stored again, byte for byte. A database that has documents in these
    collections is refused, unless `overwrite`: then documents of the same `_id` are replaced, and others stay.
    Nothing is written before every file is found to be as it was written. Safe to cancel and to kill: the same call
    goes on. Raises BackupRefused, naming file and line, and DatabaseAway.
    """
    manifest = folder.manifest()
    if manifest is None:
        raise BackupRefused(f"{folder.path} holds no backup")
    if not manifest.complete:
        raise BackupRefused(f"{folder.path} is not complete: run the export again, which goes on")
    names = manifest.collections if collections is None else list(collections)
    if missing := sorted(set(names) - set(manifest.parts)):
        raise BackupRefused(f"{folder.path} has no collection {missing[0]}")
    for name in names:
        await asyncio.to_thread(check_part, folder, name, manifest.parts[name])
    resumed, done = await _begin(database, manifest, names, overwrite=overwrite)
    for name in names:
        await _import(database, folder, name, manifest, done, on_progress, overwrite=overwrite, resumed=resumed)
    with driver_errors():
        await database.latest(_META).delete_one({"_id": _MARK})
    return manifest


async def abandon_import(database: Database) -> None:
    """Forget an import that has not ended; what it has written stays. Raises BackupRefused when there is none."""
    with driver_errors():
        found = await database.latest(_META).delete_one({"_id": _MARK})
    if not found.deleted_count:
        raise BackupRefused(f"no import into {database.name} is under way")


async def refuse_half_imported(database: Database) -> None:
    """Raises DatabaseRefused while an import has begun and not ended."""
    with driver_errors():
        mark = await database.latest(_META).find_one({"_id": _MARK})
    if mark is not None:
        raise DatabaseRefused(
            f"an import into {database.name} has not ended: run the same `python main.py import` again, which goes on,"
            f" or give it up: {_ABANDON}"
        )


async def _begin(
    database: Database, manifest: Manifest, names: Sequence[str], *, overwrite: bool
) -> tuple[bool, dict[str, int]]:
    """Leave the mark, or find that of an earlier run: whether there was one, and how many lines of each are done."""
    meta = database.latest(_META)
    with driver_errors():
        mark = await meta.find_one({"_id": _MARK})
        if mark is not None:
            if (mark["backup"], mark["collections"], mark["overwrite"]) != (manifest.id, list(names), overwrite):
                raise BackupRefused(
                    "another import into this database has not ended: finish it with the same options, or give it up:"
                    f" {_ABANDON}"
                )
            return True, {part["name"]: part["lines"] for part in mark["done"]}
        if not overwrite:
            for name in names:
                if await database.latest(name).find_one({}, projection=["_id"]) is not None:
                    raise BackupRefused(
                        f"{database.name} has documents in {name}: import into an empty database, or with --overwrite"
                        " to replace those of the same _id"
                    )
        await meta.insert_one(
            {"_id": _MARK, "backup": manifest.id, "collections": list(names), "overwrite": overwrite, "done": []}
        )
    return False, {}


async def _import(
    database: Database,
    folder: Folder,
    name: str,
    manifest: Manifest,
    done: dict[str, int],
    on_progress: Progress,
    *,
    overwrite: bool,
    resumed: bool,
) -> None:
    collection: AsyncIOMotorCollection[Any] = database.raw.get_collection(name, codec_options=RAW_CODEC)
    total, line = manifest.parts[name].documents, done.get(name, 0)
    on_progress(name, line, total)
    batches = _batches(islice(whole_lines(folder.file(name)), line, None))
    while lines := await asyncio.to_thread(next, batches, None):
        documents = [_document(folder, name, line + n, text) for n, text in enumerate(lines, 1)]
        with driver_errors():
            try:
                # What follows the last mark of an earlier run may or may not be there.
                await _write(collection, documents, replacing=overwrite or resumed)
            except BulkWriteError as error:
                first = error.details["writeErrors"][0] if error.details.get("writeErrors") else {}
                place = f"{folder.file(name)}, line {line + first.get('index', 0) + 1}"
                raise BackupRefused(f"{place}: the database refuses it ({_reason(first)})") from None
            except (DocumentTooLarge, OperationFailure) as error:
                raise BackupRefused(f"{folder.file(name)}: the database refuses lines ({error})") from None
            line += len(lines)
            done[name] = line
            mark = [{"name": each, "lines": count} for each, count in done.items()]
            await database.latest(_META).update_one({"_id": _MARK}, {"$set": {"done": mark}})
        on_progress(name, line, total)
    with driver_errors():
        stored = await database.raw[name].count_documents({})
        indexes = (await database.raw[name].index_information()).values()
    # Where documents have an end, the database removes those whose end has come.
    expiring = any("expireAfterSeconds" in index for index in indexes)
    if (stored < total and not expiring) or (stored > total and not overwrite):
        raise BackupRefused(f"{name} has {stored} documents and should have {total}: somebody else writes to it")


def _reason(refusal: Mapping[str, Any]) -> str:
    keys = ", ".join(refusal.get("keyPattern") or {})
    return f"another document has the same {keys}" if keys else f"error {refusal.get('code')}"


async def _write(
    collection: AsyncIOMotorCollection[Any], documents: Sequence[RawBSONDocument], *, replacing: bool
) -> None:
    if replacing:
        operations: list[Any] = [ReplaceOne({"_id": each["_id"]}, each, upsert=True) for each in documents]
        await collection.bulk_write(operations, bypass_document_validation=True)
    else:
        await collection.insert_many(documents, bypass_document_validation=True)


def _batches(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if len(batch) >= _BATCH_LINES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _document(folder: Folder, name: str, number: int, line: bytes) -> RawBSONDocument:
    try:
        document = from_line(line)
        id_of(document)
        return document
    except NotALine as error:
        raise BackupRefused(f"{folder.file(name)}, line {number}: {error}") from None
