"""`POST /{name}/import`: a document per line in, a result per line out."""

from __future__ import annotations

import json
import socket
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo.database import Database
from starlette.types import Message

from api.imports import _Body
from api.problems import Problem
from tests.api.servers import Server, User, wait_until
from tests.api.test_errors import KEYS, problem, raw

NDJSON = {"Content-Type": "application/x-ndjson"}


def send(client: httpx.Client, content: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    """Import `content` into posts."""
    return client.post("/posts/import", content=content, headers=NDJSON | headers)


def results(answer: httpx.Response) -> list[dict[str, Any]]:
    """The result lines."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def lines(*documents: Any) -> bytes:
    """NDJSON."""
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def test_anonymous(anonymous: httpx.Client) -> None:
    """Who may create nothing is told so before any line is read."""
    problem(send(anonymous, lines({"title": "x"})), 401, "unauthorized")


def test_file_that_is_none(alice: User) -> None:
    """Many short lines, each with many faults, get many bounded results, and not a hundred times as many bytes."""
    faulty = lines({str(number): 0 for number in range(40)})
    first, *_ = results(send(alice.client, faulty))
    assert len(first["error"]["errors"]) == 10
    count = 6_000
    found = results(send(alice.client, b"{}\n" * count))
    assert [result["line"] for result in found] == list(range(1, count + 1))
    assert {(result["status"], result["error"]["code"]) for result in found} == {(422, "invalid")}
    told = [result["error"] for result in found if set(result["error"]) != {"code"}]
    assert sum(len(json.dumps(error, separators=(",", ":"))) for error in told) < 1024 * 1024 + 1_000
    assert told == [result["error"] for result in found[: len(told)]]
    assert all(error["errors"][0]["loc"] == ["body", "title"] for error in told)
    assert len(told) < count


def test_other_media_type(alice: User) -> None:
    """The body must say what it is, and the client must take what comes back."""
    answer = alice.client.post("/posts/import", json=[{"title": "x"}])
    problem(answer, 415, "unsupported_media_type")
    assert answer.headers["accept"] == "application/x-ndjson"
    problem(send(alice.client, b"", Accept="application/json"), 406, "not_acceptable")


def test_lines(alice: User, bob: User, title: str) -> None:
    """Each is created or refused by itself, in order, by the rules of a single create; blank ones are skipped."""
    content = (
        lines({"title": title, "status": "published"})
        + b"\n   \r\n"
        + b'{"title": \n'
        + b'{"title": "\xff"}\n'
        + lines({"title": ""}, {"title": title, "author_id": bob.id}, [1])
        + b'{"title": "'
        + b"x" * 70_000
        + b'"}\n'
        + lines({"title": title, "slug": f"s-{title[6:]}"}, {"title": title, "slug": f"s-{title[6:]}"}).rstrip()
    )
    found = results(send(alice.client, content))
    assert [(result["line"], result["status"]) for result in found] == [
        *[(1, 201), (4, 400), (5, 400), (6, 422), (7, 422), (8, 422), (9, 413), (10, 201), (11, 409)]
    ]
    for result in found:
        if result["status"] == 201:
            assert set(result) == {"line", "status", "id"}
            assert alice.client.get(f"/posts/{result['id']}").json()["author_id"] == alice.id
        else:
            assert set(result["error"]) - {"errors"} == KEYS
            assert result["error"]["status"] == result["status"]
    places = [result["error"]["errors"][0]["loc"] for result in found if result["status"] in (400, 422, 409)]
    assert places == [
        *[["body", 1, 11], ["body", 11], ["body", "title"], ["body", "author_id"], ["body"], ["body", "slug"]]
    ]
    assert bob.client.get(f"/posts/{found[0]['id']}").json()["revision"] == 1


def test_lines_in_pieces(alice: User, title: str) -> None:
    """How the body is cut on its way means nothing."""
    content = lines({"title": title}, {"title": ""}, {"title": title + "é"})
    found = results(send(alice.client, (content[i : i + 1] for i in range(len(content)))))
    assert [result["status"] for result in found] == [201, 422, 201]


def test_nothing(alice: User) -> None:
    """No lines, no results."""
    for content in (b"", b"\n\n"):
        assert results(send(alice.client, content)) == []


class Importing:
    """An import whose body is sent piece by piece."""

    def __init__(self, server: Server, token: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self.answer = b""
        self.socket.sendall(
            b"POST /api/v1/posts/import HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/x-ndjson\r\nExpect: 100-continue\r\n"
            + f"Authorization: Bearer {token}\r\n\r\n".encode()
        )

    def __enter__(self) -> Importing:
        self.receive_until(b"HTTP/1.1 100 Continue")
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, document: Any) -> None:
        """Send one line."""
        line = lines(document)
        self.socket.sendall(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def receive_until(self, expected: bytes) -> None:
        """Read until the answer contains this."""
        while expected not in self.answer:
            part = self.socket.recv(65_536)
            assert part, self.answer
            self.answer += part

    def reset(self) -> None:
        """Vanish without a word."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def test_results_while_sending(server: Server, alice: User, title: str) -> None:
    """The result of a line comes before the next one is sent."""
    with Importing(server, alice.token) as importing:
        for number in range(1, 4):
            importing.send({"title": title})
            importing.receive_until(f'"line":{number},'.encode())
        importing.socket.sendall(b"0\r\n\r\n")
        importing.receive_until(b"\r\n0\r\n\r\n")


def test_client_that_leaves(server: Server, alice: User, title: str) -> None:
    """What had not arrived by then is not created, and the server goes on."""
    with Importing(server, alice.token) as importing:
        for _ in range(40):
            importing.send({"title": title, "body": "x" * 30_000})
        importing.receive_until(b'"line":1,')
        importing.reset()
    wait_until(lambda: "import into posts: the client left" in server.log)
    created = alice.client.get("/posts", params={"title": title, "count": "exact", "limit": 1}).json()["total"]
    assert 1 <= created < 40


def test_session_that_ends(server: Server, title: str) -> None:
    """Ends the import, with a last result that tells."""
    username = f"u{uuid.uuid4().hex[:12]}"
    user, tokens = server.register(username), server.sign_in(username)
    with Importing(server, tokens["access_token"]) as importing:
        importing.send({"title": title})
        importing.receive_until(b'"status":201')
        answer = user.client.post("/auth/logout", json={"refresh_token": tokens["refresh_token"]})
        assert answer.status_code == 204
        number = 1
        while b'"status":401' not in importing.answer:
            importing.send({"title": ""})
            number += 1
            importing.receive_until(f'"line":{number},'.encode())
        importing.receive_until(b"\r\n0\r\n\r\n")
    assert f'"line":{number},"status":401'.encode() in importing.answer


def resident_bytes(process_id: int) -> int:
    """The memory that a process uses."""
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * 4_096


def test_large_body(server: Server, alice: User) -> None:
    """Passes through without being held."""
    line = lines({"title": "", "body": "x" * 60_000})
    assert len(results(send(alice.client, line))) == 1
    before = resident_bytes(server.process.pid)
    found = results(send(alice.client, (line for _ in range(500))))
    assert [result["status"] for result in found] == [422] * 500
    assert resident_bytes(server.process.pid) - before < 15_000_000 < 500 * len(line)


async def test_body_that_never_begins() -> None:
    """Is refused before anything is answered."""

    async def receive() -> Message:
        raise Problem(408, "No more of the body has come.")

    body = _Body(receive, 1_000, 1_000)
    with pytest.raises(Problem) as refused:
        await body.begin()
    assert refused.value.status == 408
    await body.close()


def test_body_that_is_too_large(server: Server, alice: User) -> None:
    """One that says so is refused unread; another one ends where the limit is, with a result that tells."""
    head = (
        f"POST /api/v1/posts/import HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.token}\r\n"
        "Content-Type: application/x-ndjson\r\nContent-Length: 104857601\r\n\r\n"
    )
    assert raw(server, head.encode()).startswith(b"HTTP/1.1 413 ")
    found = results(send(alice.client, (b"x" * 1_048_576 for _ in range(101))))
    assert [(result["line"], result["status"]) for result in found] == [(1, 413), (1, 413)]
    assert "ends here" in found[-1]["error"]["detail"]


def test_repeated_import(alice: User, title: str, mongo: Database[dict[str, Any]]) -> None:
    """With a key, what was created is found again, and what is missing is created."""
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = [{"title": title, "slug": f"a-{title[6:]}"}, {"title": title, "tags": ["x"]}, {"title": ""}]
    begun = results(send(alice.client, lines(*first), **key))
    assert [result["status"] for result in begun] == [201, 201, 422]
    again = results(send(alice.client, lines(*first[:2], {"title": title, "tags": ["y"]}), **key))
    assert again[:2] == begun[:2]
    assert [result["status"] for result in again] == [201, 201, 201]
    assert mongo["posts"].count_documents({"title": title}) == 3
    other = results(send(alice.client, lines(first[1]), **{"Idempotency-Key": uuid.uuid4().hex}))
    assert other[0]["id"] not in [result["id"] for result in again]
    assert again[0]["id"] < again[1]["id"] < again[2]["id"]


def test_export_that_is_imported_again(alice: User, bob: User, title: str, mongo: Database[dict[str, Any]]) -> None:
    """Under the same ids, by who owns the documents, while they are not there; nothing else of the server's returns."""
    for number in range(2):
        alice.client.post("/posts", json={"title": title, "tags": [str(number)], "status": "published"})
    query = {"title": title, "sort": "id"}
    mongo["posts"].update_one({"title": title, "tags": "1"}, {"$set": {"revision": 7, "created_by": "system"}})
    listed = alice.client.get("/posts", params=query | {"fields": "title,tags"}).json()["items"]
    exported = alice.client.get("/posts", params=query, headers={"Accept": "application/x-ndjson"}).content
    assert exported.count(b'"created_by":') == 2
    assert [result["status"] for result in results(send(alice.client, exported))] == [409, 409]
    mongo["posts"].delete_many({"title": title})
    of_another = results(send(bob.client, exported))
    assert [result["error"]["errors"][0]["loc"] for result in of_another] == [["body", "author_id"]] * 2
    marked = exported.replace(b'{"id"', b'{"invalid":["title"],"id"')
    assert [result["status"] for result in results(send(alice.client, marked))] == [201, 201]
    assert alice.client.get("/posts", params=query | {"fields": "title,tags"}).json()["items"] == listed
    again = alice.client.get("/posts", params=query).json()["items"]
    assert [(one["revision"], one["created_by"]) for one in again] == [(1, f"user:{alice.id}")] * 2


def test_ids_of_lines(alice: User, title: str) -> None:
    """One that no document can have is refused in its place."""
    answers = results(send(alice.client, lines(*({"id": id, "title": title} for id in ("0", 5, None, "bulk")))))
    assert [result["error"]["errors"][0]["loc"] for result in answers] == [["body", "id"]] * 4
