"""The socket that the server listens on: opened before all else, and closed without losing who waits there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

#: Connections that may wait to be accepted.
BACKLOG = 2_048
#: What may wait in the kernel for a client that does not take it.
UNSENT_BYTES = 64 * 1024


class ListenRefused(Exception):
    """The address or port cannot be listened on."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Bound before anything else is started, so that a used port is found at once.

    Raises ListenRefused.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        where = f"HEADWATER_HOST and HEADWATER_PORT: cannot listen on {host} port {port}"
        # Those of names that cannot be looked up are negative, and not the system's.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else "no such host is known"
        raise ListenRefused(f"{where} ({reason})") from None
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Connections inherit it. What a client does not take then waits in its outbox, where it is bounded, and not in
        # the kernel, which would hold some megabytes of it. What is on its way does not count, so nothing gets slower.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    return listening


def accepted_and_closed(listening: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait to be accepted; then the socket is closed.

    The kernel has told their clients that they are connected, and resets those that wait when the last process closes
    the socket: whoever has sent a request is not told whether it was heard. Where one client at least is at any time
    within a few microseconds of connecting, nothing can help that; this leaves no more than those.
    """
    listening.setblocking(False)
    with listening:
        waiting = []
        while True:
            try:
                waiting.append(listening.accept()[0])
            except BlockingIOError:
                break
            except OSError:  # that one has left already
                continue
    yield from waiting
