"""Node, for what a browser does without a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.api.conftest import server_settings

__all__ = ["server_settings"]  # a fixture of tests/api/

ROOT = Path(__file__).parent.parent.parent
TOOLS = ROOT / "tests" / "node"
OLDEST = 20
REQUIRED = "HEADWATER_TEST_NODE_REQUIRED"

Node = Callable[..., str]


@pytest.fixture(scope="session")
def node() -> Node:
    """`node("file.mjs", "--flag", cwd=…, env={…})`: run a program to its end and answer with what it printed.

    Skips where there is no Node, or the tools that `make test` installs for it are missing; in CI that is a failure.
    """
    refuse = pytest.fail if os.environ.get(REQUIRED) else pytest.skip
    program = shutil.which("node")
    if program is None:
        refuse("there is no Node: install nodejs and npm, then `make test`")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    if int(re.findall(r"\d+", version)[0]) < OLDEST:
        refuse(f"Node {version.strip()} is too old: these tests need {OLDEST}")
    if not (TOOLS / "node_modules" / "typescript").is_dir():
        refuse("the test tools for Node are not installed: run `make test`")

    def run(*arguments: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None, seconds: float = 150) -> str:
        done = subprocess.run(  # noqa: S603 - our own programs
            [program, *arguments],
            cwd=cwd,
            env={"PATH": str(Path(program).parent), **(env or {})},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-5_000:]
        return done.stdout

    return run
