"""Settings: each fault is named by its variable, and never with its value."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from api import Settings, SettingsRefused, load_settings
from tests.api.servers import ROOT, refused_start

SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105 - not used outside the tests


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Settings]:
    """Call it with settings for what the program would read."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HEADWATER_{name.upper()}", raising=False)

    def loaded(**values: str) -> Settings:
        for name, value in values.items():
            monkeypatch.setenv(f"HEADWATER_{name.upper()}", value)
        return load_settings()

    return loaded


def refusal(load: Callable[..., Settings], **values: str) -> list[str]:
    """The faults of these settings."""
    with pytest.raises(SettingsRefused) as refused:
        load(**values)
    return refused.value.faults


def test_nothing_set(load: Callable[..., Settings]) -> None:
    """The defaults run on this machine only, with the embedded database."""
    settings = load()
    assert (settings.host, settings.port, settings.embedded) == ("127.0.0.1", 8000, True)
    assert settings.documents == ("documents.models",)
    assert settings.allowed_origins == ()


def test_lists(load: Callable[..., Settings]) -> None:
    """Are separated by commas."""
    settings = load(documents=" a , b.c,", allowed_origins="https://a.example.org, http://localhost:5173")
    assert settings.documents == ("a", "b.c")
    assert settings.allowed_origins == ("https://a.example.org", "http://localhost:5173")


def test_file(load: Callable[..., Settings], tmp_path: Path) -> None:
    """`.env` in the working directory is read, and the environment wins."""
    (tmp_path / ".env").write_text("HEADWATER_PORT=8100\nHEADWATER_DATABASE=from_file\nOTHER=1\n")
    settings = load(port="8200")
    assert (settings.port, settings.database) == (8200, "from_file")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "eighty"),
        ("port", "70000"),
        ("embedded_port", "0"),
        ("environment", "staging"),
        ("database", "a/b"),
        ("database", ""),
        ("database", "admin"),
        ("database", "local"),
        ("host", ""),
        ("secret_key", "\udcff" * 40),
        ("log_level", "loud"),
        ("registration", "maybe"),
        ("access_token_minutes", "0"),
        ("max_body_bytes", "10"),
        ("max_upload_bytes", "10"),
        ("page_size_max", "0"),
        ("history_events", "1"),
        ("history_events", "9" * 20),
        ("history_max_bytes", "1"),
        ("outbox_max_bytes", "1"),
        ("snapshot_max", "0"),
        ("schema_action", "ignore"),
        ("secret_key", "shortsecret"),
        ("admin_email", "admin@example.org"),
        ("admin_password", "heron-ford-58"),
        ("allowed_origins", "https://app.example.org/"),
        ("allowed_origins", "app.example.org"),
        ("allowed_origins", "null"),
        ("redis_url", "http://localhost"),
        ("redis_url", "redis:///0"),
        ("redis_url", "redis://localhost:99999"),
        ("redis_url", "redis://localhost?socket_timeout=soon"),
        ("redis_url", "redis://localhost?socket_timeouts=5"),
        ("redis_url", "redis://localhost/first"),
        ("redis_url", "redis://one:6379,two:6379"),
        ("redis_url", "redis+sentinel://one:26379,two:26379"),
        ("redis_url", "redis+cluster://one:6379/1"),
        ("redis_url", "redis+ring://one"),
        ("forwarded_allow_ips", "localhost"),
        ("forwarded_allow_ips", "10.0.0.1/8"),
        ("trusted_hosts", "https://api.example.org"),
        ("trusted_hosts", "api.example.org:8000"),
        ("trusted_hosts", "api.*.org"),
        ("https_redirect", "perhaps"),
        ("tls_certificate", "missing.pem"),
        ("tls_certificate", __file__),
        ("tls_key", "key.pem"),
        ("rate_limit", "600"),
        ("login_rate_limit", "many"),
        ("login_rate_limit", "0/minute"),
    ],
)
def test_value_that_is_not_accepted(load: Callable[..., Settings], name: str, value: str) -> None:
    """One line, which begins with the variable."""
    (fault,) = refusal(load, **{name: value})
    assert f"HEADWATER_{name.upper()}" in fault
    assert "\n" not in fault
    if name in ("secret_key", "admin_password"):
        assert value not in fault


@pytest.mark.parametrize(
    "url",
    [
        "redis://name:word@localhost:6379/3?socket_timeout=5",
        "rediss://localhost?ssl_cert_reqs=required",
        "redis+sentinel://one:26379,two:26379/main/0?sentinel_username=name&sentinel_password=word",
        "redis+cluster://name:word@one:6379,two:6379",
    ],
)
def test_places_of_redis(load: Callable[..., Settings], url: str) -> None:
    """Every form that the documentation has is accepted, with options for the connections and for the Sentinels."""
    assert load(redis_url=url).redis_url is not None


def test_first_admin_that_cannot_be_made(load: Callable[..., Settings]) -> None:
    """Both faults are named before anything is started."""
    for email in ("nobody", "ünï@example.org"):
        faults = refusal(load, admin_email=email, admin_password="short")  # noqa: S106 - the point of the test
        assert [fault.split()[0] for fault in faults] == ["HEADWATER_ADMIN_EMAIL", "HEADWATER_ADMIN_PASSWORD"]


@pytest.mark.parametrize(
    "password", ["password1", "PASSWORD123", "zzzzzzzzzzzz", "Headwater", "river@example.org", "changeme"]
)
def test_first_admin_with_a_password_that_is_tried_first(load: Callable[..., Settings], password: str) -> None:
    """Is refused as for everybody, and the password is not repeated."""
    (fault,) = refusal(load, admin_email="river@example.org", admin_password=password)
    assert fault.startswith("HEADWATER_ADMIN_PASSWORD: ")
    assert password not in fault


def test_production(load: Callable[..., Settings]) -> None:
    """Refuses what is only for development, naming each fault; and starts when all is right."""
    faults = refusal(load, environment="production", allowed_origins="*")
    assert [fault.split()[0] for fault in faults] == [
        "HEADWATER_SECRET_KEY",
        "HEADWATER_MONGODB_URL",
        "HEADWATER_ALLOWED_ORIGINS",
    ]
    assert refusal(load, allowed_origins="", secret_key=SECRET, mongodb_url="mongomock://")[0].startswith(
        "HEADWATER_MONGODB_URL"
    )
    settings = load(mongodb_url="mongodb://db.example.org/?replicaSet=rs0")
    assert settings.environment == "production"


def test_secrets_are_not_printed(load: Callable[..., Settings]) -> None:
    """Not even by printing the settings."""
    settings = load(
        secret_key=SECRET,
        mongodb_url="mongodb://user:hunter2@db.example.org/",
        redis_url="redis://:hunter2@cache.example.org:6379/0",
        admin_email="a@example.org",
        admin_password="heron-ford-58",  # noqa: S106 - the point of the test
    )
    assert not re.search("hunter2|river-stone|0123456789abcdef", repr(settings) + str(settings.model_dump()))


def test_program_with_faulty_settings(tmp_path: Path) -> None:
    """A line for each fault, and exit code 1."""
    code, output = refused_start(tmp_path, {"HEADWATER_PORT": "x", "HEADWATER_LOG_LEVEL": "loud"})
    assert code == 1
    assert [line.split(":")[:2] for line in output.strip().splitlines()] == [
        ["headwater", " HEADWATER_PORT"],
        ["headwater", " HEADWATER_LOG_LEVEL"],
    ]


def test_every_setting_is_documented() -> None:
    """docs/settings.md has a row for each, and none for what does not exist."""
    rows = re.findall(r"^\| `HEADWATER_(\w+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(name.upper() for name in Settings.model_fields)
