"""Settings: environment variables with the prefix `HEADWATER_`, or a `.env` file."""

from __future__ import annotations

import os
import re
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, NoDecode, SettingsConfigDict

from api.counters import parse_limits
from api.hosts import is_host_pattern
from api.mail_smtp import SmtpServer, parse_smtp_url
from api.mailboxes import ascii_address
from api.passwords import refuse_common
from api.tls import tls_faults
from documents import DocumentRefused
from realtime import RedisPlace

MIN_SECRET_BYTES = 32
MIN_TOKEN_CHARACTERS = 16
#: The username of the admin that a server makes by itself.
FIRST_ADMIN = "admin"
EMBEDDED = "embedded"
IN_MEMORY = "mongomock://"
#: MongoDB's own databases, whose changes cannot be followed.
_INTERNAL_DATABASES = ("admin", "config", "local")
_PREFIX = "HEADWATER_"
_FILE = ".env"

#: As browsers send it (RFC 6454, 6.2): with a path, or with capitals, none would ever be equal to it.
_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+")

#: Where users find the server, without a slash at its end: what is added to it begins with one.
_PUBLIC_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*[^\s?#/])?")

#: A comma-separated list in the environment.
Names = Annotated[tuple[str, ...], NoDecode]


class SettingsRefused(Exception):
    """The settings cannot be used. Each fault is one line."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class Settings(BaseSettings):
    """All settings of a process. Times are in the unit that the name says, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_file=_FILE, extra="ignore")

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    environment: Literal["development", "production"] = "development"
    secret_key: SecretStr = SecretStr("")
    mongodb_url: SecretStr = SecretStr(EMBEDDED)
    embedded_port: Annotated[int, Field(ge=1, le=65_535)] = 27_117
    redis_url: SecretStr | None = None
    database: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,38}$")] = "headwater"
    data_dir: Path = Path("data")
    documents: Names = ("documents.models",)
    admin_email: str = ""
    admin_password: SecretStr = SecretStr("")
    allowed_origins: Names = ()
    trusted_hosts: Names = ()
    https_redirect: bool = False
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    forwarded_allow_ips: Names = ("127.0.0.1",)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] | None = None
    metrics_token: SecretStr = SecretStr("")
    otlp_endpoint: str = ""
    registration: Literal["open", "closed"] = "open"
    password_min_length: Annotated[int, Field(ge=8, le=64)] = 8
    password_max_length: Annotated[int, Field(ge=64, le=1_024)] = 128
    smtp_url: SecretStr = SecretStr("")
    mail_from: str = ""
    public_url: str = ""
    token_keys: Names = ()
    access_token_minutes: Annotated[int, Field(ge=1, le=1_440)] = 15
    refresh_token_days: Annotated[int, Field(ge=1, le=365)] = 30
    rate_limit: str = "600/minute"
    login_rate_limit: str = "10/minute;100/hour"
    max_body_bytes: Annotated[int, Field(ge=1_024)] = 1_048_576
    max_upload_bytes: Annotated[int, Field(ge=1_024)] = 104_857_600
    page_size_max: Annotated[int, Field(ge=1, le=10_000)] = 100
    history_events: Annotated[int, Field(ge=100, le=10**9)] = 50_000
    history_max_bytes: Annotated[int, Field(ge=1_048_576, le=2**40)] = 67_108_864
    outbox_max_bytes: Annotated[int, Field(ge=65_536)] = 1_048_576
    snapshot_max: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    schema_action: Literal["error", "warn", "off"] = "error"

    @field_validator(
        *("documents", "allowed_origins", "token_keys", "trusted_hosts", "forwarded_allow_ips"), mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("redis_url", "tls_certificate", "tls_key", mode="before")
    @classmethod
    def _unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("rate_limit", "login_rate_limit")
    @classmethod
    def _limits(cls, value: str) -> str:
        try:
            parse_limits(value)
        except ValueError:
            raise ValueError("limits are written as 10/minute, several of them with ; between") from None
        return value

    @property
    def logs_json(self) -> bool:
        """Whether logs are for programs: as set, else in production."""
        return self.environment == "production" if self.log_format is None else self.log_format == "json"

    @property
    def embedded(self) -> bool:
        """Whether the database is the embedded one."""
        return self.mongodb_url.get_secret_value() == EMBEDDED

    @property
    def smtp_server(self) -> SmtpServer | None:
        """Where mail is handed over; None where no server is set. Raises ValueError, which does not repeat the URL."""
        url = self.smtp_url.get_secret_value()
        return parse_smtp_url(url) if url else None

    @property
    def sender(self) -> str:
        """What stands in the `From` of mails."""
        user = self.smtp_server.username if self.smtp_server else None
        return self.mail_from or (user if user and "@" in user else "Headwater <headwater@localhost>")

    @property
    def scheme(self) -> str:
        """What the server speaks itself; a proxy in front may speak another one."""
        return "https" if self.tls_certificate else "http"

    @property
    def address(self) -> str:
        """The server's address for links in mails. Never taken from a request, whose `Host` anybody can choose."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - replaced, not bound
        return self.public_url or f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def faults(self) -> list[str]:
        """What makes these settings unsafe for their environment, a line each."""
        found: list[str] = []
        found += self._admin_faults()
        found += self._mail_faults()
        found += tls_faults(self.tls_certificate, self.tls_key)
        for origin in self.allowed_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                found.append(f"HEADWATER_ALLOWED_ORIGINS: {origin!r} is not an origin, such as https://app.example.org")
        for host in self.trusted_hosts:
            if not is_host_pattern(host):
                found.append(f"HEADWATER_TRUSTED_HOSTS: {host!r} is not a host without a port, such as *.example.org")
        for peer in self.forwarded_allow_ips:
            if peer != "*" and not _is_network(peer):
                found.append(f"HEADWATER_FORWARDED_ALLOW_IPS: {peer!r} is not an address, a network or *")
        if self.database in _INTERNAL_DATABASES:
            found.append(f"HEADWATER_DATABASE: {self.database} is MongoDB's own, whose changes cannot be followed")
        if self.redis_url is not None and not _is_redis(self.redis_url.get_secret_value()):
            found.append("HEADWATER_REDIS_URL is not a URL such as redis://localhost:6379/0; see docs/settings.md")
        secret = self.secret_key.get_secret_value()
        if secret and len(secret.encode()) < MIN_SECRET_BYTES:
            found.append(f"HEADWATER_SECRET_KEY is shorter than {MIN_SECRET_BYTES} bytes")
        if self.otlp_endpoint and not _PUBLIC_URL.fullmatch(self.otlp_endpoint.rstrip("/")):
            found.append("HEADWATER_OTLP_ENDPOINT is not an address such as http://127.0.0.1:4318")
        token = self.metrics_token.get_secret_value()
        if token and len(token) < MIN_TOKEN_CHARACTERS:
            found.append(f"HEADWATER_METRICS_TOKEN is shorter than {MIN_TOKEN_CHARACTERS} characters")
        if self.workers > 1 and self.mongodb_url.get_secret_value() == IN_MEMORY:
            found.append("HEADWATER_WORKERS: a database in memory belongs to one process")
        if self.environment == "production":
            if self.workers > 1 and self.redis_url is None:
                found.append("HEADWATER_REDIS_URL must be set in production when HEADWATER_WORKERS is more than 1")
            if not secret:
                found.append(f"HEADWATER_SECRET_KEY must be set in production, to at least {MIN_SECRET_BYTES} bytes")
            if self.embedded or self.mongodb_url.get_secret_value() == IN_MEMORY:
                found.append("HEADWATER_MONGODB_URL must name a MongoDB replica set or cluster in production")
            if "*" in self.allowed_origins:
                found.append("HEADWATER_ALLOWED_ORIGINS must not contain * in production")
        return found

    def _admin_faults(self) -> list[str]:
        """By the rules of a registration, whose name is `FIRST_ADMIN`."""
        found: list[str] = []
        email, password = self.admin_email, self.admin_password.get_secret_value()
        if bool(email) != bool(password):
            found.append("HEADWATER_ADMIN_EMAIL and HEADWATER_ADMIN_PASSWORD are set together or not at all")
        if email and not _is_email(email):
            found.append("HEADWATER_ADMIN_EMAIL is not an email address with only ASCII characters before the @")
        shortest, longest = self.password_min_length, self.password_max_length
        if not password:
            return found
        if not shortest <= len(password) <= longest:
            found.append(f"HEADWATER_ADMIN_PASSWORD must have from {shortest} to {longest} characters")
        try:
            refuse_common(password, "password", username=FIRST_ADMIN, email=email)
        except DocumentRefused as refused:
            found.append(f"HEADWATER_ADMIN_PASSWORD: {refused.faults[0].msg}")
        return found

    def _mail_faults(self) -> list[str]:
        found: list[str] = []
        try:
            _ = self.smtp_server
        except ValueError as error:
            found.append(f"HEADWATER_SMTP_URL: {error}")
        if self.mail_from and not _is_mailbox(self.mail_from):
            found.append("HEADWATER_MAIL_FROM is not one address, such as Headwater <headwater@example.org>")
        if self.public_url and not _PUBLIC_URL.fullmatch(self.public_url):
            found.append(
                "HEADWATER_PUBLIC_URL is not an address such as https://live.example.org, without a slash at its end"
            )
        if self.environment == "production" and self.smtp_url.get_secret_value() and not self.public_url:
            found.append(
                "HEADWATER_PUBLIC_URL must be set in production with HEADWATER_SMTP_URL: links in mails begin with it"
            )
        return found


def _is_mailbox(text: str) -> bool:
    """Whether `text` can be what `From` holds: one address, with or without a name."""
    try:
        message = EmailMessage(policy=SMTP)
        message["From"] = text
        addresses = message["From"].addresses
    except (ValueError, MessageError, IndexError):
        return False
    return len(addresses) == 1 and bool(addresses[0].username and addresses[0].domain)


def _is_email(text: str) -> bool:
    try:
        ascii_address(text)
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _is_ours(name: str) -> bool:
    return name.upper().startswith(_PREFIX)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_redis(url: str) -> bool:
    try:
        RedisPlace.parse(url)
    except ValueError:
        return False
    return True


def load_settings() -> Settings:
    """Read the settings. Raises SettingsRefused, naming each variable that is wrong, never its value."""
    if undecodable := sorted(name for name, value in os.environ.items() if _is_ours(name) and not _is_text(value)):
        raise SettingsRefused([f"{name} is not UTF-8" for name in undecodable])
    try:
        settings = Settings()
    except ValidationError as error:
        raise SettingsRefused(
            [f"HEADWATER_{'.'.join(map(str, entry['loc'])).upper()}: {entry['msg']}" for entry in error.errors()]
        ) from None
    if faults := settings.faults():
        raise SettingsRefused(faults)
    return settings


def unknown_settings() -> list[str]:
    """Names with our prefix, in the environment or in `.env`, that are no setting. They are ignored."""
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = {name.upper() for source in (EnvSettingsSource, DotEnvSettingsSource) for name in source(Settings).env_vars}
    return sorted(name for name in given - known if _is_ours(name))
