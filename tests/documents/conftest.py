"""Databases of the tests of `documents/`: both implementations, or the real server alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from pymongo import monitoring

from documents import Registry, bind_classes, install, open_database
from documents.models import Comment, Post, StoredFile, User
from documents.models.accounts import ApiKey, Session
from tests.documents.classes import CLASSES, World
from tests.documents.commands import Finds

MEMORY = "mongomock://"


@pytest.fixture(scope="module")
def mongodb_url(scratch_server: Callable[[], str]) -> str:
    """The URL of a database server: here nearly every test makes and drops a database."""
    return scratch_server()


async def _opened(url: str, name: str) -> AsyncIterator[World]:
    database = await open_database(url, name)
    try:
        registry = Registry([*CLASSES, Post, Comment, StoredFile, User, Session, ApiKey])
        await bind_classes(database, registry)
        await install(database, registry, "error")
        yield World.of(database, registry)
        await database.raw.client.drop_database(name)
    finally:
        await database.close()


@pytest.fixture(params=["memory", "server"])
def any_url(request: pytest.FixtureRequest) -> str:
    """Both implementations in turn: what is tested on this is their contract."""
    return MEMORY if request.param == "memory" else str(request.getfixturevalue("mongodb_url"))


@pytest.fixture
async def contract(any_url: str, database_name: str) -> AsyncIterator[World]:
    """A world on each implementation of `Database` in turn."""
    async for world in _opened(any_url, database_name):
        yield world


@pytest.fixture
async def world(mongodb_url: str, database_name: str) -> AsyncIterator[World]:
    """A world on the real server."""
    async for world in _opened(mongodb_url, database_name):
        yield world


@pytest.fixture
async def memory(database_name: str) -> AsyncIterator[World]:
    """A world in memory, for what no database decides."""
    async for world in _opened(MEMORY, database_name):
        yield world


@pytest.fixture
def finds() -> Iterator[Finds]:
    """What clients look for that are made after this; pymongo keeps listeners for good, so it ends by going deaf."""
    listener = Finds()
    monitoring.register(listener)
    yield listener
    listener.listens = False
