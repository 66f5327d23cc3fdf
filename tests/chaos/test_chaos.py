"""A run of the checker of about a minute, and the parts that it stands on."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api.servers import ROOT
from tests.chaos.ledger import Ledger, Watched
from tests.chaos.mutations import MUTATIONS, Mutation
from tests.chaos.proxy import Proxy, reply_end
from tests.chaos.run import run

#: For one among the faults of a small machine; the median of many is measured by `benchmarks.outages`.
LONGEST_FAILOVER_SECONDS = 6


@pytest.mark.timeout(400)
async def test_every_kind_of_fault(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """With every kind of fault at least once, no client is told anything wrong, and none is left in silence."""
    ports = [free_port() for _ in range(5)]
    seed = secrets.randbelow(1_000_000)
    report = await run(tmp_path, ports, seconds=30, seed=seed, rate=8)
    assert not report.failed, str(report)
    assert report.ledger.deliveries > 1_000, str(report)
    assert max(report.failovers) < LONGEST_FAILOVER_SECONDS, str(report)


def place(number: int) -> str:
    """The `number`-th position, as long as a signed one."""
    return f"{number:024x}{'0' * 24}"


def told(ledger: Ledger, who: str, *events: tuple[int, str, str]) -> Watched:
    """A client that was live from position 1, and then told these events."""
    watched = Watched(who, ledger)
    watched.hear("subscribed", {"view": "v", "recovered": None}, "")
    watched.hear("snapshot", {"view": "v", "items": []}, "")
    watched.hear("ready", {"view": "v", "position": place(1), "complete": True}, "")
    for number, op, id in events:
        document = {} if op in ("leave", "delete") else {"document": {"id": id, "revision": number}}
        watched.hear("event", {"view": "v", "op": op, "id": id, "position": place(number), **document}, "")
    return watched


CREATED = (2, "create", "a")
UPDATED = (3, "update", "a")


@pytest.mark.parametrize(
    ("events", "what"),
    [
        ([CREATED, CREATED], "after"),
        ([CREATED, (3, "create", "a")], "which is held"),
        ([UPDATED], "which is not held"),
        ([(2, "leave", "a")], "which is not held"),
        ([(5, "create", "a"), (4, "update", "a")], "after"),
    ],
)
def test_what_one_client_notices(events: list[tuple[int, str, str]], what: str) -> None:
    """An event that is repeated, out of order, or does not fit what is held is a violation."""
    ledger = Ledger()
    told(ledger, "one", *events)
    assert any(what in violation.what for violation in ledger.violations)


def test_what_two_clients_notice() -> None:
    """An event that one client of a view was told and another one was not, in between, is a violation."""
    ledger = Ledger()
    later = (4, "update", "a")
    whole, holed = told(ledger, "whole", CREATED, UPDATED, later), told(ledger, "holed", CREATED, later)
    whole.forget()
    holed.forget()
    assert ledger.violations == []
    assert ledger.compare() == 2
    assert [violation.who for violation in ledger.violations] == ["holed"]


def test_what_a_fresh_query_shows() -> None:
    """A client that holds something else than a fresh query answers is a violation; bookkeeping is none."""
    ledger = Ledger()
    told(ledger, "right", CREATED).finish({"a": {"id": "a", "revision": 7}})
    assert ledger.violations == []
    told(ledger, "wrong", CREATED).finish({})
    assert len(ledger.violations) == 1


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_mutations_fit_the_code(mutation: Mutation, tmp_path: Path) -> None:
    """Each way to break the code on purpose still finds its place, and leaves what Python can read."""
    for name in {name for name, _, _ in mutation.edits}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    mutation.apply(tmp_path)
    for path in tmp_path.rglob("*.py"):
        compile(path.read_text(), path, "exec")


@pytest.mark.parametrize(
    "reply",
    [b"+OK\r\n", b"$-1\r\n", b"$4\r\na\r\nb\r\n", b"*2\r\n$1\r\na\r\n:5\r\n", b">1\r\n*0\r\n", b"%1\r\n+a\r\n+b\r\n"],
)
def test_end_of_a_reply(reply: bytes) -> None:
    """The proxy finds the end of each kind of reply, and waits for one that is not whole."""
    assert reply_end(b"+before\r\n" + reply + b"+after", 9) == 9 + len(reply)
    assert all(reply_end(reply[:cut], 0) is None for cut in range(len(reply)))


async def test_proxy_loses_whole_messages_only(free_port: Callable[[], int]) -> None:
    """Of what a subscriber is sent a lost message is missing as a whole, and the rest stays as it was."""
    message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n"
    confirmed = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        for piece in (confirmed, message[:11], message[11:] + message, confirmed):
            writer.write(piece)
            await writer.drain()
        writer.close()

    target = free_port()
    async with await asyncio.start_server(server, "127.0.0.1", target):
        proxy = Proxy(target, random.Random(1))  # noqa: S311 - a test must be repeatable
        proxy.lost_share = 1.0
        await proxy.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"SUBSCRIBE c\r\n")
        assert await reader.read() == confirmed * 2
        assert proxy.lost_messages == 2
        writer.close()
        await proxy.stop()
