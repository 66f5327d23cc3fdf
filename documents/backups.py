"""A backup: a folder with a file of lines for each collection, and a manifest that says what they are.

    manifest.json      which database, when, whether it is complete; documents, bytes and SHA-256 of each file
    posts.ndjson       the documents of `posts`, ordered by `_id` (see documents.backup_lines)

The files hold password hashes and whatever else the database does, so they are for their owner alone. The manifest is
written last and at once, so a folder is either complete or says that it is not.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from documents.audit import AUDIT
from documents.contents import CHUNKS, LENGTHS, METADATA
from documents.database import Database, driver_errors
from documents.errors import DocumentsError

FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
#: What belongs to one server and its present (positions, leases, tickets), and would be wrong in another database.
_INTERNAL: Final = "headwater_"
_READ_BYTES: Final = 1 << 20

#: Called with a collection's name, how many of its documents are done, and how many there are about.
Progress = Callable[[str, int, int], object]


class BackupRefused(DocumentsError):
    """The folder, or the database, is not one that can be used like this; the message says what to do."""


@dataclass(slots=True)
class Part:
    """One collection of a backup."""

    documents: int
    bytes: int
    sha256: str


@dataclass(slots=True)
class Manifest:
    """What a folder holds. `id` is its own; `database` the id of the database that it comes from."""

    id: str
    database: str
    name: str
    begun_at: str
    collections: list[str]
    parts: dict[str, Part] = field(default_factory=dict)
    complete: bool = False
    format: int = FORMAT

    @classmethod
    def new(cls, database: Database, collections: Sequence[str]) -> Manifest:
        """Of a backup that begins now."""
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return cls(uuid.uuid4().hex, database.id, database.name, now, list(collections))


class Folder:
    """The folder of a backup."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, collection: str) -> Path:
        """The file of a collection. Its name cannot leave the folder, whatever the collection is called."""
        return self.path / f"{quote(collection, safe=' ')}.ndjson"

    def manifest(self) -> Manifest | None:
        """What the folder says of itself; None when there is no manifest. Raises BackupRefused for a damaged one."""
        try:
            content = (self.path / _MANIFEST).read_bytes()
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise BackupRefused(f"{self.path} is not a folder") from None
        except OSError as error:
            raise BackupRefused(f"{self.path / _MANIFEST} cannot be read ({error.strerror})") from None
        try:
            values = json.loads(content)
            parts = {name: Part(**part) for name, part in values.pop("parts").items()}
            manifest = Manifest(**values, parts=parts)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BackupRefused(f"{self.path / _MANIFEST} is damaged, or of another program") from None
        if manifest.format != FORMAT:
            raise BackupRefused(f"{self.path} has format {manifest.format}, and this version reads {FORMAT}")
        return manifest

    def begin(self) -> None:
        """Make the folder. Raises BackupRefused when there is something else in its place."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            used = any(self.path.iterdir())
        except OSError as error:
            raise BackupRefused(f"{self.path} cannot be made a folder ({error.strerror})") from None
        if used:
            raise BackupRefused(f"{self.path} is not empty and has no {_MANIFEST}: name another folder")

    def write(self, manifest: Manifest) -> None:
        """Put the manifest in the place of the former one, wholly or not at all. Raises BackupRefused."""
        temporary = self.path / f".{_MANIFEST}"
        with written(temporary), open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(manifest), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / _MANIFEST)


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """What writes to `path`. Raises BackupRefused when that fails: the disk is full, or the folder is not ours."""
    try:
        yield
    except OSError as error:
        raise BackupRefused(
            f"{path} cannot be written ({error.strerror}): mend that, and run the export again, which goes on"
        ) from None


class Tally:
    """Counts and hashes the lines of a file."""

    def __init__(self) -> None:
        self.documents = 0
        self.bytes = 0
        self._hash = hashlib.sha256()

    def add(self, line: bytes) -> None:
        """One line, its line feed included."""
        self.documents += 1
        self.bytes += len(line)
        self._hash.update(line)

    @property
    def part(self) -> Part:
        """What the manifest says of the file."""
        return Part(self.documents, self.bytes, self._hash.hexdigest())


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, with their line feeds; one that was cut off is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def check_part(folder: Folder, collection: str, part: Part) -> None:
    """Raises BackupRefused when the file is not the one that the manifest speaks of."""
    path = folder.file(collection)
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                found.update(piece)
    except OSError as error:
        raise BackupRefused(f"{path} cannot be read ({error.strerror})") from None
    if found.hexdigest() != part.sha256:
        raise BackupRefused(f"{path} is not as it was written: its SHA-256 differs from the manifest's")


async def stored_collections(database: Database) -> list[str]:
    """The collections that a whole backup holds, by name. Raises DatabaseAway."""
    with driver_errors():
        names = await database.raw.list_collection_names(filter={"type": "collection"})
    return sorted(name for name in names if name == AUDIT or not name.startswith(("system.", _INTERNAL)))


def with_contents(collections: Sequence[str]) -> list[str]:
    """The collections of these resources: files have their bytes in two more."""
    return [part for name in collections for part in ((name, LENGTHS, CHUNKS) if name == METADATA else (name,))]
