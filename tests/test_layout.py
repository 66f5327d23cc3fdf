"""The shape of the repository: what importing does, what folders have, what the packaging files say."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGES = ("api", "documents", "realtime")


def modules() -> list[str]:
    """Every module of the product, dotted."""
    found = ["main"]
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def run(*command: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it printed."""
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)  # noqa: S603


def program(name: str) -> str:
    """The full path of a program that the tests need."""
    found = shutil.which(name)
    assert found, f"{name} is not installed"
    return found


# Imports everything and then tells of every effect that an import must not have.
IMPORTER = """
import asyncio, importlib, logging, os, socket, sys, threading
sys.path.insert(0, sys.argv[1])
def refuse(*_, **__):
    raise AssertionError("a module opens a socket when it is imported")
socket.socket.connect = socket.socket.bind = refuse
handlers = list(logging.getLogger().handlers)
for name in sys.argv[2:]:
    importlib.import_module(name)
    assert threading.active_count() == 1, f"{name} starts a thread when it is imported"
    assert logging.getLogger().handlers == handlers, f"{name} configures logging when it is imported"
"""


def test_importing_every_module_in_an_empty_environment(tmp_path: Path) -> None:
    """Every module can be imported with no environment; that prints, opens, starts and writes nothing."""
    done = run(sys.executable, "-X", "dev", "-B", "-c", IMPORTER, str(ROOT), *modules(), cwd=tmp_path, env={})
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["main", *PACKAGES])
def test_importing_a_folder_alone(name: str) -> None:
    """No folder depends on another having been imported before (which would hide an import cycle).

    A folder's `__init__` imports its modules, so importing any of them alone is the same.
    """
    done = run(sys.executable, "-c", f"import {name}", env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stderr


def imported_by(path: Path) -> set[str]:
    """The top-level names that a file imports anywhere, in functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_imports_of_the_composition_root() -> None:
    """Nothing imports main, and main speaks neither HTTP nor MongoDB itself."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert "main" not in imported_by(path), path
    foreign = {"beanie", "motor", "pymongo", "bson", "gridfs", "secantus", "fastapi", "starlette"}
    assert imported_by(ROOT / "main.py") & foreign == set()


@pytest.mark.parametrize("folder", [*PACKAGES, "web", "tests"])
def test_folder_opens_with_a_readme(folder: str) -> None:
    """Each folder says in a few lines what its rule is."""
    text = (ROOT / folder / "README.md").read_text()
    assert len(text.strip().splitlines()) >= 3


def tracked_texts() -> list[tuple[Path, str]]:
    """The text files that are, or are about to be, in the repository."""
    listed = run(program("git"), "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout
    texts = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            texts.append((path, content.decode()))
    assert len(texts) > 20
    return texts


# In pieces, so that this file does not name what it forbids.
FORBIDDEN = {
    "a package registry's address": r"(files\.pythonhosted|pypi|crates|registry\.npmjs)\.(org|io)\b",
    "a package index": r"--(extra-)?index-url|--find-links|PIP_INDEX",
    "a path of somebody's machine": r"(?<![\w.])/(work|home|Users)/\w+|(?<![\w./])/root/",
    "a private key": r"BEGIN [A-Z ]*PRIVATE " + "KEY",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_repository_does_not_name(what: str) -> None:
    """No tracked file holds an address or a path that belongs to one machine, or a secret."""
    pattern = re.compile(FORBIDDEN[what])
    places = [
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path, text in tracked_texts()
        if path != Path(__file__)
        for found in pattern.finditer(text)
    ]
    assert places == []


def project() -> dict[str, Any]:
    """The `project` table of pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
        return table


def test_constraints_name_exact_versions_of_all_that_is_asked_for() -> None:
    """constraints.txt is `name==version` lines only, and holds every direct dependency."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    asked = project()["dependencies"] + [one for extra in project()["optional-dependencies"].values() for one in extra]
    names = {re.split(r"[\[<>=!~; ]", one)[0].lower() for one in asked} - {"headwater"}
    assert names - pinned == set()


def test_version_is_a_release_number() -> None:
    """The version is three numbers, which the changelog's newest heading repeats."""
    version = project()["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert version in (ROOT / "CHANGELOG.md").read_text()


def test_make_help_lists_every_verb() -> None:
    """Each phony target has one line in `make help`, and plain `make` prints the same."""
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    verbs = phony.group(1).split()
    assert {"run", "demo", "test", "check", "format", "fuzz", "constraints", "clean", "help"} <= set(verbs)
    shown = run(program("make"), "--no-print-directory", "help")
    assert shown.returncode == 0
    lines = dict(line.split(maxsplit=2)[1:] for line in shown.stdout.splitlines())
    assert set(lines) == set(verbs)
    assert all(lines.values())
    assert run(program("make"), "--no-print-directory").stdout == shown.stdout


def test_make_without_a_fitting_python_says_so(tmp_path: Path) -> None:
    """Where no Python is in range the first line names the versions, and nothing is left behind."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    for tool in ("sh", "touch"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / tool).symlink_to(program(tool))
    done = run(program("make"), "run", cwd=tmp_path, env={"PATH": str(tmp_path / "bin")})
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith("Headwater needs Python 3.11, 3.12 or 3.13")
    assert not (tmp_path / ".venv").exists()


def test_compose_file() -> None:
    """The database is healthy before the API starts, only the API is published, no secret has a default."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert services["api"]["depends_on"]["mongo"]["condition"] == "service_healthy"
    assert "--replSet" in services["mongo"]["command"]
    assert "rs.initiate" in " ".join(services["mongo"]["healthcheck"]["test"])
    assert "ports" not in services["mongo"]
    assert services["api"]["environment"]["HEADWATER_SECRET_KEY"].startswith("${HEADWATER_SECRET_KEY:?")
    mounted = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    files = {source for source in mounted if source.startswith("./")}
    assert files
    assert all((ROOT / source).exists() for source in files)
    mounted -= files
    assert mounted == set(compose["volumes"])


def test_dockerfile() -> None:
    """The last stage has a user of its own, copies what exists, checks its health and installs nothing."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    known = {"FROM", "ENV", "WORKDIR", "RUN", "COPY", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD"}
    assert {word for word, _ in steps} <= known
    stages = [index for index, (word, _) in enumerate(steps) if word == "FROM"]
    assert len(stages) == 2
    last = dict(steps[stages[1] :])
    assert last["USER"] == "headwater"
    assert last["CMD"] == '["python", "main.py", "serve"]'
    assert "/health/live" in last["HEALTHCHECK"]
    assert "HEADWATER_HOST=0.0.0.0" in last["ENV"]
    assert not any(word == "RUN" and re.search(r"\b(pip|apt-get|gcc)\b", rest) for word, rest in steps[stages[1] :])
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for word, rest in steps:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert source == "." or (f"!{source}" in ignored and (ROOT / source).exists()), source


def test_example_settings_hold_no_secret() -> None:
    """.env.example leaves every secret empty."""
    for line in (ROOT / ".env.example").read_text().splitlines():
        if re.match(r"HEADWATER_\w*(KEY|PASSWORD|TOKEN)=", line):
            assert line.endswith("="), line
