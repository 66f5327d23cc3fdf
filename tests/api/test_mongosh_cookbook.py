"""docs/mongosh.md, run from top to bottom against a server: each block prints what the page says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.api.servers import ROOT, Server, User, environment, serving
from tests.mongosh import Mongosh, database_url, mongosh, mongosh_path
from tests.secrecy import SECRECY

PAGE = ROOT / "docs/mongosh.md"
EMBEDDED = "mongodb://127.0.0.1:27117/headwater"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """What somebody types, in the shell of the system or of the database, and what the page says is printed."""

    language: str
    typed: str
    printed: str


def steps() -> Iterator[Step]:
    """The page's steps, in order."""
    prompts = {"mongosh": "headwater> ", "console": "$ "}
    for language, block in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        assert language in prompts, f"a block of {language!r} is run by nobody"
        prompt = prompts[language]
        assert block.startswith(prompt)
        for part in block.removeprefix(prompt).split(f"\n{prompt}"):
            typed, _, printed = part.partition("\n")
            yield Step(language, typed, printed.rstrip("\n"))


def assert_printed(printed: str, step: Step) -> None:
    """`…` stands for anything, and empty lines are none."""
    expected = ".*?".join(map(re.escape, step.printed.split("…")))
    text = "\n".join(line.rstrip() for line in printed.splitlines() if line.strip())
    assert re.fullmatch(expected, text, re.DOTALL), f"{step.typed}\n{text}"


@pytest.fixture(scope="module")
def served(
    server_settings: Callable[..., dict[str, str]],
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server whose database nobody else writes, and its settings."""
    mongosh_path()  # before the server is started for nothing
    settings = server_settings()
    with serving(tmp_path_factory.mktemp("server"), free_port(), settings) as server:
        yield server, settings
        server.stop()
        server.check_log()


@pytest.fixture(scope="module")
def mara(served: tuple[Server, dict[str, str]]) -> User:
    """The user of the page, with the posts that it starts from."""
    server, _ = served
    mara, ben = server.register("mara"), server.register("ben")
    post(mara, title="High water", slug="high-water", body="The gauge stood at 3.4 m.", tags=["river", "spring"],
         status="published")  # fmt: skip
    post(mara, title="A map of weirs", slug="weirs", tags=["rivr"])
    post(ben, title="Sluice gates", slug="sluice", tags=["river"])
    post(ben, title="Low water", slug="low-water", tags=["river", "rivr"], status="published")
    return mara


def post(user: User, **fields: object) -> None:
    """Create a post."""
    answer = user.client.post("/posts", json=fields)
    assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
def shell(served: tuple[Server, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongosh]:
    """A session on that server's database."""
    settings = served[1]
    url = database_url(settings["HEADWATER_MONGODB_URL"], settings["HEADWATER_DATABASE"])
    with mongosh(url, tmp_path_factory.mktemp("home")) as session:
        yield session


@pytest.mark.usefixtures("mara")
def test_every_step_of_the_page(served: tuple[Server, dict[str, str]], shell: Mongosh, tmp_path: Path) -> None:
    """The steps build on each other, as they do for a reader."""
    for step in steps():
        if step.language == "mongosh":
            assert_printed(shell.run(step.typed), step)
        else:
            assert_printed(in_console(shlex.split(step.typed), served[1], tmp_path), step)


def in_console(words: list[str], settings: dict[str, str], folder: Path) -> str:
    """What a command of the page prints. Those that would open a shell elsewhere are looked at, not run."""
    if words == ["mongosh", EMBEDDED]:
        return ""
    if words[:3] == ["docker", "compose", "exec"]:
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        assert services[words[3]]["image"].startswith("mongo:")
        assert words[4:] == ["mongosh", "headwater"]
        return ""
    assert words[:2] == ["python", "main.py"], words
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(ROOT / "main.py"), *words[2:]],
        cwd=folder,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    SECRECY.hear(done.stdout + done.stderr, " ".join(words), log=True)
    assert done.stderr == ""
    return done.stdout.rstrip("\n")
