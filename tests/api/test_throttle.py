"""The throttle of sign-ins: guessing is slow, and nobody is locked out by somebody else."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.requests import HTTPConnection

from api.addresses import address_of
from api.counters import Counters, parse_limits
from api.problems import Problem
from api.throttle import NAME_FACTOR, LoginThrottle
from tests.api.conftest import Starter
from tests.api.servers import PASSWORD, Server, serving
from tests.api.test_errors import problem
from tests.redis_server import RedisServer

WRONG = "not-" + PASSWORD


@pytest.fixture(scope="module")
def settings(server_settings: Starter, module_redis: RedisServer) -> dict[str, str]:
    """Settings of two workers of one database."""
    return server_settings(login_rate_limit="3/minute", redis_url=module_redis.url)


@pytest.fixture(scope="module")
def strict(
    settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Server]:
    """A server that lets three attempts fail a minute. It trusts what we say of where we are."""
    with serving(tmp_path_factory.mktemp("strict"), free_port(), settings) as server:
        yield server
        server.stop()
        server.check_log()


@pytest.fixture
def name(strict: Server) -> str:
    """A user's name, registered from an address of their own."""
    random = uuid.uuid4().hex
    name = f"u{random[:10]}"
    body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
    registering = at(f"2001:db8:{random[:4]}:{random[4:8]}::1")
    answer = httpx.post(f"{strict.url}/api/v1/auth/register", json=body, headers=registering, timeout=30)
    assert answer.status_code == 201, answer.text
    return name


def at(address: str) -> dict[str, str]:
    """The header with which a proxy says who its client is."""
    return {"X-Forwarded-For": address}


def sign_in(server: Server, name: str, password: str = PASSWORD, address: str = "203.0.113.1") -> httpx.Response:
    """One attempt."""
    body = {"username": name, "password": password}
    return httpx.post(f"{server.url}/api/v1/auth/login", json=body, headers=at(address), timeout=30)


def test_guessing(strict: Server, name: str) -> None:
    """Is refused after the limit, the right password too; not for the owner, who is elsewhere."""
    for _ in range(3):
        problem(sign_in(strict, name, WRONG, "203.0.113.2"), 401, "unauthorized")
    for password in (WRONG, PASSWORD):
        refused = sign_in(strict, name, password, "203.0.113.2")
        problem(refused, 429, "too_many_requests")
        assert 0 < int(refused.headers["retry-after"]) <= 120
        assert refused.headers["ratelimit-remaining"] == "0"
    assert sign_in(strict, name, address="203.0.113.3").status_code == 200


def test_guessing_at_nobody(strict: Server, name: str) -> None:
    """Is answered exactly like guessing at somebody."""
    answers = []
    for who, address in ((name, "203.0.113.4"), ("nobody-of-that-name", "203.0.113.5")):
        got = [sign_in(strict, who, WRONG, address) for _ in range(5)]
        answers.append([(one.status_code, set(one.headers), one.json()["detail"][:30]) for one in got])
    assert answers[0] == answers[1]


def test_guessing_by_name_and_by_email(strict: Server, name: str) -> None:
    """Counts apart, or the throttle would tell that both are one account's."""
    for _ in range(4):
        sign_in(strict, name, WRONG, "203.0.113.6")
    problem(sign_in(strict, f"{name}@example.org", WRONG, "203.0.113.6"), 401, "unauthorized")


def test_guessing_with_another_spelling(strict: Server, name: str) -> None:
    """Counts as the same name."""
    for spelling in (name, name.upper(), f" {name} "):
        problem(sign_in(strict, spelling, WRONG, "203.0.113.7"), 401, "unauthorized")
    problem(sign_in(strict, name, WRONG, "203.0.113.7"), 429, "too_many_requests")


def test_one_password_on_many_accounts(strict: Server) -> None:
    """Is refused after a while, by the address."""
    answers = [sign_in(strict, f"nobody-{number}", WRONG, "203.0.113.8").status_code for number in range(17)]
    assert answers == [401] * 15 + [429] * 2
    # Others, whose network is another one, are not concerned; neighbours in the same IPv6 network are.
    problem(sign_in(strict, "nobody-16", WRONG, "203.0.113.9"), 401, "unauthorized")


def test_guesses_at_the_same_moment(strict: Server, name: str) -> None:
    """No more than the limit are judged."""
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: sign_in(strict, name, WRONG, "203.0.113.10").status_code, range(20)))
    assert sorted(answers) == [401] * 3 + [429] * 17


def test_many_right_sign_ins_at_once(strict: Server, name: str) -> None:
    """Are all let in: success counts nothing."""
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: sign_in(strict, name, address="203.0.113.11").status_code, range(20)))
    assert answers == [200] * 20


def test_guessing_at_ones_own_password(strict: Server, name: str) -> None:
    """Counts for the session, wherever it is asked for; another session of the same account can still change it."""
    first, second = (
        strict.client(sign_in(strict, name, address="203.0.113.12").json()["access_token"]) for _ in range(2)
    )
    wrong = {"current_password": WRONG, "new_password": "heron-ford-43"}
    moved = {"email": f"{uuid.uuid4().hex}@example.org"}
    for _ in range(2):
        problem(first.patch("/users/me", json=moved | {"current_password": WRONG}), 403, "forbidden")
    problem(first.post("/users/me/password", json=wrong), 403, "forbidden")
    right = wrong | {"current_password": PASSWORD}
    problem(first.patch("/users/me", json=moved | {"current_password": PASSWORD}), 429, "too_many_requests")
    problem(first.post("/users/me/password", json=right), 429, "too_many_requests")
    assert second.post("/users/me/password", json=right).status_code == 204


def test_registering_many_accounts(strict: Server) -> None:
    """Is refused after the limit; the same from another address is not."""

    def register(address: str) -> httpx.Response:
        name = f"r{uuid.uuid4().hex[:10]}"
        body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
        return httpx.post(f"{strict.url}/api/v1/auth/register", json=body, headers=at(address), timeout=30)

    assert [register("203.0.113.13").status_code for _ in range(3)] == [201] * 3
    problem(register("203.0.113.13"), 429, "too_many_requests")
    assert register("203.0.113.14").status_code == 201


def test_two_workers(
    strict: Server,
    settings: dict[str, str],
    module_redis: RedisServer,
    name: str,
    tmp_path: Path,
    free_port: Callable[[], int],
) -> None:
    """Count together in Redis, and alone while it is away. One that trusts no proxy is told no tales."""
    more = settings | {"HEADWATER_FORWARDED_ALLOW_IPS": "10.0.0.0/8"}
    with serving(tmp_path, free_port(), more) as other:
        for number in range(3):
            # From the other worker's point of view these all come from 127.0.0.1, whatever they say.
            sign_in(other, name, WRONG, f"203.0.113.{20 + number}")
        problem(sign_in(other, name, WRONG, "203.0.113.30"), 429, "too_many_requests")
        problem(sign_in(strict, name, WRONG, "127.0.0.1"), 429, "too_many_requests")
        module_redis.kill()
        try:
            # Each starts from nothing, and answers all the same.
            problem(sign_in(strict, name, WRONG, "127.0.0.1"), 401, "unauthorized")
            problem(sign_in(other, name, WRONG), 401, "unauthorized")
        finally:
            module_redis.start()
        with module_redis.client() as client:
            while not client.keys("headwater:*"):
                assert sign_in(strict, "nobody", WRONG, "203.0.113.31").status_code in (401, 429)
        other.stop()
        other.check_log()


async def test_attack_from_many_addresses() -> None:
    """Strangers are refused after a while; where the name was signed in from before, it can be again."""
    throttle = LoginThrottle(Counters(None, "x"), parse_limits("1/minute"))
    async with throttle.sign_in("mara", "home") as attempt:
        await attempt.succeeded()
    for number in range(NAME_FACTOR):
        async with throttle.sign_in("mara", f"zombie-{number}") as attempt:
            await attempt.failed()
    with pytest.raises(Problem) as refused:
        await throttle.sign_in("mara", "another zombie").__aenter__()
    assert refused.value.status == 429
    async with throttle.sign_in("Mara", "home"):
        pass
    async with throttle.sign_in("someone else", "another zombie"):
        pass


async def test_attempt_without_an_outcome() -> None:
    """Counts nothing: the database was away."""
    throttle = LoginThrottle(Counters(None, "x"), parse_limits("1/minute"))
    for _ in range(3):
        with pytest.raises(OSError, match="away"):
            async with throttle.sign_in("mara", "home"):
                raise OSError("away")


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("a" * 5_000, "unknown"),
        (None, "local"),
    ],
)
def test_address(peer: str | None, counted: str) -> None:
    """Is the IPv4 address, or the network that one subscriber has."""
    scope: dict[str, Any] = {"type": "http", "headers": [], "client": (peer, 1) if peer else None}
    assert address_of(HTTPConnection(scope)) == counted
