"""The HTTP and WebSocket edges. See README.md."""

from api.administration import AdminRefused, create_admin, first_admin
from api.app import create_app, openapi_document
from api.background import Background
from api.callers import CallerOf
from api.counters import Counters, parse_limits
from api.mail import Mail
from api.mail_files import FileMailer
from api.mail_smtp import SmtpMailer
from api.passwords import Passwords
from api.resource_routes import answer_with
from api.server_secret import server_secret
from api.services import Services, ServicesOf
from api.serving import STARTUP_ERRORS, Application, ListenRefused
from api.serving import serve as serve_application
from api.settings import IN_MEMORY, Settings, SettingsRefused, load_settings
from api.throttle import LoginThrottle
from api.token_keys import TokenKey, load_token_keys, secret_key
from api.tokens import Tokens

__all__ = [
    "IN_MEMORY",
    "STARTUP_ERRORS",
    "AdminRefused",
    "Application",
    "Background",
    "CallerOf",
    "Counters",
    "FileMailer",
    "ListenRefused",
    "LoginThrottle",
    "Mail",
    "Passwords",
    "Services",
    "ServicesOf",
    "Settings",
    "SettingsRefused",
    "SmtpMailer",
    "TokenKey",
    "Tokens",
    "answer_with",
    "create_admin",
    "create_app",
    "first_admin",
    "load_settings",
    "load_token_keys",
    "openapi_document",
    "parse_limits",
    "secret_key",
    "serve_application",
    "server_secret",
]
