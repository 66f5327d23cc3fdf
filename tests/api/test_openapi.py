"""The OpenAPI document: valid, complete and true."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.problems import CODES
from documents import Registry, forms_of
from tests.api.servers import Server

WRITES = {"post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    """The document of the shared server."""
    answer = httpx.get(f"{server.url}/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    content: dict[str, Any] = answer.json()
    return content


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each operation."""
    return [(path, method, item) for path, methods in document["paths"].items() for method, item in methods.items()]


def test_document_is_valid(document: dict[str, Any]) -> None:
    """By the specification's own schema, references included."""
    assert document["openapi"].startswith("3.1")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    text = str(document)
    for reference in set(re.findall(r"#/components/schemas/(\w+)", text)):
        assert reference in document["components"]["schemas"]


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    """With a name of its own, a summary, and a success."""
    names = [item["operationId"] for _, _, item in operations(document)]
    assert len(names) == len(set(names))
    for path, method, item in operations(document):
        assert item["summary"], (path, method)
        assert [status for status in item["responses"] if status[0] == "2"], (path, method)


def contents(item: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Media type and description of each body and each successful answer of an operation."""
    successes = [answer for status, answer in item["responses"].items() if status[0] == "2"]
    return [pair for one in (item.get("requestBody", {}), *successes) for pair in one.get("content", {}).items()]


def examples_of(content: dict[str, Any], document: dict[str, Any]) -> list[Any]:
    """The examples that stand at a body, or at the schema that it refers to."""
    if "example" in content:
        return [content["example"]]
    name = content["schema"]["$ref"].rpartition("/")[2]
    found: list[Any] = document["components"]["schemas"][name].get("examples", [])
    return found


def test_every_operation_has_examples(document: dict[str, Any]) -> None:
    """Of its bodies, its successful answers and its path, valid by their schemas; and every parameter is described."""
    for path, method, item in operations(document):
        assert item["description"], (path, method)
        for parameter in item.get("parameters", []):
            assert parameter.get("description") or parameter["in"] == "path", (path, method, parameter["name"])
            assert "example" in parameter or not parameter["required"], (path, method, parameter["name"])
        for media_type, content in contents(item):
            examples = examples_of(content, document)
            assert examples, (path, method, media_type)
            schema = content["schema"] | {"components": document["components"]}
            for example in examples:
                faults = [fault.message for fault in OAS31Validator(schema).iter_errors(example)]
                assert faults == [], (path, method, media_type)


def test_every_operation_documents_its_errors(document: dict[str, Any]) -> None:
    """As problems, and those that its kind can have."""
    for path, method, item in operations(document):
        errors = {int(status): answer for status, answer in item["responses"].items() if int(status) >= 400}
        assert set(errors) <= set(CODES)
        for answer in errors.values():
            assert answer["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}
            }
        assert 503 in errors
        expected = set()
        if "requestBody" in item:
            expected |= {400, 413, 415, 422}
        if "{id}" in path:
            expected |= {404, 422}
        if "{id}" in path and method in WRITES:
            expected |= {401, 403, 412}
        if "/auth/" not in path:
            expected |= {401}
        assert expected <= set(errors), (path, method)


def test_operations_refer_to_real_schemas(document: dict[str, Any]) -> None:
    """Bodies and answers of a class are its own forms."""
    posts, one = document["paths"]["/api/v1/posts"], document["paths"]["/api/v1/posts/{id}"]

    def body(item: dict[str, Any], media_type: str = "application/json") -> str:
        reference: str = item["requestBody"]["content"][media_type]["schema"]["$ref"]
        return reference.rpartition("/")[2]

    def answer(item: dict[str, Any], status: str) -> str:
        reference: str = item["responses"][status]["content"]["application/json"]["schema"]["$ref"]
        return reference.rpartition("/")[2]

    assert (body(posts["post"]), answer(posts["post"], "201")) == ("PostCreate", "PostPublic")
    assert (body(one["put"]), answer(one["put"], "200")) == ("PostCreate", "PostPublic")
    assert body(one["patch"], "application/merge-patch+json") == "PostUpdate"
    assert answer(one["get"], "200") == "PostPublic"
    assert answer(posts["get"], "200") == "PostPage"
    assert "text/event-stream" in posts["get"]["responses"]["200"]["content"]
    assert {"ETag", "X-Position", "Location"} <= set(posts["post"]["responses"]["201"]["headers"])
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_schemas_say_what_the_class_says(document: dict[str, Any]) -> None:
    """Types, limits, descriptions and defaults; no hidden field anywhere."""
    schemas = document["components"]["schemas"]
    title = schemas["PostCreate"]["properties"]["title"]
    assert (title["type"], title["minLength"], title["maxLength"]) == ("string", 1, 200)
    assert title["description"]
    assert schemas["PostCreate"]["required"] == ["title"]
    assert schemas["PostCreate"]["additionalProperties"] is False
    assert {"author_id", "revision", "created_at", "id"}.isdisjoint(schemas["PostCreate"]["properties"])
    assert "password_hash" not in str(document)


def test_examples_are_accepted(document: dict[str, Any]) -> None:
    """Those of the forms are valid values of them."""
    registry = Registry.load(["documents.models"])
    for resource in registry:
        if not resource.declared.generic:
            continue
        forms = forms_of(resource)
        for form in (forms.create, forms.update, forms.public):
            examples = document["components"]["schemas"][form.__name__].get("examples", [])
            assert examples or form is forms.public, form.__name__
            for example in examples:
                form.model_validate(example)
