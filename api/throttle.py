"""The throttle of sign-ins: guessing passwords is slow, and nobody can use that to lock somebody else out.

What counts is a *failed* attempt, by the name as it was typed (folded), whether there is such an account or not: a
throttle that knew accounts would tell of them, and one that knew that a name and an email address are one account's
would tell that. So whoever guesses by both has twice the attempts.

Three limits, made of `HEADWATER_LOGIN_RATE_LIMIT`:

- **a name from an address**: the limit as it is. Somebody's wrong guesses do not count against the owner, who is
  elsewhere.
- **an address**, over all names: `ADDRESS_FACTOR` times as much, because many people may sit behind one. It slows the
  trying of one password on many accounts.
- **a name**, over all addresses: `NAME_FACTOR` times as much, against a botnet. This one could keep the owner out for
  as long as the botnet works on. So it does not hold where the name was signed in from in the last `KNOWN_DAYS` (NIST
  SP 800-63B, 5.2.2, names this way). For others it refuses only what is above the rate: attempts that it refuses do
  not count, so it always lets some in. A session that is signed in goes on whatever happens here.

Success counts nothing: a hundred right sign-ins at once are none too many. A session's guesses at its own password
count for that session, so that a stolen one cannot keep its owner from changing the password in another.
"""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from types import TracebackType

from api.counters import Counters, Limits, Standing, scaled
from api.passwords import MAX_WAITING, Busy
from api.problems import Problem
from documents import fold

ADDRESS_FACTOR = 5
NAME_FACTOR = 10
KNOWN_DAYS = 30


class LoginThrottle:
    """Decides whether a password may be tried now."""

    def __init__(self, counters: Counters, limits: Limits) -> None:
        self._counters = counters
        self._limits = limits
        self._of_address = scaled(limits, ADDRESS_FACTOR)
        self._of_name = scaled(limits, NAME_FACTOR)
        self._turns: weakref.WeakValueDictionary[str, _Turn] = weakref.WeakValueDictionary()

    def sign_in(self, name: str, address: str) -> Attempt:
        """An attempt to sign in as `name`: a username or an email address, as it was typed."""
        # Hashed, because people type passwords into this field too, and it may be long.
        hashed = hashlib.blake2b(fold(name).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        pair = f"{hashed}@{address}"
        counts = {"pair": (pair, self._limits), "address": (address, self._of_address), "name": (hashed, self._of_name)}
        return Attempt(self._counters, counts, self._turn(pair), known=pair)

    def confirmation(self, session_id: str) -> Attempt:
        """An attempt of a session to name its own account's password."""
        return Attempt(self._counters, {"session": (session_id, self._limits)}, self._turn(session_id))

    async def spend(self, purpose: str, key: str) -> None:
        """Count one use of what anybody may call and what costs more than an answer, such as registering.

        `key` is the address, or what else the use counts for. Raises a 429 Problem.
        """
        standing = await self._counters.hit(self._limits, "login", purpose, key)
        if not standing.allowed:
            raise _refusal(self._counters, standing, "This was asked for too often")

    def _turn(self, key: str) -> _Turn:
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = _Turn()
        return turn


class _Turn:
    """Whose turn it is on one name from one address."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


class Attempt:
    """One attempt, as `async with`: entering raises a 429 Problem when there were too many, and Busy.

    Attempts on one name from one address wait for each other, since ones at the same moment would all find room below
    the limit; no more than MAX_WAITING of them.
    Leaving without `failed` or `succeeded` counts nothing: the server could not tell. Safe to cancel.
    """

    def __init__(
        self, counters: Counters, counts: dict[str, tuple[str, Limits]], turn: _Turn, known: str | None = None
    ) -> None:
        self._counters = counters
        self._counts = counts
        self._turn = turn
        self._known = known

    async def __aenter__(self) -> Attempt:
        if self._turn.waiting >= MAX_WAITING:
            raise Busy
        self._turn.waiting += 1
        try:
            await self._turn.lock.acquire()
        finally:
            self._turn.waiting -= 1
        try:
            await self._check()
        except BaseException:
            self._turn.lock.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._turn.lock.release()

    async def _check(self) -> None:
        for purpose, (key, limits) in self._counts.items():
            standing = await self._counters.peek(limits, "login", purpose, key)
            if standing.allowed:
                continue
            if purpose == "name" and self._known and await self._counters.is_marked("known", self._known):
                continue
            raise _refusal(self._counters, standing, "There were too many failed attempts")

    async def failed(self) -> None:
        """The password was wrong, or there is no such account."""
        for purpose, (key, limits) in self._counts.items():
            await self._counters.hit(limits, "login", purpose, key)

    async def succeeded(self) -> None:
        """The password was right."""
        if self._known is not None:
            await self._counters.mark(KNOWN_DAYS * 86_400, "known", self._known)


def _refusal(counters: Counters, standing: Standing, why: str) -> Problem:
    counters.refused["sign_in"] += 1
    return Problem(429, f"{why}; try again in {standing.reset_seconds} seconds.", headers=standing.headers())
