"""The database server of the tests of `realtime/`."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture(scope="module")
def mongodb_url(scratch_server: Callable[[], str]) -> str:
    """The URL of a database server: here nearly every test makes and drops a database."""
    return scratch_server()
