"""Ask the server in this container whether it lives: exit code 0 when it does.

    python healthcheck.py /health/live

A file of its own, on the standard library alone: importing the application takes longer than the answer.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys

TIMEOUT_SECONDS = 2


def status(path: str) -> int:
    """The status that the server answers with. Raises OSError and http.client.HTTPException when there is none."""
    port = int(os.environ.get("HEADWATER_PORT", "8000"))
    if os.environ.get("HEADWATER_TLS_CERTIFICATE"):
        # The certificate is for the name that users know, not for the loopback.
        context = ssl._create_unverified_context()  # noqa: S323
        tls = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS, context=context)
        tls.request("GET", path)
        return tls.getresponse().status
    plain = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    plain.request("GET", path)
    return plain.getresponse().status


if __name__ == "__main__":
    try:
        sys.exit(status(sys.argv[1]) != http.client.OK)
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"{type(error).__name__}: {error}")
