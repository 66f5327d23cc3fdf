"""What clients of this process ask the database for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo import monitoring


class Finds(monitoring.CommandListener):
    """The `find` commands that were sent while it listened."""

    def __init__(self) -> None:
        self.listens = False
        self.sent: list[Mapping[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.listens and event.command_name == "find":
            self.sent.append(event.command)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing to note."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing to note."""
