"""`POST /files`: hostile bodies first, then rights, bounds, names and types; and what is live about it."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bson import ObjectId
from pymongo.database import Database

from tests.api.servers import Server, User, live, wait_until
from tests.api.test_errors import places, problem, raw
from tests.api.uploads import PNG, orphans, part, post_raw, upload

Mongo = Database[dict[str, Any]]
LIMIT = 32 * 1024 * 1024
END = b"--b--\r\n"


@pytest.fixture(autouse=True)
def _nothing_stays(mongo: Mongo) -> Iterator[None]:
    """No test here leaves bytes without metadata."""
    yield
    wait_until(lambda: not orphans(mongo))


@pytest.mark.parametrize("media_type", ["", "application/json", "multipart/mixed; boundary=b", "image/png"])
def test_other_media_type(alice: User, media_type: str) -> None:
    """What is not a form is a 415, which tells what is accepted."""
    answer = alice.client.post("/files", content=part(b"a") + END, headers={"Content-Type": media_type})
    problem(answer, 415, "unsupported_media_type")
    assert answer.headers["accept"] == "multipart/form-data"


@pytest.mark.parametrize("parameters", ["", "; boundary=", '; boundary=""', f"; boundary={'b' * 71}", "; charset=b"])
def test_boundary_that_is_none(alice: User, parameters: str) -> None:
    """A form without a boundary, or with one that is too long, is a 400 that names the header."""
    headers = {"Content-Type": f"multipart/form-data{parameters}"}
    answer = alice.client.post("/files", content=part(b"a") + END, headers=headers)
    assert places(answer, 400, "bad_request") == [["header", "Content-Type"]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"\r\n" * 10_000,
        b"--c\r\n",
        (part(b"a") + END).replace(b"--b", b"--c"),
        part(b"a"),
        part(b"a") + b"--b-",
        (part(b"a") + END)[:40],
        b"--b\r\n\r\nno disposition\r\n" + END,
        b"--b\r\nContent-Disposition\r\n\r\na\r\n" + END,
        part(b"a", b"attachment; filename=a"),
        part(b"a", b"form-data; filename=a"),
        part(b"a", more=b"Content-Disposition: form-data; name=files\r\n") + END,
        part(b"a", more=b"X-A: b\r\n" * 10_000) + END,
        part(b"a", more=b"X-A: " + b"b" * 100_000 + b"\r\n") + END,
        part(b"a", b"form-data; name=files; filename=" + b"a" * 10_000) + END,
        part(b"a", more=b"\0: b\r\n") + END,
    ],
)
def test_body_that_is_malformed(alice: User, body: bytes) -> None:
    """A body that is not what it says, or ends too early, is a 400; the parts before the fault do not stay."""
    for sent in (body, part(b"good") + body):
        assert places(post_raw(alice.client, sent), 400, "bad_request") == [["body"]], sent[:200]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (END, ["body", "files"]),
        (part(b"a", b"form-data; name=files"), ["body", "files", 0]),
        (part(b"a", b'form-data; name=files; filename=""'), ["body", "files", 0]),
        (part(b"a", b"form-data; name=files; filename*=UTF-8''a.txt"), ["body", "files", 0]),
        (part(b"a") + part(b"a", b"form-data; name=files"), ["body", "files", 1]),
        (part(b"a") + part(b"a", b"form-data; name=file; filename=a"), ["body", "file"]),
        (part(b"a", b"form-data; name=note"), ["body", "note"]),
        (part(b"a", b"form-data; name=\xff"), ["body", "\N{REPLACEMENT CHARACTER}"]),
        (part(part(b"a"), b"form-data; name=files", b"Content-Type: multipart/mixed; boundary=c\r\n"), None),
        (part(b"a") * 21, ["body", "files", 20]),
    ],
)
def test_form_that_is_not_accepted(alice: User, body: bytes, place: list[str | int] | None) -> None:
    """Anything but one to twenty files is a 422 with the place, and nothing stays of the files before it."""
    answer = post_raw(alice.client, body if body == END else body + END)
    assert places(answer) == [place or ["body", "files", 0]]


def test_nobody_and_a_wrong_option(alice: User, anonymous: httpx.Client, mongo: Mongo) -> None:
    """Without a token it is a 401; an option that is none is a 422 that names it."""
    before = mongo["files"].count_documents({})
    answer = anonymous.post("/files", files={"files": ("a.txt", b"a")})
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    answer = alice.client.post("/files?images_only=perhaps", files={"files": ("a.txt", b"a")})
    assert places(answer) == [["query", "images_only"]]
    assert mongo["files"].count_documents({}) == before


def test_body_that_says_it_is_too_large(server: Server, alice: User) -> None:
    """The answer comes before the body does."""
    head = (
        f"POST /api/v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.token}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
    )
    assert raw(server, head.encode()).startswith(b"HTTP/1.1 413 ")


def resident(server: Server) -> int:
    """The most memory that the server has had, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_body_that_turns_out_too_large(server: Server, alice: User) -> None:
    """It is counted while it arrives; the server holds a small part of it at a time, and nothing of it afterwards."""
    upload(alice.client, b"a" * 1_000_000)
    before = resident(server)
    pieces = [part(b"")[:-2], *[bytes(1 << 20)] * 33, b"\r\n" + END]
    problem(post_raw(alice.client, iter(pieces)), 413, "content_too_large")
    assert resident(server) - before < 10_000_000


def test_a_large_file(server: Server, alice: User) -> None:
    """It is larger than any other body may be, and never whole in the server's memory, on its way in or out."""
    upload(alice.client, b"a" * 1_000_000)
    before = resident(server)
    block = hashlib.shake_256(b"river").digest(1 << 20)
    answer = post_raw(alice.client, iter([part(b"")[:-2], *[block] * 31, b"\r\n" + END]))
    assert answer.status_code == 201, answer.text
    (item,) = answer.json()["items"]
    assert (item["size"], item["sha256"]) == (31 << 20, hashlib.sha256(block * 31).hexdigest())
    received = hashlib.sha256()
    with alice.client.stream("GET", f"/files/{item['id']}/content") as download:
        for data in download.iter_raw():
            received.update(data)
    assert received.hexdigest() == item["sha256"]
    assert resident(server) - before < 10_000_000
    assert alice.client.delete(f"/files/{item['id']}").status_code == 204


def test_a_client_that_leaves(server: Server, alice: User, mongo: Mongo) -> None:
    """What it had sent by then is removed, at once and not by a later sweep."""
    known = set(mongo["files.chunks"].distinct("files_id"))
    head = (
        f"POST /api/v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.token}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 30000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.encode() + part(b"complete") + part(bytes(2_000_000))[:-2])
        wait_until(lambda: set(mongo["files.chunks"].distinct("files_id")) - known)
    wait_until(lambda: set(mongo["files.chunks"].distinct("files_id")) == known)


def test_metadata(alice: User, mongo: Mongo) -> None:
    """Each file has a document, whose id its content has too; type, size and hash are those of the content."""
    answer = alice.client.post("/files", files=[("files", ("gauge.html", PNG, "text/html")), ("files", ("b", b"b"))])
    assert answer.status_code == 201
    assert "location" not in answer.headers
    assert answer.headers["x-position"]
    first, second = answer.json()["items"]
    assert first["filename"] == "gauge.html"
    assert (first["content_type"], first["size"]) == ("image/png", len(PNG))
    assert first["sha256"] == hashlib.sha256(PNG).hexdigest()
    assert (first["owner_id"], first["revision"]) == (alice.id, 1)
    assert (second["filename"], second["content_type"]) == ("b", "text/plain")
    stored = mongo["files"].find_one({"_id": ObjectId(first["id"])})
    assert stored is not None
    assert list(stored)[:5] == ["_id", "filename", "content_type", "size", "sha256"]
    assert mongo["files.files"].count_documents({"_id": {"$in": [ObjectId(first["id"]), ObjectId(second["id"])]}}) == 2


def test_address_of_one_file(alice: User) -> None:
    """One file's answer tells its address; the metadata there has a tag, and answers HEAD."""
    answer = alice.client.post("/files", files={"files": ("a.txt", b"a")})
    url = answer.headers["location"].removeprefix("/api/v1")
    got = alice.client.get(url)
    assert got.json() == answer.json()["items"][0]
    assert alice.client.get(url, headers={"If-None-Match": got.headers["etag"]}).status_code == 304
    assert alice.client.head(url).headers["etag"] == got.headers["etag"]
    assert url.removeprefix("/files/") in {
        item["id"] for item in alice.client.get("/files?sort=-created_at").json()["items"]
    }
    for method in ("PUT", "PATCH", "POST"):
        problem(alice.client.request(method, url, json={}), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"../../etc/passwd", "passwd"),
        (b"C:\\\\temp\\\\a.png", "a.png"),
        (b"a%0D%0ASet-Cookie: b=c", "aSet-Cookie: b=c"),
        (b"a\r\nX-A: b", "a"),
        (b"a%22b.png", "ab.png"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe".encode(), "gnp.exe"),
        ("Höhe \N{WATER WAVE}.txt".encode(), "Höhe \N{WATER WAVE}.txt"),
        (b"caf\xe9.txt", "caf\N{REPLACEMENT CHARACTER}.txt"),
        (b"%2e%2e%2f", "%2e%2e%2f"),
        (b"..", "file"),
    ],
)
def test_names(alice: User, sent: bytes, kept: str) -> None:
    """A name is made safe before it is stored."""
    answer = post_raw(alice.client, part(b"a", b'form-data; name="files"; filename="' + sent + b'"') + END)
    assert answer.status_code == 201, answer.text
    assert answer.json()["items"][0]["filename"] == kept


def test_images_only(alice: User, mongo: Mongo) -> None:
    """What is no image is a 422 that names the file, whatever its name says; the images beside it do not stay."""
    upload(alice.client, PNG, query="?images_only=true")
    before = mongo["files"].count_documents({})
    page = b"<!DOCTYPE html><script>alert(1)</script>"
    for content in (page, b"<svg onload='alert(1)'/>", b"", b"GIF89a is a word", page + b"a" * 1_000_000):
        files = [("files", ("a.png", PNG, "image/png")), ("files", ("b.png", content, "image/png"))]
        answer = alice.client.post("/files?images_only=true", files=files)
        (fault,) = problem(answer, 422, "invalid")["errors"]
        assert fault["loc"] == ["body", "files", 1]
        assert fault["msg"].startswith("b.png is ")
    assert mongo["files"].count_documents({}) == before


def test_a_boundary_in_every_position(alice: User) -> None:
    """Content that looks like a boundary stays content, wherever the network cuts it."""
    content = b"\r\n--a\r\n--" + b"\r\n--" * 50 + b"\r\n-" + b"--b--" + b"\r"
    body = part(content) + END
    for size in (1, 7, 64):
        pieces = (body[start : start + size] for start in range(0, len(body), size))
        answer = post_raw(alice.client, pieces)
        assert answer.json()["items"][0]["sha256"] == hashlib.sha256(content).hexdigest()


def test_live(server: Server, alice: User, bob: User, moderator: User) -> None:
    """Uploads and deletions are events to those who may read the files, and to nobody else."""
    with contextlib.ExitStack() as stack:
        seeing = [stack.enter_context(live(server, user.token)) for user in (alice, moderator)]
        others = [stack.enter_context(live(server, token)) for token in (bob.token, None)]
        for connection in (*seeing, *others):
            connection.subscribe("1", "files")
        items = upload(alice.client, b"first", b"second")
        for connection in seeing:
            events = [connection.receive() for _ in items]
            assert [(event["op"], event["document"]) for event in events] == [("create", item) for item in items]
        alice.client.delete(f"/files/{items[0]['id']}").raise_for_status()
        for connection in seeing:
            event = connection.receive()
            assert (event["op"], event["id"]) == ("delete", items[0]["id"])
        for connection in others:
            assert connection.answers_ping()


def test_connection_that_is_lost(server: Server, alice: User, mongo: Mongo) -> None:
    """In the middle of an upload: with its key it can be sent again, for nothing was kept of it."""
    name, claims = f"{uuid.uuid4().hex}.txt", mongo["headwater_idempotency"]
    before = set(claims.distinct("_id"))
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = (
            f"POST /api/v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.token}\r\n"
            f"Idempotency-Key: {name}\r\nContent-Length: 100000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        begun = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\nwat'
        connection.sendall((head + begun).encode())
        wait_until(lambda: set(claims.distinct("_id")) - before)
    wait_until(lambda: not set(claims.distinct("_id")) - before)
    answer = alice.client.post("/files", files={"files": (name, b"water")}, headers={"Idempotency-Key": name})
    assert answer.status_code == 201
    assert "idempotency-replayed" not in answer.headers


def test_sent_again(alice: User, mongo: Mongo) -> None:
    """With a key an upload is carried out once; its answer is given again as long as the files are there."""
    client, name = alice.client, f"{uuid.uuid4().hex}.txt"
    key = {"Idempotency-Key": name}
    first, again = (client.post("/files", files={"files": (name, b"water")}, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code, again.headers["Idempotency-Replayed"]) == (201, 201, "true")
    assert again.json() == first.json()
    for other in ((name, b"ice"), ("other.txt", b"water")):
        answer = client.post("/files", files={"files": other}, headers=key)
        assert (answer.status_code, answer.json()["errors"][0]["type"]) == (422, "reused")
    assert mongo["files"].count_documents({"filename": name}) == 1
    assert client.delete(f"/files/{first.json()['items'][0]['id']}").status_code == 204
    gone = client.post("/files", files={"files": (name, b"water")}, headers=key)
    assert (gone.status_code, gone.json()["code"]) == (409, "answer_gone")
    assert mongo["files"].count_documents({"filename": name}) == 0
