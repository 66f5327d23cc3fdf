"""A server whose mail goes to a real SMTP server, which then goes away; with password lengths of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.api.conftest import Starter
from tests.api.mailbox import smtp_server, text_of
from tests.api.servers import serving, wait_until
from tests.api.test_accounts import registration
from tests.api.test_errors import places
from tests.waiting import promptly

SHORT, LONG, LONGEST = "otter-weir-19", "otter-weir-19-heron-76", "otter-weir-" * 18


def test_registering_while_the_mail_server_comes_and_goes(
    tmp_path: Path, server_settings: Starter, free_port: Callable[[], int]
) -> None:
    """Welcome and reset mails arrive; without the mail server registering is as quick, and the log has one line."""
    smtp_port = free_port()
    settings = server_settings(
        admin_password=LONG,
        smtp_url=f"smtp://127.0.0.1:{smtp_port}",
        mail_from="Gauges <gauge@example.org>",
        public_url="https://live.example.org/api",
        password_min_length="20",  # noqa: S106 - a length
        password_max_length="150",  # noqa: S106 - a length
    )
    with serving(tmp_path, free_port(), settings) as server:
        url = f"{server.url}/api/v1"
        server.secrets += [SHORT, LONG]
        for password in (SHORT, LONGEST):
            answer = httpx.post(f"{url}/auth/register", json=registration(password=password))
            assert places(answer) == [["body", "password"]]
        schemas: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()["components"]["schemas"]
        for form, name in (
            ("Registration", "password"),
            ("PasswordChange", "new_password"),
            ("PasswordReset", "new_password"),
        ):
            field = schemas[form]["properties"][name]
            assert (field["minLength"], field["maxLength"]) == (20, 150)

        with smtp_server(smtp_port) as mailbox:
            body = registration(password=LONG)
            assert httpx.post(f"{url}/auth/register", json=body).status_code == 201
            welcome = mailbox.wait_for(body["email"])
            assert (welcome["From"], welcome["Subject"]) == ("Gauges <gauge@example.org>", "Welcome to Headwater")
            assert "https://live.example.org/api" in text_of(welcome)
            # What somebody chose for an address that may be another's is not sent there.
            assert body["username"] not in text_of(welcome)
            # The link is made of the setting, and not of what a request claims to be for.
            httpx.post(
                f"{url}/auth/password/forgot", json={"email": body["email"]}, headers={"Host": "evil.example.org"}
            )
            link = re.search(r"https://\S+#token=(\S+)", text_of(mailbox.wait_for(body["email"], 2)))
            assert link
            server.secrets.append(link.group(1))
            assert link.group().startswith("https://live.example.org/api/reset-password#")
            answer = httpx.post(f"{url}/auth/password/reset", json={"token": link.group(1), "new_password": SHORT})
            assert places(answer) == [["body", "new_password"]]

        with promptly():
            assert httpx.post(f"{url}/auth/register", json=registration(password=LONG)).status_code == 201
        wait_until(lambda: "mail (welcome) failed" in server.log)
        (line,) = [line for line in server.log.splitlines() if "mail" in line]
        told, _, request_id = line.partition(" request_id=")
        assert request_id.isalnum()
        assert told.endswith(
            f"mail (welcome) failed: the mail server at 127.0.0.1 port {smtp_port} did not take it (SMTPConnectError)"
        )
        assert "Traceback" not in server.stop()
