"""Commands that print what describes the API to programs."""

from __future__ import annotations

import json

from api.app import openapi_document
from api.commands.console import refuse, say, settings_or_exit
from documents import DeclarationError, Registry


def openapi() -> None:
    """Print the OpenAPI document of the registered classes as JSON."""
    settings = settings_or_exit()
    try:
        document = openapi_document(settings, Registry.load(settings.documents))
    except DeclarationError as error:
        raise refuse(error) from None
    say(json.dumps(document, indent=2))
