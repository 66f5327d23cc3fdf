"""The letters that the server writes.

Nothing that a person chose at registration stands in a letter to an address that nobody has proved to be theirs: a
username made of an advertisement would turn a server that welcomes people into one that sends spam.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from api.mail import Letter

SIGNATURE = "\n-- \nHeadwater\n"


def welcome(to: str, public_url: str) -> Letter:
    """To somebody who has registered."""
    text = (
        f"Welcome. An account with this address was created at {public_url}.\n\n"
        "If that was not you, ignore this mail, or set a password of your own with 'forgot password' there.\n"
    )
    return Letter(to, "Welcome to Headwater", text + SIGNATURE)


def password_reset(to: str, public_url: str, token: str, minutes: int) -> Letter:
    """To somebody who has forgotten the password. The token is in the fragment, which browsers send to no server."""
    text = (
        f"Somebody asked for a new password for the account with this address at {public_url}.\n"
        f"To set one within {minutes} minutes, open\n\n"
        f"{public_url}/reset-password#token={quote(token)}\n\n"
        "The link works once. If you did not ask for it, ignore this mail: nothing has changed.\n"
    )
    return Letter(to, "Set a new password", text + SIGNATURE)


def address_changed(to: str, public_url: str) -> Letter:
    """To the address that an account had until now."""
    text = (
        f"The account with this address at {public_url} has another email address now. Mail goes there from now on.\n\n"
        "If that was not you, tell whoever runs that server at once: somebody else knows your password.\n"
    )
    return Letter(to, "Your email address was changed", text + SIGNATURE)


def notice(to: str, subject: str, lines: Iterable[str], public_url: str) -> Letter:
    """What a class tells a user of a document (`documents.Notice`)."""
    return Letter(to, subject, "\n".join([*lines, "", public_url]) + "\n" + SIGNATURE)
