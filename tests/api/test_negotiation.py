"""Which form of an answer `Accept` gets."""

from __future__ import annotations

import httpx
import pytest

from api.negotiation import LIST_TYPES, negotiate, negotiate_coding
from api.problems import Problem
from tests.api.servers import Server, User
from tests.api.test_errors import SOME_ID, problem

JSON, NDJSON, CSV, EVENTS = LIST_TYPES


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ([], JSON),
        ([""], JSON),
        (["*/*"], JSON),
        (["application/*"], JSON),
        (["text/*"], CSV),
        (["TEXT/CSV"], CSV),
        (["text/csv;charset=utf-8"], CSV),
        (["application/x-ndjson, application/json"], JSON),
        (["application/x-ndjson, application/json;q=0.9"], NDJSON),
        (["application/json;q=0.1", "text/csv;q=0.2"], CSV),
        (["text/event-stream, */*"], EVENTS),
        (["text/event-stream;q=0.5, */*"], JSON),
        (["text/event-stream, application/json"], JSON),
        (["application/json;q=0, */*"], NDJSON),
        (["*/*, application/*;q=0.1"], CSV),
        (["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], JSON),
        (["text/csv;q=2"], CSV),
        (["text/csv;q=, application/json;q=0.5"], CSV),
        ([",,, text/csv ,"], CSV),
    ],
)
def test_choice(accept: list[str], chosen: str) -> None:
    """The greatest quality wins, then what is named more exactly, then what comes first here."""
    assert negotiate(accept, LIST_TYPES) == chosen


@pytest.mark.parametrize("accept", ["image/png", "text/csv;q=0", "*/*;q=0", "nonsense", "json", "a/b, */csv"])
def test_no_choice(accept: str) -> None:
    """What is not accepted is not sent."""
    with pytest.raises(Problem) as refused:
        negotiate([accept], LIST_TYPES)
    assert refused.value.status == 406


@pytest.mark.parametrize(
    ("accept", "coding", "plain_will_do"),
    [
        ([], None, True),
        ([""], None, True),
        (["gzip"], "gzip", True),
        (["GZIP"], "gzip", True),
        (["gzip, br, zstd"], "zstd", True),
        (["gzip;q=1.0, br;q=0.5, zstd;q=0.1"], "gzip", True),
        (["gzip;q=0.2", "br;q=0.3"], "br", True),
        (["gzip;q=0, br"], "br", True),
        (["gzip;q=0"], None, True),
        (["gzip;q=0.000"], None, True),
        (["*"], "zstd", True),
        (["zstd;q=0, *"], "br", True),
        (["gzip, *;q=0.5"], "gzip", True),
        (["gzip;q=0.5, identity"], None, True),
        (["gzip, identity"], "gzip", True),
        (["gzip, identity;q=0.5"], "gzip", True),
        (["gzip, identity;q=0"], "gzip", False),
        (["gzip, *;q=0"], "gzip", False),
        (["*;q=0, identity"], None, True),
        (["*;q=0"], None, False),
        (["identity;q=0"], None, False),
        (["compress, deflate"], None, True),
    ],
)
def test_coding(accept: list[str], coding: str | None, plain_will_do: bool) -> None:
    """The greatest quality wins, what has none is never sent, and a plain answer will do unless it is excluded."""
    assert negotiate_coding(accept) == (coding, plain_will_do)


def test_request_that_accepts_nothing_there_is(server: Server, alice: User) -> None:
    """406 on reads and writes, as a problem, before anything is done."""
    headers = {"Accept": "image/png"}
    title = "Not acceptable"
    for method, path in (
        ("GET", "/posts"),
        ("GET", f"/posts/{SOME_ID}"),
        ("POST", "/posts"),
        ("PUT", f"/posts/{SOME_ID}"),
        ("PATCH", f"/posts/{SOME_ID}"),
        ("GET", "/users"),
        ("GET", "/users/me"),
        ("POST", "/auth/login"),
    ):
        body = {"title": title} if method[0] == "P" else None
        problem(alice.client.request(method, path, json=body, headers=headers), 406, "not_acceptable")
    assert alice.client.get("/posts", params={"title": title}).json()["items"] == []
    assert httpx.head(f"{server.url}/api/v1/posts", headers=headers).status_code == 406


def test_document_in_a_form_of_lists(alice: User) -> None:
    """One document has no other form than JSON."""
    refused = alice.client.get(f"/posts/{SOME_ID}", headers={"Accept": "text/csv"})
    assert "application/json" in problem(refused, 406, "not_acceptable")["detail"]


def test_error_of_somebody_who_accepts_csv_alone(alice: User) -> None:
    """Problems are problems, whatever `Accept` says."""
    problem(alice.client.get("/posts?limit=0", headers={"Accept": "text/csv"}), 422, "invalid")
    problem(alice.client.delete(f"/posts/{SOME_ID}", headers={"Accept": "text/csv"}), 404, "not_found")
