"""Ways to change one document: by its address, by a filter, in bulk; and to create one of its kind."""

from __future__ import annotations

import json
from typing import Any

from tests.api.access.surfaces import Heard, by_id, only, probe
from tests.api.access.world import Persona, Subject, World


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
    return only(
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


def _write_matching(world: World, persona: Persona, subject: Subject, method: str, **options: Any) -> str:
    """Try to change what a filter finds; `empty` where it finds nothing that the persona may change."""
    heard = Heard()
    answer = heard.answer(persona.client.request(method, subject.path, **options))
    stored = world.stored(subject)
    if answer.status_code != 200:
        assert stored == subject.document, "a refused write has changed the document"
        return heard.refused(answer, subject)
    assert heard.outcome(subject) == "empty", "the answer shows the document"
    content = answer.json()
    changed = stored != subject.document
    assert (content["matched"], content["modified"], content["failed"]) == (changed, changed, [])
    world.restore(subject)
    return "ok" if changed else "empty"


@probe("PATCH {c} ?filter", "PATCH {c} application/json", "PATCH {c} application/merge-patch+json")
def merged_matching(world: World, persona: Persona, subject: Subject) -> str:
    """A merge patch of what has the document's id."""
    return only(
        {
            _write_matching(
                world,
                persona,
                subject,
                "PATCH",
                params={"filter": by_id(subject)},
                content=json.dumps(world.patch(subject)).encode(),
                headers={"Content-Type": kind},
            )
            for kind in ("application/json", "application/merge-patch+json")
        }
    )


@probe("PATCH {c} application/json-patch+json", "PATCH {c} ?search")
def patched_matching(world: World, persona: Persona, subject: Subject) -> str:
    """A JSON Patch of what is found by one of its words."""
    operations = [{"op": "replace", "path": f"/{name}", "value": new} for name, new in world.patch(subject).items()]
    headers = {"Content-Type": "application/json-patch+json"}
    params, content = {"search": subject.search_word}, json.dumps(operations).encode()
    return _write_matching(world, persona, subject, "PATCH", params=params, content=content, headers=headers)


@probe("PATCH {c} application/vnd.headwater.update+json")
def updated_matching(world: World, persona: Persona, subject: Subject) -> str:
    """Update operators on what has the document's id."""
    headers = {"Content-Type": "application/vnd.headwater.update+json"}
    params, content = {"filter": by_id(subject)}, json.dumps({"$set": world.patch(subject)}).encode()
    return _write_matching(world, persona, subject, "PATCH", params=params, content=content, headers=headers)


@probe("DELETE {c}", "DELETE {c} ?filter")
def deleted_matching(world: World, persona: Persona, subject: Subject) -> str:
    """Deleted by its id as a filter."""
    return _write_matching(world, persona, subject, "DELETE", params={"filter": by_id(subject)})


@probe("DELETE {c} ?search")
def deleted_by_search(world: World, persona: Persona, subject: Subject) -> str:
    """Deleted by one of its words."""
    return _write_matching(world, persona, subject, "DELETE", params={"search": subject.search_word})


@probe("POST {c}/bulk")
def in_bulk(world: World, persona: Persona, subject: Subject) -> str:
    """Each kind of operation on the document, by itself and in a transaction."""
    operations: list[dict[str, Any]] = [
        {"op": "update", "id": subject.id, "patch": world.patch(subject)},
        {"op": "replace", "id": subject.id, "document": world.new_body(subject)},
        {"op": "delete", "id": subject.id},
    ]
    outcome = only({_in_bulk(world, persona, subject, one, atomic=False) for one in operations})
    # As a whole it is refused with 409, whatever the operation's own reason.
    atomic = {_in_bulk(world, persona, subject, one, atomic=True) for one in operations}
    assert atomic <= ({"ok"} if outcome == "ok" else {outcome, "409"})
    return outcome


def _in_bulk(world: World, persona: Persona, subject: Subject, operation: dict[str, Any], *, atomic: bool) -> str:
    body = {"operations": [operation], "atomic": atomic}
    heard = Heard()
    answer = heard.answer(persona.client.post(f"{subject.path}/bulk", json=body))
    stored = world.stored(subject)
    result = answer.json()["results"][0] if answer.status_code in (200, 207) else answer.json()
    if result["status"] < 300:
        assert stored != subject.document
        world.restore(subject)
        return "ok"
    assert stored == subject.document, "a refused write has changed the document"
    assert heard.outcome(subject) == "empty", "the refusal shows the document"
    return str(result["status"])


@probe("DELETE {c}/{id}")
def deleted(world: World, persona: Persona, subject: Subject) -> str:
    """Deleted by its address."""
    return _write(world, persona, subject, "DELETE")


@probe("POST {c}/{id}/moderate")
def moderated(world: World, persona: Persona, subject: Subject) -> str:
    """Published or hidden by a moderator."""
    outcomes = set()
    # What it is already is no change.
    for status in {"hidden", "published"} - {subject.document["status"]}:
        form = {"status": status, "reason": "the matrix"}
        outcomes.add(_write(world, persona, subject, "POST", "/moderate", json=form))
    return only(outcomes)


def _new(world: World, subject: Subject) -> dict[str, Any]:
    body = world.new_body(subject)
    return body | {"status": subject.kind} if "status" in body else body


@probe("POST {c}", "POST {c} ?images_only")
def created(world: World, persona: Persona, subject: Subject) -> str:
    """One of the same kind; it belongs to whoever creates it."""
    if subject.collection == "files":
        return only({_uploaded(world, persona, subject, images_only) for images_only in ("true", "false")})
    before = world.count(subject.collection)
    answer = persona.client.post(subject.path, json=_new(world, subject))
    if answer.status_code == 201:
        content = answer.json()
        assert (content.get("author_id") or content.get("user_id")) == persona.id
        world.remove(subject.collection, content["id"])
        return "ok"
    assert world.count(subject.collection) == before
    return Heard().refused(answer, subject)


def _uploaded(world: World, persona: Persona, subject: Subject, images_only: str) -> str:
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
