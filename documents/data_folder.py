"""The folder that holds the embedded database's data, and the locks that keep it to one process at a time.

Both locks belong to a process and not to a file: the kernel drops them when the process ends, however it
ends. A lock *file* that a killed process left behind therefore means nothing and is used again.

- `headwater.lock`, held with `flock(2)` by the Headwater that uses the folder.
- `db/WiredTiger.lock`, held with a POSIX record lock by the database server itself. We never take it; we
  ask who does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from pathlib import Path
from typing import IO

from documents.errors import DatabaseRefused

_CONFIG = """\
# Further settings of the embedded database, for instance:
# [storage]
# cache_size = "256M"
"""


class DataFolder:
    """The folder `path` (created when missing) and what is in it. Used by one process between `claim` and
    `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.storage = self.path / "db"
        self.log = self.path / "database.log"
        self.config = self.path / "database.toml"
        self.pid_file = self.path / "database.pid"
        self._lock: IO[str] | None = None

    @property
    def claimed(self) -> bool:
        """Whether this object holds the folder."""
        return self._lock is not None

    def claim(self) -> None:
        """Create the folder and take its lock.

        Raises `DatabaseRefused` when the folder cannot be written or another process uses it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError), self.config.open("x") as config:
                config.write(_CONFIG)
            lock = (self.path / "headwater.lock").open("a+")
        except OSError as error:
            raise DatabaseRefused(
                f"the data folder {self.path} cannot be written ({error.strerror}): "
                "set HEADWATER_DATA_DIR to a folder that can"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The file is never removed: another process may have opened it, and would then lock a file that
            # is gone.
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip()
            lock.close()
            raise DatabaseRefused(
                f"the data folder {self.path} is in use by another Headwater"
                f"{f' (process {owner})' if owner else ''}: stop that one, or set HEADWATER_DATA_DIR and "
                "HEADWATER_EMBEDDED_PORT for this one"
            ) from error
        except OSError as error:
            with contextlib.suppress(OSError):
                lock.close()
            raise DatabaseRefused(
                f"the data folder {self.path} cannot be locked ({error.strerror}): "
                "set HEADWATER_DATA_DIR to a folder on a local disk with room"
            ) from error
        self._lock = lock

    def release(self) -> None:
        """Give the folder free. Does nothing when it is not claimed."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def storage_holder(self) -> int | None:
        """The id of the process whose database uses the folder now (0 if it is in another container), or
        None."""
        # `fcntl(2)`, F_GETLK. Linux's struct flock is type, whence, start, length, pid; macOS's start,
        # length, pid, type, whence.
        mac = sys.platform == "darwin"
        layout = "qqihh" if mac else "hhqqi"
        ask = struct.pack(layout, *((0, 0, 0, fcntl.F_WRLCK, 0) if mac else (fcntl.F_WRLCK, 0, 0, 0, 0)))
        try:
            with (self.storage / "WiredTiger.lock").open("rb") as file:
                answer = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, ask))
        except OSError:
            return None
        kind, holder = (answer[3], answer[2]) if mac else (answer[0], answer[4])
        return None if kind == fcntl.F_UNLCK else int(holder)

    def started_process(self) -> int | None:
        """The id of the database process that was started last on this folder, dead or alive."""
        try:
            return int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None

    def started_process_is_alive(self) -> bool:
        """Whether a process of that id runs. It may be another by chance: never a reason to end it."""
        pid = self.started_process()
        if pid is None:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
        return True
