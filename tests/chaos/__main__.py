"""Look for a broken promise: `python -m tests.chaos --minutes 30`. Exit code 1 when there is one."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Report, run
from tests.chaos.site import EMBEDDED
from tests.conftest import find_free_port


def main() -> int:
    """Run, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long faults are made")
    parser.add_argument("--seed", type=int, default=None, help="makes the same choices as an earlier run")
    parser.add_argument("--rate", type=float, default=12.0, help="writes a second of each of five writers")
    parser.add_argument("--crowd", type=int, default=0, help="so many more clients that watch twelve views each")
    parser.add_argument("--database", default=None, help="the program of the database; else the embedded one")
    parser.add_argument("--directory", type=Path, default=None, help="where data and logs are kept")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    directory = options.directory or Path(tempfile.mkdtemp(prefix="headwater-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"seed {seed}, logs in {directory}\n")
    sys.stdout.flush()
    database = [options.database] if options.database else EMBEDDED
    ports = [find_free_port() for _ in range(5)]

    async def stoppable() -> Report:
        # Whoever stops the checker stops its processes too.
        running = asyncio.ensure_future(
            run(
                directory,
                ports,
                seconds=options.minutes * 60,
                seed=seed,
                rate=options.rate,
                crowd=options.crowd,
                database=database,
            )
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        return await running

    report = asyncio.run(stoppable())
    sys.stdout.write(f"{report}\n")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
