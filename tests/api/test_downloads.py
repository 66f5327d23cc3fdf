"""`GET /files/{id}/content` and deletion: rights, ranges, conditions, and headers that keep browsers safe."""

from __future__ import annotations

import datetime as dt
import signal
import socket
from collections.abc import Callable
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from tests.api.conftest import Starter
from tests.api.servers import ADMIN_EMAIL, Server, User, serving, wait_until
from tests.api.test_errors import SOME_ID, places, problem
from tests.api.uploads import PNG, orphans, part, upload

Mongo = Database[dict[str, Any]]
CONTENT = bytes(range(256)) * 2_000  # two chunks
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
def item(alice: User) -> dict[str, Any]:
    """A file of alice's, of unknown type."""
    (item,) = upload(alice.client, CONTENT, filename="gauge.bin")
    return item


@pytest.fixture(scope="module")
def url(item: dict[str, Any]) -> str:
    """Where its bytes are."""
    return f"/files/{item['id']}/content"


def test_somebody_else(alice: User, bob: User, moderator: User, anonymous: httpx.Client, url: str) -> None:
    """Who may not read the file is told that it is not there, for every address and method; a moderator may read."""
    metadata = url.removesuffix("/content")
    for client in (bob.client, anonymous):
        answers = [client.request(method, address) for method in ("GET", "DELETE") for address in (metadata, url)]
        answers.append(client.get(url, headers={"If-None-Match": "*", "Range": "bytes=0-1"}))
        missing = client.get(f"/files/{SOME_ID}/content")
        for answer in answers:
            if answer.request.method == "DELETE" and answer.url.path.endswith("content"):
                problem(answer, 405, "method_not_allowed")
            else:
                assert problem(answer, 404, "not_found")["detail"] == problem(missing, 404, "not_found")["detail"]
        assert metadata.removeprefix("/files/") not in client.get("/files").text
    assert moderator.client.get(url).content == CONTENT
    problem(moderator.client.delete(metadata), 403, "forbidden")
    assert alice.client.get(url).content == CONTENT


@pytest.mark.parametrize("id", ["1", "z" * 24, SOME_ID + "0", "%00"])
def test_malformed_id(alice: User, id: str) -> None:
    """An id that no file can have is a 422."""
    assert places(alice.client.get(f"/files/{id}/content")) == [["path", "id"]]
    assert places(alice.client.delete(f"/files/{id}")) == [["path", "id"]]


def test_headers(alice: User, item: dict[str, Any], url: str) -> None:
    """A download is always kept and never run: no sniffing, a sandbox, an attachment."""
    answer = alice.client.get(url)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    headers = answer.headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-length"] == str(SIZE)
    assert headers["content-disposition"] == 'attachment; filename="gauge.bin"'
    assert headers["etag"] == f'"{item["sha256"]}"'
    assert headers["accept-ranges"] == "bytes"
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert "no-transform" in headers["cache-control"]
    created = dt.datetime.fromisoformat(item["created_at"]).replace(microsecond=0)
    assert parsedate_to_datetime(headers["last-modified"]) == created
    head = alice.client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    varying = {"x-request-id", "date", "x-position", "ratelimit-remaining", "ratelimit-reset"}
    assert {n: v for n, v in head.headers.items() if n not in varying} == {
        n: v for n, v in headers.items() if n not in varying
    }


def test_bytes_are_never_compressed(alice: User) -> None:
    """The tag and the ranges are those of the bytes as they were uploaded, also where they would compress well."""
    (item,) = upload(alice.client, b"water " * 10_000, filename="a.txt")
    answer = alice.client.get(f"/files/{item['id']}/content", headers={"Accept-Encoding": "gzip, br, zstd"})
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == "60000"


@pytest.mark.parametrize("name", ["evil.png", "évil\N{WATER WAVE}.png", "a;b'c%20(d)*.png"])
def test_page_under_an_image_name(alice: User, name: str) -> None:
    """A file named .png with HTML inside is HTML, and an attachment even when it is asked for inline."""
    for content, found in ((b"<html><script>alert(1)</script>", "text/html"), (b"<svg/>", "image/svg+xml")):
        (item,) = upload(alice.client, content, filename=name)
        assert item["content_type"] == found
        for query in ("", "?disposition=inline"):
            answer = alice.client.get(f"/files/{item['id']}/content{query}")
            assert answer.headers["content-disposition"].startswith("attachment; filename=")
            assert answer.headers["content-type"] == found
            assert "sandbox" in answer.headers["content-security-policy"]
            if not name.isascii() or "%" in name:
                encoded = quote(name, safe="!#$&+-.^_`|~")
                assert answer.headers["content-disposition"].endswith(f"; filename*=UTF-8''{encoded}")


def test_image_inline(alice: User) -> None:
    """Only when it is asked for, and only by the word."""
    (item,) = upload(alice.client, PNG)
    url = f"/files/{item['id']}/content"
    assert alice.client.get(url).headers["content-disposition"] == 'attachment; filename="gauge.png"'
    shown = alice.client.get(f"{url}?disposition=inline").headers
    assert shown["content-disposition"] == 'inline; filename="gauge.png"'
    assert "sandbox" in shown["content-security-policy"]
    assert places(alice.client.get(f"{url}?disposition=INLINE")) == [["query", "disposition"]]


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, SIZE),
        ("bytes=5-9", 5, 10),
        ("Bytes=5-9", 5, 10),
        ("bytes=261119-261121", 261_119, 261_122),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes={SIZE - 1}-{SIZE + 10}", SIZE - 1, SIZE),
        ("bytes=0-999999999999999999", 0, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-300000", SIZE - 300_000, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
    ],
)
def test_range(alice: User, url: str, asked: str, start: int, stop: int) -> None:
    """One range is answered with exactly its bytes."""
    answer = alice.client.get(url, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == CONTENT[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.headers["etag"]


@pytest.mark.parametrize(
    "asked",
    [
        *("", "bytes", "bytes=", "bytes=-", "bytes=9-5", "bytes=a-b", "bytes=0-1,5-6", "lines=0-1", "bytes=0-1-2"),
        *("bytes=\N{ARABIC-INDIC DIGIT ONE}-", f"bytes={'9' * 5_000}-", "bytes=-0x1", "bytes= 0 - 1"),
    ],
)
def test_range_that_is_ignored(alice: User, url: str, asked: str) -> None:
    """Several ranges, other units and what is malformed are answered with the whole."""
    answer = alice.client.get(url, headers={b"Range": asked.encode()})
    assert (answer.status_code, len(answer.content)) == (200, SIZE)
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 1}", "bytes=-0", "bytes=999999999999999-"])
def test_range_beyond_the_end(alice: User, url: str, asked: str) -> None:
    """Is a 416 that tells the length; HEAD knows no ranges."""
    answer = alice.client.get(url, headers={"Range": asked})
    problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert alice.client.head(url, headers={"Range": asked}).status_code == 200


def test_range_of_nothing(alice: User) -> None:
    """An empty file has no first byte; its end is all of it."""
    (item,) = upload(alice.client, b"")
    url = f"/files/{item['id']}/content"
    assert alice.client.get(url).content == b""
    problem(alice.client.get(url, headers={"Range": "bytes=0-"}), 416, "range_not_satisfiable")
    assert alice.client.get(url, headers={"Range": "bytes=-1"}).status_code == 200


def test_conditions(alice: User, url: str) -> None:
    """Tags before dates, `If-Range` by the strong tag or the exact date, `If-Match` before anything else."""
    known = alice.client.get(url).headers
    tag, date = known["etag"], known["last-modified"]
    earlier = format_datetime(parsedate_to_datetime(date) - dt.timedelta(seconds=1), usegmt=True)
    later = format_datetime(parsedate_to_datetime(date) + dt.timedelta(seconds=1), usegmt=True)

    def status(**headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = alice.client.get(url, headers=sent)
        if answer.status_code == 304:
            assert (answer.content, answer.headers["etag"]) == (b"", tag)
        return answer.status_code

    assert status(If_None_Match=tag) == status(If_None_Match=f'"other", W/{tag}') == status(If_None_Match="*") == 304
    assert status(If_None_Match='"other"', If_Modified_Since=later) == 200
    assert status(If_Modified_Since=date) == status(If_Modified_Since=later) == 304
    assert status(If_Modified_Since=earlier) == status(If_Modified_Since="yesterday") == 200
    assert status(If_None_Match=tag, Range="bytes=0-1") == 304
    assert status(If_Range=tag, Range="bytes=0-1") == status(If_Range=date, Range="bytes=0-1") == 206
    for other in (f"W/{tag}", '"other"', later, earlier, "nonsense"):
        assert status(If_Range=other, Range="bytes=0-1") == 200
    assert status(If_Match=tag) == status(If_Match="*") == 200
    assert status(If_Match='"other"') == status(If_Match='"other"', If_None_Match=tag) == 412
    assert places(alice.client.get(url, headers={"If-None-Match": "abc"})) == [["header", "If-None-Match"]]


def test_metadata_written_by_hand(alice: User, mongo: Mongo) -> None:
    """Whatever somebody wrote there, the content is served, and nothing of it breaks out of a header."""
    (item,) = upload(alice.client, b"water")
    mongo.command("collMod", "files", validationLevel="off")
    try:
        for values in (
            {"filename": 'a"\r\nX-Evil: 1', "content_type": "text/html\r\nX-Evil: 1", "sha256": '"', "created_at": "?"},
            {"filename": None, "content_type": 7, "sha256": None, "created_at": None, "size": "many"},
        ):
            mongo["files"].update_one({"_id": ObjectId(item["id"])}, {"$set": values})
            answer = alice.client.get(f"/files/{item['id']}/content", headers={"If-None-Match": '"a"'})
            assert (answer.status_code, answer.content) == (200, b"water")
            assert answer.headers["content-type"] == "application/octet-stream"
            assert {"x-evil", "etag", "last-modified"}.isdisjoint(answer.headers)
    finally:
        mongo["files"].delete_one({"_id": ObjectId(item["id"])})
        mongo["files.files"].delete_one({"_id": ObjectId(item["id"])})
        mongo["files.chunks"].delete_many({"files_id": ObjectId(item["id"])})
        mongo.command("collMod", "files", validationLevel="strict")


def test_delete(server: Server, alice: User, mongo: Mongo) -> None:
    """A stale tag keeps the file; the owner and an admin delete it with all its bytes, once."""
    admin = server.client(server.login(ADMIN_EMAIL))
    for client in (alice.client, admin):
        (item,) = upload(alice.client, CONTENT)
        url = f"/files/{item['id']}"
        problem(client.delete(url, headers={"If-Match": '"other"'}), 412, "precondition_failed")
        assert client.get(f"{url}/content").content == CONTENT
        gone = client.delete(url, headers={"If-Match": client.get(url).headers["etag"]})
        assert (gone.status_code, gone.content) == (204, b"")
        assert gone.headers["x-position"]
        for address in (url, f"{url}/content"):
            problem(client.get(address), 404, "not_found")
        problem(client.delete(url), 404, "not_found")
        assert mongo["files.chunks"].count_documents({"files_id": ObjectId(item["id"])}) == 0
    assert orphans(mongo) == set()


def test_content_that_somebody_removed(alice: User, mongo: Mongo) -> None:
    """Metadata without its bytes is a 404 for the content, and can be deleted."""
    (item,) = upload(alice.client, b"water")
    mongo["files.chunks"].delete_many({"files_id": ObjectId(item["id"])})
    problem(alice.client.get(f"/files/{item['id']}/content"), 404, "not_found")
    assert alice.client.get(f"/files/{item['id']}").status_code == 200
    assert alice.client.delete(f"/files/{item['id']}").status_code == 204


def test_server_that_is_killed_and_file_that_is_deleted_while_it_is_read(
    tmp_path: Path, server_settings: Starter, free_port: Callable[[], int], mongodb_url: str
) -> None:
    """The next start sweeps what an upload left; a reader's connection ends before what it was promised."""
    settings = server_settings()
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb_url)
    mongo = client[settings["HEADWATER_DATABASE"]]
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    with client:
        with serving(first, free_port(), settings) as server:
            user = server.register("carol")
            head = (
                f"POST /api/v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\n"
                "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 30000000\r\n\r\n"
            )
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                connection.sendall(head.encode() + part(b"complete") + part(bytes(2_000_000)))
                wait_until(lambda: mongo["files.chunks"].count_documents({}) > 3)
                server.process.send_signal(signal.SIGKILL)
                server.process.wait(20)
        long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
        assert mongo["headwater_unfinished"].update_many({}, {"$set": {"alive_at": long_ago}}).modified_count == 1
        with serving(second, free_port(), settings) as server:
            wait_until(lambda: not orphans(mongo))
            reader, deleter = (server.client(server.login("carol")) for _ in range(2))
            # More than the sockets between the two can hold.
            (item,) = upload(reader, bytes(30_000_000))
            with reader.stream("GET", f"/files/{item['id']}/content") as download:
                pieces = download.iter_raw()
                next(pieces)
                deleter.delete(f"/files/{item['id']}").raise_for_status()
                with pytest.raises(httpx.RemoteProtocolError):
                    list(pieces)
            assert "a download broke off" in server.log
            assert orphans(mongo) == set()
        client.drop_database(mongo.name)
