"""Commands that print what describes the API to programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from api.app import live_document, openapi_document
from api.commands.console import refuse, say, settings_or_exit
from api.settings import Settings
from documents import DeclarationError, Registry


def openapi() -> None:
    """Print the OpenAPI document of the registered classes as JSON."""
    _print(openapi_document)


def asyncapi() -> None:
    """Print the AsyncAPI document of the live protocol as JSON."""
    _print(live_document)


def _print(describe: Callable[[Settings, Registry], dict[str, Any]]) -> None:
    settings = settings_or_exit()
    try:
        document = describe(settings, Registry.load(settings.documents))
    except DeclarationError as error:
        raise refuse(error) from None
    say(json.dumps(document, indent=2))
