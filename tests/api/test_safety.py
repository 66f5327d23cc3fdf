"""What `python main.py check` says of settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api import Settings
from api.safety import findings
from tests.api.servers import ROOT, environment
from tests.api.test_tls import make_pair
from tests.deploy.compose import image, services
from tests.deploy.test_kubernetes import manifests

SECRET = "kD3_vQ8sLx1Zr7TfYpW2-mGbNcHe5uJaRo9iEt4S"  # noqa: S105 - not used outside the tests
SAFE = {
    "ENVIRONMENT": "production",
    "HOST": "0.0.0.0",  # noqa: S104 - nothing listens
    "SECRET_KEY": SECRET,
    "MONGODB_URL": "mongodb+srv://app:hunter2@db.example.org/?retryWrites=true",
    "REDIS_URL": "rediss://:hunter2@cache.example.org:6380/0",
    "TRUSTED_HOSTS": "live.example.org",
    "ALLOWED_ORIGINS": "https://live.example.org",
    "HTTPS_REDIRECT": "true",
    "FORWARDED_ALLOW_IPS": "10.1.2.3",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without `.env`, and no settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HEADWATER_{name.upper()}", raising=False)


def load(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    """These settings."""
    for name, value in values.items():
        monkeypatch.setenv(f"HEADWATER_{name}", value)
    settings = Settings()
    assert settings.faults() == []
    return settings


def unsafe(settings: Settings) -> list[str]:
    """The names of the settings that are unsafe."""
    return [finding.setting for finding in findings(settings) if finding.unsafe]


def test_safe_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found where nothing is wrong."""
    assert findings(load(monkeypatch, **SAFE)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "0123456789" * 4),
        ("TRUSTED_HOSTS", ""),
        ("TRUSTED_HOSTS", "live.example.org,*"),
        ("HTTPS_REDIRECT", "false"),
        ("FORWARDED_ALLOW_IPS", "*"),
        ("FORWARDED_ALLOW_IPS", "10.1.2.3,0.0.0.0/0"),
        ("FORWARDED_ALLOW_IPS", "::/0"),
        ("ALLOWED_ORIGINS", "http://live.example.org"),
        ("MONGODB_URL", "mongodb://db1.example.org,db2.example.org/?replicaSet=rs0&tls=true"),
        ("MONGODB_URL", "mongodb://app:hunter2@db1.example.org,10.0.0.1/?replicaSet=rs0"),
        ("MONGODB_URL", "mongodb://app:hunter2@8.8.8.8/?tls=true&tlsAllowInvalidCertificates=true"),
        ("REDIS_URL", "rediss://cache.example.org"),
        ("REDIS_URL", "redis://:hunter2@cache.example.org"),
        ("REDIS_URL", "rediss://:hunter2@cache.example.org?ssl_cert_reqs=none"),
        ("LOGIN_RATE_LIMIT", "100/second"),
        ("ACCESS_TOKEN_MINUTES", "1440"),
    ],
)
def test_unsafe_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Each is found, alone, with what to do, and without repeating a secret."""
    settings = load(monkeypatch, **{**SAFE, name: value})
    (finding,) = findings(settings)
    assert (finding.setting, finding.unsafe) == (name, True)
    assert str(finding).startswith(f"HEADWATER_{name}: ")
    assert "hunter2" not in str(finding)
    assert "0123456789" not in str(finding)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MONGODB_URL", "mongodb://db.example.org/?authMechanism=MONGODB-X509&tls=true"),
        ("MONGODB_URL", "mongodb://app:hunter2@db.example.org/?ssl=true"),
        ("MONGODB_URL", "mongodb://db.localhost"),
        ("ALLOWED_ORIGINS", "http://app.localhost:5173"),
        ("LOGIN_RATE_LIMIT", "1000/second;100/hour"),
        ("ACCESS_TOKEN_MINUTES", "60"),
    ],
)
def test_setting_that_only_looks_unsafe(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Another way to sign in or to TLS, what does not leave this machine, and the strictest of several limits."""
    assert findings(load(monkeypatch, **{**SAFE, name: value})) == []


def test_files_that_others_can_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`.env` and the key of TLS hold secrets: they are for the server's user alone."""
    (tmp_path / ".env").write_text("")
    (tmp_path / ".env").chmod(0o644)
    assert unsafe(load(monkeypatch, **SAFE)) == ["SECRET_KEY"]
    (tmp_path / ".env").chmod(0o600)
    assert unsafe(load(monkeypatch, **SAFE)) == []


@pytest.mark.parametrize(("days", "unsafe", "word"), [(-1, True, "expired"), (5, False, "expires")])
def test_certificate_that_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: int, unsafe: bool, word: str
) -> None:
    """One that has expired is unsafe; one that soon will is worth advice."""
    pair = make_pair(tmp_path, "server", days=days)
    pair.key.chmod(0o600)
    files = {"TLS_CERTIFICATE": str(pair.certificate), "TLS_KEY": str(pair.key)}
    (finding,) = findings(load(monkeypatch, **SAFE, **files))
    assert (finding.setting, finding.unsafe) == ("TLS_CERTIFICATE", unsafe)
    assert finding.problem.startswith(f"it {word} on 20")
    fresh = make_pair(tmp_path, "server", days=15)
    fresh.key.chmod(0o600)
    assert findings(load(monkeypatch, **SAFE, **files)) == []


def test_development_on_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Development is for the loopback; there nothing is unsafe that a first start has."""
    assert unsafe(load(monkeypatch)) == []
    assert unsafe(load(monkeypatch, HOST="0.0.0.0")) == ["ENVIRONMENT"]  # noqa: S104 - nothing listens


def test_private_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database in a network of its own without password or TLS is worth advice; on the loopback not even that."""
    found = findings(load(monkeypatch, **{**SAFE, "REDIS_URL": "redis://redis:6379"}))
    assert [(finding.setting, finding.unsafe) for finding in found] == [("REDIS_URL", False)] * 2
    assert findings(load(monkeypatch, **{**SAFE, "REDIS_URL": "redis://127.0.0.1:6379"})) == []


def test_what_we_ship(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compose file and the manifests are safe as they are, with a secret and the servers' URLs filled in."""
    own: dict[str, Any] = services({"HEADWATER_SECRET_KEY": SECRET})["api"]["environment"]
    for name, value in (image().environment | own).items():
        monkeypatch.setenv(name, str(value))
    assert unsafe(Settings()) == []
    urls = {name: SAFE[name] for name in ("SECRET_KEY", "MONGODB_URL", "REDIS_URL")}
    for name, value in {**manifests()["ConfigMap"]["data"], "HEADWATER_HOST": "0.0.0.0"}.items():  # noqa: S104
        monkeypatch.setenv(name, value)
    assert findings(load(monkeypatch, **urls)) == []


def check(directory: Path, **values: str) -> tuple[int, str, str]:
    """Run the command: its exit code, and what it printed."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(ROOT / "main.py"), "check"],
        cwd=directory,
        env=environment({f"HEADWATER_{name}": value for name, value in values.items()}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_command(tmp_path: Path) -> None:
    """Names every fault in one line each, and in production exits with 1; what would not start is told first."""
    code, output, _ = check(tmp_path, **{**SAFE, "TRUSTED_HOSTS": "", "FORWARDED_ALLOW_IPS": "*"})
    assert code == 1
    assert [line.split()[:2] for line in output.splitlines()] == [
        ["unsafe", "HEADWATER_TRUSTED_HOSTS:"],
        ["unsafe", "HEADWATER_FORWARDED_ALLOW_IPS:"],
    ]
    code, output, _ = check(tmp_path)
    assert (code, "unsafe" in output) == (0, False)
    (tmp_path / ".env").write_text("HEADWATER_SECRET=river\n")
    (tmp_path / ".env").chmod(0o600)
    code, output, _ = check(tmp_path, **SAFE, TRUSTED_HOST="live.example.org")
    assert code == 0
    assert [line.split()[:2] for line in output.splitlines()] == [
        ["advice", "HEADWATER_SECRET:"],
        ["advice", "HEADWATER_TRUSTED_HOST:"],
    ]
    (tmp_path / ".env").unlink()
    code, output, errors = check(tmp_path, ENVIRONMENT="production")
    assert (code, output) == (1, "")
    assert errors.count("\n") == errors.count("headwater: HEADWATER_") > 1
