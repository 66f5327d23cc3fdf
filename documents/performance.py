"""Performing a class's actions on its documents."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import ValidationError

from documents.access import Principal
from documents.actions import Action, ActionForm, Performed
from documents.codec import Stored
from documents.errors import DocumentRefused, Forbidden
from documents.filters import NOTHING
from documents.input import faults_from, refuse_unstorable, to_python
from documents.preconditions import NO_PRECONDITIONS, Preconditions
from documents.resources import ResourceClass
from documents.store import Found, Store


async def perform(
    store: Store,
    resource: ResourceClass,
    action: Action,
    id_text: str,
    principal: Principal,
    body: Any,
    preconditions: Preconditions = NO_PRECONDITIONS,
) -> tuple[Found, Performed]:
    """Do `action` to one document; `body` is the form as decoded JSON.

    Raises NotFound, Forbidden, Stale, DocumentRefused, Duplicate, Contended.
    """
    if resource.rule(action.name, principal)[0] == NOTHING:
        # Whatever the document is, if it is there for them; so the body's faults are not this caller's concern.
        await store.get(resource, id_text, principal)
        raise Forbidden(f"you may not do this to a document of {resource.name}")
    form = _form_of(action, body)
    done: list[Performed] = []

    def changed(stored: Stored) -> dict[str, Any]:
        changes = dict(action.changes(stored, form))
        # Only the last call led to a write.
        done[:] = [Performed(form, stored, stored | changes)]
        return to_python(stored) | changes

    found = await store.act(resource, action.name, id_text, principal, changed, preconditions)
    return found, done[0]


def _form_of(action: Action, body: Any) -> ActionForm:
    if not isinstance(body, dict):
        raise DocumentRefused.at("body", msg="a JSON object is expected", type="object_type")
    refuse_unstorable(body)
    try:
        return action.form.model_validate_json(orjson.dumps(body), strict=True)
    except ValidationError as error:
        raise DocumentRefused(faults_from(error, ("body",))) from None
