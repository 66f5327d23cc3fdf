"""Password hashing: argon2id (RFC 9106) in a bounded pool off the event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import BaseModel, Field, create_model

from documents import DocumentRefused, Fault

_T = TypeVar("_T")
_M = TypeVar("_M", bound=BaseModel)

#: OWASP's smallest recommended parameters for argon2id: 19 MiB, 2 passes, 1 lane.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
WORKERS = 2
MAX_WAITING = 64


#: The commonest passwords that are long enough (NIST SP 800-63B, 5.1.1.2, asks to refuse such).
_COMMON_PASSWORDS = frozenset(
    """
    password password1 password123 passw0rd 12345678 123456789 1234567890 qwertyuiop qwerty123 11111111 00000000
    iloveyou sunshine princess football baseball superman trustno1 letmein1 abc12345 abcd1234 1q2w3e4r 1qaz2wsx
    asdfghjkl zxcvbnm1 welcome1 administrator changeme
    """.split()  # noqa: SIM905 - a list of forty strings reads worse
)


class Busy(Exception):
    """Too many passwords are waiting to be hashed."""


class Passwords:
    """Hashes and verifies passwords, at most WORKERS at a time; refuses when MAX_WAITING are waiting."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="argon2")
        self._pending = 0
        # Made here and not at the first unknown user, whose sign-in would take twice as long as others.
        self._unknown_user = _HASHER.hash("the password of nobody")

    def close(self) -> None:
        """Stop the pool's threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def pending(self) -> int:
        """How many are being hashed or wait for it."""
        return self._pending

    async def hash(self, password: str) -> str:
        """The password's hash in the PHC string format. Raises Busy."""
        return await self._run(functools.partial(_HASHER.hash, password))

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether `password` is the one that was hashed. None (no such user) takes as long as a wrong password.

        Raises Busy.
        """
        if hashed is None:
            await self._run(functools.partial(_verify, self._unknown_user, password))
            return False
        return await self._run(functools.partial(_verify, hashed, password))

    @staticmethod
    def outdated(hashed: str) -> bool:
        """Whether the hash was made with weaker parameters than those in force."""
        return _HASHER.check_needs_rehash(hashed)

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._pending >= WORKERS + MAX_WAITING:
            raise Busy
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._pending -= 1


def refuse_common(password: str, *loc: str, username: str, email: str) -> None:
    """Raise DocumentRefused, at `loc`, for a password that is tried first: one of the commonest, one character over
    and over, this service's name, or a name of the account itself (NIST SP 800-63B, 5.1.1.2)."""
    folded = password.casefold()
    if folded in _COMMON_PASSWORDS or len(set(folded)) == 1:
        raise DocumentRefused([Fault(loc, "this is one of the commonest passwords", "common_password")])
    if folded in {name.casefold() for name in ("headwater", username, email, email.rpartition("@")[0])}:
        msg = "a password must not be the name or the address of its account, nor the service's name"
        raise DocumentRefused([Fault(loc, msg, "common_password")])


@functools.lru_cache
def with_password_limits(form: type[_M], shortest: int, longest: int) -> type[_M]:
    """`form` with the lengths of new passwords as they are set, for its field `password` or `new_password`.

    Characters are counted, as NIST SP 800-63B, 5.1.1.2, has it.
    """
    limited = Annotated[str, Field(min_length=shortest, max_length=longest)]
    fields: dict[str, Any] = {
        name: (limited, info) for name, info in form.model_fields.items() if name in ("password", "new_password")
    }
    return create_model(form.__name__, __base__=form, __doc__=form.__doc__, **fields)


def _verify(hashed: str, password: str) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
