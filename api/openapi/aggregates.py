"""Distinct values and reports, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from api.bodies import JSON
from api.openapi.answers import POSITION, REF, error_answers, query_parameter
from documents import MAX_VALUES, Report, ResourceClass


class DistinctValue(BaseModel):
    """One value of a field."""

    value: Any = Field(description="The value, in the field's JSON form.")
    count: int | None = Field(None, description="How many documents have it, with `count=exact`.")


class DistinctValues(BaseModel):
    """The values of a field in MongoDB's order."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"value": "river", "count": 3}], "more": False}]}
    )

    items: list[DistinctValue]
    more: bool = Field(description="Whether there are more values than the answer holds.")


def aggregate_models(resource: ResourceClass) -> list[type[BaseModel]]:
    """The models that the operations of one class refer to."""
    models: list[type[BaseModel]] = [DistinctValues]
    for name, report in resource.declared.reports.items():
        models += [_answer_model(resource, name, report), *([report.parameters] if report.parameters else [])]
    return models


def distinct_operation(resource: ResourceClass) -> dict[str, Any]:
    """`GET /{name}/distinct/{field}`."""
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_VALUES, "default": MAX_VALUES}
    parameters = [
        query_parameter("filter", "A filter in MongoDB's form, as JSON.", {"type": "string"}, example="{}"),
        query_parameter("search", "Words that all must occur in the class's searchable fields.", {"type": "string"}),
        query_parameter("limit", "How many values at most.", limit),
        query_parameter(
            "count",
            "`exact` counts the documents that have each value.",
            {"type": "string", "enum": ["none", "exact"], "default": "none"},
        ),
    ]
    return _operation(
        f"distinct_{resource.name}",
        f"List the distinct values of a field of {resource.name}",
        "Over the documents that the caller may read and that match the filter, which may be given in short forms too. "
        "Lists are taken apart; absent values are none.",
        "DistinctValues",
        parameters,
        error_answers(401, 406, 422, 503),
    )


def report_operation(resource: ResourceClass, name: str, report: Report) -> dict[str, Any]:
    """`GET /{name}/reports/{report}`."""
    parameters = []
    if report.parameters is not None:
        schema = report.parameters.model_json_schema(ref_template=REF)
        for parameter, described in schema.get("properties", {}).items():
            description = described.pop("description", parameter)
            required = parameter in schema.get("required", ())
            parameters.append(query_parameter(parameter, description, described) | {"required": required})
    return _operation(
        f"report_{name}_{resource.name}",
        f"Report {name} of {resource.name}",
        report.description,
        _answer_model(resource, name, report).__name__,
        parameters,
        error_answers(401, 406, 422, 503),
    )


def _operation(
    name: str,
    summary: str,
    description: str,
    model: str,
    parameters: list[dict[str, Any]],
    errors: dict[int | str, dict[str, Any]],
) -> dict[str, Any]:
    success = {
        "description": "The rows in order; `more` when the answer's bounds cut them.",
        "content": {JSON: {"schema": {"$ref": REF.format(model=model)}}},
        "headers": {"X-Position": POSITION},
    }
    return {
        "operation_id": name,
        "summary": summary,
        "description": description,
        "responses": {200: success, **errors},
        "openapi_extra": {"parameters": parameters},
        "response_model": None,
    }


def _answer_model(resource: ResourceClass, name: str, report: Report) -> type[BaseModel]:
    row: Any = report.output or dict[str, Any]
    return create_model(
        f"{resource.label}{name.title().replace('_', '')}Report",
        __doc__=report.description,
        items=(list[row], Field(description="The rows, in order.")),
        more=(bool, Field(description="Whether there are more rows than the answer holds.")),
    )
