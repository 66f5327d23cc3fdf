"""docker-compose.yml and Dockerfile, read as Docker reads them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.api.servers import ROOT


class VariableMissing(Exception):
    """A variable that has to be set is not; the text is what the file says of it."""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """`text` with `${NAME}`, `${NAME:-default}` and `${NAME:?error}` replaced. Raises VariableMissing."""

    def value(found: re.Match[str]) -> str:
        name, operator, rest = found["name"], found["operator"], found["rest"]
        if variables.get(name) or operator is None:
            return variables.get(name, "")
        if operator == ":-":
            return rest
        raise VariableMissing(rest)

    return re.sub(r"\$\{(?P<name>\w+)(?:(?P<operator>:[-?])(?P<rest>[^}]*))?\}", value, text)


def compose_text(variables: Mapping[str, str]) -> str:
    """The compose file with the variables of a `.env` put in. Raises VariableMissing."""
    return interpolated((ROOT / "docker-compose.yml").read_text(), variables)


def services(variables: Mapping[str, str]) -> dict[str, Any]:
    """The services of the compose file. Raises VariableMissing."""
    found: dict[str, Any] = yaml.safe_load(compose_text(variables))["services"]
    return found


@dataclass(frozen=True)
class Image:
    """What the last stage of the Dockerfile makes: its environment, files, start command and health check."""

    environment: dict[str, str]
    files: dict[str, str]
    """Where each file that is copied from the repository is, below the working directory."""
    command: list[str]
    healthcheck: list[str]


def image() -> Image:
    """The image that the Dockerfile describes."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    last = text[text.rindex("\nFROM ") :]
    steps = [line.strip().split(maxsplit=1) for line in last.splitlines() if line.strip() and not line.startswith("#")]
    environment: dict[str, str] = {}
    files: dict[str, str] = {}
    command: list[str] = []
    healthcheck: list[str] = []
    for word, rest in steps:
        if word == "ENV":
            environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            assert target == "/app/"
            files |= {source: source.rsplit("/", 1)[-1] for source in sources}
        elif word == "CMD":
            command = yaml.safe_load(rest)
        elif word == "HEALTHCHECK":
            healthcheck = yaml.safe_load(rest[rest.index("CMD") + 3 :])
    return Image(environment, files, command, healthcheck)
