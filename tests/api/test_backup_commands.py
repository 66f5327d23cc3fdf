"""`python main.py export` and `import`, as an operator runs them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from documents.embedded import EmbeddedDatabase
from tests.api.conftest import Starter
from tests.api.servers import ROOT, environment, refused_start


def run(directory: Path, settings: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Run a command: its exit code, and what it printed."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(ROOT / "main.py"), *arguments],
        cwd=directory,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_from_one_database_to_another(tmp_path: Path, server_settings: Starter, mongodb_url: str) -> None:
    """A resource is exported and imported with its validator and indexes; not twice; and not halfway served."""
    source, target = server_settings(), server_settings()
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb_url)
    with client:
        client[source["HEADWATER_DATABASE"]]["posts"].insert_many([{"_id": n, "slug": f"s{n}"} for n in range(3)])
        code, output = run(tmp_path, source, "export", "backup", "--resource", "posts")
        assert (code, output) == (0, f"3 documents of 1 collections of {source['HEADWATER_DATABASE']} are in backup.\n")
        code, output = run(tmp_path, target, "import", "backup", "--resource", "posts")
        assert (code, output) == (0, f"3 documents of 1 collections are in {target['HEADWATER_DATABASE']}.\n")
        posts = client[target["HEADWATER_DATABASE"]]["posts"]
        assert [post["slug"] for post in posts.find().sort("_id")] == ["s0", "s1", "s2"]
        assert "validator" in posts.options()
        assert "slug" in " ".join(posts.index_information())
        code, output = run(tmp_path, target, "import", "backup")
        assert (code, output.startswith("headwater: "), "--overwrite" in output) == (1, True, True)
        client[target["HEADWATER_DATABASE"]]["headwater_meta"].insert_one({"_id": "import"})
    code, output = refused_start(tmp_path, target)
    assert code == 1
    assert "has not ended: run the same `python main.py import` again" in output
    given_up = f"The import into {target['HEADWATER_DATABASE']} is given up. What it has written is there.\n"
    assert run(tmp_path, target, "import", "--abandon") == (0, given_up)
    code, output = run(tmp_path, target, "import", "--abandon")
    assert (code, output) == (1, f"headwater: no import into {target['HEADWATER_DATABASE']} is under way\n")
    for arguments in ([], ["backup", "--abandon"]):
        code, output = run(tmp_path, target, "import", *arguments)
        assert (code, "either the folder of an export, or --abandon" in output) == (2, True)


async def test_several_workers_on_half_an_import(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Do not start, and the one process that starts them writes nothing first, no admin either."""
    port = free_port()
    embedded = EmbeddedDatabase(tmp_path / "data", port, durable=False)
    settings = {
        "HEADWATER_EMBEDDED_PORT": str(port),
        "HEADWATER_DATA_DIR": str(tmp_path / "data"),
        "HEADWATER_PORT": str(free_port()),
        "HEADWATER_WORKERS": "2",
    }
    with MongoClient[dict[str, Any]](await embedded.start()) as client:
        client["headwater"]["headwater_meta"].insert_one({"_id": "import"})
    await embedded.stop()
    code, output = await asyncio.to_thread(refused_start, tmp_path, settings)
    assert (code, "has not ended" in output, "admin was created" in output) == (1, True, False)


def test_folder_that_is_none(tmp_path: Path, server_settings: Starter) -> None:
    """One line, exit code 1, and nothing made."""
    code, output = run(tmp_path, server_settings(), "import", "nowhere")
    assert (code, output) == (1, "headwater: nowhere holds no backup\n")
    assert list(tmp_path.iterdir()) == []


def test_embedded_database_without_a_server(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Is started for as long as it is needed."""
    settings = {"HEADWATER_EMBEDDED_PORT": str(free_port()), "HEADWATER_DATA_DIR": str(tmp_path / "data")}
    code, output = run(tmp_path, settings, "export", "backup")
    assert (code, output) == (0, "0 documents of 0 collections of headwater are in backup.\n")
