"""`X-API-Version`, and another version of one resource beside the first."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from api import Settings
from main import running
from tests.api.servers import ADMIN_EMAIL, PASSWORD, ROOT, SECRET, User
from tests.api.test_errors import places

PATHS = ("/posts", "/posts/65f000000000000000000000", "/users/me", "/auth/login", "/nope")


@pytest.mark.parametrize("version", ["2", "0", "1.0", "v1", "", "1, 1", "latest"])
@pytest.mark.parametrize("path", PATHS)
def test_another_version(anonymous: httpx.Client, path: str, version: str) -> None:
    """Is refused at every address before anything else is looked at."""
    for method in ("GET", "POST"):
        answer = anonymous.request(method, path, headers={"X-API-Version": version})
        assert places(answer, 400, "bad_request") == [["header", "X-API-Version"]]


def test_several_versions(anonymous: httpx.Client) -> None:
    """Are refused although one of them is right."""
    headers = [("X-API-Version", "1"), ("X-API-Version", "2")]
    assert anonymous.get("/posts", headers=headers).status_code == 400


def test_this_version(alice: User, title: str) -> None:
    """Is accepted, with or without the header; and a refusal writes nothing."""
    assert alice.client.get("/posts", headers={"X-API-Version": "1"}).status_code == 200
    refused = alice.client.post("/posts", json={"title": title}, headers={"X-API-Version": "9"})
    assert refused.status_code == 400
    assert alice.client.get("/posts", params={"title": title}).json()["items"] == []
    assert alice.client.post("/posts", json={"title": title}, headers={"X-API-Version": "1"}).status_code == 201


def test_outside_the_api(server: Any) -> None:
    """The header means nothing where there are no versions."""
    assert httpx.get(f"{server.url}/health/live", headers={"X-API-Version": "9"}).status_code == 200


async def test_second_version_of_a_resource(mongodb_url: str, tmp_path: Path) -> None:
    """The router of docs/versions.md serves the same documents, under the same rules, in another form."""
    settings = Settings(
        _env_file=None,
        mongodb_url=SecretStr(mongodb_url),
        database=f"versions_{uuid.uuid4().hex[:12]}",
        data_dir=tmp_path,
        secret_key=SecretStr(SECRET),
        admin_email=ADMIN_EMAIL,
        admin_password=SecretStr(PASSWORD),
    )
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "versions.md").read_text(), re.DOTALL)
    async with running(settings) as services:
        names: dict[str, Any] = {"services": services}
        exec(compile(example, "docs/versions.md", "exec"), names)  # noqa: S102 - our own documentation
        transport = httpx.ASGITransport(app=names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            login = {"username": ADMIN_EMAIL, "password": PASSWORD}
            token = (await client.post("/api/v1/auth/login", json=login)).json()["access_token"]
            author = {"Authorization": f"Bearer {token}"}
            body = {"title": "Gauge", "body": "Low."}
            first = await client.post("/api/v1/posts", json=body, headers=author)
            assert first.status_code == 201, first.text
            url = f"/api/v2/posts/{first.json()['id']}"
            second = await client.get(url, headers=author | {"X-API-Version": "2"})
            assert second.json()["content"] == body
            assert "title" not in second.json()
            assert second.headers["etag"] == first.headers["etag"]
            hidden = await client.get(url)  # a draft, and nobody in particular
            assert places(await client.get(url, headers=author | {"X-API-Version": "1"}), 400, "bad_request")
            assert (await client.get("/api/v2/users/me", headers=author)).status_code == 404
            document = (await client.get("/openapi.json")).json()
    assert (hidden.status_code, hidden.json()["code"]) == (404, "not_found")
    operation = document["paths"]["/api/v2/posts/{id}"]["get"]
    (version,) = [one for one in operation["parameters"] if one["name"] == "X-API-Version"]
    assert version["schema"]["pattern"] == "^2$"
