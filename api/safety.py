"""What is unsafe in settings that a server would start with, and how to mend it."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509

from api.counters import parse_limits
from api.settings import Settings

#: Fewer different characters than this are no secret that a generator made (48 random ones have 30 or so).
MIN_DISTINCT = 12
MAX_ACCESS_TOKEN_MINUTES = 60
#: Time enough to renew a certificate.
EXPIRY_NEAR = dt.timedelta(days=14)
#: Guesses of a password in a day, by one address for one name.
MAX_GUESSES_A_DAY = 20_000

_SECONDS_A_DAY = 86_400
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: Names that no public DNS has: those that containers and clusters give each other, and reserved ones (RFC 6762, 8375).
_PRIVATE_NAME = re.compile(r"[^.]+|.+\.(local|internal|svc|svc\.cluster\.local|home\.arpa)")
_AUTHORITY = re.compile(r"^[a-z+]+://(?:[^@/]*@)?(?P<hosts>[^/?]*)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One setting (without the prefix), what is wrong with it, and what to do. `unsafe` is worse than advice."""

    setting: str
    problem: str
    remedy: str
    unsafe: bool = True

    def __str__(self) -> str:
        return f"HEADWATER_{self.setting}: {self.problem}. {self.remedy}."


def findings(settings: Settings) -> list[Finding]:
    """All that is unsafe, or less safe than it could be, in the order of the settings' documentation."""
    found = [
        *_exposure(settings),
        *_certificate(settings),
        *_secrets(settings),
        *_servers(settings),
        *_manners(settings),
    ]
    return sorted(found, key=lambda finding: not finding.unsafe)


def _exposure(settings: Settings) -> Iterator[Finding]:
    is_local = settings.host in _LOOPBACK
    production = settings.environment == "production"
    if not production and not is_local:
        yield Finding(
            "ENVIRONMENT",
            f"development, and listening on {settings.host}, which other machines may reach",
            "Set it to production, or HEADWATER_HOST to 127.0.0.1",
        )
    if not settings.trusted_hosts or "*" in settings.trusted_hosts:
        yield Finding(
            "TRUSTED_HOSTS",
            "requests for any host are served, so links and caches can be made to name another site's",
            "Set it to your host, such as live.example.org",
            unsafe=production,
        )
    if not settings.tls_certificate and not settings.https_redirect:
        yield Finding(
            "HTTPS_REDIRECT",
            "passwords and tokens may come without TLS",
            "Set it to true behind a proxy that ends TLS, or set HEADWATER_TLS_CERTIFICATE",
            unsafe=production and not _serves_loopback_alone(settings),
        )
    for peer in settings.forwarded_allow_ips:
        if peer == "*" or ipaddress.ip_network(peer).prefixlen == 0:
            yield Finding(
                "FORWARDED_ALLOW_IPS",
                "any client's claim of its address is believed, which empties the limits and the audit",
                "Name the addresses or networks of your proxies",
            )
    for origin in settings.allowed_origins:
        if origin == "*":
            yield Finding("ALLOWED_ORIGINS", "any site's pages may call the API", "Name the origins of your pages")
        elif origin.startswith("http://") and not _is_loopback(origin):
            yield Finding(
                "ALLOWED_ORIGINS",
                f"{origin} comes without TLS, so anybody on its way can be it",
                "Use its https:// form",
            )


def _certificate(settings: Settings) -> Iterator[Finding]:
    if settings.tls_certificate is None:
        return
    # The first of the chain is the server's own (RFC 8446, 4.4.2).
    end = x509.load_pem_x509_certificate(settings.tls_certificate.read_bytes()).not_valid_after_utc
    left = end - dt.datetime.now(dt.UTC)
    if left < EXPIRY_NEAR:
        gone = left < dt.timedelta()
        yield Finding(
            "TLS_CERTIFICATE", f"it {'expired' if gone else 'expires'} on {end:%Y-%m-%d}", "Renew it", unsafe=gone
        )


def _serves_loopback_alone(settings: Settings) -> bool:
    return bool(settings.trusted_hosts) and all(host in _LOOPBACK for host in settings.trusted_hosts)


def _secrets(settings: Settings) -> Iterator[Finding]:
    secret = settings.secret_key.get_secret_value()
    if secret and len(set(secret)) < MIN_DISTINCT:
        yield Finding(
            "SECRET_KEY",
            "it does not look random",
            'Make one with: python3 -c "import secrets; print(secrets.token_urlsafe(48))"',
        )
    paths = {".env": Path(".env"), "TLS_KEY": settings.tls_key}
    for name, path in paths.items():
        if path is not None and path.is_file() and path.stat().st_mode & 0o077:
            yield Finding(
                "SECRET_KEY" if name == ".env" else name,
                f"{path} can be read by other users of this machine",
                f"chmod 600 {path}",
            )


def _servers(settings: Settings) -> Iterator[Finding]:
    for name, url, secure in (
        ("MONGODB_URL", settings.mongodb_url.get_secret_value(), ("mongodb+srv",)),
        ("REDIS_URL", settings.redis_url.get_secret_value() if settings.redis_url else "", ("rediss",)),
    ):
        found = _AUTHORITY.match(url)
        if found is None or not found["hosts"]:
            continue
        hosts = [_host(place) for place in found["hosts"].split(",")]
        if all(_is_loopback_name(host) for host in hosts):
            continue
        public = not all(_is_private(host) for host in hosts)
        parts = urlsplit(url.replace(found["hosts"], "host"))
        options = {key.lower(): value[-1].lower() for key, value in parse_qs(parts.query).items()}
        if not parts.username and not parts.password and options.get("authmechanism") != "mongodb-x509":
            yield Finding(
                name,
                "it has no password: whoever reaches that server has everything",
                "Give the server users, and put user and password before the host",
                unsafe=public,
            )
        has_tls = parts.scheme.split("+")[0] in secure or parts.scheme in secure
        has_tls = has_tls or "true" in (options.get("tls"), options.get("ssl"))
        if not has_tls:
            yield Finding(
                name,
                "everything goes to that server without TLS",
                "Use rediss://" if name == "REDIS_URL" else "Add tls=true to its options",
                unsafe=public,
            )
        if "true" in (options.get("tlsinsecure"), options.get("tlsallowinvalidcertificates")) or (
            options.get("ssl_cert_reqs") == "none"
        ):
            yield Finding(
                name,
                "any certificate is taken, so anybody on the way can be that server",
                "Take that option out, and name your authority with tlsCAFile"
                if name == "MONGODB_URL"
                else "Take that option out, and name your authority with ssl_ca_certs",
            )


def _manners(settings: Settings) -> Iterator[Finding]:
    guesses = min(
        limit.amount * _SECONDS_A_DAY / limit.get_expiry() for limit in parse_limits(settings.login_rate_limit)
    )
    if guesses > MAX_GUESSES_A_DAY:
        yield Finding(
            "LOGIN_RATE_LIMIT", f"{guesses:,.0f} guesses of a password a day are allowed", "Use 10/minute;100/hour"
        )
    if settings.access_token_minutes > MAX_ACCESS_TOKEN_MINUTES:
        yield Finding(
            "ACCESS_TOKEN_MINUTES",
            f"a stolen token is good for {settings.access_token_minutes} minutes",
            "Leave it at 15: clients refresh",
        )
    if settings.schema_action != "error":
        yield Finding(
            "SCHEMA_ACTION",
            "writes of other programs that break the rules of a class are stored",
            "Set it to error once python main.py schema diff finds no such documents",
            unsafe=False,
        )
    if settings.environment == "production" and settings.log_level == "debug":
        yield Finding("LOG_LEVEL", "libraries tell at debug what is private", "Set it to info", unsafe=False)


def _host(place: str) -> str:
    """The host of `host:port`, `[v6]:port` or `host`."""
    return place[1 : place.index("]")] if place.startswith("[") and "]" in place else place.split(":")[0]


def _is_loopback(origin: str) -> bool:
    return _is_loopback_name(urlsplit(origin).hostname or "")


def _is_loopback_name(host: str) -> bool:
    return host in _LOOPBACK or host.endswith(".localhost")


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return bool(_PRIVATE_NAME.fullmatch(host))
