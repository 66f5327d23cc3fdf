"""The embedded database as a process: started, killed, refused and restarted for real."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from documents import embedded
from documents.data_folder import DataFolder
from documents.embedded import EmbeddedDatabase
from documents.errors import DatabaseRefused
from tests.processes import is_alive

Eventually = Callable[..., Awaitable[None]]
Make = Callable[..., EmbeddedDatabase]

# As much of a Headwater as matters here: starts the database, prints its process id, waits to be killed.
OWNER = """
import asyncio, sys
from pathlib import Path
from documents.embedded import EmbeddedDatabase

async def main():
    server = EmbeddedDatabase(Path(sys.argv[1]), int(sys.argv[2]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
# As on a system whose kernel tells nobody that a parent has died.
OWNER_WITHOUT_SIGNAL = OWNER.replace(
    "async def main",
    "documents.embedded._LAUNCHER = documents.embedded._LAUNCHER.replace('linux', 'none')\n\nasync def main",
).replace("import asyncio, sys", "import asyncio, sys, documents.embedded")


@pytest.fixture
def events() -> list[str]:
    """What the databases of this test reported."""
    return []


@pytest.fixture
async def make(tmp_path: Path, free_port: Callable[[], int], events: list[str]) -> AsyncIterator[Make]:
    """Makes databases, by default on `tmp_path/data` and a free port; stops them afterwards."""
    made: list[EmbeddedDatabase] = []

    def make_one(folder: Path = tmp_path / "data", port: int | None = None) -> EmbeddedDatabase:
        made.append(EmbeddedDatabase(folder, port or free_port(), on_event=events.append))
        return made[-1]

    yield make_one
    for one in made:
        await one.stop()


def insert(url: str, value: int) -> None:
    """Write one document, acknowledged."""
    with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=5000) as client:
        client.test.kept.insert_one({"value": value})


def values(url: str) -> list[int]:
    """All that `insert` wrote."""
    with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=5000) as client:
        return sorted(document["value"] for document in client.test.kept.find())


async def refusal_of(server: EmbeddedDatabase) -> str:
    """The message with which the server refuses to start; one line, and nothing is left running or locked."""
    with pytest.raises(DatabaseRefused) as caught:
        await server.start()
    assert server.pid is None or not is_alive(server.pid)
    message = str(caught.value)
    assert "\n" not in message
    return message


async def test_stop_leaves_no_process_and_a_second_start_finds_the_data(make: Make) -> None:
    """Data written before a clean stop is there after the next start; between the two no process runs."""
    server = make()
    url = await server.start()
    pid = server.pid
    assert pid is not None
    insert(url, 1)
    await server.stop()
    assert server.pid is None
    assert not is_alive(pid)

    assert await server.start() == url
    assert values(url) == [1]
    assert server.pid != pid


async def test_killed_database_is_reported_and_restarted_with_its_data(
    make: Make, events: list[str], eventually: Eventually
) -> None:
    """`kill -9` of the server is reported; a new one comes up on its port with all that was acknowledged."""
    server = make()
    url = await server.start()
    killed = server.pid
    assert killed is not None
    insert(url, 1)
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: len(events) == 2)

    assert f"process {killed}" in events[0]
    assert "SIGKILL" in events[0]
    assert "runs again" in events[1]
    assert server.pid not in {killed, None}
    assert values(url) == [1]


async def test_database_that_cannot_be_restarted_is_tried_again_ever_more_slowly(
    make: Make, events: list[str], eventually: Eventually, free_port: Callable[[], int]
) -> None:
    """While a stranger has the port each attempt is reported, with a longer delay; then it comes back."""
    port = free_port()
    server = make(port=port)
    url = await server.start()
    insert(url, 1)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)  # so that the stranger can have the port before the supervisor does
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: _bind(stranger, port))
        stranger.listen()
        await eventually(lambda: len(events) >= 3)
    await eventually(lambda: "runs again" in events[-1])

    assert "SIGKILL" in events[0]
    assert f"port {port}" in events[1]
    assert "HEADWATER_EMBEDDED_PORT" in events[1]
    assert "trying again in 1 s" in events[1]
    assert "trying again in 2 s" in events[2]
    assert values(url) == [1]


def _bind(listener: socket.socket, port: int) -> bool:
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


async def test_stop_during_the_pause_before_a_restart(make: Make, events: list[str], eventually: Eventually) -> None:
    """A stop that comes while the supervisor waits to restart ends it, and no server comes up afterwards."""
    server = make()
    await server.start()
    killed = server.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: events)
    await server.stop()

    assert len(events) == 1
    assert not is_alive(killed)
    assert DataFolder(server._folder.path).storage_holder() is None


async def test_stop_before_start_and_twice(make: Make) -> None:
    """Stopping what does not run does nothing."""
    server = make()
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()
    assert server.pid is None


async def test_start_that_is_cancelled(make: Make, eventually: Eventually) -> None:
    """A cancelled start leaves no process, and the folder can be used at once."""
    server = make()
    starting = asyncio.create_task(server.start())
    await eventually(lambda: server.pid is not None)
    pid = server.pid
    assert pid is not None
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    await eventually(lambda: not is_alive(pid))
    assert await make(server._folder.path).start()


async def test_stop_that_is_cancelled_kills_the_database(make: Make, eventually: Eventually) -> None:
    """A cancelled stop does not wait for the server's own end; its data is there at the next start."""
    server = make()
    url = await server.start()
    insert(url, 1)
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it cannot end by itself before the cancellation comes
    stopping = asyncio.create_task(server.stop())
    await eventually(lambda: server._stopping.is_set())
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await eventually(lambda: not is_alive(pid))

    assert values(await make(server._folder.path).start()) == [1]


async def test_database_that_does_not_end_when_asked(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ignores SIGTERM is killed after the grace time."""
    monkeypatch.setattr(embedded, "STOP_TIMEOUT", embedded.STOP_TIMEOUT / 20)
    server = make()
    await server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await server.stop()
    assert not is_alive(pid)


async def test_database_ends_with_an_owner_that_is_killed(
    tmp_path: Path, free_port: Callable[[], int], eventually: Eventually
) -> None:
    """After `kill -9` of a Headwater the kernel ends its server, without anybody starting another."""
    owner, pid = await _start_owner(tmp_path / "data", free_port())
    owner.kill()
    await owner.wait()
    await eventually(lambda: not is_alive(pid))


async def test_start_right_after_the_owner_was_killed(
    make: Make, tmp_path: Path, free_port: Callable[[], int], eventually: Eventually
) -> None:
    """The server ends with a Headwater that is killed; the next one starts at once on its folder and port."""
    port = free_port()
    owner, pid = await _start_owner(tmp_path / "data", port)
    insert(f"mongodb://127.0.0.1:{port}/?directConnection=true&retryWrites=false", 1)
    owner.kill()
    await owner.wait()
    # Not waited for: the server may still be closing, holding its lock and port.
    assert values(await make(tmp_path / "data", port).start()) == [1]
    await eventually(lambda: not is_alive(pid))


async def test_database_that_outlived_its_owner(
    make: Make, events: list[str], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """A server that a killed Headwater left on the folder is stopped and reported."""
    port = free_port()
    owner, pid = await _start_owner(tmp_path / "data", port, program=OWNER_WITHOUT_SIGNAL)
    owner.kill()
    await owner.wait()
    assert is_alive(pid)
    server = make(tmp_path / "data", port)
    await server.start()
    assert server.pid != pid
    assert not is_alive(pid)
    assert len(events) == 1
    assert f"process {pid}" in events[0]


async def _start_owner(folder: Path, port: int, *, program: str = OWNER) -> tuple[asyncio.subprocess.Process, int]:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(folder), str(port), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    return owner, int(await owner.stdout.readline())


async def test_terminal_interrupt_reaches_the_owner_only(make: Make) -> None:
    """The server is not in our process group, so a Ctrl-C in the terminal leaves it to us to stop it."""
    server = make()
    await server.start()
    assert server.pid is not None
    assert os.getpgid(server.pid) != os.getpgid(0)
    assert os.getsid(server.pid) != os.getsid(0)


async def test_secrets_of_the_environment_stay_with_the_owner(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """No HEADWATER_ variable is handed to the server."""
    monkeypatch.setenv("HEADWATER_SECRET_KEY", "x" * 32)
    server = make()
    await server.start()
    environ = await asyncio.to_thread(Path(f"/proc/{server.pid}/environ").read_bytes)
    assert b"PATH=" in environ
    assert b"HEADWATER_" not in environ


async def test_port_that_a_stranger_listens_on(make: Make, free_port: Callable[[], int]) -> None:
    """A used port is refused with the setting's name, and the folder is free again."""
    port = free_port()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        server = make(port=port)
        message = await refusal_of(server)
    assert f"port {port}" in message
    assert "HEADWATER_EMBEDDED_PORT" in message
    assert "Headwater's" not in message
    assert await server.start()


async def test_port_of_another_headwater(make: Make, tmp_path: Path, free_port: Callable[[], int]) -> None:
    """The refusal of a port on which another embedded database listens says so."""
    port = free_port()
    await make(tmp_path / "one", port).start()
    message = await refusal_of(make(tmp_path / "two", port))
    assert "another Headwater's database" in message
    assert "HEADWATER_EMBEDDED_PORT" in message


async def test_file_in_the_place_of_the_data_folder(make: Make, tmp_path: Path) -> None:
    """A folder that cannot be made is refused with its path and the setting's name."""
    (tmp_path / "data").write_text("not a folder")
    message = await refusal_of(make())
    assert str(tmp_path / "data") in message
    assert "HEADWATER_DATA_DIR" in message


async def test_folder_in_which_nothing_can_be_written(make: Make, tmp_path: Path) -> None:
    """A folder whose lock file cannot be opened is refused; a folder in its place stops even root."""
    (tmp_path / "data" / "headwater.lock").mkdir(parents=True)
    message = await refusal_of(make())
    assert "cannot be written" in message
    assert "HEADWATER_DATA_DIR" in message


async def test_storage_that_cannot_be_written(make: Make, tmp_path: Path) -> None:
    """A server that ends at once is refused with the last line it printed and the name of its log."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "db").write_text("not a folder")
    message = await refusal_of(make())
    assert "File exists" in message
    assert "database.log" in message


async def test_folder_that_another_headwater_uses(make: Make, tmp_path: Path) -> None:
    """Two on one folder: the second is refused with the first one's process id and does it no harm."""
    first = make()
    url = await first.start()
    message = await refusal_of(make())
    assert str(tmp_path / "data") in message
    assert f"process {os.getpid()}" in message
    assert "HEADWATER_DATA_DIR" in message
    insert(url, 1)
    assert values(url) == [1]


async def test_folder_that_a_foreign_database_uses(make: Make, tmp_path: Path) -> None:
    """A server that was started on the folder by hand is named and left alone."""
    first = make()
    url = await first.start()
    (tmp_path / "by hand").mkdir()
    (tmp_path / "by hand" / "db").symlink_to(tmp_path / "data" / "db")
    message = await refusal_of(make(tmp_path / "by hand"))
    assert f"process {first.pid}" in message
    insert(url, 1)
    assert values(url) == [1]


async def test_lock_files_left_by_a_killed_process(make: Make, tmp_path: Path) -> None:
    """Lock files without a living owner, whatever process id they name, do not stand in the way."""
    server = make()
    url = await server.start()
    insert(url, 1)
    await server.stop()
    assert (tmp_path / "data" / "db" / "WiredTiger.lock").exists()
    for name in ("headwater.lock", "database.pid"):
        (tmp_path / "data" / name).write_text("1\n")
    assert values(await server.start()) == [1]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [("major=", "major=9", "incompatible version"), ("WiredTiger", "garbage", "did not start|damaged")],
)
async def test_data_that_the_installed_version_cannot_read(
    make: Make, tmp_path: Path, old: str, new: str, expected: str
) -> None:
    """Data of another version, or damaged data, is refused with one line and not touched."""
    server = make()
    await server.start()
    await server.stop()
    for name in ("WiredTiger.turtle", "WiredTiger"):
        file = tmp_path / "data" / "db" / name
        file.write_text(file.read_text().replace(old, new))
    shutil.copytree(tmp_path / "data" / "db", tmp_path / "before")
    message = await refusal_of(server)
    assert any(part in message for part in expected.split("|")), message
    assert "database.log" in message
    turtle = tmp_path / "before" / "WiredTiger.turtle"
    assert (tmp_path / "data" / "db" / "WiredTiger.turtle").read_text() == turtle.read_text()


async def test_missing_extra(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the refusal says how to install it."""
    monkeypatch.setitem(sys.modules, "secantus", None)
    message = await refusal_of(make())
    assert "pip install 'headwater[embedded]'" in message


def test_importing_does_not_import_the_server() -> None:
    """The GPL-licensed server is never loaded into our process."""
    code = "import sys, documents.embedded; print([m for m in sys.modules if 'secantus' in m])"
    done = subprocess.run(  # noqa: S603 - our own interpreter and our own text
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
