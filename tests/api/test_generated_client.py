"""A typed client, generated from the OpenAPI document by a common generator, calls the server."""

from __future__ import annotations

import compileall
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.servers import PASSWORD, Server, User


@pytest.fixture
def generated(server: Server, tmp_path: Path) -> Iterator[str]:
    """What the generator prints; the package is importable as `generated_client`."""
    document = tmp_path / "openapi.json"
    document.write_text(httpx.get(f"{server.url}/openapi.json").text)
    done = subprocess.run(  # noqa: S603 - our own test tool
        [
            *(sys.executable, "-m", "openapi_python_client", "generate", "--path", str(document)),
            *("--meta", "none", "--output-path", str(tmp_path / "generated_client")),
        ],
        cwd=tmp_path,
        # The generator formats what it has written with the ruff beside it.
        env={"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(tmp_path))
    yield done.stdout + done.stderr
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("generated_client")]:
        del sys.modules[name]


def load(name: str) -> Any:
    """A module of the client."""
    return importlib.import_module(f"generated_client.{name}")


def test_generated_client(generated: str, server: Server, alice: User, title: str, tmp_path: Path) -> None:
    """It has all operations but the streams of lines, compiles, and speaks with the server in its own types."""
    left_out = {line.split()[3] for line in generated.splitlines() if line.startswith("WARNING parsing")}
    document = json.loads((tmp_path / "openapi.json").read_text())
    assert left_out == {path for path in document["paths"] if path.endswith("/import")}, generated
    assert compileall.compile_dir(tmp_path / "generated_client", quiet=1)
    client, models = load("client"), load("models")
    with client.Client(base_url=server.url) as anonymous:
        login = models.Login(username=alice.username, password=PASSWORD)
        tokens = load("api.accounts.login").sync(client=anonymous, body=login)
    server.secrets += [tokens.access_token, tokens.refresh_token]
    with client.AuthenticatedClient(base_url=server.url, token=tokens.access_token) as signed_in:
        body = models.PostCreate(title=title, tags=["river"])
        created = load("api.post.create_posts").sync(client=signed_in, body=body, idempotency_key=title[6:])
        assert isinstance(created, models.PostPublic)
        page = load("api.post.list_posts").sync(client=signed_in, filter_=json.dumps({"title": title}))
        assert [item.id for item in page.items] == [created.id]
        assert page.items[0].created_at == created.created_at
        refused = load("api.post.get_posts").sync_detailed(client=signed_in, id="0")
        assert (refused.status_code, refused.parsed.code) == (422, "invalid")
        assert load("api.post.delete_posts").sync_detailed(client=signed_in, id=created.id).status_code == 204
