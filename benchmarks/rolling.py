"""A deploy without loss: all workers are replaced under load, while browser clients watch.

    python -m benchmarks.rolling [--clients 500] [--rolls 2] [--database PROGRAM]

The clients are `web/headwater.js` itself, in one Node process; `make test` installs what they need. Exit code 1 when a
client missed or repeated an event, had one out of order, was told `reset`, or holds another result than the database.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import httpx
from bson import ObjectId

from benchmarks.watchers import percentile
from tests.api.servers import ADMIN_EMAIL, PASSWORD, ROOT, SECRET, environment
from tests.chaos.site import DATABASE, EMBEDDED, Database, until
from tests.conftest import find_free_port
from tests.redis_server import running_redis

WORKERS = 3
PAUSE_SECONDS = 0.25
ROLL_SECONDS = 300
RESOURCE = "posts"
QUERY = {"filter": {"status": "published", "tags": "load"}, "sort": ["id"], "limit": 10_000}
START_SECONDS = 120


async def measure(folder: Path, count: int, rolls: int, program: tuple[str, ...]) -> bool:
    """Roll, and judge what the clients were told."""
    database, port = Database(find_free_port(), folder, program), find_free_port()
    await database.start()
    with running_redis(folder, find_free_port()) as redis, (folder / "server.log").open("wb") as log:
        settings = {
            "HEADWATER_PORT": str(port),
            "HEADWATER_WORKERS": str(WORKERS),
            "HEADWATER_MONGODB_URL": Database.url(database.port),
            "HEADWATER_REDIS_URL": redis.url,
            "HEADWATER_DATABASE": DATABASE,
            "HEADWATER_SECRET_KEY": SECRET,
            "HEADWATER_ADMIN_EMAIL": ADMIN_EMAIL,
            "HEADWATER_ADMIN_PASSWORD": PASSWORD,
            "HEADWATER_RATE_LIMIT": "1000000/minute",
        }
        command = [sys.executable, str(ROOT / "main.py")]
        server = subprocess.Popen(  # noqa: ASYNC220 - it takes no time
            command, cwd=folder, env=environment(settings), stdout=log, stderr=log
        )
        try:
            await until(lambda: _count(folder, "Stop with Ctrl-C") == 1, "the server serves")
            return await _rolled(folder, port, database, server, count, rolls)
        except TimeoutError:
            sys.stderr.write((folder / "server.log").read_text()[-3_000:])
            raise
        finally:
            server.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.wait, 60)
            await database.stop()
            await database.close()


def _count(folder: Path, what: str) -> int:
    return (folder / "server.log").read_text().count(what)


async def _rolled(
    folder: Path, port: int, database: Database, server: subprocess.Popen[bytes], count: int, rolls: int
) -> bool:
    ids: list[str] = []
    answers: Counter[int | str] = Counter()
    enough = asyncio.Event()
    async with _browsers(port, count) as browsers:
        tasks = [
            asyncio.create_task(_write(database, ids, enough)),
            asyncio.create_task(_call(f"http://127.0.0.1:{port}/api/v1/posts", answers)),
        ]
        began = time.monotonic()
        for roll in range(rolls):
            server.send_signal(signal.SIGHUP)
            replaced: Callable[[], bool] = lambda: _count(folder, "takes the place of") >= WORKERS * (roll + 1)  # noqa: B023, E731
            await until(replaced, "all workers are replaced", ROLL_SECONDS)
            await asyncio.sleep(8)
        took = time.monotonic() - began
        enough.set()
        await tasks[0]
        seen = await _end(browsers, len(ids))
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    held = sorted(ids)
    wrong = sum(result["heard"] != ids for result in seen["results"])
    other = sum(result["state"] != "live" or result["items"] != held for result in seen["results"])
    frames, longest = seen["frames"], max(seen["delays"], default=math.nan)
    median, p99 = (f"{percentile(seen['delays'], share) * 1_000:.0f} ms" for share in (0.5, 0.99))
    sys.stdout.write(
        f"{rolls} times {WORKERS} workers replaced in {took:.0f} s under load, {count} clients\n"
        f"  {len(ids)} changes, {len(seen['delays'])} deliveries, {wrong} clients that missed or repeated one, "
        f"{other} that hold another result, {frames['resets']} resets\n"
        f"  {frames['resumed']} resumptions, {frames['afresh']} others; closed: {seen['closed']}; "
        f"requests: {dict(answers)}\n"
        f"  commit to client: median {median}, p99 {p99}, longest {longest:.1f} s ({os.cpu_count()} cores)\n"
        + "".join(f"  {fault}\n" for fault in seen["faults"])
    )
    return not (wrong or other or frames["resets"] or frames["afresh"] or seen["faults"])


@contextlib.asynccontextmanager
async def _browsers(port: int, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """So many clients in a Node process, all live."""
    program = shutil.which("node")
    if program is None or not (ROOT / "tests" / "node" / "node_modules" / "ws").is_dir():
        raise SystemExit("the clients need Node 20 and the test tools: install nodejs and npm, then `make test` once")
    process = await asyncio.create_subprocess_exec(
        program,
        str(Path(__file__).parent / "browsers.mjs"),
        *(f"http://127.0.0.1:{port}", str(count), RESOURCE, json.dumps(QUERY)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=256 * 1024 * 1024,
    )
    try:
        said = cast("asyncio.StreamReader", process.stdout)
        async with asyncio.timeout(START_SECONDS):
            if await said.readline() != b"live\n":
                raise SystemExit("the clients did not start; what they wrote stands above")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _end(browsers: asyncio.subprocess.Process, count: int) -> dict[str, Any]:
    """Wait until each has heard of so many documents, or for a minute, and return what the clients saw."""
    asked = json.dumps({"count": count, "seconds": 60}).encode() + b"\n"
    cast("asyncio.StreamWriter", browsers.stdin).write(asked)
    seen: dict[str, Any] = json.loads(await cast("asyncio.StreamReader", browsers.stdout).readline())
    return seen


async def _write(database: Database, ids: list[str], enough: asyncio.Event) -> None:
    """Insert published posts until it is enough."""
    while not enough.is_set():
        id = ObjectId()
        post = {"_id": id, "title": "Rolling", "slug": str(id), "tags": ["load"], "status": "published"}
        await database.client[DATABASE]["posts"].insert_one(
            post | {"author_id": ObjectId(), "revision": 1, "body": repr(time.time())}
        )
        ids.append(str(id))
        await asyncio.sleep(PAUSE_SECONDS)


async def _call(url: str, answers: Counter[int | str]) -> None:
    """Read through the API, one request at a time on a connection that is kept, until cancelled."""
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        while True:
            try:
                answers[(await http.get(url, params={"limit": random.randrange(1, 5)})).status_code] += 1  # noqa: S311
            except httpx.HTTPError as error:
                answers[type(error).__name__] += 1
            await asyncio.sleep(0.05)


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rolling", description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--rolls", type=int, default=2)
    parser.add_argument("--database", default=None, help="the program of the database; else the embedded one")
    options = parser.parse_args()
    program = (options.database,) if options.database else EMBEDDED
    with tempfile.TemporaryDirectory(prefix="headwater-rolling-") as folder:
        return 0 if asyncio.run(measure(Path(folder), options.clients, options.rolls, program)) else 1


if __name__ == "__main__":
    sys.exit(main())
