"""Servers of the change stream's tests: their own, since some are killed and all hold unrelated writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.documents.changes.streams import (
    Database,
    Server,
    connected,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("database"))
    yield server
    server.kill()


@pytest.fixture
def mortal_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be killed."""
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    async with connected(server) as database:
        yield database


@pytest.fixture
def durable_server(tmp_path: Path) -> Iterator[Server]:
    """One that writes each commit to disk, as MongoDB does before it reports a change."""
    server = Server(tmp_path, "--sync-on-commit")
    yield server
    server.kill()
