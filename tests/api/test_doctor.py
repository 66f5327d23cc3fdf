"""`doctor` beside real servers: what it says of one that is well, and of each thing that is not."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from tests.api.conftest import Starter
from tests.api.servers import ROOT, SECRET, Server, environment, live, serving, wait_until
from tests.redis_server import RedisServer

Mongo = Database[dict[str, Any]]
WORKERS = 3


class Clinic:
    """Three workers on one port, and their settings."""

    def __init__(self, server: Server, settings: dict[str, str], mongo: Mongo) -> None:
        self.server = server
        self.settings = settings | {"HEADWATER_PORT": str(server.port)}
        self.mongo = mongo

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Begin an examination with the server's settings, but for `more`."""
        return subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(ROOT / "main.py"), "doctor", *arguments],
            env=environment(self.settings | {f"HEADWATER_{name.upper()}": value for name, value in more.items()}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def examine(self, *arguments: str, **more: str) -> tuple[int, str]:
        """The exit code, and what was printed."""
        examining = self.start(*arguments, **more)
        output, _ = examining.communicate(timeout=120)
        return examining.returncode, output

    @property
    def leftovers(self) -> list[Any]:
        """What a canary could have left."""
        users = list(self.mongo["users"].find({"username": {"$regex": "^doctor-"}}))
        known = self.mongo["users"].distinct("_id")
        orphans = list(self.mongo["sessions"].find({"user_id": {"$nin": known}}))
        return [*users, *orphans, *self.mongo["headwater_orders"].find({}), *self.mongo["headwater_replies"].find({})]


@pytest.fixture(scope="module")
def clinic(
    tmp_path_factory: pytest.TempPathFactory,
    module_redis: RedisServer,
    server_settings: Starter,
    mongodb_url: str,
    free_port: Callable[[], int],
) -> Iterator[Clinic]:
    """Three workers, ready."""
    settings = server_settings(workers=str(WORKERS), redis_url=module_redis.url)
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb_url)
    mongo = client[settings["HEADWATER_DATABASE"]]
    with serving(tmp_path_factory.mktemp("clinic"), free_port(), settings) as server:
        wait_until(lambda: mongo["headwater_workers"].count_documents({}) == WORKERS)
        yield Clinic(server, settings, mongo)
    client.close()


def failed(output: str) -> list[str]:
    """The lines of what is not well."""
    return [line for line in output.splitlines() if line.startswith("FAIL")]


def test_server_that_is_well(clinic: Clinic) -> None:
    """Every worker's delay is told, the exit code is 0, and nothing is left in the database."""
    code, output = clinic.examine("--json")
    report = json.loads(output)
    assert (code, report["ok"]) == (0, True), output
    names = [check["name"] for check in report["checks"]]
    assert names == ["database", "clock", "images", "redis", "clock", "relay", "checkpoints", *["worker"] * WORKERS]
    workers = [check["details"] for check in report["checks"] if check["name"] == "worker"]
    assert {worker["id"] for worker in workers} == set(clinic.mongo["headwater_workers"].distinct("_id"))
    assert all(0 <= worker["direct_ms"] < 5_000 and 0 <= worker["api_ms"] < 5_000 for worker in workers)
    assert any(worker["relay"] for worker in workers)
    assert clinic.leftovers == []


def test_words(clinic: Clinic) -> None:
    """Without `--json` each check is a line, and what is wrong is followed by what to do."""
    code, output = clinic.examine(secret_key=SECRET[::-1])
    assert code == 1
    (line,) = failed(output)
    assert "does not take a token that is signed here" in line
    assert "HEADWATER_SECRET_KEY" in output.splitlines()[output.splitlines().index(line) + 1]
    assert "All is well" not in output
    assert clinic.leftovers == []


def test_address_where_nothing_answers(clinic: Clinic, free_port: Callable[[], int]) -> None:
    """It is named, and so is the option."""
    code, output = clinic.examine("--url", f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert "nothing answers at http://127.0.0.1:" in failed(output)[0]
    assert "--url" in output
    assert clinic.leftovers == []


def test_database_away(clinic: Clinic, free_port: Callable[[], int]) -> None:
    """Nothing else can be asked then."""
    code, output = clinic.examine(mongodb_url=f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=500")
    assert code == 1
    assert len(failed(output)) == 1
    assert "no MongoDB server answers" in failed(output)[0]


def test_redis_away(clinic: Clinic, free_port: Callable[[], int]) -> None:
    """It fails alone: the workers are asked all the same."""
    code, output = clinic.examine(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    assert code == 1
    assert [line.split()[1] for line in failed(output)] == ["redis:"]
    assert output.count("worker: ") == WORKERS


def test_redis_that_may_lose_the_log(clinic: Clinic, module_redis: RedisServer) -> None:
    """A policy that evicts, and too little memory, are told with what to set."""
    with module_redis.client() as client:
        try:
            client.config_set("maxmemory", "50mb")
            code, output = clinic.examine()
            assert (code, len(failed(output))) == (1, 1)
            assert "a full log takes 80 MiB" in output
            client.config_set("maxmemory-policy", "allkeys-lru")
            code, output = clinic.examine()
            assert (code, len(failed(output))) == (1, 1)
            assert "Set maxmemory-policy to noeviction" in output
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "0")


def test_images_that_are_off(clinic: Clinic) -> None:
    """The collection is named, and the command that mends it."""
    clinic.mongo.command("collMod", "comments", changeStreamPreAndPostImages={"enabled": False})
    try:
        code, output = clinic.examine()
        assert (code, len(failed(output))) == (1, 1)
        assert "comments" in failed(output)[0]
        assert "schema apply" in output
    finally:
        clinic.mongo.command("collMod", "comments", changeStreamPreAndPostImages={"enabled": True})


@pytest.mark.parametrize("silent", [0, 30])
def test_worker_that_hangs(clinic: Clinic, silent: int) -> None:
    """It is named as the one that is not reached, also when it has long been silent; the others' delays are told."""
    victim = clinic.mongo["headwater_workers"].find_one({"relay": False})
    assert victim is not None
    os.kill(victim["pid"], signal.SIGSTOP)
    try:
        seen_at = victim["seen_at"] - dt.timedelta(seconds=silent)
        clinic.mongo["headwater_workers"].update_one({"_id": victim["_id"]}, {"$set": {"seen_at": seen_at}})
        code, output = clinic.examine("--seconds", "3")
    finally:
        os.kill(victim["pid"], signal.SIGCONT)
    assert code == 1
    (line,) = [line for line in failed(output) if "worker: " in line]
    assert f"process {victim['pid']}: it does not answer" in line
    assert output.count("ok    worker: ") == WORKERS - 1
    assert clinic.leftovers == []
    with live(clinic.server) as connection:
        connection.subscribe("1")


def test_worker_that_was_killed(clinic: Clinic) -> None:
    """What it left says nothing against the server; of one on another machine nobody here knows that it has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    workers = clinic.mongo["headwater_workers"]
    here = workers.find_one({})
    assert here is not None

    def some_time_ago() -> dt.datetime:
        # Long enough to be absent, and far from being forgotten, which is after a minute.
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=30)

    workers.insert_one(here | {"_id": "killed", "pid": ended.pid, "seen_at": some_time_ago()})
    try:
        code, output = clinic.examine()
        assert code == 0, output
        workers.update_one({"_id": "killed"}, {"$set": {"host": "elsewhere", "seen_at": some_time_ago()}})
        code, output = clinic.examine("--seconds", "3")
        assert (code, len(failed(output))) == (1, 1)
        assert f"elsewhere process {ended.pid}: it does not answer" in failed(output)[0]
    finally:
        workers.delete_one({"_id": "killed"})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(clinic: Clinic, number: signal.Signals) -> None:
    """The canary is taken away all the same."""
    examining = clinic.start("--seconds", "60")
    try:
        wait_until(lambda: clinic.leftovers)
        examining.send_signal(number)
        output, _ = examining.communicate(timeout=60)
    finally:
        examining.kill()
        examining.wait()
    assert examining.returncode == 130, output
    assert "Traceback" not in output
    assert [left for left in clinic.leftovers if "order" not in left] == []
    # A worker that has just answered takes its answer back.
    wait_until(lambda: clinic.leftovers == [])


def test_canary_of_one_who_was_killed(clinic: Clinic) -> None:
    """The next examination takes it away once it is old; a user who is only named like one stays."""
    user = {"email_key": "", "roles": ["user"], "is_active": True, "created_at": None, "revision": 1}
    names = ("doctor-0123456789ab", "doctor-ba9876543210", "doctor-strange")
    old = clinic.mongo["users"].find_one({"username": "admin"})
    assert old is not None
    for name in names:
        like = {"username": name, "username_key": name, "email": f"{name}@example.org"}
        fresh = (
            old | user | like | {"email_key": f"{name}@example.org", "created_at": old["created_at"].replace(year=2020)}
        )
        del fresh["_id"]
        clinic.mongo["users"].insert_one(fresh | {"password_hash": "x" if name == names[1] else "!"})
    try:
        code, output = clinic.examine()
        assert code == 0, output
        assert clinic.mongo["users"].distinct("username", {"username": {"$in": names}}) == sorted(names[1:])
    finally:
        clinic.mongo["users"].delete_many({"username": {"$in": names}})


class _Between(socketserver.StreamRequestHandler):
    """Stands between clients and the server: signing out is answered with 503, or who subscribes is disconnected."""

    #: Nothing of the body is taken with the head.
    rbufsize = 0
    server: Between

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.rfile.readline()
        if self.server.refuses and head.startswith(b"POST "):
            self.wfile.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", self.server.target)) as onward:
            onward.sendall(head)
            back = threading.Thread(target=self._back, args=(onward,))
            back.start()
            cuts = self.server.cuts and head.startswith(b"GET ")
            while (part := self.connection.recv(65_536)) and not cuts:
                onward.sendall(part)
            onward.shutdown(socket.SHUT_RDWR)
            back.join()

    def _back(self, onward: socket.socket) -> None:
        while part := onward.recv(65_536):
            self.connection.sendall(part)


class Between(socketserver.ThreadingTCPServer):
    """See `_Between`."""

    def __init__(self, target: int, *, refuses: bool, cuts: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Between)
        self.target, self.refuses, self.cuts = target, refuses, cuts


@contextlib.contextmanager
def between(server: Server, *, refuses: bool = False, cuts: bool = False) -> Iterator[str]:
    """The address of one who stands between."""
    with Between(server.port, refuses=refuses, cuts=cuts) as listening:
        serving = threading.Thread(target=listening.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}"
        finally:
            listening.shutdown()
            serving.join()


def test_server_that_is_overloaded(clinic: Clinic) -> None:
    """It answers with 503 while it is examined: that is said, in words, and nothing stays behind."""
    with between(clinic.server, refuses=True) as url:
        code, output = clinic.examine("--url", url)
    assert (code, len(failed(output))) == (1, 1)
    assert "/auth/logout was answered with 503" in failed(output)[0]
    assert "Traceback" not in output
    assert clinic.leftovers == []


def test_connections_that_break(clinic: Clinic) -> None:
    """Each worker's, when it subscribes: none has told of a change."""
    with between(clinic.server, cuts=True) as url:
        code, output = clinic.examine("--url", url)
    assert code == 1
    unheard = [line for line in failed(output) if "no event of the direct and the API write" in line]
    assert len(unheard) == WORKERS, output
    assert "Traceback" not in output


def test_no_server(
    server_settings: Starter, tmp_path: Path, free_port: Callable[[], int], mongodb_url: str, clinic: Clinic
) -> None:
    """A database that nobody serves is told as such."""
    del tmp_path, mongodb_url
    settings = server_settings(port=str(free_port()))
    began = time.monotonic()
    examining = Clinic(clinic.server, {}, clinic.mongo)
    examining.settings = settings
    code, output = examining.examine()
    assert code == 1
    assert "no worker serves this database" in output
    assert time.monotonic() - began < 60
