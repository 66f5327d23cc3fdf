"""A document class of the user's own, in a module outside the repository."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from bson import Decimal128, ObjectId
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import WriteError

from tests.api.conftest import Starter
from tests.api.servers import ADMIN_EMAIL, Server, User, live, refused_start, serving
from tests.api.test_errors import places, problem

MODULE = '''
from decimal import Decimal
from typing import Annotated

from beanie import PydanticObjectId
from pydantic import Field
from pymongo import IndexModel

from documents import (
    Access, LiveDocument, References, Resource, SetOnCreate, VisibleTo, current_user, owner, role, signed_in,
)


class Task(LiveDocument):
    """One piece of work on a board."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    done: bool = False
    owner_id: Annotated[PydanticObjectId, References("users"), SetOnCreate(current_user)]
    cost: Annotated[Decimal, VisibleTo("admin")] = Decimal(0)

    class Settings:
        name = "tasks"
        indexes = [IndexModel([("owner_id", 1), ("created_at", -1)], name="owner_newest")]

    resource = Resource(
        access=Access(
            read=owner("owner_id") | role("admin"), create=signed_in, update=owner("owner_id"), delete=role("admin")
        ),
        search=("title",),
    )
'''


@dataclass(frozen=True)
class Board:
    """A server of tasks, its users, and its database as another program sees it."""

    server: Server
    user: User
    admin: httpx.Client
    mongo: Database[dict[str, Any]]


@pytest.fixture(scope="module")
def board(
    tmp_path_factory: pytest.TempPathFactory, server_settings: Starter, free_port: Callable[[], int], mongodb_url: str
) -> Iterator[Board]:
    """A server that is told of the module by its name alone."""
    directory = tmp_path_factory.mktemp("board")
    (directory / "board_models.py").write_text(MODULE)
    settings = server_settings(documents="documents.models,board_models")
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb_url)
    with serving(directory, free_port(), settings, directory) as server:
        mongo = client[settings["HEADWATER_DATABASE"]]
        yield Board(server, server.register("ann"), server.client(server.login(ADMIN_EMAIL)), mongo)
        server.stop()
        server.check_log()
    client.close()


def test_routes_and_rules(board: Board) -> None:
    """The class has its routes, under its collection's name and its own rules."""
    created = board.user.client.post("/tasks", json={"title": "Read the gauge"})
    assert created.status_code == 201, created.text
    task = created.json()
    assert (task["owner_id"], task["done"]) == (board.user.id, False)
    assert "cost" not in task
    url = f"/tasks/{task['id']}"
    assert board.user.client.patch(url, json={"done": True}).json()["done"] is True
    assert [t["id"] for t in board.user.client.get("/tasks?search=gauge").json()["items"]] == [task["id"]]
    problem(board.server.client().get(url), 404, "not_found")
    problem(board.server.client().post("/tasks", json={"title": "x"}), 401, "unauthorized")
    problem(board.user.client.delete(url), 403, "forbidden")
    assert board.admin.delete(url).status_code == 204


def test_field_for_some_roles(board: Board) -> None:
    """Others can neither see, set, filter, sort nor select it; a decimal is a string."""
    created = board.admin.post("/tasks", json={"title": "Buy a gauge", "cost": "12.50"})
    assert created.json()["cost"] == "12.50"
    stored = board.mongo["tasks"].find_one({"_id": ObjectId(created.json()["id"])})
    assert stored is not None
    assert stored["cost"] == Decimal128("12.50")
    assert board.admin.get('/tasks?filter={"cost":{"$gt":"12.4"}}').json()["items"] == [created.json()]
    user = board.user.client
    assert places(user.post("/tasks", json={"title": "x", "cost": "1"})) == [["body", "cost"]]
    for query in ("cost=1", "cost[gt]=1", "sort=cost", "fields=cost", 'filter={"cost":1}'):
        assert len(places(user.get(f"/tasks?{query}"))) == 1
    assert "cost" not in user.get("/tasks?cost=1").json()["errors"][0]["type"]


def test_live_view(board: Board) -> None:
    """Subscribers get its changes, from the API and from the shell, without the fields they may not see."""
    with live(board.server, board.user.token) as connection:
        view = connection.subscribe("1", resource="tasks")
        task = board.user.client.post("/tasks", json={"title": "Live"}).json()
        event = connection.receive()
        assert (event["view"], event["op"], event["document"]) == (view, "create", task)
        board.mongo["tasks"].update_one({"_id": ObjectId(task["id"])}, {"$set": {"cost": Decimal128("7")}})
        board.mongo["tasks"].update_one({"_id": ObjectId(task["id"])}, {"$set": {"done": True}})
        event = connection.receive()
        assert (event["op"], event["changed"]) == ("update", ["done"])
        assert "cost" not in event["document"]


def test_validator_and_index(board: Board) -> None:
    """The shell's bad write is refused by the database, and the index has its name."""
    tasks = board.mongo["tasks"]
    good = {"title": "x", "done": False, "owner_id": ObjectId(), "cost": Decimal128("0")}
    with pytest.raises(WriteError, match="validation"):
        tasks.insert_one(good | {"done": "yes"})
    assert "owner_newest" in tasks.index_information()
    (options,) = board.mongo.list_collections(filter={"name": "tasks"})
    assert options["options"]["validator"]["$jsonSchema"]["properties"]["title"]["maxLength"] == 200


def test_openapi_schemas(board: Board) -> None:
    """The document describes the class."""
    document = httpx.get(f"{board.server.url}/openapi.json").json()
    assert {"get", "post"} <= set(document["paths"]["/api/v1/tasks"])
    schemas = document["components"]["schemas"]
    assert schemas["TaskCreate"]["required"] == ["title"]
    assert set(schemas["TaskCreate"]["properties"]) == {"title", "done", "cost"}
    assert "required" not in schemas["TaskUpdate"]
    assert {"id", "title", "done", "owner_id", "created_at"} <= set(schemas["TaskPublic"]["properties"])
    assert schemas["TaskPublic"]["description"] == "One piece of work on a board."


DECLARATION = """
from documents import Access, LiveDocument, Resource, owner, where
from pymongo import IndexModel

class Thing(LiveDocument):
    name: str
    class Settings:
        name = "things"
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, "HEADWATER_DOCUMENTS: cannot import 'my_models'"),
        ("import nothing_like_this", "HEADWATER_DOCUMENTS: cannot import 'my_models'"),
        ("class Broken(:", "HEADWATER_DOCUMENTS: cannot import 'my_models'"),
        ("1 / 0", "HEADWATER_DOCUMENTS: cannot import 'my_models'"),
        (DECLARATION.replace('"things"', '"auth"'), "Thing: 'auth' is the name of a route"),
        (DECLARATION.replace('"things"', '"Big Things"'), "Thing: the collection name 'Big Things'"),
        (DECLARATION.replace('"things"', '"posts"'), "both use the collection 'posts'"),
        (DECLARATION + "    resource = Resource(search=('nope',))", "Thing: search names 'nope'"),
        (DECLARATION + "    resource = Resource(access=Access(read=owner('nope')))", "Thing.resource.access.read: "),
        (
            DECLARATION + "    resource = Resource(access=Access(read=where({'name': {'$where': 1}})))",
            "Thing.resource.access.read: ",
        ),
        (DECLARATION + "        indexes = ['name']", "Thing: declare indexes as IndexModel"),
    ],
)
def test_class_that_is_declared_wrongly(
    tmp_path: Path, server_settings: Starter, free_port: Callable[[], int], source: str | None, expected: str
) -> None:
    """The server does not start: one line that names the class and the fault, and exit code 1."""
    if source is not None:
        (tmp_path / "my_models.py").write_text(source)
    settings = server_settings(documents="documents.models,my_models", port=str(free_port()))
    code, output = refused_start(tmp_path, settings, tmp_path)
    lines = output.strip().splitlines()
    assert code == 1, output
    assert len(lines) == 1, output
    assert lines[0].startswith("headwater: ")
    assert expected in lines[0]


def test_example_is_short() -> None:
    """What the user writes is at most 20 lines of code."""
    tree = ast.parse(MODULE)
    (task,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    lines = [line for line in MODULE.splitlines()[task.lineno :] if re.search(r"\w", line)]
    assert len(lines) <= 20
