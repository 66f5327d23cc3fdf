"""The folder in which workers keep their figures, so that each can answer for all, also for those that have ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

#: Where the counts of workers that have ended are added up. No process has this id.
_ENDED: Final = 0


class MetricFiles:
    """Files of `prometheus_client`, one a process and kind. A lock keeps reading and tidying apart."""

    VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    @contextlib.contextmanager
    def locked(self, how: int = fcntl.LOCK_EX) -> Iterator[None]:
        """Hold the lock. Its holders need a few milliseconds."""
        with (self._directory / "lock").open("a") as lock:
            fcntl.flock(lock, how)
            yield

    @contextlib.contextmanager
    def merged(self) -> Iterator[CollectorRegistry]:
        """The figures of all workers."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._directory))  # type: ignore[no-untyped-call]
        with self.locked(fcntl.LOCK_SH):
            yield registry

    def bury(self, pid: int) -> None:
        """Add what a worker that has ended has counted to what others did before it, and remove its files.

        So counters never go back, and files do not pile up. Safe to call twice.
        """
        with self.locked():
            mark_process_dead(pid, path=str(self._directory))  # type: ignore[no-untyped-call]
            for path in self._directory.glob(f"*_{pid}.db"):
                kind = path.name.removesuffix(f"_{pid}.db")
                ended = MmapedDict(str(self._directory / f"{kind}_{_ENDED}.db"))  # type: ignore[no-untyped-call]
                try:
                    for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                        before, _ = ended.read_value(key)  # type: ignore[no-untyped-call]
                        ended.write_value(key, before + value, 0.0)  # type: ignore[no-untyped-call]
                finally:
                    ended.close()  # type: ignore[no-untyped-call]
                os.remove(path)
