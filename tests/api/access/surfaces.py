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
    return _only({_read(persona, subject, subject.path, filter=json.dumps(one)) for one in filters})


@probe("GET {c} ?filter")
def filtered(_: World, persona: Persona, subject: Subject) -> str:
    """Found by its id."""
    return _read(persona, subject, subject.path, filter=_by_id(subject))


@probe("GET {c} ?fields")
def selected(world: World, persona: Persona, subject: Subject) -> str:
    """With all fields named that the persona may see; to name another one is refused."""
    resource = world.registry[subject.collection]
    visible = {known.public for known in resource.visible(persona.roles).values()}
    path, filter = subject.path, _by_id(subject)
    outcome = _read(persona, subject, path, filter=filter, fields=",".join(sorted(visible)))
    for name in {known.public for known in resource.fields.values()} - visible:
        refusal = _read(persona, subject, path, filter=filter, fields=f"id,{name}")
        assert refusal == (outcome if outcome in ("401", "403") else "422")
    return outcome


@probe("GET {c} ?limit")
def limited(_: World, persona: Persona, subject: Subject) -> str:
    """On a page of one."""
    return _read(persona, subject, subject.path, filter=_by_id(subject), limit=1)


@probe("GET {c} ?page", "GET {c} ?page_size")
def paged(_: World, persona: Persona, subject: Subject) -> str:
    """On a numbered page, which counts."""
    heard = Heard()
    params = {"filter": _by_id(subject), "page": "1", "page_size": "1"}
    answer = heard.answer(persona.client.get(subject.path, params=params))
    if answer.status_code != 200:
        return heard.refused(answer, subject)
    outcome = heard.outcome(subject)
    assert answer.json()["total"] == int(outcome != "empty")
    return outcome


@probe("short filter")
def short_filter(_: World, persona: Persona, subject: Subject) -> str:
    """Found by `id=`, `id[in]=`."""
    return _only({_read(persona, subject, subject.path, **{name: subject.id}) for name in ("id", "id[in]")})


@probe("GET {c} ?sort", "GET {c} ?cursor")
def walked(_: World, persona: Persona, subject: Subject) -> str:
    """Found by walking the sorted list around it, a document a page."""
    heard = Heard()
    query = {"sort": "-id", "limit": "1", "filter": json.dumps({"id": {"$gte": subject.id}})}
    while True:
        answer = heard.answer(persona.client.get(subject.path, params=query))
        if answer.status_code != 200:
            return heard.refused(answer, subject)
        if not answer.json()["has_next"]:
            return heard.outcome(subject)
        query["cursor"] = answer.json()["next_cursor"]


@probe("GET {c} ?search")
def searched(world: World, persona: Persona, subject: Subject) -> str:
    """Found by one of its words, where the class has fields to search."""
    if not world.registry[subject.collection].declared.search:
        answer = persona.client.get(subject.path, params={"search": subject.search_word})
        assert answer.status_code in (401, 403, 422)
        return filtered(world, persona, subject)
    return _read(persona, subject, subject.path, search=subject.search_word)


@probe("GET {c} ?count")
def counted(world: World, persona: Persona, subject: Subject) -> str:
    """Counted, which is all that one needs to guess a value."""
    heard = Heard()
    params = {"count": "exact", "limit": "1", "filter": _by_id(subject)}
    answer = heard.answer(persona.client.get(subject.path, params=params))
    if answer.status_code != 200:
        return heard.refused(answer, subject)
    total = answer.json()["total"]
    assert answer.headers["x-total-count"] == str(total)
    outcome = heard.outcome(subject)
    assert total == (outcome != "empty")
    # A count by a value of a field that only admins see would tell the value.
    for name, value in world.secret_values(subject).items():
        params["filter"] = json.dumps({name: value})
        answer = persona.client.get(subject.path, params=params)
        assert answer.status_code == (200 if outcome == "ok" else 422)
    return outcome


@probe("HEAD {c}")
def list_head(_: World, persona: Persona, subject: Subject) -> str:
    """The count in the head, without a body."""
    params = {"count": "exact", "filter": _by_id(subject)}
    answer = persona.client.head(subject.path, params=params)
    assert answer.content == b""
    if answer.status_code != 200:
        return str(answer.status_code)
    full = _read(persona, subject, subject.path, filter=_by_id(subject))
    assert answer.headers["x-total-count"] == str(int(full != "empty"))
    return full


@probe("GET {c} application/x-ndjson")
def ndjson(_: World, persona: Persona, subject: Subject) -> str:
    """In a stream of lines."""
    return _read(persona, subject, subject.path, "application/x-ndjson", filter=_by_id(subject))


@probe("GET {c} text/csv")
def csv(_: World, persona: Persona, subject: Subject) -> str:
    """In a table."""
    return _read(persona, subject, subject.path, "text/csv", filter=_by_id(subject))


@probe("GET {c}/{id}")
def got(_: World, persona: Persona, subject: Subject) -> str:
    """By its address."""
    return _read(persona, subject, f"{subject.path}/{subject.id}")


@probe(*(f"GET {{c}}/{{id}}/content{kind}" for kind in ("", " application/octet-stream", " */*", " ?disposition")))
def content(_: World, persona: Persona, subject: Subject) -> str:
    """The bytes, whose headers name the file."""
    path = f"{subject.path}/{subject.id}/content"
    return _only({_read(persona, subject, path, "*/*", disposition=kind) for kind in ("attachment", "inline")})


@probe("HEAD {c}/{id}")
def head(_: World, persona: Persona, subject: Subject) -> str:
    """The head of its address: as GET's, without the content."""
    return _head(persona, subject, f"{subject.path}/{subject.id}")


@probe("HEAD {c}/{id}/content")
def content_head(_: World, persona: Persona, subject: Subject) -> str:
    """The head of the bytes."""
    return _head(persona, subject, f"{subject.path}/{subject.id}/content")


def _head(persona: Persona, subject: Subject, path: str) -> str:
    answer = persona.client.head(path)
    assert answer.content == b""
    assert ("etag" in answer.headers) is (answer.status_code == 200)
    return _read(persona, subject, path) if answer.status_code == 200 else str(answer.status_code)


_REFERENCES = {"posts": "author_id", "comments": "post_id", "api_keys": "user_id", "files": "owner_id"}


@probe("GET {c} ?expand")
def expanded(_: World, persona: Persona, subject: Subject) -> str:
    """With what it refers to embedded; what the reader may not see of that is tried by `embedded`."""
    expand = _REFERENCES[subject.collection]
    return _read(persona, subject, subject.path, filter=_by_id(subject), expand=expand)


@probe("GET {c}/{id} ?expand")
def one_expanded(_: World, persona: Persona, subject: Subject) -> str:
    """The same at its own address."""
    return _read(persona, subject, f"{subject.path}/{subject.id}", expand=_REFERENCES[subject.collection])


@probe("embedded in another")
def embedded(world: World, persona: Persona, subject: Subject) -> str:
    """Through the reference of a comment, in the list and by itself. A hidden post takes its comments along, so the
    comment itself may not be there."""
    comment = str(world.refer_to(subject)["_id"])
    outcomes = {
        _read(persona, subject, "/comments", filter=json.dumps({"id": comment}), expand="post_id"),
        _read(persona, subject, f"/comments/{comment}", expand="post_id.author_id").replace("404", "empty"),
    }
    world.remove("comments", comment)
    return _only(outcomes)


def _distinct(persona: Persona, subject: Subject, **params: Any) -> str:
    heard = Heard()
    for name in {"posts": ("title", "body"), "comments": ("body",)}[subject.collection]:
        answer = heard.answer(persona.client.get(f"{subject.path}/distinct/{name}", params=params))
        if answer.status_code != 200:
            return heard.refused(answer, subject)
    return heard.outcome(subject)


@probe("GET {c}/distinct/{field}", "GET {c}/distinct/{field} ?filter", "GET {c}/distinct/{field} ?limit")
def distinct(_: World, persona: Persona, subject: Subject) -> str:
    """Its values among those that there are."""
    return _distinct(persona, subject, filter=_by_id(subject), limit=10)


@probe("GET {c}/distinct/{field} ?search")
def distinct_of_search(_: World, persona: Persona, subject: Subject) -> str:
    """Its values among those of what is found by one of its words."""
    return _distinct(persona, subject, search=subject.search_word)


@probe("GET {c}/distinct/{field} ?count", "HEAD {c}/distinct/{field}")
def distinct_counted(_: World, persona: Persona, subject: Subject) -> str:
    """How many documents have each value; and the head of that."""
    params = {"filter": _by_id(subject), "count": "exact"}
    outcome = _distinct(persona, subject, **params)
    head = persona.client.head(f"{subject.path}/distinct/body", params=params)
    assert head.content == b""
    assert head.status_code == (200 if outcome in ("ok", "empty") else int(outcome))
    return outcome


@probe(*(f"GET {{c}}/reports/tags{kind}" for kind in ("", " ?most", " ?since", " ?status")), "HEAD {c}/reports/tags")
def reported(_: World, persona: Persona, subject: Subject) -> str:
    """Its tag in the report of tags."""
    params = {"since": "2090-01-01T00:00:00Z", "most": "1000", "status": subject.document["status"]}
    head = persona.client.head(f"{subject.path}/reports/tags", params=params)
    outcome = _read(persona, subject, f"{subject.path}/reports/tags", **params)
    assert head.content == b""
    assert head.status_code == (200 if outcome in ("ok", "empty") else int(outcome))
    return outcome


def _write(world: World, persona: Persona, subject: Subject, method: str, below: str = "", **options: Any) -> str:
    """Try to change the document; says `ok` only if it has changed, and restores it."""
    heard = Heard()
    answer = heard.answer(persona.client.request(method, f"{subject.path}/{subject.id}{below}", **options))
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
    patch = world.patch(subject)
    return _only(
        {_patch(world, persona, subject, kind, patch) for kind in ("application/json", "application/merge-patch+json")}
    )


@probe("PATCH {c}/{id} application/json-patch+json")
def patched(world: World, persona: Persona, subject: Subject) -> str:
    """A JSON Patch."""
    operations = [{"op": "replace", "path": f"/{name}", "value": new} for name, new in world.patch(subject).items()]
    return _patch(world, persona, subject, "application/json-patch+json", operations)


@probe("PATCH {c}/{id} application/vnd.headwater.update+json")
def updated(world: World, persona: Persona, subject: Subject) -> str:
    """Update operators."""
    return _patch(world, persona, subject, "application/vnd.headwater.update+json", {"$set": world.patch(subject)})


def _patch(world: World, persona: Persona, subject: Subject, media_type: str, patch: Any) -> str:
    headers = {"Content-Type": media_type}
    return _write(world, persona, subject, "PATCH", content=json.dumps(patch).encode(), headers=headers)


@probe("DELETE {c}/{id}")
def deleted(world: World, persona: Persona, subject: Subject) -> str:
    """Deleted by its address."""
    return _write(world, persona, subject, "DELETE")


@probe("POST {c}/bulk")
def written_in_bulk(world: World, persona: Persona, subject: Subject) -> str:
    """Changed and deleted by operations, each the only one of its request."""
    outcomes = set()
    for operation in ({"op": "update", "patch": world.patch(subject)}, {"op": "delete"}):
        heard = Heard()
        body = {"operations": [{**operation, "id": subject.id}]}
        answer = heard.answer(persona.client.post(f"{subject.path}/bulk", json=body))
        stored = world.stored(subject)
        if answer.status_code == 200:
            assert stored != subject.document
            world.restore(subject)
            outcomes.add("ok")
        else:
            assert stored == subject.document, "a refused write has changed the document"
            refused = answer.json()["results"][0]["status"] if answer.status_code == 207 else answer.status_code
            outcomes.add(str(refused))
    return _only(outcomes)


def _matching(world: World, persona: Persona, subject: Subject, method: str, **options: Any) -> str:
    """Try to change all that match, which is this document alone."""
    heard = Heard()
    params = {"filter": _by_id(subject), "search": subject.search_word}
    answer = heard.answer(persona.client.request(method, subject.path, params=params, **options))
    stored = world.stored(subject)
    if not answer.is_success or answer.json()["modified"] == 0:
        assert stored == subject.document, "a refused write has changed the document"
        return "empty" if answer.is_success else heard.refused(answer, subject)
    assert stored != subject.document
    world.restore(subject)
    return "ok"


@probe("DELETE {c}", "DELETE {c} ?filter", "DELETE {c} ?search")
def deleted_by_filter(world: World, persona: Persona, subject: Subject) -> str:
    """Deleted among all that match."""
    return _matching(world, persona, subject, "DELETE")


@probe(
    *("PATCH {c} ?filter", "PATCH {c} ?search", "PATCH {c} application/json", "PATCH {c} application/merge-patch+json"),
    *("PATCH {c} application/json-patch+json", "PATCH {c} application/vnd.headwater.update+json"),
)
def changed_by_filter(world: World, persona: Persona, subject: Subject) -> str:
    """Changed among all that match, by each kind of patch."""
    patch = world.patch(subject)
    kinds = {
        "application/json": patch,
        "application/merge-patch+json": patch,
        "application/json-patch+json": [{"op": "replace", "path": f"/{n}", "value": v} for n, v in patch.items()],
        "application/vnd.headwater.update+json": {"$set": patch},
    }
    outcomes = set()
    for kind, content in kinds.items():
        options = {"content": json.dumps(content).encode(), "headers": {"Content-Type": kind}}
        outcomes.add(_matching(world, persona, subject, "PATCH", **options))
    return _only(outcomes)


@probe("POST {c}/{id}/moderate")
def moderated(world: World, persona: Persona, subject: Subject) -> str:
    """Published or hidden by a moderator."""
    outcomes = set()
    for status in ("hidden", "published"):
        form = {"status": status, "reason": "the matrix"}
        outcomes.add(_write(world, persona, subject, "POST", "/moderate", json=form))
    return _only(outcomes)


def _new(world: World, subject: Subject) -> dict[str, Any]:
    body = world.new_body(subject)
    return body | {"status": subject.kind} if "status" in body else body


@probe("POST {c}", "POST {c} ?images_only")
def created(world: World, persona: Persona, subject: Subject) -> str:
    """One of the same kind; it belongs to whoever creates it."""
    if subject.collection == "files":
        return _only({uploaded(world, persona, subject, images_only) for images_only in ("true", "false")})
    before = world.count(subject.collection)
    answer = persona.client.post(subject.path, json=_new(world, subject))
    if answer.status_code == 201:
        content = answer.json()
        assert (content.get("author_id") or content.get("user_id")) == persona.id
        world.remove(subject.collection, content["id"])
        return "ok"
    assert world.count(subject.collection) == before
    return Heard().refused(answer, subject)


def uploaded(world: World, persona: Persona, subject: Subject, images_only: str) -> str:
    """A file, which belongs to whoever uploads it."""
    before = world.count(subject.collection)
    answer = persona.client.post(
        subject.path, params={"images_only": images_only}, files={"files": ("new.png", b"\x89PNG\r\n\x1a\n\0")}
    )
    if answer.status_code == 201:
        (item,) = answer.json()["items"]
        assert item["owner_id"] == persona.id
        world.remove(subject.collection, item["id"])
        return "ok"
    assert world.count(subject.collection) == before
    return Heard().refused(answer, subject)


@probe("POST {c}/import", "POST {c}/import application/x-ndjson")
def imported(world: World, persona: Persona, subject: Subject) -> str:
    """A line of an import, by the rules of a single create."""
    before = world.count(subject.collection)
    headers = {"Content-Type": "application/x-ndjson"}
    line = json.dumps(_new(world, subject)).encode() + b"\n"
    answer = persona.client.post(f"{subject.path}/import", content=line, headers=headers)
    if answer.status_code != 200:
        assert world.count(subject.collection) == before
        return Heard().refused(answer, subject)
    result = answer.json()
    if result["status"] == 201:
        world.remove(subject.collection, result["id"])
        return "ok"
    assert world.count(subject.collection) == before
    return str(result["status"])


@contextlib.contextmanager
def _subscribed(world: World, persona: Persona, subject: Subject) -> Iterator[tuple[Live, list[dict[str, Any]]]]:
    with opened(world.server, persona.token, key=persona.key) as connection:
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
    with persona.client.stream("GET", subject.path, params=params, headers=headers) as answer:
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
