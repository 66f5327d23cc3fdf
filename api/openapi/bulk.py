"""The operations that write many documents, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

from api.bodies import JSON
from api.openapi.answers import IDEMPOTENCY_KEY, POSITION, REF, error_answers, query_parameter
from api.openapi.operations import Operations
from documents import Forms, ResourceClass

_SOME_ID = "6b02c1e9c1e9111478612819"


class BulkOperations:
    """What FastAPI is told of them for one class."""

    def __init__(self, resource: ResourceClass, forms: Forms, single: Operations) -> None:
        self._name = resource.name
        self._forms = forms
        self._single = single
        self._example = dict(next(iter(resource.declared.examples), {}))

    def _operation(self, verb: str, summary: str, description: str, model: str, **extra: Any) -> dict[str, Any]:
        answer = {
            "description": summary,
            "content": {JSON: {"schema": {"$ref": REF.format(model=model)}}},
            "headers": {"X-Position": POSITION},
        }
        answers: dict[int | str, Any] = {200: answer, **error_answers(400, 401, 403, 406, 409, 422, 503)}
        if "requestBody" in extra:
            answers |= error_answers(413, 415)
        if verb == "bulk":
            answers[207] = answer | {"description": "Some operations were refused; `error` says why."}
        return {
            "operation_id": f"{verb}_{self._name}",
            "summary": summary,
            "description": description,
            "responses": answers,
            "openapi_extra": extra,
            "response_model": None,
        }

    def bulk(self) -> dict[str, Any]:
        """`POST /{name}/bulk`."""
        first = dict(list(self._example.items())[:1])
        example = {
            "operations": [
                {"op": "create", "document": self._example},
                {"op": "update", "id": _SOME_ID, "patch": {"$set": first}},
                {"op": "delete", "id": _SOME_ID},
            ],
            "atomic": False,
        }
        schema = {"$ref": REF.format(model="BulkRequest")}
        return self._operation(
            "bulk",
            f"Write many of {self._name}",
            "Up to 1,000 operations, one after the other, each by the rules of a single request; a later one sees what "
            "an earlier one wrote. With `atomic` they happen all or not at all, in one transaction: the first that is "
            "refused is answered with 422 when its values are at fault, else with 409.",
            "BulkAnswer",
            parameters=[IDEMPOTENCY_KEY],
            requestBody={"required": True, "content": {JSON: {"schema": schema, "example": example}}},
        )

    def update_selected(self) -> dict[str, Any]:
        """`PATCH /{name}?…`."""
        return self._operation(
            "update_matching",
            f"Change all of {self._name} that match a filter",
            "Applies the patch to each document that the caller may read and change and that matches, by the rules of "
            "a single request; at most 10,000. What no longer matches when its turn comes is passed by.",
            "SelectionAnswer",
            parameters=_selecting(),
            requestBody=self._single.patch_body(),
        )

    def delete_selected(self) -> dict[str, Any]:
        """`DELETE /{name}?…`."""
        return self._operation(
            "delete_matching",
            f"Delete all of {self._name} that match a filter",
            "Deletes each document that the caller may read and delete and that matches; at most 10,000.",
            "SelectionAnswer",
            parameters=_selecting(),
        )


def _selecting() -> list[dict[str, Any]]:
    return [
        query_parameter(
            "filter",
            "A filter in MongoDB's form, as JSON, or in the short form (`?status=draft`). `{}` is none.",
            {"type": "string"},
            example=f'{{"id":"{_SOME_ID}"}}',
        ),
        query_parameter("search", "Words that all must occur in the class's searchable fields.", {"type": "string"}),
    ]
