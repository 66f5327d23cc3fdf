"""The HTTP and WebSocket edges. See README.md."""

from api.app import create_app, openapi_document
from api.passwords import Passwords
from api.services import Services
from api.settings import IN_MEMORY, Settings, SettingsRefused, load_settings
from api.tokens import Tokens

__all__ = [
    "IN_MEMORY",
    "Passwords",
    "Services",
    "Settings",
    "SettingsRefused",
    "Tokens",
    "create_app",
    "load_settings",
    "openapi_document",
]
