"""Large exports: their memory, and how they end when the client or the database goes away."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo import MongoClient

from documents import EmbeddedDatabase
from tests.api.conftest import Starter
from tests.api.servers import Server, serving, wait_until

FEW, MANY = 1_000, 10_000
BODY = "x" * 4_000
#: Compressed, such texts would come to so little that nothing had to wait for the client.
PLAIN_CSV = {"Accept": "text/csv", "Accept-Encoding": "identity"}
MEMORY_BYTES = 15 * 1024 * 1024


@dataclass
class Archive:
    """A server of MANY posts, which were there before it, and its database, which can be killed."""

    server: Server
    database: EmbeddedDatabase
    runner: asyncio.Runner

    @property
    def resident_bytes(self) -> int:
        """The memory that the server uses now (Linux)."""
        pages = Path(f"/proc/{self.server.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory, server_settings: Starter, free_port: Callable[[], int]
) -> Iterator[Archive]:
    """The server, on a database of its own."""
    directory = tmp_path_factory.mktemp("archive")
    with asyncio.Runner() as runner:
        database = EmbeddedDatabase(directory / "data", free_port(), durable=False)
        settings = server_settings(mongodb_url=runner.run(database.start()))
        try:
            client: MongoClient[dict[str, Any]] = MongoClient(settings["HEADWATER_MONGODB_URL"])
            at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
            for start in range(0, MANY, 1_000):
                client[settings["HEADWATER_DATABASE"]]["posts"].insert_many(
                    [
                        {"title": f"{n:06}", "slug": f"p{n}", "body": BODY, "tags": [], "status": "published"}
                        | {"author_id": ObjectId(), "created_at": at, "updated_at": at, "revision": 1}
                        for n in range(start, start + 1_000)
                    ]
                )
            client.close()
            with serving(directory, free_port(), settings) as server:
                yield Archive(server, database, runner)
                # Without its database it would take its time to end.
                server.process.kill()
        finally:
            runner.run(database.stop())


def exported(archive: Archive, query: str) -> tuple[int, int]:
    """Read an export as CSV; its number of lines, and the most memory that the server used meanwhile."""
    lines, peak = 0, 0
    with archive.server.client().stream("GET", f"/posts?{query}", headers=PLAIN_CSV) as answer:
        assert answer.status_code == 200
        for part in answer.iter_raw():
            lines += part.count(b"\n")
            peak = max(peak, archive.resident_bytes)
    return lines, peak


def test_memory(archive: Archive) -> None:
    """Ten times the documents, 36 MB more of text, need no more memory."""
    few, small = exported(archive, f"limit={FEW}")
    many, large = exported(archive, "")
    assert (few, many) == (FEW + 1, MANY + 1)
    assert large - small < MEMORY_BYTES


def test_client_that_leaves(archive: Archive) -> None:
    """The database is read no further than the client and the buffers between took it."""
    with archive.server.client().stream("GET", "/posts", headers=PLAIN_CSV) as answer:
        next(answer.iter_raw())
    left = re.compile(r"export of posts: the client left after (\d+) documents")
    wait_until(lambda: left.search(archive.server.log))
    found = left.search(archive.server.log)
    assert found
    assert int(found.group(1)) < MANY // 2


def test_database_that_dies_in_the_middle(archive: Archive) -> None:
    """The answer ends without its end: no client takes the part for the whole. The last test here: it stays dead."""
    with archive.server.client().stream("GET", "/posts", headers={"Accept": "text/csv"}) as answer:
        assert answer.status_code == 200
        parts = answer.iter_raw()
        next(parts)
        archive.runner.run(archive.database.stop())
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            for _ in parts:
                pass
    assert "export of posts: broken off after" in archive.server.log
    assert "Traceback" not in archive.server.log.partition("export of posts: broken off")[2].partition("\n")[0]
