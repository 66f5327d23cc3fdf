"""`check`: whether the settings are safe."""

from __future__ import annotations

import typer

from api.commands.console import say, settings_or_exit
from api.safety import findings


def check() -> None:
    """List every unsafe setting and how to mend it. In production one of them is enough for exit code 1.

    Reads the settings as `serve` does, and connects to nothing.
    """
    settings = settings_or_exit()
    found = findings(settings)
    for finding in found:
        say(f"{'unsafe' if finding.unsafe else 'advice'}  {finding}")
    unsafe = sum(finding.unsafe for finding in found)
    if not found:
        say(f"Nothing unsafe found for {settings.environment}.")
    if unsafe and settings.environment == "production":
        raise typer.Exit(1)
