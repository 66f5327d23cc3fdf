"""Where Redis is: one server, the master that Sentinels name, or the node of a Cluster that holds a database's keys.

    redis://user:password@host:6379/0                       rediss:// for TLS, here and below
    redis+sentinel://user:password@host:26379,other:26379/name/0
    redis+cluster://user:password@host:6379,other:6379

Everything that Headwater keeps of one database is one hash slot, because scripts need it together; so also of a Cluster
one node is enough, and a plain connection to it. Only where that is may change: a connection asks each time it is made.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AskError, ConnectionError, ReadOnlyError, RedisError

Address = tuple[str, int]
_Pool = TypeVar("_Pool", bound=ConnectionPool)

SENTINEL: Final = "sentinel"
CLUSTER: Final = "cluster"
_PORTS: Final = {SENTINEL: 26_379, CLUSTER: 6_379}
#: Nodes and Sentinels are asked one after the other; a dead one must not use up the time of those behind it.
ASK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """A URL, read. `kind` is "" for one server; `options` are those of a connection, `nodes` who is asked for it."""

    kind: str
    nodes: tuple[Address, ...]
    service: str
    options: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> RedisPlace:
        """Read a URL. Raises ValueError for one that is none of the forms above."""
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        if scheme not in ("redis", "rediss") or kind not in ("", SENTINEL, CLUSTER):
            raise ValueError("another scheme")
        credentials, at, hosts = parts.netloc.rpartition("@")
        places = hosts.split(",")
        if len(places) > 1 and not kind:
            raise ValueError("several hosts")
        service, _, database = parts.path.strip("/").partition("/") if kind == SENTINEL else ("", "", parts.path[1:])
        if (kind == SENTINEL and not service) or (kind == CLUSTER and database):
            raise ValueError("another path")
        if database and not database.isdecimal():
            raise ValueError("no database's number")
        nodes = []
        for each in places:
            node = urlsplit(f"//{each}")
            if not node.hostname or node.port == 0:
                raise ValueError("no host")
            nodes.append((node.hostname, node.port or _PORTS.get(kind, 6_379)))
        query = f"?{parts.query}" if parts.query else ""
        options = dict(parse_url(f"{scheme}://{credentials}{at}{places[0]}/{database}{query}"))
        place = cls(kind, tuple(nodes), service, options)
        try:
            # Options that there are not are found only by who makes a connection; it is not opened.
            place.pool(ConnectionPool, "").make_connection()  # type: ignore[no-untyped-call]
        except TypeError:
            raise ValueError("an unknown option") from None
        return place

    def pool(self, pool_class: type[_Pool], key: str, **options: Any) -> _Pool:
        """A pool of connections to where `key` is. `options` are those of the class and of its connections."""
        given = {**self.options, **options}
        if not self.kind:
            return pool_class(**given)
        for name in ("host", "port", "path", "sentinel_username", "sentinel_password"):
            given.pop(name, None)
        tls = given.pop("connection_class", None) is SSLConnection
        find = self._master() if self.kind == SENTINEL else self._slot_owner(key_slot(key.encode()))
        return pool_class(connection_class=_FollowingTls if tls else _Following, find=find, **given)

    def _ask_options(self) -> dict[str, Any]:
        options = {name: value for name, value in self.options.items() if name not in ("host", "port", "db")}
        tls = options.pop("connection_class", None) is SSLConnection
        once = Retry(NoBackoff(), 0)  # redis-py's own would try a dead one ten times, for seconds
        return options | {
            "ssl": tls,
            "socket_timeout": ASK_SECONDS,
            "socket_connect_timeout": ASK_SECONDS,
            "retry": once,
        }

    def _master(self) -> Find:
        options = self._ask_options()
        # Sentinels have users of their own, and most have none.
        for name in ("username", "password"):
            options.pop(name, None)
            if (value := options.pop(f"sentinel_{name}", None)) is not None:
                options[name] = value

        async def find() -> Address:
            sentinel = Sentinel(self.nodes, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
            try:
                host, port = await sentinel.discover_master(self.service)
            finally:
                await _close(*sentinel.sentinels)
            return str(host), int(port)

        return find

    def _slot_owner(self, slot: int) -> Find:
        options = self._ask_options()

        async def find() -> Address:
            # Not always the same first, which may be the one that is gone.
            for host, port in random.sample(self.nodes, len(self.nodes)):
                client = Redis(host=host, port=port, **options)
                try:
                    slots: Any = await client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
                    for first, last, owner, *_ in slots:
                        if first <= slot <= last:
                            # A node that does not know its own name says so with none.
                            return _text(owner[0]) or host, int(owner[1])
                except (RedisError, OSError, TimeoutError, RuntimeError):
                    continue
                finally:
                    await _close(client)
            raise ConnectionError("no node of the cluster says where the keys are")

        return find


Find = Callable[[], Awaitable[Address]]


async def _close(*clients: Redis) -> None:
    """Close clients, also when this is cancelled: nobody else knows of their connections."""
    closing = asyncio.gather(*(client.aclose() for client in clients), return_exceptions=True)
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        # A turn of the event loop or two: nothing is left to be sent.
        await closing
        raise


class _Follows:
    """A connection's part that asks where to go each time it connects, and leaves a node that is not the one."""

    def __init__(self, *, find: Find, **options: Any) -> None:
        super().__init__(**options)
        self._find = find

    async def _connect(self) -> None:
        self.host, self.port = await self._find()
        await super()._connect()  # type: ignore[misc]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)  # type: ignore[misc]
        except (ReadOnlyError, AskError) as error:
            # A master that became a replica, or a slot that moved (MovedError is an AskError).
            await self.disconnect()  # type: ignore[attr-defined]
            raise ConnectionError(f"the keys are elsewhere now: {type(error).__name__}") from None


class _Following(_Follows, Connection):
    pass


class _FollowingTls(_Follows, SSLConnection):
    pass


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
