"""The network address that a request counts for."""

from __future__ import annotations

import ipaddress

from fastapi.requests import HTTPConnection

#: What one subscriber of an internet provider is given at least (RFC 6177), so each may use 2^64 addresses.
IPV6_SUBSCRIBER_BITS = 64


def address_of(connection: HTTPConnection) -> str:
    """The peer's IPv4 address, or the /64 network of its IPv6 address.

    uvicorn has put the client of a trusted proxy in the peer's place already (`HEADWATER_FORWARDED_ALLOW_IPS`).
    """
    if connection.client is None:
        return "local"
    try:
        address = ipaddress.ip_address(connection.client.host.partition("%")[0])
    except ValueError:
        # A proxy may call its client whatever it likes (RFC 7239, 6.3: "unknown", "_hidden").
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_SUBSCRIBER_BITS), strict=False))
