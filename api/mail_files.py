"""Mail as files, where no mail server is set: for development, and so that nothing is lost without a word.

A letter may hold a link that resets a password. A log is copied to many places, so the log names the file, and only
the server's own user can read that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from email.message import EmailMessage
from pathlib import Path

from api.mail import MailFailed

logger = logging.getLogger("headwater.mail")

#: The newest are kept.
MAX_FILES = 200


class FileMailer:
    """Writes each message to a file of its own in `directory`, which is made when it is needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def deliver(self, message: EmailMessage, kind: str) -> None:
        """Write `message` to a file whose name begins with the time and tells its kind."""
        try:
            path = await asyncio.to_thread(self._write, message.as_bytes(), kind)
        except OSError as error:
            raise MailFailed(f"{self._directory} cannot be written ({error.strerror})") from None
        logger.info("no mail server is set (HEADWATER_SMTP_URL): mail (%s) is in %s", kind, path)

    def _write(self, content: bytes, kind: str) -> Path:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / f"{time.time_ns()}-{kind}-{secrets.token_hex(4)}.eml"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        for old in sorted(self._directory.glob("*.eml"))[:-MAX_FILES]:
            old.unlink(missing_ok=True)
        return path
