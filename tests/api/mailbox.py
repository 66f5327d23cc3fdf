"""A real SMTP server in a thread of the test's process, and mail as it arrived."""

from __future__ import annotations

import contextlib
import email
import email.policy
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from aiosmtpd.smtp import Session as SmtpSession

from tests.api.servers import wait_until

USER, SECRET = "post@office", "p@ss/w:rd"


@dataclass
class Mailbox:
    """What has arrived. `answers` are the replies to the next messages instead of an acceptance."""

    arrived: list[tuple[Envelope, EmailMessage]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, session: SmtpSession, envelope: Envelope) -> str:  # noqa: ARG002
        """Called by aiosmtpd with each message."""
        if self.answers:
            return self.answers.pop(0)
        content = envelope.content
        assert isinstance(content, bytes)
        self.arrived.append((envelope, email.message_from_bytes(content, policy=email.policy.default)))
        return "250 taken"

    def sign_in(self, _: Any, __: Any, ___: Any, ____: Any, given: Any) -> AuthResult:
        """Called by aiosmtpd with a name and a password."""
        assert isinstance(given, LoginPassword)
        self.logins.append(given.login.decode())
        return AuthResult(success=given == LoginPassword(USER.encode(), SECRET.encode()), handled=False)

    def to(self, address: str) -> list[EmailMessage]:
        """The messages to one address, in order."""
        return [message for envelope, message in self.arrived if envelope.rcpt_tos == [address]]

    def wait_for(self, address: str, count: int = 1) -> EmailMessage:
        """The newest message to an address, when there are `count`."""
        wait_until(lambda: len(self.to(address)) >= count)
        return self.to(address)[-1]


@contextlib.contextmanager
def smtp_server(port: int) -> Iterator[Mailbox]:
    """An SMTP server on the loopback while the block runs."""
    mailbox = Mailbox()
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=port,
        authenticator=mailbox.sign_in,
        auth_require_tls=False,
        auth_exclude_mechanism=["LOGIN"],
    )
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()


def files_to(directory: Path, address: str, kind: str) -> list[EmailMessage]:
    """The messages of a kind to one address that a server without SMTP has written, in order."""
    read = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in sorted(directory.glob(f"*-{kind}-*.eml"))
    ]
    return [message for message in read if message["To"] == address]


def text_of(message: EmailMessage) -> str:
    """The text of a message."""
    content: str = message.get_content()
    return content
