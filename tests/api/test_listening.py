"""The socket that a server listens on."""

from __future__ import annotations

import socket

import pytest

from api.listening import ListenRefused, accepted_and_closed, listen


def test_address_that_cannot_be_listened_on() -> None:
    """A used port, another machine's address, a name that nobody knows: one line that names the settings, and why."""
    with listen("127.0.0.1", 0) as used:
        port = used.getsockname()[1]
        for host, reason in (
            ("127.0.0.1", "Address already in use"),
            ("192.0.2.1", "Cannot assign requested address"),
            ("nothing.invalid", "no such host is known"),
        ):
            with pytest.raises(ListenRefused) as caught:
                listen(host, port)
            assert str(caught.value) == (
                f"HEADWATER_HOST and HEADWATER_PORT: cannot listen on {host} port {port} ({reason})"
            )


def test_those_who_wait_when_it_closes() -> None:
    """Are handed over, in the order in which they came; whoever comes later is refused."""
    listening = listen("127.0.0.1", 0)
    address = listening.getsockname()
    clients = [socket.create_connection(address) for _ in range(3)]
    waiting = list(accepted_and_closed(listening))
    assert [each.getpeername() for each in waiting] == [client.getsockname() for client in clients]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    for each in (*clients, *waiting):
        each.close()
