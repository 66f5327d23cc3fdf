"""Keys of access tokens: which files are keys, how they are named, and that no token chooses how it is verified."""

from __future__ import annotations

import base64
import datetime as dt
import hmac
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from bson import ObjectId
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from api import SettingsRefused, TokenKey, Tokens, load_token_keys, secret_key
from api.tokens import TokenRefused
from tests.api.conftest import Starter
from tests.api.servers import SECRET, refused_start, serving

HOUR = dt.timedelta(hours=1)
USER, SESSION = str(ObjectId()), str(ObjectId())
#: RFC 7638, 3.1.
RSA_MODULUS = (
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs"
    "tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5ha"
    "jrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
)


def private_pem(key: Any, passphrase: bytes | None = None) -> bytes:
    """A private key as `openssl genpkey` writes it."""
    protection = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)
    return pem


def public_pem(key: Any) -> bytes:
    """The public half, as `openssl pkey -pubout` writes it."""
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


ED_KEY, OTHER_ED_KEY = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
RSA_KEY = rsa.generate_private_key(65_537, 2_048)


@pytest.fixture
def keys(tmp_path: Path) -> Callable[..., list[TokenKey]]:
    """Call it with PEM texts for the keys that they are."""

    def load(*pems: bytes) -> list[TokenKey]:
        paths = [tmp_path / f"{number}.pem" for number, _ in enumerate(pems)]
        for path, pem in zip(paths, pems, strict=True):
            path.write_bytes(pem)
        return load_token_keys([str(path) for path in paths])

    return load


def issued(tokens: Tokens) -> str:
    """A token for somebody's session."""
    return tokens.issue(USER, SESSION, dt.datetime.now(dt.UTC) + HOUR)[0]


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token."""
    now = int(dt.datetime.now(dt.UTC).timestamp())
    good = {
        "iss": "headwater", "aud": "headwater-api", "iat": now, "nbf": now, "exp": now + 60, "jti": "x",
        "sub": USER, "sid": SESSION,
    }  # fmt: skip
    return {name: value for name, value in (good | changes).items() if value is not None}


def segment(content: Any) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def refused(tokens: Tokens, token: str) -> bool:
    """Whether a token is refused."""
    try:
        tokens.read(token)
    except TokenRefused:
        return True
    return False


def test_names_of_keys(keys: Callable[..., list[TokenKey]]) -> None:
    """The thumbprints of RFC 7638, 3.1 and RFC 8037, A.3, the same for both halves of a pair."""
    modulus = int.from_bytes(base64.urlsafe_b64decode(RSA_MODULUS + "=="), "big")
    known = rsa.RSAPublicNumbers(65_537, modulus).public_key()
    # RFC 8037, A.1 and A.2: the private key and its public half.
    curve = ed25519.Ed25519PrivateKey.from_private_bytes(
        base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    )
    private, public, modular = keys(private_pem(curve), public_pem(curve.public_key()), public_pem(known))
    assert private.kid == public.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert modular.kid == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert [key.algorithm for key in (private, modular)] == ["EdDSA", "RS256"]


UNUSABLE: dict[str, tuple[list[bytes], str]] = {
    "a text that is no key": ([b"hello"], "not a key"),
    "an empty file": ([b""], "not a key"),
    "half a key": ([private_pem(ED_KEY)[:60]], "not a key"),
    "a key behind a passphrase": ([private_pem(ED_KEY, b"hush")], "passphrase"),
    "a short RSA key": ([private_pem(rsa.generate_private_key(65_537, 1_024))], "2048"),  # noqa: S505 - the point of the test
    "a key of another curve": ([private_pem(ec.generate_private_key(ec.SECP256R1()))], "neither"),
    "an Ed448 key": ([private_pem(ed448.Ed448PrivateKey.generate())], "neither"),
    "a public key first": ([public_pem(ED_KEY.public_key()), private_pem(RSA_KEY)], "first key signs"),
    "a second key that is none": ([private_pem(ED_KEY), b"hello"], "not a key"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_file_that_cannot_be_used(keys: Callable[..., list[TokenKey]], case: str) -> None:
    """One line that names the setting and the file, and nothing of the content."""
    pems, message = UNUSABLE[case]
    with pytest.raises(SettingsRefused, match=message) as fault:
        keys(*pems)
    assert str(fault.value).startswith("HEADWATER_TOKEN_KEYS: ")
    assert "hello" not in str(fault.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    """A missing file, and a folder without keys; without any setting there are none."""
    for path in (tmp_path / "nope.pem", tmp_path):
        with pytest.raises(SettingsRefused, match=str(path)):
            load_token_keys([str(path)])
    assert load_token_keys([]) == []


def test_keys_in_a_folder(tmp_path: Path) -> None:
    """By name: the first signs."""
    (tmp_path / "2.pem").write_bytes(private_pem(ED_KEY))
    (tmp_path / "1.pem").write_bytes(private_pem(RSA_KEY))
    (tmp_path / "notes.txt").write_text("not a key")
    assert [key.algorithm for key in load_token_keys([str(tmp_path)])] == ["RS256", "EdDSA"]


@pytest.mark.parametrize("pair", [ED_KEY, RSA_KEY], ids=["EdDSA", "RS256"])
def test_rotation(keys: Callable[..., list[TokenKey]], pair: Any) -> None:
    """At each step every server accepts what every other one signs; in the end the old key's tokens are refused."""
    old, new = private_pem(pair), private_pem(OTHER_ED_KEY)
    steps = [Tokens(keys(*pems), HOUR) for pems in ((old,), (old, new), (new, public_pem(pair.public_key())), (new,))]
    for before, after in itertools.pairwise(steps):
        assert before.read(issued(before)).user_id == USER
        if after is not steps[-1]:
            assert after.read(issued(before)).session_id == SESSION
            assert before is steps[0] or before.read(issued(after)).session_id == SESSION
    assert jwt.get_unverified_header(issued(steps[1]))["kid"] == keys(old)[0].kid
    assert jwt.get_unverified_header(issued(steps[2]))["kid"] == keys(new)[0].kid
    assert refused(steps[3], issued(steps[1]))
    assert refused(steps[0], issued(steps[2]))


def test_token_that_chooses_its_algorithm(keys: Callable[..., list[TokenKey]]) -> None:
    """`none`, the public key as a secret (HS/RS confusion), one pair's name on another's signature: all refused."""
    pems = (private_pem(ED_KEY), private_pem(RSA_KEY))
    ed, modular = keys(*pems)
    tokens = Tokens([ed, modular], HOUR)
    content = claims()
    assert not refused(tokens, jwt.encode(content, RSA_KEY, algorithm="RS256", headers={"kid": modular.kid}))
    assert not refused(tokens, jwt.encode(content, ED_KEY, algorithm="EdDSA", headers={"kid": ed.kid}))
    foreign = {"kid": keys(private_pem(OTHER_ED_KEY))[0].kid}
    forged = [
        jwt.encode(content, OTHER_ED_KEY, algorithm="EdDSA", headers=foreign),
        jwt.encode(content, OTHER_ED_KEY, algorithm="EdDSA", headers={"kid": ed.kid}),
        jwt.encode(content, RSA_KEY, algorithm="RS256", headers={"kid": ed.kid}),
        jwt.encode(content, ED_KEY, algorithm="EdDSA", headers={"kid": modular.kid}),
        jwt.encode(content, RSA_KEY, algorithm="RS512", headers={"kid": modular.kid}),
        jwt.encode(content, RSA_KEY, algorithm="PS256", headers={"kid": modular.kid}),
        jwt.encode(content, ED_KEY, algorithm="EdDSA"),
        jwt.encode(content, SECRET, algorithm="HS256"),
        jwt.encode(content, SECRET, algorithm="HS256", headers={"kid": ed.kid}),
    ]
    for key, pair in ((ed, ED_KEY), (modular, RSA_KEY)):
        none = {"alg": "none", "typ": "JWT", "kid": key.kid}
        forged.append(f"{segment(none)}.{segment(content)}.")
        # PyJWT itself refuses to sign with these, so by hand.
        for public in (public_pem(pair.public_key()), public_pem(pair.public_key()).strip()):
            forged.append(confused(public, key, content))
    for kid in (None, 5, ["a"], {"$ne": ""}, "../../etc/passwd", "", ed.kid):
        forged.append(f"{segment({'alg': 'EdDSA', 'kid': kid})}.{segment(content)}.AAAA")
    for token in forged:
        assert refused(tokens, token), token
    default = Tokens([secret_key(SECRET.encode())], HOUR)
    assert not refused(default, issued(default))
    for headers in ({"kid": "a"}, {"kid": ""}, {"kid": ed.kid}):
        assert refused(default, jwt.encode(content, SECRET, algorithm="HS256", headers=headers))


def confused(public: bytes, key: TokenKey, content: dict[str, Any]) -> str:
    """A token signed with HS256, the secret being a public key that everybody knows."""
    signed = f"{segment({'alg': 'HS256', 'kid': key.kid})}.{segment(content)}"
    mac = hmac.digest(public, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1}, {"nbf": 4_000_000_000}, {"iat": 4_000_000_000}, {"aud": "another"}, {"iss": "another"},
        {"sub": 7}, {"sid": ["a"]}, {"exp": 10**30},
        *({name: None} for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "sid", "jti")),
    ],
)  # fmt: skip
def test_claims_that_are_not_right(keys: Callable[..., list[TokenKey]], changes: dict[str, Any]) -> None:
    """A right signature over wrong or missing claims is refused for a pair of keys too."""
    (key,) = keys(private_pem(ED_KEY))
    payload = segment(claims(**changes))
    head = segment({"alg": "EdDSA", "typ": "JWT", "kid": key.kid})
    signature = base64.urlsafe_b64encode(ED_KEY.sign(f"{head}.{payload}".encode())).decode().rstrip("=")
    assert refused(Tokens([key], HOUR), f"{head}.{payload}.{signature}")


def test_server_with_keys(tmp_path: Path, server_settings: Starter, free_port: Callable[[], int]) -> None:
    """Signs with the first one, and refuses what its secret would have signed; a faulty file keeps it from starting."""
    (tmp_path / "first.pem").write_bytes(private_pem(ED_KEY))
    (tmp_path / "second.pem").write_bytes(public_pem(RSA_KEY.public_key()))
    (tmp_path / "broken.pem").write_bytes(b"hello")
    settings = server_settings(token_keys=f"{tmp_path / 'first.pem'}, {tmp_path / 'second.pem'}")
    with serving(tmp_path, free_port(), settings) as server:
        user = server.register("ann")
        assert jwt.get_unverified_header(user.token)["alg"] == "EdDSA"
        assert user.client.get("/users/me").status_code == 200
        content = jwt.decode(user.token, options={"verify_signature": False})
        _, second = load_token_keys([str(tmp_path / "first.pem"), str(tmp_path / "second.pem")])
        for token, status in (
            (jwt.encode(content, SECRET, algorithm="HS256"), 401),
            (jwt.encode(content, RSA_KEY, algorithm="RS256", headers={"kid": second.kid}), 200),
        ):
            assert server.client(token).get("/users/me").status_code == status
    code, output = refused_start(tmp_path, server_settings(token_keys=str(tmp_path / "broken.pem")))
    assert code == 1
    assert output.startswith("headwater: HEADWATER_TOKEN_KEYS: ")
