"""The real mongosh, driven as a person at a terminal would: a line in, what it prints out."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent / "node"

#: Set it to fail where mongosh is missing instead of skipping what needs it. `.ci/run` does.
REQUIRED = "HEADWATER_TEST_MONGOSH_REQUIRED"
ANSWER_SECONDS = 120


def mongosh_path() -> str:
    """Where mongosh is: on the PATH, or where `make test` installs it. Skips the test where there is none."""
    installed = TOOLS / "node_modules/.bin/mongosh"
    path = shutil.which("mongosh") or (str(installed) if installed.exists() else None)
    if path is not None:
        return path
    message = "mongosh is not here: put it on the PATH, or install Node.js with npm, with which `make test` gets it"
    if os.environ.get(REQUIRED):
        pytest.fail(message)
    pytest.skip(message)


class Mongosh:
    """One session. Not for several threads."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._numbers = itertools.count()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip())
        self._lines.put(None)

    def stop(self) -> None:
        """Read what is left of a process that has ended."""
        assert self._process.stdout is not None
        self._reader.join(20)
        self._process.stdout.close()

    def run(self, code: str) -> str:
        """Type `code`, which may have several lines; returns what is printed, errors included."""
        assert self._process.stdin is not None
        end = f"=== {next(self._numbers)} ==="
        # On one line: the shell prints a mark for each further one.
        line = " ".join(part.strip() for part in code.splitlines())
        self._process.stdin.write(f"{line}\nprint('{end}')\n")
        self._process.stdin.flush()
        printed = []
        while (answer := self._lines.get(timeout=ANSWER_SECONDS)) != end:
            assert answer is not None, "mongosh has ended"
            printed.append(answer)
        return "\n".join(printed).strip("\n")


@contextlib.contextmanager
def mongosh(url: str, home: Path) -> Iterator[Mongosh]:
    """A session on the database that `url` names, with `home` for mongosh's own. It calls nobody else."""
    settings = home / ".mongodb/mongosh/config"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"enableTelemetry": False, "updateURL": "", "disableLogging": True}))
    process = subprocess.Popen(  # noqa: S603 - found by `mongosh_path`
        [mongosh_path(), "--norc", "--quiet", url],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    session = Mongosh(process)
    try:
        session.run("prompt = ''")
        yield session
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait(20)
            session.stop()


def database_url(url: str, name: str) -> str:
    """`url`, which names a server, with the name of a database."""
    server, _, options = url.partition("?")
    return f"{server.rstrip('/')}/{name}" + (f"?{options}" if options else "")
