"""The OpenAPI 3.1 document, put together."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.callers import API_KEY_HEADER
from api.openapi.answers import RATE_LIMIT, REF, RETRY_AFTER, error_answers, header_parameter
from api.openapi.examples import add_examples
from api.problems import ProblemDetails
from api.versions import HEADER, version_of


def install_openapi(app: FastAPI, models: list[type[BaseModel]], token_url: str) -> None:
    """Serve a document whose components include `models`, which the operations refer to by name.

    `token_url` is where a password is exchanged for a token (OAuth2's password flow).
    """

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                openapi_version="3.1.0",
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            inputs: list[tuple[type[BaseModel], Literal["validation"]]] = [(ProblemDetails, "validation")]
            inputs += [(model, "validation") for model in models]
            _, definitions = models_json_schema(inputs, ref_template=REF)
            components = document.setdefault("components", {})
            components["schemas"] = components.get("schemas", {}) | definitions.get("$defs", {})
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": API_KEY_HEADER},
                "password": {"type": "oauth2", "flows": {"password": {"tokenUrl": token_url, "scopes": {}}}},
            }
            # Anonymous callers see what the rules give them, so a token is an option and not a demand.
            document["security"] = [{}, {"bearer": []}, {"password": []}, {"apiKey": []}]
            _add_version(document["paths"])
            _add_rate_limit(document)
            add_examples(document)
            app.openapi_schema = document
        return app.openapi_schema

    # FastAPI's documented way to change the document.
    app.openapi = build  # type: ignore[method-assign]


def _add_version(paths: dict[str, Any]) -> None:
    """Say of each operation of the API that it takes `X-API-Version`, and refuses another one."""
    for path, methods in paths.items():
        if (version := version_of(path)) is None:
            continue
        parameter = header_parameter(HEADER, "The version that the client was made for. Another one is refused.")
        parameter |= {"schema": {"type": "string", "pattern": f"^{version}$"}, "example": version}
        for item in methods.values():
            item.setdefault("parameters", []).append(parameter)
            item["responses"] |= {str(status): answer for status, answer in error_answers(400).items()}
            if "requestBody" in item:
                item["responses"].setdefault("408", error_answers(408)[408])
            # Of every operation: a query parameter that it does not have.
            item["responses"].setdefault("422", error_answers(422)[422])


def _add_rate_limit(document: dict[str, Any]) -> None:
    """Every operation is counted before it is looked at, so each has this answer and these headers."""
    document["components"]["headers"] = {
        name: {"description": text, "schema": {"type": "integer"}} for name, text in RATE_LIMIT.items()
    }
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in RATE_LIMIT}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].setdefault("429", error_answers(429)[429])
            for status, answer in operation["responses"].items():
                answer["headers"] = answer.get("headers", {}) | headers
                if status == "429":
                    answer["headers"]["Retry-After"] = RETRY_AFTER
