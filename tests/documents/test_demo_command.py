"""`python main.py demo` as a process, with a real server next to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.secrecy import SECRECY

MAIN = Path(__file__).parents[2] / "main.py"

Environment = dict[str, str]


@pytest.fixture
def environment(tmp_path: Path, free_port: Callable[[], int]) -> Environment:
    """Settings of a server with an embedded database of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
    return kept | {
        "HEADWATER_PORT": str(free_port()),
        "HEADWATER_EMBEDDED_PORT": str(free_port()),
        "HEADWATER_DATA_DIR": str(tmp_path / "data"),
    }


async def start(environment: Environment, folder: Path, *arguments: str) -> Process:
    """Start `python main.py` with `arguments`."""
    return await asyncio.create_subprocess_exec(
        sys.executable, str(MAIN), *arguments, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE
    )


async def end(process: Process) -> tuple[list[str], list[str], int | None]:
    """Wait for the end of a process: the lines of its output and errors, and its exit code."""
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    for printed in (output, errors):
        SECRECY.hear(printed, "the output of a command", log=True)
    return output.decode().splitlines(), errors.decode().splitlines(), process.returncode


async def line_with(process: Process, text: str) -> str:
    """Wait until the process prints a line that contains `text`."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while line := (await process.stdout.readline()).decode():
            if text in line:
                return line
    raise AssertionError(f"the process ended without printing {text!r}")


def names_in(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
async def server(environment: Environment, tmp_path: Path) -> AsyncIterator[Process]:
    """A server that is ready."""
    process = await start(environment, tmp_path)
    try:
        await line_with(process, "Stop with Ctrl-C")
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        await end(process)


async def test_no_server(environment: Environment, tmp_path: Path) -> None:
    """Without a server the command says in one line what to do, exits with 1 and leaves nothing behind."""
    output, errors, code = await end(await start(environment, tmp_path, "demo"))
    assert output == []
    assert len(errors) == 1
    assert "start the server first: make run" in errors[0]
    assert code == 1
    assert names_in(tmp_path) == []


async def test_database_in_memory(environment: Environment, tmp_path: Path) -> None:
    """A database in the server's memory cannot be reached, which is said in one line."""
    environment["HEADWATER_MONGODB_URL"] = "mongomock://"
    output, errors, code = await end(await start(environment, tmp_path, "demo"))
    assert output == []
    assert len(errors) == 1
    assert "HEADWATER_MONGODB_URL" in errors[0]
    assert code == 1


@pytest.mark.usefixtures("server")
async def test_subscriber_watches_the_demo(environment: Environment, tmp_path: Path) -> None:
    """A subscriber of the server sees the demo create, change and delete; Ctrl-C ends it with one summary."""
    url = f"ws://127.0.0.1:{environment['HEADWATER_PORT']}/api/v1/ws"
    async with websockets.connect(url, subprotocols=[websockets.Subprotocol("headwater.v1")]) as socket:
        for resource in ("posts", "comments"):
            await socket.send(json.dumps({"type": "subscribe", "id": resource, "resource": resource, "filter": {}}))
        demo = await start(environment, tmp_path, "demo", "--rate", "60", "--posts", "8", "--seed", "1")
        ops: set[tuple[str, str]] = set()
        wanted = {(resource, op) for resource in ("posts", "comments") for op in ("create", "update", "delete")}
        async with asyncio.timeout(90):
            while not ops >= wanted:
                frame: dict[str, Any] = json.loads(await socket.recv())
                assert frame["type"] not in ("error", "reset"), frame
                if frame["type"] == "event":
                    ops.add((frame["resource"], frame["op"]))
    demo.send_signal(signal.SIGINT)
    output, errors, code = await end(demo)
    assert errors == []
    assert code == 0
    assert output[0] == "Filled in 8 posts and 24 comments. Changing 60 a second; end with Ctrl-C."
    assert [line.startswith("Ran for ") for line in output[1:]].count(True) == 1
    assert output[-1].startswith("Ran for ")


@pytest.mark.usefixtures("server")
async def test_demo_for_a_time(environment: Environment, tmp_path: Path) -> None:
    """With `--seconds` the command ends by itself; run again, it fills in nothing but what has gone."""
    first = await end(await start(environment, tmp_path, "demo", "--posts", "4", "--seconds", "0.1", "--rate", "20"))
    assert first[1:] == ([], 0)
    assert first[0][0].startswith("Filled in 4 posts and 12 comments.")
    ran = re.match(r"Ran for (\d+\.\d) s: ", first[0][-1])
    assert ran is not None
    assert 0.1 <= float(ran[1]) < 10
    again = await end(await start(environment, tmp_path, "demo", "--posts", "2", "--seconds", "0.1"))
    assert again[1:] == ([], 0)
    assert again[0][0].startswith("Filled in 0 posts and ")
