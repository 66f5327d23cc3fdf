"""A class whose documents are read through the cache.

In a module, and not in a test: Beanie changes the base class when it binds, so classes are made before that, once.
"""

from __future__ import annotations

from typing import Annotated

from documents import Access, LiveDocument, Resource, VisibleTo, role, signed_in, where


class Gauge(LiveDocument):
    """A number that somebody reads all the time."""

    n: int = 0
    open: bool = True
    secret: Annotated[int, VisibleTo("admin")] = 0

    class Settings:
        """What Beanie asks for."""

        name = "gauges"

    resource = Resource(
        access=Access(read=where({"open": True}) | role("admin"), create=signed_in, update=signed_in, delete=signed_in),
        cache=True,
    )
