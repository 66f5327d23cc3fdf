"""`python main.py admin create` next to a running server."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from tests.api.servers import PASSWORD, ROOT, SECRET, Server, environment
from tests.secrecy import SECRECY

Mongo = Database[dict[str, Any]]
MISTYPED = "heron-ford-43"


@pytest.fixture
def settings(shared: tuple[Server, str], mongodb_url: str) -> dict[str, str]:
    """The environment of a command for the shared server's database."""
    found = {"MONGODB_URL": mongodb_url, "DATABASE": shared[1], "SECRET_KEY": SECRET}
    return environment({f"HEADWATER_{name}": value for name, value in found.items()})


def names() -> tuple[str, str]:
    """A username and an address that nobody has."""
    name = f"admin{uuid.uuid4().hex[:10]}"
    return name, f"{name}@example.org"


def create(settings: dict[str, str], folder: Path, username: str, email: str, password: str) -> tuple[int, str]:
    """Run the command with the password on its standard input: its exit code, and what it printed."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(ROOT / "main.py"), *command(username, email), "--password-stdin"],
        cwd=folder,
        env=settings,
        input=f"{password}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    SECRECY.hear(done.stdout + done.stderr, "admin create", log=True)
    return done.returncode, done.stdout + done.stderr


def command(username: str, email: str) -> list[str]:
    """The command's arguments."""
    return ["admin", "create", "--username", username, "--email", email]


def test_creating_an_admin(settings: dict[str, str], tmp_path: Path, server: Server, mongo: Mongo) -> None:
    """Who can sign in at once, and is an admin; the audit knows how; nothing is left behind."""
    username, email = names()
    assert create(settings, tmp_path, username, email, PASSWORD) == (0, f"{username} is an admin.\n")
    admin = server.client(server.login(email))
    assert admin.get("/users/me").json()["roles"] == ["user", "admin"]
    stored = mongo["users"].find_one({"username": username})
    assert stored is not None
    assert mongo["headwater_audit"].count_documents({"event": "admin_created", "user_id": stored["_id"]}) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_accepted(settings: dict[str, str], tmp_path: Path, server: Server, mongo: Mongo) -> None:
    """One line for each fault, which does not repeat the password; exit code 1; nobody is created."""
    username, email = names()
    taken = server.register(names()[0]).username
    for arguments, expected in {
        (username, email, "Password123"): ["password: this is one of the commonest passwords"],
        (username, email, username.upper()): ["password: a password must not be the name"],
        (username, email, ""): ["password: String should have at least 8 characters"],
        (taken.upper(), email, PASSWORD): ["there is another user with the same username"],
        (username, f"{taken}@EXAMPLE.org", PASSWORD): ["there is another user with the same email"],
        ("a b", "nobody", "x" * 129): ["username:", "email:", "password:"],
    }.items():
        code, printed = create(settings, tmp_path, *arguments)
        assert code == 1, printed
        lines = printed.splitlines()
        assert len(lines) == len(expected), printed
        for line, start in zip(lines, expected, strict=True):
            assert line.startswith(f"headwater: {start}")
    assert mongo["users"].find_one({"$or": [{"username": username}, {"email": email}]}) is None


def test_no_server(settings: dict[str, str], tmp_path: Path) -> None:
    """One line says so."""
    settings["HEADWATER_MONGODB_URL"] = "embedded"
    settings["HEADWATER_EMBEDDED_PORT"] = "1"
    code, printed = create(settings, tmp_path, *names(), PASSWORD)
    assert code == 1
    assert printed.startswith("headwater: start the server first")
    assert printed.count("\n") == 1


def test_prompt(settings: dict[str, str], tmp_path: Path, server: Server) -> None:
    """Asks twice, shows nothing that is typed, and asks again when the two differ."""
    username, email = names()
    terminal, other = pty.openpty()
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, str(ROOT / "main.py"), *command(username, email)],
        cwd=tmp_path,
        env=settings,
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
    ) as process:
        os.close(other)
        shown = ""
        for typed in (PASSWORD, MISTYPED, PASSWORD, PASSWORD):
            asked = shown.count(": ")
            while shown.count(": ") == asked or not shown.endswith(": "):
                shown += os.read(terminal, 1_000).decode()
            os.write(terminal, f"{typed}\n".encode())
        assert process.wait(60) == 0
        shown += os.read(terminal, 1_000).decode()
    os.close(terminal)
    assert f"{username} is an admin." in shown
    assert PASSWORD not in shown
    assert MISTYPED not in shown
    server.login(username)
