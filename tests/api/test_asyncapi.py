"""`/asyncapi.json`: the live protocol, described for programs."""

from __future__ import annotations

import copy
import functools
import json
import operator
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft7Validator

from api.asyncapi import CLIENT_MODELS, EXAMPLES, SERVER_MODELS, message_type
from realtime import protocol
from realtime.protocol import parse_client_message
from tests.api.servers import ROOT, Server, User, environment, live


@pytest.fixture(scope="module")
def description(server: Server) -> dict[str, Any]:
    """The document as it is served."""
    answer = httpx.get(f"{server.url}/asyncapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    document: dict[str, Any] = answer.json()
    return document


@pytest.fixture(scope="module")
def specification() -> Draft7Validator:
    """AsyncAPI's own JSON Schema of version 3.0."""
    path = ROOT / "tests/node/node_modules/@asyncapi/specs/schemas/3.0.0.json"
    if not path.exists():
        pytest.skip("the schema of AsyncAPI is not installed; `make test` does it, where there is npm")
    return Draft7Validator(json.loads(path.read_text()))


def test_document_is_asyncapi(specification: Draft7Validator, description: dict[str, Any]) -> None:
    """It is valid by the specification's schema."""
    assert [f"{list(e.absolute_path)}: {e.message[:200]}" for e in specification.iter_errors(description)] == []


@pytest.mark.parametrize(
    ("place", "wrong"),
    [("operations.ping.action", "shout"), ("channels.live.addres", "/ws"), ("components.messages.ping.payload", 5)],
)
def test_document_that_is_not_asyncapi(
    specification: Draft7Validator, description: dict[str, Any], place: str, wrong: object
) -> None:
    """The schema refuses it: the test above can fail."""
    spoilt = copy.deepcopy(description)
    *parents, last = place.split(".")
    functools.reduce(operator.getitem, parents, spoilt)[last] = wrong
    assert not specification.is_valid(spoilt)


def test_document_of_the_command_line(description: dict[str, Any], tmp_path: Path) -> None:
    """`python main.py asyncapi` prints the same, but for the address; it needs no database."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(ROOT / "main.py"), "asyncapi"],
        cwd=tmp_path,
        env=environment({}),
        capture_output=True,
        timeout=60,
        check=True,
    )
    printed = json.loads(done.stdout)
    assert printed | {"servers": 0} == description | {"servers": 0}


def validator(description: dict[str, Any], message: str) -> Draft7Validator:
    """Judges payloads of a message."""
    components = description["components"]
    return Draft7Validator({**components["messages"][message]["payload"], "components": components})


def references(part: Any) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_references_lead_somewhere(description: dict[str, Any]) -> None:
    """Each is to a part of the document that is there."""
    found = set(references(description))
    assert len(found) > 50
    for reference in found:
        part: Any = description
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


def test_messages_are_those_of_the_models(description: dict[str, Any]) -> None:
    """The WebSocket's channel has each message of the protocol, and each belongs to an operation or its reply."""
    types = {message_type(model) for model in (*CLIENT_MODELS, *SERVER_MODELS)}
    assert set(description["channels"]["live"]["messages"]) == types == set(EXAMPLES)
    operations = description["operations"].values()
    told = [message for one in operations for message in (*one["messages"], *one.get("reply", {}).get("messages", []))]
    assert {message["$ref"].rpartition("/")[2] for message in told} == types
    asked = {name for name, one in description["operations"].items() if one["action"] == "receive"}
    assert asked == {message_type(model) for model in CLIENT_MODELS}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example_of_a_message(description: dict[str, Any], name: str) -> None:
    """It is valid by the model and by the schema that is served; with a field more, or without its type, by neither."""
    example = EXAMPLES[name]
    schema = validator(description, name)
    assert description["components"]["messages"][name]["examples"][0]["payload"] == example
    assert [error.message for error in schema.iter_errors(example)] == []
    assert not schema.is_valid(example | {"surprise": 1})
    assert not schema.is_valid({key: value for key, value in example.items() if key != "type"})
    by_type = {message_type(model): model for model in SERVER_MODELS}
    if name in by_type:
        by_type[name].model_validate_json(json.dumps(example))
    else:
        parse_client_message(json.dumps(example))


def test_frames_of_a_real_connection(description: dict[str, Any], server: Server, alice: User, title: str) -> None:
    """What a server sends is valid by the schemas that it serves."""
    with live(server) as connection:
        connection.send(type="auth", token=alice.token)
        connection.send(type="subscribe", id="1", resource="posts", filter={"title": title})
        connection.send(type="subscribe", id="1", resource="posts")
        frames = connection.receive_until("error")
        while frames[-1]["type"] != "ready":
            frames.append(connection.receive())
        created = alice.client.post("/posts", json={"title": title}).json()
        alice.client.delete(f"/posts/{created['id']}")
        frames += [connection.receive(), connection.receive()]
        connection.send(type="unsubscribe", id="1")
        frames.append(connection.receive())
    heard = {"authenticated", "subscribed", "error", "ready", "event", "unsubscribed"}
    assert {frame["type"] for frame in frames} >= heard
    for frame in frames:
        assert [error.message for error in validator(description, frame["type"]).iter_errors(frame)] == [], frame


def test_documents_of_events(description: dict[str, Any]) -> None:
    """Are the public forms of the classes that can be subscribed to, and tell nothing of hidden fields."""
    shown = {part["$ref"].rpartition("/")[2] for part in _document_schema(description)["anyOf"]}
    assert {"PostPublic", "CommentPublic", "UserPublic"} <= shown
    assert "password_hash" not in json.dumps(description)
    assert "/api/v1" in {server["pathname"] for server in description["servers"].values()}


def _document_schema(description: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = description["components"]["schemas"]["Event"]["properties"]["document"]
    return schema


def test_codes(description: dict[str, Any]) -> None:
    """Every close code and error code is there with its meaning."""
    channel = description["channels"]["live"]
    assert {one["code"]: one["reconnect"] for one in channel["x-close-codes"]} == {
        int(code): code.reconnect for code in protocol.CloseCode
    }
    assert [one["code"] for one in channel["x-error-codes"]] == list(protocol.ErrorCode)
    assert all(one["reason"] for one in channel["x-close-codes"])
    assert all(one["meaning"] for one in channel["x-error-codes"])


def test_streamed_lists(description: dict[str, Any]) -> None:
    """Name the collections that have lists."""
    listed = description["channels"]["stream"]["parameters"]["resource"]["enum"]
    assert {"posts", "comments"} <= set(listed)
    assert not {"users", "sessions", "api_keys"} & set(listed)
