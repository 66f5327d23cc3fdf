"""TLS that the server speaks itself, where no proxy in front does."""

from __future__ import annotations

import ssl
from pathlib import Path

#: With forward secrecy and authenticated encryption (RFC 9325, 4.2); those of TLS 1.3 have both in any case.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def tls_faults(certificate: Path | None, key: Path | None) -> list[str]:
    """Why these files cannot be served with, a line for each reason. The key may stand in the certificate's file."""
    if certificate is None:
        return ["HEADWATER_TLS_KEY is of no use without HEADWATER_TLS_CERTIFICATE"] if key else []
    for name, path in (("CERTIFICATE", certificate), ("KEY", key)):
        if path is not None and not path.is_file():
            return [f"HEADWATER_TLS_{name}: there is no file {path}"]

    def no_password() -> str:
        # Else OpenSSL would ask the terminal for it.
        raise ValueError("it is encrypted")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        # OpenSSL gives no reason for a file that holds nothing in PEM form.
        reason = (error.reason or "not found") if isinstance(error, ssl.SSLError) else str(error)
        which = "HEADWATER_TLS_CERTIFICATE and HEADWATER_TLS_KEY" if key else "HEADWATER_TLS_CERTIFICATE"
        return [f"{which}: a certificate in PEM form and its unencrypted key are needed ({reason})"]
    return []
