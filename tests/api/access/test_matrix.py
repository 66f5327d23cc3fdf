"""The matrix: what every persona gets of every kind of document on every surface is as declared.

The surfaces come from the server's own routes and protocol, the classes from the registry. So a new class, route,
parameter, media type or message fails here until somebody has written down who may do what with it.
"""

from __future__ import annotations

import pytest
from pymongo.database import Database

from api import Settings
from documents import LiveDocument, Registry
from tests.api.access import reading, watching, writing
from tests.api.access.surfaces import PROBES, surfaces
from tests.api.access.table import ELSEWHERE, TABLES, parse
from tests.api.access.world import Stored, World, build
from tests.api.servers import SECRET, Server

REGISTRY = ["documents.models"]
#: Each registers its probes where it is imported.
_PROBING = (reading, writing, watching)
EXPECTED = {collection: parse(table) for collection, table in TABLES.items()}


@pytest.fixture(scope="module")
def world(server: Server, mongo: Database[Stored]) -> World:
    """Personas and documents on the shared server."""
    return build(server, mongo, Registry.load(REGISTRY))


def undeclared(registry: Registry) -> set[str]:
    """Surfaces of the server that no row declares, and classes that have no table."""
    settings = Settings(secret_key=SECRET)
    missing: set[str] = set()
    for collection, names in surfaces(registry, settings).items():
        declared = ELSEWHERE.keys() if collection is None else EXPECTED.get(collection, {}).keys()
        missing |= {f"{collection}: {name}" for name in names - declared}
    return missing


def test_every_surface_has_a_row() -> None:
    """Of every class; and every row has a way to try it."""
    registry = Registry.load(REGISTRY)
    assert undeclared(registry) == set()
    assert {resource.name for resource in registry} == EXPECTED.keys()
    assert {name for expected in EXPECTED.values() for name in expected} <= PROBES.keys()


def test_class_without_rows() -> None:
    """A class that somebody adds is found, with its routes, parameters, media types and messages."""

    class Stray(LiveDocument):
        """Nobody has thought about who may read it."""

        class Settings:
            name = "strays"

    registry = Registry([*(resource.document_class for resource in Registry.load(REGISTRY)), Stray])
    found = undeclared(registry)
    assert {name.split(":")[0] for name in found} == {"strays"}
    assert {
        "strays: GET {c} ?filter",
        "strays: GET {c} text/csv",
        "strays: PATCH {c}/{id} application/merge-patch+json",
        "strays: HEAD {c}/{id}",
        "strays: ws subscribe",
    } <= found


@pytest.mark.parametrize(
    ("collection", "surface"), [(collection, surface) for collection, rows in EXPECTED.items() for surface in rows]
)
def test_outcomes(world: World, collection: str, surface: str) -> None:
    """Of one surface, for all personas and documents at once."""
    differing: dict[str, str] = {}
    for kind, row in EXPECTED[collection][surface].items():
        subject = world.subjects[collection, kind]
        for name, outcome in row.items():
            if outcome == "-":
                continue
            for persona in world.personas[name]:
                seen = PROBES[surface](world, persona, subject)
                if seen != outcome:
                    differing[f"{persona.name}, {kind}"] = f"{seen}, not {outcome}"
    assert differing == {}
