"""docker-compose.yml, checked against the specification of Compose and against what the services are."""

from __future__ import annotations

import re

import pytest
from compose_spec import PyCompose

from api import Settings
from tests.api.servers import ROOT, SECRET
from tests.deploy.compose import VariableMissing, compose_text, image, services

ENV_FILE = {"HEADWATER_SECRET_KEY": SECRET}


def test_no_secret() -> None:
    """Without a secret nothing is started, and the reader is told where to put it."""
    for variables in ({}, {"HEADWATER_SECRET_KEY": ""}):
        with pytest.raises(VariableMissing, match=r"HEADWATER_SECRET_KEY into \.env, see \.env\.example"):
            compose_text(variables)


def test_specification() -> None:
    """The file is valid by the Compose specification, which knows each key and each value of it."""
    text = compose_text(ENV_FILE)
    parsed = PyCompose.from_yaml(text)
    parsed.validate()
    assert set(parsed.service_names()) == {"mongo", "redis", "api", "proxy"}
    for right, wrong in (("service_healthy", "service_helthy"), ("read_only: true", "read_only: perhaps")):
        with pytest.raises(ValueError, match="services"):
            PyCompose.from_yaml(text.replace(right, wrong, 1))


def test_start_order() -> None:
    """Each service is healthy before what needs it starts."""
    found = services(ENV_FILE)
    needs = {name: set(service.get("depends_on", {})) for name, service in found.items()}
    assert needs == {"mongo": set(), "redis": set(), "api": {"mongo", "redis"}, "proxy": {"api"}}
    for service in found.values():
        assert all(need["condition"] == "service_healthy" for need in service.get("depends_on", {}).values())
    # Those of images that check nothing themselves.
    assert all("healthcheck" in found[name] for name in ("mongo", "redis", "proxy"))
    assert image().healthcheck


def test_who_reaches_whom() -> None:
    """Only the proxy is published, on the loopback; the database and Redis have no way out and are not beside it."""
    found = services(ENV_FILE)
    assert {name for name, service in found.items() if "ports" in service} == {"proxy"}
    assert all(port.startswith("127.0.0.1:") for port in found["proxy"]["ports"])
    networks = {name: set(service["networks"]) for name, service in found.items()}
    assert networks == {"mongo": {"data"}, "redis": {"data"}, "api": {"data", "front"}, "proxy": {"front"}}
    assert "data:\n    internal: true" in compose_text(ENV_FILE)


def test_rights() -> None:
    """What speaks HTTP has a file system that it cannot write to, and no rights that it does not need."""
    for name in ("api", "proxy"):
        service = services(ENV_FILE)[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"]


def test_settings_are_settings() -> None:
    """Every variable of the compose file, the image and .env.example is a setting that the server knows."""
    known = {f"HEADWATER_{name.upper()}" for name in Settings.model_fields}
    for name in ("docker-compose.yml", "Dockerfile", ".env.example", "deploy/healthcheck.py"):
        used = set(re.findall(r"HEADWATER_[A-Z_]+[A-Z]", (ROOT / name).read_text()))
        assert used, name
        assert used - known == set(), name


def test_grace() -> None:
    """Docker kills later than the supervisor does, and the supervisor later than a worker has to end its requests."""
    from api.serving import DRAIN_SECONDS, GRACE_SECONDS
    from api.supervisor import STOP_TIMEOUT

    grace = float(services(ENV_FILE)["api"]["stop_grace_period"].rstrip("s"))
    assert DRAIN_SECONDS + GRACE_SECONDS < STOP_TIMEOUT.total_seconds() < grace
