"""Does the checker notice? `python -m tests.chaos.mutations` breaks a copy of the code in these ways, and runs it.

The exit code is 1 when a mutation was not noticed. Name some to try those alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.api.servers import ROOT

#: What is not needed to run, or is another run's.
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "data", "node_modules", "__pycache__", ".*_cache", "*.egg-info")
RUN_SECONDS = 600


@dataclass(frozen=True)
class Mutation:
    """A promise that the code breaks once `edits` (file, text, what stands there instead) are made."""

    what: str
    edits: tuple[tuple[str, str, str], ...]

    def apply(self, root: Path) -> None:
        """Make the edits below `root`. Raises ValueError where the text does not stand once."""
        for name, text, instead in self.edits:
            source = (root / name).read_text()
            if source.count(text) != 1:
                raise ValueError(f"{name}: expected once, found {source.count(text)} times: {text}")
            (root / name).write_text(source.replace(text, instead))


MUTATIONS = {
    "gap": Mutation(
        "a worker that notices a gap fetches nothing",
        (
            ("realtime/feed_redis.py", "if self._is_behind(message.position):", "if False:"),
            ("realtime/feed_redis.py", "elif self._is_behind(message[0].previous):", "elif False:"),
        ),
    ),
    "publish-first": Mutation(
        "the relay publishes first, in a call of its own, and appends no more than the last entry of a batch",
        (
            ("realtime/append.lua", "redis.call(ARGV[6], ARGV[5], table.concat(batch))\n", ""),
            (
                "realtime/log_redis.py",
                "                refusal = await self._append(",
                "                batch_data = b''.join(batch.arguments[1::2])\n"
                "                await self.redis.execute_command(command, self._entries_channel, batch_data)\n"
                "                refusal = await self._append(",
            ),
            (
                "realtime/log_redis.py",
                "self._entries_channel, command, *batch.arguments],",
                "self._entries_channel, command, *batch.arguments[-2:]],",
            ),
        ),
    ),
    "since": Mutation(
        "who was away for longer than history reaches is told what is left of it",
        (
            (
                "realtime/manager.py",
                "return position if self.feed.history.covers(position, request.query.resource.name) else None",
                "return max(position, self.feed.history.floor)",
            ),
        ),
    ),
    "lagging": Mutation(
        "what does not fit into the outbox of a client is left out in silence",
        (
            (
                "realtime/subscriptions.py",
                "            self.reset(protocol.ResetReason.LAGGING)\n",
                "            pass\n",
            ),
        ),
    ),
}


def noticed(mutation: Mutation, arguments: list[str], log: Path) -> tuple[int, str]:
    """Run a copy of the code with the mutation: how many violations were found, and of which kinds."""
    with tempfile.TemporaryDirectory(prefix="headwater-mutation-") as folder:
        root = Path(folder) / "code"
        shutil.copytree(ROOT, root, ignore=_LEFT_OUT)
        mutation.apply(root)
        command = [sys.executable, "-m", "tests.chaos", "--directory", str(Path(folder) / "run"), *arguments]
        with log.open("wb") as output:
            # A session of its own, so that nothing of it is left if it does not end.
            running = subprocess.Popen(  # noqa: S603 - our own program
                command, cwd=root, stdout=output, stderr=output, start_new_session=True
            )
            try:
                running.wait(RUN_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
                running.wait()
    report = log.read_text()
    found = re.search(r"(\d+) violations \(", report)
    # A fault that does not come off, or a line in a log, is no broken promise to a client.
    kinds = re.findall(r"^\d+ violations: (?!did not come off|an unexpected error)(.*)$", report, re.M)
    return (int(found[1]) if found and kinds else 0), "; ".join(kinds)


def main() -> int:
    """Try the mutations, and print what came of each."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", help="which; all, if none is named")
    parser.add_argument("--minutes", default="0.7")
    parser.add_argument("--seed", default="11")
    parser.add_argument("--database", default=None, help="the program of the database; else the embedded one")
    options = parser.parse_args()
    arguments = ["--minutes", options.minutes, "--seed", options.seed, "--crowd", "5"]
    arguments += ["--database", options.database] if options.database else []
    missed = 0
    folder = Path(tempfile.mkdtemp(prefix="headwater-mutations-"))
    for name in options.names or MUTATIONS:
        log = folder / f"{name}.txt"
        violations, kinds = noticed(MUTATIONS[name], arguments, log)
        missed += not violations
        verdict = f"{violations} violations: {kinds}" if violations else f"NOT NOTICED, see {log}"
        sys.stdout.write(f"{name} ({MUTATIONS[name].what}): {verdict}\n")
        sys.stdout.flush()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
