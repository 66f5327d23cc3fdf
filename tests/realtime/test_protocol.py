"""The protocol's models and its description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from realtime import protocol
from realtime.protocol import BadMessage, CloseCode, ErrorCode, parse_client_message

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "protocol.md").read_text()
SUBSCRIBE: dict[str, Any] = {"type": "subscribe", "id": "1", "resource": "posts"}

HOSTILE = [
    "", "null", "[]", "1", '"subscribe"', "{", "{}", "\0", '{"type":null}', '{"type":["subscribe"]}',
    '{"type":"Subscribe"}',
    '{"type":"' + "x" * 60_000 + '"}',
    "[" * 60_000,
    '{"type":"subscribe","id":"1","resource":"posts","filter":' + '{"a":' * 9_000 + "1" + "}" * 9_000 + "}",
    '{"type":"subscribe","id":"1","resource":"posts","filter":{"a":' + "9" * 60_000 + "}}",
    '{"type":"ping","id":"\\ud800"}',
    *(json.dumps(message) for message in (
        SUBSCRIBE | {"id": ""}, SUBSCRIBE | {"id": "x" * 65}, SUBSCRIBE | {"id": 1}, SUBSCRIBE | {"id": None},
        SUBSCRIBE | {"limit": 0}, SUBSCRIBE | {"limit": "5"}, SUBSCRIBE | {"limit": 1.5}, SUBSCRIBE | {"limit": True},
        SUBSCRIBE | {"snapshot": 1}, SUBSCRIBE | {"filter": []}, SUBSCRIBE | {"sort": "title"},
        SUBSCRIBE | {"sort": ["a"] * 9}, SUBSCRIBE | {"fields": []}, SUBSCRIBE | {"since": "v@00"},
        SUBSCRIBE | {"since": {"view": "v"}}, SUBSCRIBE | {"$where": "1"}, {"type": "auth"},
        {"type": "auth", "token": ""}, {"type": "ping"}, {"type": "unsubscribe", "id": "1", "view": "v"},
        {"type": "event", "view": "v"}, {"type": "welcome"},
    )),
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_message(text: str) -> None:
    """Whatever a client sends is a message or is refused, in few words; the refusal can itself be sent."""
    with pytest.raises(BadMessage) as refused:
        parse_client_message(text)
    assert 0 < len(str(refused.value)) <= protocol.MAX_ERROR_CHARACTERS
    assert protocol.Error(id=refused.value.id, code=ErrorCode.BAD_MESSAGE, message=str(refused.value)).model_dump_json()


def test_refusal_names_the_place_and_the_message() -> None:
    """A client can tell which of its messages was wrong, and where."""
    with pytest.raises(BadMessage, match=r"^since\.position: ") as refused:
        parse_client_message(json.dumps(SUBSCRIBE | {"id": "mine", "since": {"view": "v"}}))
    assert refused.value.id == "mine"


def test_messages_of_the_description_are_accepted() -> None:
    """Every JSON example in the document is a message of the protocol, as the models have it."""
    types = {get_args(m.model_fields["type"].annotation)[0]: m for m in get_args(protocol.ServerMessage)}
    client = {get_args(m.model_fields["type"].annotation)[0] for m in _client_models()}
    examples = [json.loads(line) for line in DOCUMENT.splitlines() if line.startswith('{"type":')]
    for example in examples:
        text = json.dumps(example)
        if example["type"] in types:
            types[example["type"]].model_validate_json(text)
        else:
            parse_client_message(text)
    assert {example["type"] for example in examples} == client | set(types)


def _client_models() -> tuple[Any, ...]:
    union, _ = get_args(protocol.ClientMessage)
    members: tuple[Any, ...] = get_args(union)
    return members


def test_everything_is_described() -> None:
    """Each message type, error code, close code with its reconnect rule, op and reset reason is in the document."""
    for name in (*ErrorCode, *protocol.Op, *protocol.ResetReason):
        assert f"`{name}`" in DOCUMENT, name
    for code in CloseCode:
        row = next(line for line in DOCUMENT.splitlines() if line.startswith(f"| {code.value} |"))
        assert row == f"| {code.value} | {code.meaning} | {'yes' if code.reconnect else 'no'} |"
    for error in ErrorCode:
        assert f"| `{error}` | {error.meaning} |" in DOCUMENT.splitlines()
    for number in (
        protocol.MAX_SUBSCRIPTIONS,
        protocol.MESSAGES_PER_SECOND,
        protocol.MESSAGE_BURST,
        protocol.HEARTBEAT_SECONDS,
    ):
        assert str(number) in DOCUMENT
    assert f"{protocol.DEFAULT_LIMIT:,}" in DOCUMENT


def test_reconnect_rule() -> None:
    """4000 to 4499 and 1012 reconnect, 4500 to 4999 do not."""
    assert {code: code.reconnect for code in CloseCode} == {
        code: code == 1012 or 4000 <= code < 4500 for code in CloseCode
    }
