"""Writing a backup of a database, all of it or some collections; a second run goes on where the first one ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo.read_concern import ReadConcern

from documents.backup_import import refuse_half_imported
from documents.backup_lines import RAW_CODEC, NotALine, from_line, id_of, to_line
from documents.backups import BackupRefused, Folder, Manifest, Progress, Tally, stored_collections, whole_lines, written
from documents.database import Database, driver_errors

_BATCH: Final = 200


async def export_backup(
    database: Database, folder: Folder, collections: Sequence[str] | None, on_progress: Progress
) -> Manifest:
    """Write `collections` (None: all) into `folder`, or what is missing there of the same backup.

    It is not a snapshot: a document that is written meanwhile is there in either form, as with mongoexport. Safe to
    cancel and to kill: the next call goes on. Raises BackupRefused and DatabaseAway, and DatabaseRefused while an
    import into the database has not ended.
    """
    await refuse_half_imported(database)
    manifest = folder.manifest()
    if manifest is None:
        names = await stored_collections(database)
        if missing := sorted(set(collections or ()) - set(names)):
            raise BackupRefused(f"there is no collection {missing[0]} in {database.name}")
        manifest = Manifest.new(database, names if collections is None else collections)
        folder.begin()
        folder.write(manifest)
    elif manifest.complete:
        raise BackupRefused(f"{folder.path} holds a complete backup: name another folder")
    elif manifest.database != database.id or (collections is not None and list(collections) != manifest.collections):
        raise BackupRefused(f"{folder.path} holds the beginning of another backup: name another folder")
    for name in manifest.collections:
        if name not in manifest.parts:
            tally = await _export(database, folder, name, on_progress)
            manifest.parts[name] = tally.part
            folder.write(manifest)
    manifest.complete = True
    folder.write(manifest)
    return manifest


async def _export(database: Database, folder: Folder, name: str, on_progress: Progress) -> Tally:
    collection: AsyncIOMotorCollection[Any] = database.raw.get_collection(
        name, codec_options=RAW_CODEC, read_concern=ReadConcern("majority")
    )
    tally, last = await asyncio.to_thread(_begun, folder, name)
    # In the order of all types, which `$gt` in a query does not have: it finds values of its own type only.
    query = {} if last is None else {"$expr": {"$gt": ["$_id", {"$literal": _id(folder, name, last)}]}}
    with driver_errors():
        total = tally.documents + await database.raw[name].estimated_document_count()
        on_progress(name, tally.documents, total)
        with written(folder.file(name)), _appending(folder, name, tally.bytes) as file:
            cursor = collection.find(query).sort("_id", 1).batch_size(_BATCH)
            try:
                while batch := await cursor.to_list(_BATCH):
                    await asyncio.to_thread(_append, file, batch, tally)
                    on_progress(name, tally.documents, max(total, tally.documents))
            finally:
                await cursor.close()
            await asyncio.to_thread(os.fsync, file.fileno())
    return tally


def _begun(folder: Folder, name: str) -> tuple[Tally, bytes | None]:
    """What an earlier run has written of a collection, and the last of its lines."""
    tally, last = Tally(), None
    if folder.file(name).exists():
        for line in whole_lines(folder.file(name)):
            tally.add(line)
            last = line
    return tally, last


def _id(folder: Folder, name: str, line: bytes) -> Any:
    try:
        return id_of(from_line(line))
    except NotALine as error:
        raise BackupRefused(f"{folder.file(name)}: the last line cannot be continued: {error}") from None


def _appending(folder: Folder, name: str, size: int) -> BinaryIO:
    """The file, open behind its first `size` bytes; what was cut off there is gone."""
    descriptor = os.open(folder.file(name), os.O_WRONLY | os.O_CREAT, 0o600)
    os.ftruncate(descriptor, size)
    file = open(descriptor, "wb")  # noqa: SIM115 - the caller closes it
    file.seek(size)
    return file


def _append(file: BinaryIO, batch: Sequence[RawBSONDocument], tally: Tally) -> None:
    for document in batch:
        line = to_line(bytes(document.raw)) + b"\n"
        file.write(line)
        tally.add(line)
    file.flush()
