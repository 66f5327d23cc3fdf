"""Random requests made from the OpenAPI document (schemathesis): no 5xx, and nothing that is not documented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from documents import RESERVED_IDS
from tests.api.conftest import MAX_BODY_BYTES, MAX_UPLOAD_BYTES
from tests.api.servers import Server

pytestmark = pytest.mark.fuzz

SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))
#: The same requests for everybody who runs the suite; others each time in `make fuzz`.
_SEED = () if "FUZZ_SECONDS" in os.environ else ("--seed", "1")
# All checks are on, as they are by default (named on the command line, none could be off for one operation).
# Without `auto-signup = false` it would register a user and sign in, and then nothing would be anonymous.
# To the statuses that valid data may get by default are added 412 for a foreign tag, and 422 for what no JSON Schema
# can say, such as the text of a filter, a common password, or a key that was used before; 405 where there are ids that
# are none; 416 where there are ranges. To those that other data may get: 413, because a body is refused for its size
# before it is read. The hook sees to it that nothing else gets these three. An import refuses bad data line by line, in
# an answer whose status is 200.
CONFIG = """
hooks = "hooks.py"
[auth]
auto-signup = false
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 422, 429, "5xx"]
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 406, 409, 413, 415, 422, 428, 429, "5xx"]
[[operations]]
include-path-regex = '/(posts|comments)/\\{id\\}$'
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 405, 409, 412, 422, 429, "5xx"]
[operations.checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
[[operations]]
include-path-regex = "/content$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 416, 422, 429, "5xx"]
[[operations]]
include-path-regex = "/import$"
[operations.checks]
negative_data_rejection.enabled = false
"""
HOOKS = f"""
import schemathesis

schemathesis.serializer.alias("application/x-ndjson", "text/plain")

@schemathesis.check
def refusals_have_their_cause(ctx, response, case):
    path, request = case.operation.path, response.request
    if response.status_code == 405 and request.method == case.operation.method.upper():
        assert request.url.partition("?")[0].rpartition("/")[2] in {sorted(RESERVED_IDS)}, "405 for an id"
    if response.status_code == 413:
        limit = {MAX_UPLOAD_BYTES} if path.endswith(("/files", "/import")) else {MAX_BODY_BYTES}
        assert len(request.body or b"") > limit, "413 for a body that is not too large"
    if response.status_code == 416:
        assert path.endswith("/content") and "Range" in request.headers, "416 without a range"
"""


def schemathesis(server: Server, directory: Path, seconds: int, *arguments: str) -> str:
    """Run schemathesis for `seconds`; its report, also the message of a failure."""
    (directory / "schemathesis.toml").write_text(CONFIG)
    (directory / "hooks.py").write_text(HOOKS)
    done = subprocess.run(  # noqa: S603 - our own test tool
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--max-time", str(seconds), "--no-color", "--continue-on-failure"),
            *("--generation-database", "none", "--warnings", "off", "--request-timeout", "20"),
            *("--suppress-health-check", "all", *_SEED, *arguments),
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
    return done.stdout


@pytest.mark.timeout(SECONDS * 2 + 180)
def test_signed_in(server: Server, tmp_path: Path) -> None:
    """A user's random requests, valid and not, are all answered as documented."""
    user = server.register("fuzzer")  # who may be renamed by them
    bearer = ("--header", f"Authorization: Bearer {user.token}")
    schemathesis(server, tmp_path, max(SECONDS * 2 // 5, 5), *bearer, "--phases", "examples,coverage,fuzzing")
    assert user.client.get("/users/me").status_code == 200


@pytest.mark.timeout(SECONDS * 2 + 180)
def test_sequences(server: Server, tmp_path: Path) -> None:
    """So are those that use what earlier ones answered: a document is created, read, changed and deleted."""
    user = server.register("sequencer")
    bearer = ("--header", f"Authorization: Bearer {user.token}")
    report = schemathesis(server, tmp_path, max(SECONDS * 2 // 5, 5), *bearer, "--phases", "stateful")
    assert "✅ Stateful" in report, report[-2_000:]


@pytest.mark.timeout(SECONDS + 180)
def test_anonymous(server: Server, tmp_path: Path, anonymous: httpx.Client) -> None:
    """So are those of somebody without a token."""
    schemathesis(server, tmp_path, max(SECONDS // 5, 5))
    assert anonymous.get("/posts").status_code == 200
