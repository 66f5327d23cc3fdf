"""Ending an asyncio server without leaving a connection behind."""

from __future__ import annotations

import asyncio


async def stop_listening(server: asyncio.Server) -> None:
    """Accept nothing more; what was accepted has reached the server's callback when this returns.

    A server that is closed while a connection is on its way there leaves that open for ever.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    # From the socket to the callback it takes two turns of the event loop.
    for _ in range(3):
        await asyncio.sleep(0)
    server.close()
