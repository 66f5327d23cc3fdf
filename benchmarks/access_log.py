"""What the line that the log has of each request costs.

    python -m benchmarks.access_log [--requests 20000]

Sends requests through the middleware that writes it, around an application that answers at once; to `/dev/null`, so
that no disk is measured. A line costs the difference to the same at the level `warning`, at which there is none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import statistics
import sys
import time
from types import SimpleNamespace
from typing import Any

import structlog
from starlette.types import Message, Receive, Scope, Send

from api.logs import configure_logging
from api.metrics import Metrics
from api.request_log import RequestLog

ROUNDS = 5


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that does nothing else."""
    del receive
    scope["state"]["route"] = "/api/v1/posts/{id}"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def _receive() -> Message:
    return {"type": "http.request", "body": b""}


async def _send(message: Message) -> None:
    del message


async def seconds_each(requests: int) -> float:
    """CPU time of a request, as logging is set up now."""
    services = SimpleNamespace(
        figures=SimpleNamespace(metrics=Metrics()), settings=SimpleNamespace(forwarded_allow_ips=())
    )
    app: Any = SimpleNamespace(state=SimpleNamespace(services=services))
    log = RequestLog(answer)
    began = time.process_time()
    for number in range(requests):
        scope = {"type": "http", "method": "GET", "path": "/api/v1/posts/1", "headers": [], "app": app, "state": {}}
        with structlog.contextvars.bound_contextvars(request_id=f"{number:024x}"):
            await log(scope | {"client": ("127.0.0.1", 50_000)}, _receive, _send)
    return (time.process_time() - began) / requests


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args()
    say = sys.stdout.write
    say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n\n")
    say("| log | µs a line |\n|---|---|\n")
    for form in ("text", "json"):
        differences = []
        for _ in range(ROUNDS):
            costs = {}
            for level in ("warning", "info"):
                with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                    configure_logging(level, as_json=form == "json")
                    costs[level] = asyncio.run(seconds_each(options.requests))
            differences.append(costs["info"] - costs["warning"])
        say(f"| {form} | {statistics.median(differences) * 1e6:.0f} |\n")


if __name__ == "__main__":
    main()
