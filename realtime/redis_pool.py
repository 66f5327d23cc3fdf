"""How many connections to Redis a pool has."""

from __future__ import annotations

from redis.asyncio import ConnectionPool

from documents import PoolUse


def use_of(pool: ConnectionPool) -> PoolUse:
    """The pool's connections, as redis-py counts them: first those that wait, then those in use."""
    (idle, _), (in_use, _) = pool.get_connection_count()
    return PoolUse(in_use=in_use, idle=idle)
