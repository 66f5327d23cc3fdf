"""The AsyncAPI 3.0 document of the live protocol, from the models that parse and build its messages.

Source: AsyncAPI Specification 3.0.0. Operations are told from the server's side: it receives `subscribe` and sends
`event`. Message payloads are the JSON Schemas of `realtime.protocol`; documents in them are the classes' public forms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from documents import Registry, forms_of
from realtime import protocol

_SCHEMAS = "#/components/schemas/"
_MESSAGES = "#/components/messages/"

CLIENT_MODELS: tuple[type[BaseModel], ...] = get_args(get_args(protocol.ClientMessage)[0])
SERVER_MODELS: tuple[type[BaseModel], ...] = get_args(protocol.ServerMessage)

_POSITION = "6b02cdcf0000000bffffffff844aaf68307d603111eda952"
_DOCUMENT = {"id": "6b02cdd07b9023d0311154b4", "title": "High water", "status": "published"}

#: One message of each type, as it is on the wire.
EXAMPLES: dict[str, dict[str, Any]] = {
    "auth": {"type": "auth", "token": "eyJhbGciOi…"},
    "subscribe": {
        "type": "subscribe",
        "id": "1",
        "resource": "posts",
        "filter": {"status": "published"},
        "sort": ["-created_at"],
        "limit": 50,
        "snapshot": True,
    },
    "unsubscribe": {"type": "unsubscribe", "id": "1"},
    "ping": {"type": "ping", "id": "p1", "position": _POSITION},
    "welcome": {
        "type": "welcome",
        "protocol": protocol.SUBPROTOCOL,
        "connection": "1Xhr4Yd3U834",
        "heartbeat_seconds": protocol.HEARTBEAT_SECONDS,
    },
    "authenticated": {
        "type": "authenticated",
        "user": {"id": "6b02cdcf7b9023d0311154b1", "username": "mara", "roles": ["user"]},
        "expires_at": "2026-05-01T12:00:00.000Z",
    },
    "subscribed": {"type": "subscribed", "id": "1", "view": "vrkHnCDSzB_eG66ZqJZyD", "recovered": None},
    "snapshot": {
        "type": "snapshot",
        "id": "1",
        "view": "vrkHnCDSzB_eG66ZqJZyD",
        "items": [{"document": _DOCUMENT, "etag": '"62GELxGYHApxfhGt2zBg"'}],
        "more": False,
    },
    "ready": {"type": "ready", "id": "1", "view": "vrkHnCDSzB_eG66ZqJZyD", "position": _POSITION, "complete": True},
    "event": {
        "type": "event",
        "view": "vrkHnCDSzB_eG66ZqJZyD",
        "op": "update",
        "resource": "posts",
        "id": _DOCUMENT["id"],
        "document": _DOCUMENT | {"title": "High water in spring"},
        "etag": '"f_XGVTIkzQ78R-ADcyfb"',
        "changed": ["title"],
        "position": _POSITION,
        "at": "2026-05-01T12:00:00.000Z",
    },
    "position": {"type": "position", "position": _POSITION, "as_of": "2026-05-01T12:00:25.000Z"},
    "reset": {"type": "reset", "view": "vrkHnCDSzB_eG66ZqJZyD", "reason": "lagging"},
    "unsubscribed": {"type": "unsubscribed", "id": "1", "reason": "requested"},
    "error": {"type": "error", "id": "1", "code": "bad_query", "message": "filter.titel: there is no field `titel`"},
    "pong": {"type": "pong", "id": "p1"},
    "auth_expiring": {"type": "auth_expiring", "seconds": 60},
    "goaway": {"type": "goaway", "reason": "draining", "retry_after_ms": [500, 5000]},
}

#: What answers each request of a client. Any of them may be answered with `error` instead.
_ANSWERS = {
    "auth": ("authenticated",),
    "subscribe": ("subscribed", "snapshot", "ready"),
    "unsubscribe": ("unsubscribed",),
    "ping": ("pong",),
}
#: What the server sends unasked.
_PUSHES = ("welcome", "event", "position", "reset", "unsubscribed", "auth_expiring", "goaway")
#: What one list with `Accept: text/event-stream` is made of.
_STREAMED = ("snapshot", "ready", "event", "position", "reset", "unsubscribed", "error", "goaway")


def message_type(model: type[BaseModel]) -> str:
    """The `type` that messages of a model carry."""
    name: str = get_args(model.model_fields["type"].annotation)[0]
    return name


def asyncapi_document(registry: Registry, *, address: str, version: str, prefix: str) -> dict[str, Any]:
    """The AsyncAPI document of a server that serves `registry` at `address` (`https://live.example.org`)."""
    scheme, _, host = address.partition("://")
    secure = scheme == "https"
    live = sorted((r for r in registry if r.declared.live), key=lambda resource: resource.name)
    documents = {resource.name: forms_of(resource).public for resource in live}
    listed = [resource.name for resource in live if resource.declared.generic]
    types = [message_type(model) for model in (*CLIENT_MODELS, *SERVER_MODELS)]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Headwater, live",
            "version": version,
            "description": (
                "A subscriber receives every committed change that it is allowed to see, in commit order, without "
                "duplicates, or it is told `reset` and given a fresh snapshot. Never silence."
            ),
        },
        "defaultContentType": "application/json",
        "servers": {
            "websocket": {
                "host": host,
                "pathname": prefix,
                "protocol": "wss" if secure else "ws",
                "description": f"WebSocket, subprotocol `{protocol.SUBPROTOCOL}`; each text frame is one JSON object.",
                "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _SECURITY],
            },
            "eventStream": {
                "host": host,
                "pathname": prefix,
                "protocol": "https" if secure else "http",
                "description": "Server-Sent Events: one subscription for each request.",
                "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _SECURITY],
            },
        },
        "channels": {
            "live": {
                "address": "/ws",
                "title": "Any number of live results over one WebSocket",
                "description": (
                    f"At most {protocol.MAX_SUBSCRIPTIONS} subscriptions, {protocol.MESSAGES_PER_SECOND} messages a "
                    f"second from a client, {protocol.MAX_MESSAGE_BYTES // 1024} KiB each. A client that hears nothing "
                    f"for {2 * protocol.HEARTBEAT_SECONDS} seconds reconnects."
                ),
                "servers": [{"$ref": "#/servers/websocket"}],
                "messages": {name: {"$ref": _MESSAGES + name} for name in types},
                "bindings": {"ws": {"method": "GET", "query": _TICKET}},
                "x-close-codes": [
                    {"code": int(code), "reason": code.meaning, "reconnect": code.reconnect}
                    for code in protocol.CloseCode
                ],
                "x-error-codes": [{"code": str(code), "meaning": code.meaning} for code in protocol.ErrorCode],
            },
            "stream": {
                "address": "/{resource}",
                "title": "One live list as Server-Sent Events",
                "description": (
                    "A list with `Accept: text/event-stream`. Takes the list's parameters, and `snapshot`. The event's "
                    "name is the op, or the message's type (`error` is called `problem`); `id` is `view@position`, "
                    "with which `Last-Event-ID` or `?since=` resumes; on `reset` it is `@`, where nothing is resumed."
                ),
                "servers": [{"$ref": "#/servers/eventStream"}],
                "parameters": {"resource": {"enum": listed, "description": "The collection."}},
                "messages": {name: {"$ref": _MESSAGES + name} for name in _STREAMED},
            },
        },
        "operations": _operations(),
        "components": {
            "messages": {
                message_type(model): _message(model) for models in (CLIENT_MODELS, SERVER_MODELS) for model in models
            },
            "schemas": _schemas(documents.values()),
            "securitySchemes": _SECURITY,
        },
    }


_TICKET = {
    "type": "object",
    "properties": {
        "ticket": {"type": "string", "description": "From `POST /auth/ticket`, for browsers: once, within 30 seconds."}
    },
}
_SECURITY: dict[str, Any] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token, in the handshake's `Authorization` or in `auth`.",
    },
    "key": {"type": "httpApiKey", "in": "header", "name": "X-API-Key", "description": "An API key, or in `auth`."},
    "ticket": {"type": "httpApiKey", "in": "query", "name": "ticket", "description": "A ticket, which works once."},
}


def _operations() -> dict[str, Any]:
    def on(channel: str, names: Iterable[str]) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]

    channel = {"$ref": "#/channels/live"}
    asked: dict[str, Any] = {
        message_type(model): {
            "action": "receive",
            "channel": channel,
            "summary": _sentence(model),
            "messages": on("live", [message_type(model)]),
            "reply": {"channel": channel, "messages": on("live", (*_ANSWERS[message_type(model)], "error"))},
        }
        for model in CLIENT_MODELS
    }
    return asked | {
        "push": {
            "action": "send",
            "channel": channel,
            "summary": "What the server sends unasked.",
            "messages": on("live", _PUSHES),
        },
        "stream": {
            "action": "send",
            "channel": {"$ref": "#/channels/stream"},
            "summary": "One live list.",
            "messages": on("stream", _STREAMED),
        },
    }


def _message(model: type[BaseModel]) -> dict[str, Any]:
    name = message_type(model)
    return {
        "name": name,
        "title": name,
        "summary": _sentence(model),
        "description": (model.__doc__ or "").strip(),
        "contentType": "application/json",
        "payload": {"$ref": _SCHEMAS + model.__name__},
        "examples": [{"name": name, "payload": EXAMPLES[name]}],
    }


def _sentence(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _schemas(documents: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """The schemas of all messages and documents, by name."""
    shown = list(documents)
    models = [*CLIENT_MODELS, *SERVER_MODELS]
    _, parts = models_json_schema(
        [(model, "validation") for model in [*models, *shown]], ref_template=_SCHEMAS + "{model}"
    )
    schemas: dict[str, Any] = {name: _draft_7(schema) for name, schema in parts["$defs"].items()}
    for model in models:
        # Its default makes pydantic think that a message may lack it.
        schema = schemas[model.__name__]
        schema["required"] = list(dict.fromkeys(["type", *schema.get("required", [])]))
    for model in shown:
        # `fields` may have selected some of it.
        schemas[model.__name__]["required"] = ["id"]
    a_document = {"anyOf": [{"$ref": _SCHEMAS + model.__name__} for model in shown]}
    for name in ("Event", "SnapshotItem"):
        schemas[name]["properties"]["document"] = a_document | {
            "description": "As the subscriber sees it; see `fields`."
        }
    return schemas


def _draft_7(schema: Any) -> Any:
    """The schema in the dialect of AsyncAPI, which is JSON Schema draft 7 with additions."""
    if isinstance(schema, list):
        return [_draft_7(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {"items" if name == "prefixItems" else name: _draft_7(part) for name, part in schema.items()}
