"""The listener itself: what it must hear, and what it must let pass."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.secrecy import SECRECY, Secrecy

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI2YjAy.c2lnbmF0dXJl"  # noqa: S105 - signed by nobody
PASSWORD = "otter-weir-19-moss"  # noqa: S105 - not used outside the tests


def client(body: str | bytes, status: int = 200, **headers: str) -> httpx.Client:
    """A client whose server answers everything like this."""
    answer = httpx.MockTransport(lambda _: httpx.Response(status, content=body, headers=headers))
    return httpx.Client(transport=answer, base_url="http://test/api/v1")


@pytest.fixture
def listener() -> Iterator[Secrecy]:
    """One of its own, while the run's hears nothing."""
    with SECRECY.paused():
        yield Secrecy()


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("POST", "/auth/login", 401, f'{{"detail": "not {PASSWORD}"}}'),
        ("POST", "/auth/login", 200, f'{{"access_token": "{TOKEN}", "echo": "{PASSWORD}"}}'),
        ("GET", "/posts", 200, PASSWORD),
        ("POST", "/posts", 500, hashlib.sha256(PASSWORD.encode()).hexdigest()),
        ("GET", "/users", 200, '{"password_hash": "$argon2id$v=19$m=19456"}'),
    ],
)
def test_answer_that_tells_a_secret(listener: Secrecy, method: str, path: str, status: int, body: str) -> None:
    """A password that was sent comes back, or a hash: the run fails."""
    with listener.listening(), client(body, status) as server:
        server.request(method, path, json={"username": "mara", "password": PASSWORD})
    with pytest.raises(AssertionError, match="secrets got out"):
        listener.check()


def test_secret_in_a_header(listener: Secrecy) -> None:
    """Headers are answers too."""
    with listener.listening(), client("", location=f"/?ticket={TOKEN}") as server:
        server.get("/posts", headers={"Authorization": f"Bearer {TOKEN}"})
    assert [leak.split(":")[0] for leak in listener.leaks] == ["GET /api/v1/posts -> 200 (headers)"]


def test_secret_in_the_pieces_of_a_stream(listener: Secrecy) -> None:
    """Also when it is cut in two."""

    def pieces() -> object:
        yield TOKEN[:9].encode()
        yield TOKEN[9:].encode()

    listener.learn(TOKEN)
    answer = httpx.MockTransport(lambda _: httpx.Response(200, content=pieces()))  # type: ignore[arg-type]
    with listener.listening(), httpx.Client(transport=answer).stream("GET", "http://test/posts") as response:
        assert b"".join(response.iter_bytes()) == TOKEN.encode()
    assert len(listener.leaks) == 1


def test_answers_that_are_meant_to_carry_it(listener: Secrecy) -> None:
    """A sign-in gives its tokens, which are secret from then on."""
    with listener.listening(), client(f'{{"access_token": "{TOKEN}"}}') as server:
        server.post("/auth/login", json={"username": "mara", "password": PASSWORD})
        listener.check()
        server.get("/posts")
    assert len(listener.leaks) == 1


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is gone when the run's own logs are looked through."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_logs(listener: Secrecy, folder: Path) -> None:
    """Known secrets, and tokens that nobody told of, in any log file of the folder."""
    listener.learn(PASSWORD)
    (folder / "a").mkdir()
    (folder / "a" / "server.log").write_text("INFO all is well\n")
    assert listener.hear_logs(folder) == 1
    listener.check()
    (folder / "a" / "database.log.1").write_text(f"WARNING {PASSWORD}\n")
    (folder / "server.log").write_text(f"GET /ws?token={TOKEN}\n")
    assert listener.hear_logs(folder) == 3
    assert sorted(leak.split(":")[0] for leak in listener.leaks) == ["a/database.log.1", "server.log"]


def test_words_that_are_no_secrets(listener: Secrecy) -> None:
    """Short and plain ones, which occur everywhere."""
    listener.learn("nonsense", "aaaaaaaaaaaaaaaaaaaa", None, 7)
    assert listener.known == []
