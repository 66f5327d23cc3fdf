"""Background work: bounded, owned, and never in anybody's way."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging

import pytest

from api import Background
from api.background import AT_A_TIME, BackgroundFailure

SECRET = "a-token-that-nobody-may-read"  # noqa: S105 - not used outside the tests


async def idle() -> None:
    """Work that is done at once."""


async def test_work_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Is one line in the log, without the words of an error that may quote a secret; what comes after is done."""
    background, done = Background(), asyncio.Event()

    async def fail() -> None:
        raise ValueError(f"cannot handle {SECRET}")

    async def fail_with_words() -> None:
        raise BackgroundFailure("the mail server has no time")

    async def succeed() -> None:
        done.set()

    assert background.submit("mail", "welcome", fail)
    assert background.submit("mail", "reset", fail_with_words)
    assert background.submit("mail", "other", succeed)
    await asyncio.wait_for(done.wait(), 5)
    await background.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "mail (welcome) failed: ValueError",
        "mail (reset) failed: the mail server has no time",
    ]
    assert SECRET not in caplog.text


async def test_more_than_may_wait(caplog: pytest.LogCaptureFixture) -> None:
    """Is left out, which the log tells; other kinds of work are not concerned."""
    background, gate, done = Background(max_waiting=AT_A_TIME + 2), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        done.set()

    taken = [background.submit("mail", "welcome", gate.wait) for _ in range(AT_A_TIME + 3)]
    assert taken == [True] * (AT_A_TIME + 2) + [False]
    assert background.submit("audit", "registered", work)
    await asyncio.wait_for(done.wait(), 5)
    assert caplog.messages == [f"mail (welcome) was left out: {AT_A_TIME + 2} are waiting"]
    gate.set()
    await background.stop()


async def test_end_of_the_server_with_work_under_way() -> None:
    """It is awaited, also what still waits for its turn."""
    background, gate, done = Background(), asyncio.Event(), []

    async def work() -> None:
        await gate.wait()
        done.append(1)

    for _ in range(AT_A_TIME * 2):
        background.submit("mail", "welcome", work)
    stopping = asyncio.create_task(background.stop())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.wait_for(stopping, 5)
    assert len(done) == AT_A_TIME * 2


async def test_end_of_the_server_with_work_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """It is cut off after the drain time, with a word; later work is not taken."""
    background, ended = Background(drain_time=dt.timedelta(milliseconds=50)), asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    background.submit("mail", "welcome", hang)
    await asyncio.wait_for(background.stop(), 5)
    assert ended.is_set()
    assert background.submit("mail", "welcome", idle) is False
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert caplog.messages == [
        "mail: welcome was cut off by the end of the server",
        "mail (welcome) was left out: the server is stopping",
    ]


async def test_kinds_that_wait_for_nobody() -> None:
    """A kind whose turns are all taken holds up no other."""
    background, gate, done = Background(), asyncio.Event(), asyncio.Event()
    for _ in range(AT_A_TIME):
        background.submit("mail", "welcome", gate.wait)

    async def work() -> None:
        done.set()

    background.submit("audit", "registered", work)
    await asyncio.wait_for(done.wait(), 5)
    gate.set()
    await background.stop()
