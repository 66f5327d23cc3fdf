"""Random requests made from the OpenAPI document (schemathesis): no 5xx, and nothing that is not documented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.api.servers import Server

pytestmark = pytest.mark.fuzz

SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
    "missing_required_header",
)


def schemathesis(server: Server, directory: Path, seconds: int, *arguments: str) -> None:
    """Run schemathesis for `seconds`; its report is the message of a failure."""
    # It would register a user of its own accord and sign in, and then nothing would be anonymous.
    (directory / "schemathesis.toml").write_text("[auth]\nauto-signup = false\n")
    done = subprocess.run(  # noqa: S603 - our own test tool
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--max-time", str(seconds), "--no-color", "--continue-on-failure"),
            *("--generation-database", "none", "--warnings", "off", "--request-timeout", "20"),
            *("--suppress-health-check", "all", *arguments),
        ],
        cwd=directory,
        env={name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=seconds * 2 + 120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]
    assert "passed" in done.stdout


@pytest.mark.timeout(SECONDS * 2 + 180)
def test_signed_in(server: Server, tmp_path: Path) -> None:
    """A user's random requests, valid and not, are all answered as documented."""
    user = server.register("fuzzer")  # who may be renamed by them
    schemathesis(server, tmp_path, max(SECONDS * 2 // 3, 5), "--header", f"Authorization: Bearer {user.token}")
    assert user.client.get("/users/me").status_code == 200


@pytest.mark.timeout(SECONDS + 180)
def test_anonymous(server: Server, tmp_path: Path, anonymous: httpx.Client) -> None:
    """So are those of somebody without a token."""
    schemathesis(server, tmp_path, max(SECONDS // 3, 5))
    assert anonymous.get("/posts").status_code == 200
