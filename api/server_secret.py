"""The secret that signs tokens, positions and cursors: as it is set, or made once and kept with the data."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from api.settings import IN_MEMORY, Settings
from documents import DatabaseRefused


def server_secret(settings: Settings) -> bytes:
    """The secret that signs tokens, positions and cursors; in development made once and kept with the data."""
    given = settings.secret_key.get_secret_value()
    if given:
        return given.encode()
    if settings.mongodb_url.get_secret_value() == IN_MEMORY:
        return secrets.token_bytes(32)
    path = settings.data_dir / "secret_key"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        # O_EXCL: of two processes that start at once, one makes the file and the other reads it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_secret(path)
    except OSError as error:
        raise DatabaseRefused(f"HEADWATER_DATA_DIR: {path} cannot be written ({error.strerror})") from None
    secret = secrets.token_hex(32).encode()
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    return secret


def _read_secret(path: Path) -> bytes:
    secret = path.read_bytes()
    if len(secret) < 32:
        raise DatabaseRefused(f"{path} is damaged; delete it, or set HEADWATER_SECRET_KEY")
    return secret
