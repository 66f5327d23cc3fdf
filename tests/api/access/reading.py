"""Ways to read one document: in lists of every form, by its address, embedded, counted and summed up."""

from __future__ import annotations

import json
from typing import Any

from tests.api.access.surfaces import Heard, by_id, only, probe
from tests.api.access.world import Persona, Subject, World


def _read(persona: Persona, subject: Subject, path: str, accept: str = "application/json", **params: Any) -> str:
    heard = Heard()
    answer = heard.answer(persona.client.get(path, params=params, headers={"Accept": accept}))
    return heard.outcome(subject) if answer.status_code == 200 else heard.refused(answer, subject)


@probe("GET {c}")
def listed(_: World, persona: Persona, subject: Subject) -> str:
    """Found around the corner: by `$nor` and `$or`, which must not widen what the rule narrows."""
    filters: list[dict[str, Any]] = [
        {"$nor": [{"id": {"$ne": subject.id}}]},
        {"$or": [{"id": subject.id}, {"$and": [{"id": subject.id}, {"id": {"$exists": True}}]}]},
    ]
    return only({_read(persona, subject, subject.path, filter=json.dumps(one)) for one in filters})


@probe("GET {c} ?filter")
def filtered(_: World, persona: Persona, subject: Subject) -> str:
    """Found by its id."""
    return _read(persona, subject, subject.path, filter=by_id(subject))


@probe("GET {c} ?fields")
def selected(world: World, persona: Persona, subject: Subject) -> str:
    """With all fields named that the persona may see; to name another one is refused."""
    resource = world.registry[subject.collection]
    visible = {known.public for known in resource.visible(persona.roles).values()}
    path, filter = subject.path, by_id(subject)
    outcome = _read(persona, subject, path, filter=filter, fields=",".join(sorted(visible)))
    for name in {known.public for known in resource.fields.values()} - visible:
        refusal = _read(persona, subject, path, filter=filter, fields=f"id,{name}")
        assert refusal == (outcome if outcome in ("401", "403") else "422")
    return outcome


@probe("GET {c} ?limit")
def limited(_: World, persona: Persona, subject: Subject) -> str:
    """On a page of one."""
    return _read(persona, subject, subject.path, filter=by_id(subject), limit=1)


@probe("GET {c} ?page", "GET {c} ?page_size")
def paged(_: World, persona: Persona, subject: Subject) -> str:
    """On a numbered page, which counts."""
    heard = Heard()
    params = {"filter": by_id(subject), "page": "1", "page_size": "1"}
    answer = heard.answer(persona.client.get(subject.path, params=params))
    if answer.status_code != 200:
        return heard.refused(answer, subject)
    outcome = heard.outcome(subject)
    assert answer.json()["total"] == int(outcome != "empty")
    return outcome


@probe("short filter")
def short_filter(_: World, persona: Persona, subject: Subject) -> str:
    """Found by `id=`, `id[in]=`."""
    return only({_read(persona, subject, subject.path, **{name: subject.id}) for name in ("id", "id[in]")})


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
    params = {"count": "exact", "limit": "1", "filter": by_id(subject)}
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
    params = {"count": "exact", "filter": by_id(subject)}
    answer = persona.client.head(subject.path, params=params)
    assert answer.content == b""
    if answer.status_code != 200:
        return str(answer.status_code)
    full = _read(persona, subject, subject.path, filter=by_id(subject))
    assert answer.headers["x-total-count"] == str(int(full != "empty"))
    return full


@probe("GET {c} application/x-ndjson")
def ndjson(_: World, persona: Persona, subject: Subject) -> str:
    """In a stream of lines."""
    return _read(persona, subject, subject.path, "application/x-ndjson", filter=by_id(subject))


@probe("GET {c} text/csv")
def csv(_: World, persona: Persona, subject: Subject) -> str:
    """In a table."""
    return _read(persona, subject, subject.path, "text/csv", filter=by_id(subject))


@probe("GET {c}/{id}")
def got(_: World, persona: Persona, subject: Subject) -> str:
    """By its address."""
    return _read(persona, subject, f"{subject.path}/{subject.id}")


@probe(*(f"GET {{c}}/{{id}}/content{kind}" for kind in ("", " application/octet-stream", " */*", " ?disposition")))
def content(_: World, persona: Persona, subject: Subject) -> str:
    """The bytes, whose headers name the file."""
    path = f"{subject.path}/{subject.id}/content"
    return only({_read(persona, subject, path, "*/*", disposition=kind) for kind in ("attachment", "inline")})


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
    return _read(persona, subject, subject.path, filter=by_id(subject), expand=expand)


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
    return only(outcomes)


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
    return _distinct(persona, subject, filter=by_id(subject), limit=10)


@probe("GET {c}/distinct/{field} ?search")
def distinct_of_search(_: World, persona: Persona, subject: Subject) -> str:
    """Its values among those of what is found by one of its words."""
    return _distinct(persona, subject, search=subject.search_word)


@probe("GET {c}/distinct/{field} ?count", "HEAD {c}/distinct/{field}")
def distinct_counted(_: World, persona: Persona, subject: Subject) -> str:
    """How many documents have each value; and the head of that."""
    params = {"filter": by_id(subject), "count": "exact"}
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
