"""Mail: what a letter is, and its way to the mailer in the background."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime, make_msgid
from typing import Protocol

from api.background import Background, BackgroundFailure
from api.mailboxes import ascii_address


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail to one address. `subject` is ours; what users wrote belongs into `text`, where it is only text."""

    to: str
    subject: str
    text: str


class MailFailed(BackgroundFailure):
    """The mail could not be sent. The message names no address and no secret."""


class Mailer(Protocol):
    """What takes a finished message to where it is read."""

    async def deliver(self, message: EmailMessage, kind: str) -> None:
        """Deliver to the one address in `To`. Raises MailFailed."""


class Mail:
    """Sends letters in the background. `sender` is the address in `From`, with or without a name."""

    def __init__(self, mailer: Mailer, background: Background, sender: str) -> None:
        self._mailer = mailer
        self._background = background
        self._sender = sender

    def send(self, kind: str, write: Callable[[], Awaitable[Letter | None]]) -> bool:
        """Call `write` in the background and send the letter that it gives; None sends nothing.

        `kind` names the mail in the log. Returns whether the work was taken. Never raises, never waits.
        """

        async def work() -> None:
            letter = await write()
            if letter is not None:
                await self._mailer.deliver(message_of(letter, self._sender), kind)

        return self._background.submit("mail", kind, work)


def message_of(letter: Letter, sender: str) -> EmailMessage:
    """The letter as a message (RFC 5322). Raises MailFailed for an address or a header that cannot be one."""
    message = EmailMessage(policy=SMTP)
    try:
        # A stored address may have been edited into anything; only one that is one becomes a header.
        address = ascii_address(letter.to)
        message["From"] = sender
        message["To"] = Address(addr_spec=address)
        message["Subject"] = letter.subject
    except (ValueError, MessageError):
        raise MailFailed("the address or the subject cannot stand in a header") from None
    message["Date"] = format_datetime(localtime())
    # Without a domain, the standard library asks the network for the machine's name.
    message["Message-ID"] = make_msgid(domain=message["From"].addresses[0].domain or "localhost")
    # RFC 3834: so that no holiday notice answers.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text)
    return message
