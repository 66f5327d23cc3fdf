"""Email addresses: which are accepted, and as what they are handed to a mail server."""

from __future__ import annotations

from typing import Annotated

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, EmailStr, Field
from pydantic_core import PydanticCustomError


def ascii_address(address: str) -> str:
    """`address` with its domain as DNS has it (IDNA 2008, RFC 5891): what every mail server takes.

    Raises ValueError for what is no address, and for letters beyond ASCII before the @, which take SMTPUTF8 (RFC 6531)
    on the whole way.
    """
    found = validate_email(address, allow_smtputf8=False, check_deliverability=False).ascii_email
    if found is None:
        raise EmailNotValidError("the address has no form in ASCII")
    return found


def same_mailbox(one: str, other: str) -> bool:
    """Whether mail to both goes to the same place, as far as can be told here.

    Not by the folded form: that takes `ß` for `ss`, which are two domains with two owners.
    """
    try:
        return ascii_address(one).casefold() == ascii_address(other).casefold()
    except ValueError:
        return False


def _reachable(address: str) -> str:
    if not address.rpartition("@")[0].isascii():
        raise PydanticCustomError("email_local_part", "only ASCII characters are accepted before the @")
    return address


#: An address that letters can be sent to.
Email = Annotated[EmailStr, AfterValidator(_reachable), Field(max_length=254)]
