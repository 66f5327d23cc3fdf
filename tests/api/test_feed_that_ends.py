"""A process whose feed has ended of an error that nobody has foreseen."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.api.conftest import Starter
from tests.api.servers import live, serving, wait_until
from tests.api.watchers import publish, watching
from tests.processes import is_alive

#: The first process that has an entry while there is a file of this name fails on it.
MODULE = """
from pathlib import Path

from realtime.feed import Feed

accept = Feed._accept


def fail_once(feed, entry):
    try:
        Path("poison").unlink()
    except FileNotFoundError:
        return accept(feed, entry)
    raise RuntimeError("an error that nobody has foreseen")


Feed._accept = fail_once
"""


def test_single_process(tmp_path: Path, server_settings: Starter, free_port: Callable[[], int]) -> None:
    """It sends its clients away and ends, so that whoever keeps it starts another."""
    (tmp_path / "poisoned.py").write_text(MODULE)
    settings = server_settings(documents="documents.models,poisoned")
    with serving(tmp_path, free_port(), settings, tmp_path) as server, live(server) as connection:
        (tmp_path / "poison").touch()
        assert connection.close_code() == 1012
        assert server.process.wait(30) == 1
        assert "the feed has ended" in server.log
        assert "this process has no feed any more, and ends" in server.log


def test_worker(tmp_path: Path, server_settings: Starter, free_port: Callable[[], int]) -> None:
    """Another one takes its place, and clients miss nothing."""
    (tmp_path / "poisoned.py").write_text(MODULE)
    settings = server_settings(documents="documents.models,poisoned", workers="2")
    with serving(tmp_path, free_port(), settings, tmp_path) as server:

        def workers() -> set[int]:
            served = (int(pid) for pid in re.findall(r"worker (\d+) serves", server.log))
            return {pid for pid in served if is_alive(pid)}

        user = server.register("mara")
        wait_until(lambda: len(workers()) == 2)
        first = workers()
        with watching(server, 12) as watchers:
            titles = [publish(user, "before")]
            for watcher in watchers:
                watcher.read(titles)
            (tmp_path / "poison").touch()
            wait_until(lambda: len(workers()) == 2 and len(workers() & first) == 1)
            later = server.client(user.token)
            answer = later.post("/posts", json={"title": "after", "status": "published"})
            assert answer.status_code == 201, answer.text
            titles.append("after")
            for watcher in watchers:
                watcher.read(titles)
            assert not any("reset" in watcher.told for watcher in watchers)
        assert server.stop().count("ended with 1; another one is started") == 1
