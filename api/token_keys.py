"""The keys that sign access tokens: the server's secret, or pairs of keys in PEM files that are rotated by name.

Each pair is known by its `kid`, which is derived from the public key (RFC 7638). A `kid` stands for one key *and* one
algorithm, so no token can choose how it is verified.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from api.settings import SettingsRefused

MIN_RSA_BITS = 2_048


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One key: how it is named, what it verifies with, and what it signs with (None: it only verifies)."""

    kid: str | None
    algorithm: str
    verifying: Any
    signing: Any


def secret_key(secret: bytes) -> TokenKey:
    """The server's secret as the key: HS256, and tokens that name no key."""
    return TokenKey(None, "HS256", secret, secret)


def load_token_keys(paths: Sequence[str]) -> list[TokenKey]:
    """The keys in `paths`, PEM files and directories of `*.pem` (by name), in order; the first one signs.

    Raises SettingsRefused, naming the file that cannot be used.
    """
    keys = [_loaded(path) for path in _files(paths)]
    if keys and keys[0].signing is None:
        raise _refused("the first key signs, so it must be a private one")
    return keys


def _files(paths: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
        elif found := sorted(path.glob("*.pem")):
            yield from found
        else:
            raise _refused(f"{path} has no *.pem files")


def _loaded(path: Path) -> TokenKey:
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise _refused(f"{path} cannot be read ({error.strerror})") from None
    try:
        private = load_pem_private_key(pem, password=None) if b"PRIVATE KEY" in pem else None
        public = load_pem_public_key(pem) if private is None else private.public_key()
    except TypeError:
        raise _refused(f"{path} is protected by a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _refused(f"{path} is not a key in PEM form") from None
    if isinstance(public, Ed25519PublicKey) and isinstance(private, Ed25519PrivateKey | None):
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return TokenKey(_thumbprint(crv="Ed25519", kty="OKP", x=_base64(raw)), "EdDSA", public, private)
    if isinstance(public, RSAPublicKey) and isinstance(private, RSAPrivateKey | None):
        if public.key_size < MIN_RSA_BITS:
            raise _refused(f"{path} is an RSA key of fewer than {MIN_RSA_BITS} bits")
        numbers = public.public_numbers()
        return TokenKey(_thumbprint(e=_number(numbers.e), kty="RSA", n=_number(numbers.n)), "RS256", public, private)
    raise _refused(f"{path} is neither an Ed25519 nor an RSA key")


def _refused(fault: str) -> SettingsRefused:
    return SettingsRefused([f"HEADWATER_TOKEN_KEYS: {fault}"])


def _thumbprint(**members: str) -> str:
    """RFC 7638, 3: the SHA-256 of the required members, sorted and without spaces (RFC 8037, 2, for Ed25519)."""
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return _base64(hashlib.sha256(canonical.encode()).digest())


def _number(number: int) -> str:
    return _base64(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
