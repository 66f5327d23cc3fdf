"""Mail on its way: headers that cannot be injected, a real SMTP server, files where there is none."""

from __future__ import annotations

import datetime as dt
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from api import FileMailer, SmtpMailer
from api.mail import Letter, MailFailed, message_of
from api.mail_files import MAX_FILES
from api.mail_smtp import SmtpServer, parse_smtp_url
from tests.api.mailbox import SECRET, USER, smtp_server, text_of

SENDER = "Headwater <headwater@example.org>"
NOW = dt.timedelta(0)
LETTER = Letter("mara@example.org", "A word", "Grüße\n.\nBcc: eve@example.org\n")


def server_at(port: int, username: str | None = None, password: str | None = None) -> SmtpServer:
    """A server on the loopback."""
    return SmtpServer("127.0.0.1", port, implicit_tls=False, username=username, password=password)


@pytest.mark.parametrize(
    "to",
    [
        "mara@example.org\r\nBcc: eve@example.org",
        "mara@example.org, eve@example.org",
        "mara@example.org>\nSubject: other",
        "mara",
        "",
        "@example.org",
        "mara@example.org\0",
    ],
)
def test_address_that_is_more_than_one(to: str) -> None:
    """Whatever stands in the database as an address, no second recipient and no header comes of it."""
    with pytest.raises(MailFailed) as failed:
        message_of(Letter(to, "A word", ""), SENDER)
    assert "eve" not in str(failed.value)


def test_letters_beyond_ascii_before_the_at() -> None:
    """Are not sent to: few mail servers take them."""
    with pytest.raises(MailFailed):
        message_of(Letter("ünï@example.org", "A word", ""), SENDER)


@pytest.mark.parametrize("subject", ["A word\r\nBcc: eve@example.org", "A word\nX: y"])
def test_subject_with_a_line_end(subject: str) -> None:
    """Is refused."""
    with pytest.raises(MailFailed):
        message_of(Letter("mara@example.org", subject, ""), SENDER)


async def test_sending(free_port: Callable[[], int]) -> None:
    """One recipient, a text that stays text, and the headers that a message has."""
    with smtp_server(port := free_port()) as mailbox:
        await SmtpMailer(server_at(port)).deliver(message_of(LETTER, SENDER), "welcome")
    ((envelope, message),) = mailbox.arrived
    assert (envelope.mail_from, envelope.rcpt_tos) == ("headwater@example.org", ["mara@example.org"])
    assert (message["From"], message["To"], message["Subject"]) == (SENDER, "mara@example.org", "A word")
    assert message["Bcc"] is None
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@example.org>")
    assert message["Date"].datetime is not None
    assert text_of(message).replace("\r\n", "\n") == LETTER.text


async def test_domain_beyond_ascii(free_port: Callable[[], int]) -> None:
    """Is sent to as DNS has it, in the header and to the server."""
    letter = Letter("mara@exämple.org", "A word", "")
    with smtp_server(port := free_port()) as mailbox:
        await SmtpMailer(server_at(port)).deliver(message_of(letter, SENDER), "welcome")
    ((envelope, message),) = mailbox.arrived
    assert (envelope.rcpt_tos, message["To"]) == (["mara@xn--exmple-cua.org"], "mara@xn--exmple-cua.org")


async def test_signing_in_to_the_mail_server(free_port: Callable[[], int]) -> None:
    """By name and password; a wrong one is refused for good, and the words of the refusal hold neither."""
    with smtp_server(port := free_port()) as mailbox:
        await SmtpMailer(server_at(port, USER, SECRET)).deliver(message_of(LETTER, SENDER), "welcome")
        assert mailbox.logins == [USER]
        with pytest.raises(MailFailed) as failed:
            await SmtpMailer(server_at(port, USER, "wrong")).deliver(message_of(LETTER, SENDER), "welcome")
        assert set(mailbox.logins) == {USER}
    assert len(mailbox.arrived) == 1
    assert "code 535" in str(failed.value)
    assert USER not in str(failed.value)


async def test_server_that_is_busy(free_port: Callable[[], int]) -> None:
    """A refusal for now is tried again."""
    with smtp_server(port := free_port()) as mailbox:
        mailbox.answers += ["451 later", "421 later"]
        await SmtpMailer(server_at(port), pause=NOW).deliver(message_of(LETTER, SENDER), "welcome")
    assert len(mailbox.arrived) == 1
    assert mailbox.answers == []


async def test_server_that_refuses(free_port: Callable[[], int]) -> None:
    """A refusal for good is not tried again."""
    with smtp_server(port := free_port()) as mailbox:
        mailbox.answers += ["550 no", "550 no"]
        with pytest.raises(MailFailed, match=rf"^the mail server at 127\.0\.0\.1 port {port} .*code 550"):
            await SmtpMailer(server_at(port), pause=NOW).deliver(message_of(LETTER, SENDER), "welcome")
        assert mailbox.answers == ["550 no"]


async def test_server_that_is_down(free_port: Callable[[], int]) -> None:
    """Fails with one sentence."""
    with pytest.raises(MailFailed) as failed:
        await SmtpMailer(server_at(free_port()), pause=NOW).deliver(message_of(LETTER, SENDER), "welcome")
    assert "mara" not in str(failed.value)
    assert "SMTPConnectError" in str(failed.value)


def test_password_without_encryption() -> None:
    """Is sent to the loopback only; elsewhere the server must offer TLS."""
    assert parse_smtp_url("smtp://me:secret@mail.example.org").demands_starttls
    assert not parse_smtp_url("smtp://mail.example.org").demands_starttls
    assert not parse_smtp_url("smtps://me:secret@mail.example.org").demands_starttls
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert not parse_smtp_url(f"smtp://me:secret@{host}:25").demands_starttls


async def test_server_without_encryption_where_it_is_demanded(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent, the password least of all."""
    monkeypatch.setattr("api.mail_smtp._is_loopback", lambda _: False)
    with smtp_server(port := free_port()) as mailbox:
        with pytest.raises(MailFailed):
            await SmtpMailer(server_at(port, USER, SECRET), pause=NOW).deliver(message_of(LETTER, SENDER), "welcome")
        assert (mailbox.logins, mailbox.arrived) == ([], [])


def test_addresses_of_servers() -> None:
    """Ports have their defaults; name and password are percent-encoded."""
    assert parse_smtp_url("smtp://mail.example.org").port == 587
    assert parse_smtp_url("smtps://mail.example.org").port == 465
    server = parse_smtp_url("smtp://post%40office:p%40ss%2Fw%3Ard@[::1]:2525")
    assert (server.host, server.port, server.username, server.password) == ("::1", 2525, USER, SECRET)


@pytest.mark.parametrize(
    "url",
    [
        "http://mail.example.org",
        "mail.example.org",
        "smtp://",
        "smtp://mail.example.org:port",
        "smtp://mail.example.org:99999",
        "smtp://hunter2@mail.example.org",
        "smtp://me:hunter2@mail.example.org/path",
        "smtp://me:hunter2@mail.example.org?x=1",
        "smtp://me:hunter2@[::1",
    ],
)
def test_address_of_no_server(url: str) -> None:
    """Is refused in words that do not repeat it."""
    with pytest.raises(ValueError, match=r"host|smtp|user") as refused:
        parse_smtp_url(url)
    assert "hunter2" not in str(refused.value)


async def test_mail_as_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the file and not what is in it; nobody else can read it; the newest are kept."""
    caplog.set_level("INFO")
    directory = tmp_path / "data" / "mail"
    mailer = FileMailer(directory)
    for number in range(MAX_FILES + 3):
        await mailer.deliver(message_of(Letter("mara@example.org", f"Number {number}", "hush"), SENDER), "welcome")
    files = sorted(directory.iterdir())
    assert len(files) == MAX_FILES
    assert b"Number 202\r\n" in files[-1].read_bytes()
    assert b"Number 3\r\n" in files[0].read_bytes()
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert str(files[-1]) in caplog.messages[-1]
    assert "hush" not in caplog.text
    assert "mara" not in caplog.text


async def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Fails with one sentence that names it."""
    (tmp_path / "mail").write_text("not a folder")
    with pytest.raises(MailFailed, match="mail cannot be written"):
        await FileMailer(tmp_path / "mail").deliver(message_of(LETTER, SENDER), "welcome")
