"""A server that is killed in the middle of a request with a key, and started again on the same database."""

from __future__ import annotations

import contextlib
import datetime as dt
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from tests.api.conftest import Starter
from tests.api.servers import Server, serving
from tests.api.test_errors import problem

#: Python runs this module at its start. It kills the server, as the kernel would, when one insert has succeeded.
KILLER = """
import os, pathlib, signal
from pymongo import monitoring

class Killer(monitoring.CommandListener):
    def __init__(self):
        self.armed = pathlib.Path("armed")
        self.waited_for = None

    def started(self, event):
        if self.armed.exists():
            if event.command_name == "insert" and event.command["insert"] == self.armed.read_text():
                self.waited_for = event.request_id

    def succeeded(self, event):
        if event.request_id == self.waited_for:
            self.armed.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def failed(self, event):
        pass

monitoring.register(Killer())
"""


@dataclass(frozen=True)
class Crashing:
    """A database, and the servers that come and go on it."""

    start: Callable[[], contextlib.AbstractContextManager[Server]]
    armed: Path
    mongo: Database[dict[str, Any]]

    def crash(self, server: Server, user: httpx.Client, key: str, body: dict[str, str], collection: str) -> None:
        """Send a request that kills the server when the insert into `collection` has succeeded."""
        self.armed.write_text(collection)
        with pytest.raises(httpx.TransportError):
            user.post("/posts", json=body, headers={"Idempotency-Key": key})
        assert server.process.wait(30) == -signal.SIGKILL

    def repeat(self, user: httpx.Client, key: str, body: dict[str, str]) -> None:
        """Send it again until it is answered: one document in all, under the id that was allotted first."""
        (claim,) = self.mongo["headwater_idempotency"].find({"state": "running"})
        problem(user.post("/posts", json=body, headers={"Idempotency-Key": key}), 409, "in_progress")
        # A minute passes.
        past = claim["claimed_at"] - dt.timedelta(seconds=61)
        self.mongo["headwater_idempotency"].update_one({"_id": claim["_id"]}, {"$set": {"claimed_at": past}})
        answers = [user.post("/posts", json=body, headers={"Idempotency-Key": key}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 201]
        assert {ObjectId(answer.json()["id"]) for answer in answers} == {claim["document_id"]}
        assert len({answer.content for answer in answers}) == 1
        assert self.mongo["posts"].count_documents({"title": body["title"]}) == 1


@pytest.fixture
def crashing(
    tmp_path: Path, server_settings: Starter, free_port: Callable[[], int], mongodb_url: str
) -> Iterator[Crashing]:
    """No server is running yet."""
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    settings = server_settings()
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb_url, tz_aware=True)
    yield Crashing(
        lambda: serving(tmp_path, free_port(), settings, tmp_path),
        tmp_path / "armed",
        client[settings["HEADWATER_DATABASE"]],
    )
    client.close()


def test_crash(crashing: Crashing) -> None:
    """Whether the server dies after the write or before it, repeating the request makes one document."""
    after, before = {"title": "After", "slug": "after"}, {"title": "Before", "slug": "before"}
    with crashing.start() as server:
        alice = server.register("alice")
        crashing.crash(server, alice.client, "key-1", after, "posts")
    assert crashing.mongo["posts"].count_documents({}) == 1
    with crashing.start() as server:
        client = server.client(server.login("alice"))
        crashing.repeat(client, "key-1", after)
        crashing.crash(server, client, "key-2", before, "headwater_idempotency")
    assert crashing.mongo["posts"].count_documents({}) == 1
    with crashing.start() as server:
        crashing.repeat(server.client(server.login("alice")), "key-2", before)
