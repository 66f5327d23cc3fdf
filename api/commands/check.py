"""`check`: whether the settings are safe."""

from __future__ import annotations

import typer

from api.commands.console import say, settings_or_exit
from api.safety import findings
from api.settings import unknown_settings


def check() -> None:
    """List every unsafe setting and how to mend it. In production one of them is enough for exit code 1.

    Reads the settings as `serve` does, and connects to nothing.
    """
    settings = settings_or_exit()
    found = findings(settings)
    for finding in found:
        say(f"{'unsafe' if finding.unsafe else 'advice'}  {finding}")
    unknown = unknown_settings()
    for name in unknown:
        say(f"advice  {name}: there is no such setting, so it has no effect. See docs/settings.md for its name.")
    unsafe = sum(finding.unsafe for finding in found)
    if not found and not unknown:
        say(f"Nothing unsafe found for {settings.environment}.")
    if unsafe and settings.environment == "production":
        raise typer.Exit(1)
