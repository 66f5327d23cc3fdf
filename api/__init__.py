"""The HTTP and WebSocket edges. See README.md."""

from api.administration import first_admin
from api.app import create_app
from api.background import Background
from api.callers import CallerOf
from api.counters import Counters, parse_limits
from api.figures import Figures
from api.listening import ListenRefused
from api.mail import Mail
from api.mail_files import FileMailer
from api.mail_smtp import SmtpMailer
from api.metrics import Metrics
from api.passwords import Passwords
from api.resource_routes import answer_with
from api.server_secret import server_secret
from api.services import Services, ServicesOf
from api.serving import STARTUP_ERRORS, Application
from api.serving import serve as serve_application
from api.settings import Settings, SettingsRefused, load_settings
from api.throttle import LoginThrottle
from api.token_keys import TokenKey, load_token_keys, secret_key
from api.tokens import Tokens
from api.tracing import tracing

__all__ = [
    "STARTUP_ERRORS",
    "Application",
    "Background",
    "CallerOf",
    "Counters",
    "Figures",
    "FileMailer",
    "ListenRefused",
    "LoginThrottle",
    "Mail",
    "Metrics",
    "Passwords",
    "Services",
    "ServicesOf",
    "Settings",
    "SettingsRefused",
    "SmtpMailer",
    "TokenKey",
    "Tokens",
    "answer_with",
    "create_app",
    "first_admin",
    "load_settings",
    "load_token_keys",
    "parse_limits",
    "secret_key",
    "serve_application",
    "server_secret",
    "tracing",
]
