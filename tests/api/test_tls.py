"""TLS that the server speaks itself."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.tls import tls_faults
from tests.api.conftest import Starter
from tests.api.servers import Server, live, serving


@dataclass(frozen=True)
class Pair:
    """A certificate for the loopback and its key, as files."""

    certificate: Path
    key: Path


def make_pair(directory: Path, name: str, password: bytes | None = None, days: int = 30) -> Pair:
    """A pair that signs itself, whose certificate ends in `days`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=90))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pair = Pair(directory / f"{name}.pem", directory / f"{name}.key")
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return pair


@pytest.fixture
def server(
    tmp_path: Path, server_settings: Starter, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A server that speaks TLS, in whose certificate clients of this test believe."""
    pair = make_pair(tmp_path, "server")
    monkeypatch.setenv("SSL_CERT_FILE", str(pair.certificate))
    settings = server_settings(tls_certificate=str(pair.certificate), tls_key=str(pair.key), https_redirect="true")
    with serving(tmp_path, free_port(), settings) as server:
        yield server


def test_files_that_cannot_be_served_with(tmp_path: Path) -> None:
    """Another certificate's key, an encrypted key, and a folder are refused, in a line that names the settings."""
    one, other = make_pair(tmp_path, "one"), make_pair(tmp_path, "other")
    encrypted = make_pair(tmp_path, "encrypted", password=b"not asked for")
    assert tls_faults(one.certificate, one.key) == []
    for certificate, key in (
        (one.certificate, other.key),
        (encrypted.certificate, encrypted.key),
        (one.certificate, None),
        (tmp_path, one.key),
    ):
        (fault,) = tls_faults(certificate, key)
        assert fault.startswith("HEADWATER_TLS_CERTIFICATE")
        assert "\n" not in fault
        assert "None" not in fault


def test_versions(server: Server) -> None:
    """REST and live views over TLS; HSTS is said, plain HTTP gets nothing, and versions before 1.2 no handshake."""
    answer = httpx.get(f"{server.url}/api/v1/posts")
    assert answer.status_code == 200
    assert "max-age=" in answer.headers["strict-transport-security"]
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    with live(server, ssl=context) as connection:
        assert connection.answers_ping()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{server.port}/api/v1/posts")
    # At the lowest level of security, so that it is the server that refuses.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.version() == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", server.port)) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
