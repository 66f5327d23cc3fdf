"""The surfaces of the server: found in its routes and its protocol, and for each a way to try it on one document.

A probe does one thing as one persona to one document, and says what came of it in the words of `table.py`. It also
checks what must be absent: nothing of a document that the persona may not see is in the answer, its headers or its
frames, and what was refused has changed nothing.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast, get_args

import httpx
from websockets.exceptions import ConnectionClosed

from api import Services, Settings, create_app
from documents import Registry
from realtime import protocol
from tests.api.access.world import Persona, Subject, World
from tests.api.servers import Live, opened

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


def _read(persona: Persona, subject: Subject, path: str, accept: str = "application/json", **params: Any) -> str:
    heard = Heard()
    answer = heard.answer(persona.client.get(path, params=params, headers={"Accept": accept}))
    return heard.outcome(subject) if answer.status_code == 200 else heard.refused(answer, subject)


def _by_id(subject: Subject) -> str:
    return json.dumps({"id": subject.id})


@probe("GET {c}")
def listed(_: World, persona: Persona, subject: Subject) -> str:
    """Found around the corner: by `$nor` and `$or`, which must not widen what the rule narrows."""
    filters: list[dict[str, Any]] = [
        {"$nor": [{"id": {"$ne": subject.id}}]},
        {"$or": [{"id": subject.id}, {"$and": [{"id": subject.id}, {"id": {"$exists": True}}]}]},
    ]
    return _only({_read(persona, subject, f"/{subject.collection}", filter=json.dumps(one)) for one in filters})


@probe("GET {c} ?filter")
def filtered(_: World, persona: Persona, subject: Subject) -> str:
    """Found by its id."""
    return _read(persona, subject, f"/{subject.collection}", filter=_by_id(subject))


@probe("GET {c} ?fields")
def selected(world: World, persona: Persona, subject: Subject) -> str:
    """With all fields named that the persona may see; to name another one is refused."""
    resource = world.registry[subject.collection]
    visible = {known.public for known in resource.visible(persona.roles).values()}
    path, filter = f"/{subject.collection}", _by_id(subject)
    outcome = _read(persona, subject, path, filter=filter, fields=",".join(sorted(visible)))
    for name in {known.public for known in resource.fields.values()} - visible:
        refusal = _read(persona, subject, path, filter=filter, fields=f"id,{name}")
        assert refusal == ("401" if outcome == "401" else "422")
    return outcome


@probe("GET {c} ?limit")
def limited(_: World, persona: Persona, subject: Subject) -> str:
    """On a page of one."""
    return _read(persona, subject, f"/{subject.collection}", filter=_by_id(subject), limit=1)


@probe("GET {c} ?page", "GET {c} ?page_size")
def paged(_: World, persona: Persona, subject: Subject) -> str:
    """On a numbered page, which counts."""
    heard = Heard()
    params = {"filter": _by_id(subject), "page": "1", "page_size": "1"}
    answer = heard.answer(persona.client.get(f"/{subject.collection}", params=params))
    if answer.status_code != 200:
        return heard.refused(answer, subject)
    outcome = heard.outcome(subject)
    assert answer.json()["total"] == int(outcome != "empty")
    return outcome


@probe("short filter")
def short_filter(_: World, persona: Persona, subject: Subject) -> str:
    """Found by `id=`, `id[in]=`."""
    return _only({_read(persona, subject, f"/{subject.collection}", **{name: subject.id}) for name in ("id", "id[in]")})


@probe("GET {c} ?sort", "GET {c} ?cursor")
def walked(_: World, persona: Persona, subject: Subject) -> str:
    """Found by walking the sorted list around it, a document a page."""
    heard = Heard()
    query = {"sort": "-id", "limit": "1", "filter": json.dumps({"id": {"$gte": subject.id}})}
    while True:
        answer = heard.answer(persona.client.get(f"/{subject.collection}", params=query))
        if answer.status_code != 200:
            return heard.refused(answer, subject)
        if not answer.json()["has_next"]:
            return heard.outcome(subject)
        query["cursor"] = answer.json()["next_cursor"]


@probe("GET {c} ?search")
def searched(world: World, persona: Persona, subject: Subject) -> str:
    """Found by one of its words, where the class has fields to search."""
    if not world.registry[subject.collection].declared.search:
        answer = persona.client.get(f"/{subject.collection}", params={"search": subject.search_word})
        assert answer.status_code in (401, 422)
        return filtered(world, persona, subject)
    return _read(persona, subject, f"/{subject.collection}", search=subject.search_word)


@probe("GET {c} ?count")
def counted(world: World, persona: Persona, subject: Subject) -> str:
    """Counted, which is all that one needs to guess a value."""
    heard = Heard()
    params = {"count": "exact", "limit": "1", "filter": _by_id(subject)}
    answer = heard.answer(persona.client.get(f"/{subject.collection}", params=params))
    if answer.status_code != 200:
        return heard.refused(answer, subject)
    total = answer.json()["total"]
    assert answer.headers["x-total-count"] == str(total)
    outcome = heard.outcome(subject)
    assert total == (outcome != "empty")
    # A count by a value of a field that only admins see would tell the value.
    for name, value in world.secret_values(subject).items():
        params["filter"] = json.dumps({name: value})
        answer = persona.client.get(f"/{subject.collection}", params=params)
        assert answer.status_code == (200 if outcome == "ok" else 422)
    return outcome


@probe("HEAD {c}")
def list_head(_: World, persona: Persona, subject: Subject) -> str:
    """The count in the head, without a body."""
    params = {"count": "exact", "filter": _by_id(subject)}
    answer = persona.client.head(f"/{subject.collection}", params=params)
    assert answer.content == b""
    if answer.status_code != 200:
        return str(answer.status_code)
    full = _read(persona, subject, f"/{subject.collection}", filter=_by_id(subject))
    assert answer.headers["x-total-count"] == str(int(full != "empty"))
    return full


@probe("GET {c} application/x-ndjson")
def ndjson(_: World, persona: Persona, subject: Subject) -> str:
    """In a stream of lines."""
    return _read(persona, subject, f"/{subject.collection}", "application/x-ndjson", filter=_by_id(subject))


@probe("GET {c} text/csv")
def csv(_: World, persona: Persona, subject: Subject) -> str:
    """In a table."""
    return _read(persona, subject, f"/{subject.collection}", "text/csv", filter=_by_id(subject))


@probe("GET {c}/{id}")
def got(_: World, persona: Persona, subject: Subject) -> str:
    """By its address."""
    return _read(persona, subject, f"/{subject.collection}/{subject.id}")


@probe("HEAD {c}/{id}")
def head(_: World, persona: Persona, subject: Subject) -> str:
    """The head of its address: as GET's, without the content."""
    path = f"/{subject.collection}/{subject.id}"
    answer = persona.client.head(path)
    assert answer.content == b""
    assert ("etag" in answer.headers) is (answer.status_code == 200)
    return _read(persona, subject, path) if answer.status_code == 200 else str(answer.status_code)


def _write(world: World, persona: Persona, subject: Subject, method: str, **options: Any) -> str:
    """Try to change the document; says `ok` only if it has changed, and restores it."""
    heard = Heard()
    answer = heard.answer(persona.client.request(method, f"/{subject.collection}/{subject.id}", **options))
    stored = world.stored(subject)
    if not answer.is_success:
        assert stored == subject.document, "a refused write has changed the document"
        return heard.refused(answer, subject)
    assert stored != subject.document
    world.restore(subject)
    return "ok"


@probe("PUT {c}/{id}")
def replaced(world: World, persona: Persona, subject: Subject) -> str:
    """All fields anew."""
    return _write(world, persona, subject, "PUT", json=world.new_body(subject))


@probe("PATCH {c}/{id} application/json", "PATCH {c}/{id} application/merge-patch+json")
def merged(world: World, persona: Persona, subject: Subject) -> str:
    """A merge patch, under both of its names."""
    content = json.dumps(world.patch(subject)).encode()
    kinds = ("application/json", "application/merge-patch+json")
    return _only(
        {
            _write(world, persona, subject, "PATCH", content=content, headers={"Content-Type": media_type})
            for media_type in kinds
        }
    )


@probe("DELETE {c}/{id}")
def deleted(world: World, persona: Persona, subject: Subject) -> str:
    """Deleted by its address."""
    return _write(world, persona, subject, "DELETE")


@probe("POST {c}")
def created(world: World, persona: Persona, subject: Subject) -> str:
    """One of the same kind, for oneself: whoever claims to be somebody else is refused."""
    body = world.new_body(subject) | {"status": subject.kind}
    before = world.count(subject.collection)
    answer = persona.client.post(f"/{subject.collection}", json=body)
    if answer.status_code == 201:
        assert answer.json()["author_id"] == persona.id
        world.remove(subject.collection, answer.json()["id"])
        return "ok"
    assert world.count(subject.collection) == before
    return Heard().refused(answer, subject)


@contextlib.contextmanager
def _subscribed(world: World, persona: Persona, subject: Subject) -> Iterator[tuple[Live, list[dict[str, Any]]]]:
    with opened(world.server, persona.token) as connection:
        assert connection.receive()["type"] == "welcome"
        connection.send(
            type="subscribe", id="1", resource=subject.collection, filter=json.loads(_by_id(subject)), sort=["id"]
        )
        yield connection, connection.receive_until("ready")


@probe("ws subscribe")
def snapshot(world: World, persona: Persona, subject: Subject) -> str:
    """The snapshot of a subscription."""
    try:
        with _subscribed(world, persona, subject) as (_, frames):
            return Heard([json.dumps(frames)]).outcome(subject)
    except ConnectionClosed as closed:
        return str(closed.rcvd.code if closed.rcvd else None)


@probe("event")
def event(world: World, persona: Persona, subject: Subject) -> str:
    """A change and the deletion, as the socket hears of them: both, or neither."""
    try:
        with _subscribed(world, persona, subject) as (connection, _):
            _touch_and_remove(world, subject)
            connection.send(type="ping", id="end", position=world.position())
            frames = connection.receive_until("pong")[:-1]
    except ConnectionClosed as closed:
        return str(closed.rcvd.code if closed.rcvd else None)
    finally:
        world.restore(subject)
    return _of_events([(frame["op"], frame) for frame in frames], subject)


def _of_events(events: list[tuple[str, dict[str, Any]]], subject: Subject) -> str:
    """The outcome of `update` and `delete`, of which somebody hears both or none."""
    outcome = Heard([json.dumps([content for _, content in events])]).outcome(subject)
    ops = [op for op, _ in events]
    assert ops == ([] if outcome == "empty" else ["update", "delete"]), ops
    return outcome


@probe("ws auth")
def signed_in_later(world: World, persona: Persona, subject: Subject) -> str:
    """A subscription made before signing in, and what it holds afterwards."""
    try:
        with opened(world.server) as connection:
            assert connection.receive()["type"] == "welcome"
            filter = json.loads(_by_id(subject))
            connection.send(type="subscribe", id="1", resource=subject.collection, filter=filter)
            frames = connection.receive_until("ready")
            if (message := persona.auth_message) is not None:
                connection.send(**message)
                connection.receive_until("authenticated")
                connection.send(type="ping", id="end", position=world.position())
                frames += connection.receive_until("pong")
            return Heard([json.dumps(frames)]).outcome(subject)
    except ConnectionClosed as closed:
        return str(closed.rcvd.code if closed.rcvd else None)


@contextlib.contextmanager
def _streaming(
    persona: Persona, subject: Subject, *also: str
) -> Iterator[tuple[httpx.Response, Iterator[tuple[str, str]]]]:
    params = {"filter": json.dumps({"id": {"$in": [subject.id, *also]}})}
    headers = {"Accept": "text/event-stream"}
    with persona.client.stream("GET", f"/{subject.collection}", params=params, headers=headers) as answer:
        yield answer, _events_of(answer)


def _events_of(answer: httpx.Response) -> Iterator[tuple[str, str]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: ") and name != "position":
            yield name, line.removeprefix("data: ")


@probe("GET {c} text/event-stream")
def stream(_: World, persona: Persona, subject: Subject) -> str:
    """The snapshot of an event stream."""
    heard = Heard()
    with _streaming(persona, subject) as (answer, events):
        if answer.status_code != 200:
            answer.read()
            return heard.refused(heard.answer(answer), subject)
        for name, data in events:
            if name == "ready":
                return heard.outcome(subject)
            heard.text.append(data)
    raise AssertionError("the stream ended")


@probe("event over SSE")
def streamed_event(world: World, persona: Persona, subject: Subject) -> str:
    """A change and the deletion in an event stream, up to the next change of something that everybody hears of."""
    beacon = str(world.beacons[subject.collection]["_id"])
    with _streaming(persona, subject, beacon) as (answer, events):
        if answer.status_code != 200:
            answer.read()
            heard = Heard()
            return heard.refused(heard.answer(answer), subject)
        received: list[tuple[str, dict[str, Any]]] = []
        for name, data in events:
            content = json.loads(data)
            if name == "ready":
                _touch_and_remove(world, subject)
                world.signal(subject.collection)
            elif name not in ("snapshot",):
                if content["id"] == beacon:
                    break
                received.append((name, content))
        world.restore(subject)
    return _of_events(received, subject)


def _touch_and_remove(world: World, subject: Subject) -> None:
    world.touch(subject)
    world.remove(subject.collection, subject.id)


def _only(outcomes: set[str]) -> str:
    assert len(outcomes) == 1, f"ways to the same thing that differ: {sorted(outcomes)}"
    return outcomes.pop()
