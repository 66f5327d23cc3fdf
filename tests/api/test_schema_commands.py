"""`python main.py schema diff`, `apply` and `check`: the classes' rules, and what a database has instead."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from tests.api.servers import ROOT, environment
from tests.secrecy import SECRECY

Mongo = Database[dict[str, Any]]


@pytest.fixture
def empty(mongodb_url: str, database_name: str) -> Iterator[Mongo]:
    """A database that no server has started on."""
    with MongoClient[dict[str, Any]](mongodb_url) as client:
        yield client[database_name]
        client.drop_database(database_name)


def settings_for(url: str, mongo: Mongo, **more: str) -> dict[str, str]:
    return environment({"HEADWATER_MONGODB_URL": url, "HEADWATER_DATABASE": mongo.name, **more})


def start(settings: dict[str, str], folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, str(ROOT / "main.py"), "schema", *words],
        cwd=folder,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(settings: dict[str, str], folder: Path, *words: str) -> tuple[int, str, str]:
    """One command: its exit code, what it printed, and what it complained of."""
    process = start(settings, folder, *words)
    printed, complaints = process.communicate(timeout=60)
    SECRECY.hear(printed + complaints, f"schema {words}", log=True)
    return process.returncode, printed, complaints


@pytest.mark.usefixtures("server")
def test_nothing_differs_on_a_running_server(mongo: Mongo, mongodb_url: str, tmp_path: Path) -> None:
    """What a start installs is what is wanted."""
    code, printed, complaints = run(settings_for(mongodb_url, mongo), tmp_path, "diff", "--json")
    assert (code, complaints) == (0, "")
    assert json.loads(printed)["differences"] == []


def test_from_an_empty_database_to_one_that_is_as_wanted(empty: Mongo, mongodb_url: str, tmp_path: Path) -> None:
    """`diff` names what is lacking and how many documents break the rules, and changes nothing; `apply` settles it."""
    ids = [ObjectId() for _ in range(7)]
    empty["comments"].insert_many([{"_id": document_id, "body": 5} for document_id in ids])
    empty["posts"].create_index("body", name="by_hand")
    settings = settings_for(mongodb_url, empty)
    before = sorted(empty.list_collection_names())

    code, printed, complaints = run(settings, tmp_path, "diff")
    assert (code, complaints) == (1, "")
    lines = printed.splitlines()
    assert "users" in lines
    assert "  collection: the collection does not exist" in lines
    assert "  validator: there is no validator" in lines
    assert "  index status_newest: the index on (status 1, created_at -1) is missing" in lines
    named = ", ".join(map(str, ids[:5]))
    assert f"comments: 7 documents break the rules: {named}, …" in lines
    # Headwater's own mark of the database aside.
    assert sorted(set(empty.list_collection_names()) - {"headwater_meta"}) == before

    code, printed, complaints = run(settings, tmp_path, "apply")
    assert (code, complaints) == (0, "")
    assert printed.splitlines()[1:] == [
        "Left for you to settle:",
        "posts",
        "  index by_hand: the index on (body 1) is declared by no class, and not used",
    ]
    assert "by_hand" in empty["posts"].index_information()

    code, printed, _ = run(settings, tmp_path, "diff", "--json")
    assert code == 1
    answer = json.loads(printed)
    (difference,) = answer["differences"]
    assert difference == {
        "collection": "posts", "kind": "index", "name": "by_hand", "settled_by_apply": False,
        "message": "the index on (body 1) is declared by no class, and not used",
    }  # fmt: skip
    assert answer["broken"] == [{"collection": "comments", "count": 7, "ids": [str(i) for i in ids[:5]]}]

    empty["posts"].drop_index("by_hand")
    empty["comments"].delete_many({})
    assert run(settings, tmp_path, "diff") == (0, "The database is as the classes want it.\n", "")


def test_many_apply_at_once(empty: Mongo, mongodb_url: str, tmp_path: Path) -> None:
    """None stands in another's way, and the result is the one that each wanted."""
    settings = settings_for(mongodb_url, empty)
    applying = [start(settings, tmp_path, "apply", "--json") for _ in range(4)]
    outcomes = [process.communicate(timeout=120) for process in applying]
    assert [(process.returncode, complaints) for process, (_, complaints) in zip(applying, outcomes, strict=True)] == [
        (0, "")
    ] * 4
    assert all(json.loads(printed)["left"] == [] for printed, _ in outcomes)
    assert run(settings, tmp_path, "diff")[0] == 0


def test_an_index_that_stands_in_the_way(empty: Mongo, mongodb_url: str, tmp_path: Path) -> None:
    """`apply` drops nothing: it settles the rest, says which one is left, and exits with 1."""
    empty["posts"].create_index([("slug", -1)], name="slug_unique")
    settings = settings_for(mongodb_url, empty)
    code, printed, complaints = run(settings, tmp_path, "apply")
    assert code == 1
    assert complaints.startswith("headwater: posts: an index cannot be created")
    assert len(complaints.splitlines()) == 1
    assert printed.splitlines()[1:3] == ["Left for you to settle:", "posts"]
    assert empty["posts"].index_information()["slug_unique"]["key"] == [("slug", -1)]

    code, printed, complaints = run(settings, tmp_path, "apply", "--json")
    answer = json.loads(printed)
    assert (code, answer["settled"], [left["name"] for left in answer["left"]]) == (1, [], ["slug_unique"])
    assert [f"headwater: {line}" for line in answer["refused"]] == complaints.splitlines()


def test_documents_that_break_the_rules(empty: Mongo, mongodb_url: str, tmp_path: Path) -> None:
    """`check` names each with its fields and reasons, as many of a class as are asked for, and exits with 1."""
    settings = settings_for(mongodb_url, empty)
    assert run(settings, tmp_path, "check") == (0, "No document breaks the rules.\n", "")
    ids = [ObjectId() for _ in range(3)]
    empty["comments"].insert_many(
        [{"_id": document_id, "body": "secret" * 9, "mood": 1, "": 1, "\x1b[2J": 1} for document_id in ids]
    )
    empty["posts"].insert_one({"_id": ids[0], "title": "", "author_id": "x"})

    code, printed, complaints = run(settings, tmp_path, "check", "--limit", "2")
    assert (code, complaints) == (1, "")
    of_comment = [
        "  mood: there is no such field",
        '  "": there is no such field',
        r'  "\u001b[2J": there is no such field',
        "  post_id: it is missing",
        "  author_id: it is missing",
    ]
    assert printed.splitlines() == [
        *(line for document_id in ids[:2] for line in (f"comments {document_id}", *of_comment)),
        "comments: 1 more",
        f"posts {ids[0]}",
        "  title: it is shorter than 1",
        "  author_id: its type is not objectId",
        "4 documents break the rules.",
    ]

    _, printed, _ = run(settings, tmp_path, "check", "--limit", "0")
    assert [line for line in printed.splitlines() if line.startswith("comments ")] == [f"comments {i}" for i in ids]
    assert "more" not in printed

    code, printed, _ = run(settings, tmp_path, "check", "--json", "--limit", "1")
    answer = json.loads(printed)
    assert (code, answer["count"], len(answer["documents"])) == (1, 4, 2)
    assert answer["documents"][1] == {
        "collection": "posts", "id": str(ids[0]),
        "breaches": [
            {"field": "title", "reason": "it is shorter than 1"},
            {"field": "author_id", "reason": "its type is not objectId"},
        ],
    }  # fmt: skip
