"""Mail by SMTP (RFC 5321), with TLS wherever the server offers it."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
from dataclasses import dataclass
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import aiosmtplib

from api.mail import MailFailed

ATTEMPTS = 3
#: For each attempt, from the connection to the server's last reply.
ATTEMPT_TIME = dt.timedelta(seconds=15)
#: Before the second attempt; doubled before each further one.
PAUSE = dt.timedelta(seconds=1)
#: Message submission (RFC 6409), and the same inside TLS (RFC 8314).
_PORTS = {"smtp": 587, "smtps": 465}


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mail is handed over, and as whom."""

    host: str
    port: int
    implicit_tls: bool
    username: str | None
    password: str | None

    @property
    def demands_starttls(self) -> bool:
        """A password goes over the network encrypted or not at all."""
        return not self.implicit_tls and self.username is not None and not _is_loopback(self.host)


def parse_smtp_url(text: str) -> SmtpServer:
    """The server in `smtp://user:password@host:port` or `smtps://…`; name and password are percent-encoded.

    Raises ValueError, which does not repeat the URL.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("it has no usable host or port") from None
    if parts.scheme not in _PORTS or not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("it must be smtp://user:password@host:port or smtps://user:password@host:port")
    if bool(parts.username) != bool(parts.password):
        raise ValueError("a user and a password are given together or not at all")
    return SmtpServer(
        host=host,
        port=port or _PORTS[parts.scheme],
        implicit_tls=parts.scheme == "smtps",
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class SmtpMailer:
    """Hands each message to one server, on a connection of its own; tries again when that may help."""

    def __init__(self, server: SmtpServer, *, pause: dt.timedelta = PAUSE) -> None:
        self._server = server
        self._pause = pause

    async def deliver(self, message: EmailMessage, kind: str) -> None:  # noqa: ARG002 - the server needs no kind
        """Hand over `message`. A refusal for good (5xx) is not tried again; what is lost on the way is.

        When the server's last reply is lost, the message may arrive twice, with one `Message-ID`.
        """
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._pause.total_seconds() * 2 ** (attempt - 1))
            try:
                async with asyncio.timeout(ATTEMPT_TIME.total_seconds()):
                    await self._hand_over(message)
                return
            except (aiosmtplib.SMTPException, OSError, ValueError) as error:
                code = _code_of(error)
                if attempt == ATTEMPTS - 1 or (code is not None and code >= 500) or isinstance(error, ValueError):
                    # Not the server's words: they may repeat the address, or the name that was refused.
                    what = type(error).__name__ + (f", code {code}" if code is not None else "")
                    place = f"{self._server.host} port {self._server.port}"
                    raise MailFailed(f"the mail server at {place} did not take it ({what})") from None

    async def _hand_over(self, message: EmailMessage) -> None:
        server = self._server
        await aiosmtplib.send(
            message,
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            use_tls=server.implicit_tls,
            # None: where the server offers it.
            start_tls=False if server.implicit_tls else (True if server.demands_starttls else None),
            timeout=ATTEMPT_TIME.total_seconds(),
            # Its own way to find the name asks the network.
            local_hostname=socket.gethostname(),
        )


def _code_of(error: Exception) -> int | None:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return error.code
    # A server that has no STARTTLS or no AUTH today has none in a second.
    return 504 if isinstance(error, aiosmtplib.SMTPNotSupported) else None
