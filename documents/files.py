"""Files: their metadata, which is a document like any other, and their contents, kept in step.

Upload: the contents first, then the metadata of all files of the request at once. Deletion: the metadata first. So
there is never metadata without content, and what is left between the two steps is listed as unfinished.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from documents.access import Principal
from documents.content_types import HEAD_BYTES, RASTER_IMAGES, content_type_of
from documents.contents import METADATA, Contents, Unfinished, Upload
from documents.database import Database, driver_errors
from documents.errors import DatabaseAway, DocumentsError, Forbidden, InvalidInput
from documents.filenames import clean_filename
from documents.filters import NOTHING
from documents.ids import parse_id
from documents.positions import Position
from documents.preconditions import NO_PRECONDITIONS, Preconditions
from documents.resources import Registry, ResourceClass
from documents.revisions import first_revision
from documents.store import Found, Store

logger = logging.getLogger(__name__)

MAX_FILES = 20


@dataclass(frozen=True, slots=True)
class Content:
    """A file that a caller may read: its metadata as the caller sees it, and its true length in bytes."""

    found: Found
    length: int
    file_id: Any
    chunk_bytes: int
    contents: Contents

    def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `stop`. Raises ContentLost, never yields less in silence."""
        return self.contents.read(self.file_id, start, stop, self.chunk_bytes)


class Files:
    """The files of one database."""

    def __init__(self, database: Database, registry: Registry, store: Store) -> None:
        self._database = database
        self._store = store
        self._resource = registry[METADATA]
        self.contents = Contents(database)

    @contextlib.asynccontextmanager
    async def receive(self, principal: Principal, *, images_only: bool = False) -> AsyncIterator[Batch]:
        """Take the files of one request. Unless the block commits them, nothing of them stays, however it ends.

        Raises Forbidden when the caller may not upload at all.
        """
        if self._resource.rule("create", principal)[0] == NOTHING:
            raise Forbidden("you may not upload files")
        batch = Batch(self._database, self._store, self._resource, principal, images_only=images_only)
        batch.unfinished = await self.contents.announce()
        try:
            yield batch
        finally:
            if not batch.committing:
                # A second cancellation in here leaves the rest to the sweep.
                await self._abandon(batch)

    async def _abandon(self, batch: Batch) -> None:
        settled = [await upload.settle() for upload in batch.uploads]
        try:
            if batch.uploads:
                await self.contents.remove([upload.id for upload in batch.uploads])
            if all(settled):
                await batch.unfinished.finish()
        except DatabaseAway as error:
            logger.warning("an upload was given up, and what it left stays until the next sweep: %s", error)

    async def content(self, id_text: str, principal: Principal) -> Content:
        """A file for reading. Raises NotFound when there is none that the caller may read, or its bytes are gone."""
        found = await self._store.get(self._resource, id_text, principal)
        file_id = parse_id(self._resource, id_text)
        length, chunk_bytes = await self.contents.length(file_id)
        return Content(found, length, file_id, chunk_bytes, self.contents)

    async def delete(
        self, id_text: str, principal: Principal, preconditions: Preconditions = NO_PRECONDITIONS
    ) -> Position:
        """Delete a file; returns the position that includes the deletion. Raises as `Store.delete` does.

        Who reads it meanwhile gets less than was promised, which is an error to them.
        """
        file_id = parse_id(self._resource, id_text)
        # Before a line is written about it: most refusals end here.
        await self._store.get(self._resource, id_text, principal)
        unfinished = await self.contents.announce(file_id)
        try:
            position = await self._store.delete(self._resource, id_text, principal, preconditions)
        except DatabaseAway:
            raise  # it may have happened; the sweep will see
        except DocumentsError:
            await unfinished.finish()
            raise
        try:
            await self.contents.remove([file_id])
            await unfinished.finish()
        except DatabaseAway as error:
            # The file is gone for everybody, so the request has succeeded.
            logger.warning("the content of a deleted file stays until the next sweep: %s", error)
        return position


class Batch:
    """The files of one request, one after the other: `begin`, `write`…, `end`; at last `commit`."""

    unfinished: Unfinished

    def __init__(
        self, database: Database, store: Store, resource: ResourceClass, principal: Principal, *, images_only: bool
    ) -> None:
        self.uploads: list[Upload] = []
        self.committing = False
        self._database = database
        self._store = store
        self._resource = resource
        self._principal = principal
        self._images_only = images_only
        self._values: list[dict[str, Any]] = []
        self._filename = ""
        self._judged = False

    async def begin(self, filename: str) -> None:
        """The next file. Raises InvalidInput when there are too many."""
        if len(self.uploads) == MAX_FILES:
            raise InvalidInput.at("body", "files", MAX_FILES, msg=f"more than {MAX_FILES} files", type="too_long")
        upload = Upload(self._database, self.unfinished)
        await self.unfinished.add(upload.id)
        self.uploads.append(upload)
        self._filename, self._judged = clean_filename(filename), False

    async def write(self, data: bytes) -> None:
        """More of the file. Raises InvalidInput as soon as its first bytes show that it is not wanted."""
        upload = self.uploads[-1]
        await upload.write(data)
        if len(upload.head) == HEAD_BYTES:
            self._judge(upload)

    async def end(self) -> None:
        """The file is complete. Raises InvalidInput when it is not wanted."""
        upload = self.uploads[-1]
        self._judge(upload)
        await upload.finish(self._filename)
        self._values.append(
            {
                "_id": upload.id,
                "filename": self._filename,
                "content_type": content_type_of(upload.head),
                "size": upload.size,
                "sha256": upload.sha256,
            }
        )

    def _judge(self, upload: Upload) -> None:
        if self._judged or not self._images_only:
            return
        self._judged = True
        if (found := content_type_of(upload.head)) not in RASTER_IMAGES:
            place = ("body", "files", len(self.uploads) - 1)
            raise InvalidInput.at(*place, msg=f"{self._filename} is {found}, not an image", type="content_type")

    async def commit(self) -> list[Found]:
        """Store the metadata of all files, or of none; they are files from here on.

        Raises InvalidInput when there is no file, and Forbidden. When the database does not answer, or the caller is
        cancelled, it is not known whether they were stored, so their contents stay until the sweep has looked.
        """
        if not self._values:
            raise InvalidInput.at("body", "files", msg="there is no file", type="missing")
        documents = []
        for values in self._values:
            document = first_revision(self._resource, self._principal, values)
            if not self._resource.allows("create", self._principal, document):
                raise Forbidden("you may not upload this")
            documents.append(document)
        await self.unfinished.renew()
        self.committing = True
        async with self._database.session() as session:
            with driver_errors():
                await self._database.insert_together(self._resource.name, documents, session)
            position = self._database.position(session)
        with contextlib.suppress(DatabaseAway):  # the sweep will see that they have metadata
            await self.unfinished.finish()
        return [self._store.found(self._resource, self._principal, document, position) for document in documents]
