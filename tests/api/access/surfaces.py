"""The surfaces of the server: found in its routes and its protocol, and for each a way to try it on one document.

A probe does one thing as one persona to one document, and says what came of it in the words of `table.py`. It also
checks what must be absent: nothing of a document that the persona may not see is in the answer, its headers or its
frames, and what was refused has changed nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast, get_args

import httpx

from api import Services, Settings, create_app
from documents import Registry
from realtime import protocol
from tests.api.access.world import Persona, Subject, World

Probe = Callable[[World, Persona, Subject], str]
PROBES: dict[str, Probe] = {}
_COLLECTIONS = {"api-keys": "api_keys"}


def probe(*names: str) -> Callable[[Probe], Probe]:
    """Register the way to try the surfaces of these names."""

    def register(function: Probe) -> Probe:
        PROBES.update(dict.fromkeys(names, function))
        return function

    return register


def surfaces(registry: Registry, settings: Settings) -> dict[str | None, set[str]]:
    """All surfaces by collection: of routes with each media type and parameter, and of the protocol's messages.

    Those of no class are under None. `{c}` stands for the collection.
    """
    services = cast("Services", SimpleNamespace(settings=settings, registry=registry))
    app = create_app(services)
    found: dict[str | None, set[str]] = {None: set()} | {resource.name: set() for resource in registry}
    described = app.openapi()["paths"]
    for route in _routes(app.routes):
        path = re.sub(r":\w+}", "}", getattr(route, "path", ""))
        if not path.startswith("/api/v1/"):
            continue  # health, pages and metrics show no document
        first, slash, rest = path.removeprefix("/api/v1/").partition("/")
        collection = _COLLECTIONS.get(first, first)
        of_class = collection in found and rest.split("/")[0] != "me"
        name = "{c}" + slash + rest if of_class else path.removeprefix("/api/v1/")
        known = found[collection if of_class else None]
        if not (methods := getattr(route, "methods", None)):  # a WebSocket
            known.add(name)
            continue
        for method in methods:
            operation = described.get(path, {}).get(method.lower())
            known |= {f"{method} {name}{kind}" for kind in (_kinds(operation) if of_class and operation else [""])}
    for resource in registry:
        if resource.declared.live:
            found[resource.name] |= {f"ws {kind}" for kind in ("subscribe", "auth")}
    found[None] |= {f"ws {kind}" for kind in _messages()} - {"ws subscribe", "ws auth"}
    return found


def _routes(routes: Any) -> Iterator[Any]:
    for route in routes:
        # FastAPI 0.140 and later keeps an included router as one route, and resolves its own on demand.
        included = getattr(route, "effective_route_contexts", None)
        yield from included() if included is not None else [route]


def _kinds(operation: dict[str, Any]) -> list[str]:
    """The forms of one operation: by media type of body and answer, where there are several, and by parameter."""
    bodies = list(operation.get("requestBody", {}).get("content", {}))
    answers = list(operation["responses"].get("200", {}).get("content", {}))
    kinds = [f" {media_type}" for media_type in bodies] if len(bodies) > 1 else [""]
    kinds += [f" {media_type}" for media_type in answers if media_type != "application/json"]
    kinds += [f" ?{one['name']}" for one in operation.get("parameters", []) if one["in"] == "query"]
    return kinds


def _messages() -> set[str]:
    union, _ = get_args(protocol.ClientMessage)
    return {get_args(message.model_fields["type"].annotation)[0] for message in get_args(union)}


@dataclass
class Heard:
    """What a probe received: all of it as text, to find the document's words in."""

    text: list[str] = field(default_factory=list)

    def answer(self, response: httpx.Response) -> httpx.Response:
        """Keep an answer's body and headers."""
        self.text += [response.text, str(response.headers.multi_items())]
        return response

    def outcome(self, subject: Subject) -> str:
        """How much of the document came."""
        text = "\n".join(self.text)
        shown = [word in text for word in (subject.public_word, subject.secret_word)]
        return {(True, True): "ok", (True, False): "part", (False, False): "empty"}.get((shown[0], shown[1]), "secret")

    def refused(self, response: httpx.Response, subject: Subject) -> str:
        """The status of a refusal, which says nothing of the document."""
        assert self.outcome(subject) == "empty", f"the refusal shows the document: {self.text}"
        content = response.json() if response.content else None
        assert content is None or content["status"] == response.status_code
        return str(response.status_code)


def by_id(subject: Subject) -> str:
    """A filter that matches the document alone."""
    return json.dumps({"id": subject.id})


def only(outcomes: set[str]) -> str:
    """The outcome of several ways to the same thing."""
    assert len(outcomes) == 1, f"ways to the same thing that differ: {sorted(outcomes)}"
    return outcomes.pop()
