"""Admins: the first one, made by a server that finds none, and those that `admin create` makes."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable

from pydantic import ValidationError

from api.account_routes import registration_form
from api.passwords import Passwords, refuse_common
from api.settings import FIRST_ADMIN, Settings
from documents import SYSTEM_AUTHOR, Accounts, Audit, AuditEvent, Database, DocumentRefused, Duplicate, Registry


class AdminRefused(Exception):
    """The admin cannot be made as asked for. Each fault is one line, which never repeats the password."""


async def create_admin(
    database: Database, registry: Registry, settings: Settings, username: str, email: str, password: str
) -> None:
    """Create a user who is an admin, by the rules of a registration. Raises AdminRefused."""
    try:
        values = {"username": username, "email": email, "password": password}
        form = registration_form(settings).model_validate(values)
        refuse_common(form.password, "body", "password", username=form.username, email=form.email)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise AdminRefused("\n".join(lines)) from None
    except DocumentRefused as error:
        raise AdminRefused("\n".join(f"{fault.loc[-1]}: {fault.msg}" for fault in error.faults)) from None
    with contextlib.closing(Passwords()) as passwords:
        hashed = await passwords.hash(form.password)
    accounts = Accounts(database, registry)
    try:
        user = await accounts.register(form.username, form.email, hashed, roles=("user", "admin"), author=SYSTEM_AUTHOR)
    except Duplicate as error:
        raise AdminRefused(f"there is another user with the same {' and '.join(error.fields)}") from None
    await Audit(database).record(AuditEvent.ADMIN_CREATED, user["_id"], way="admin create")


async def first_admin(
    settings: Settings, accounts: Accounts, passwords: Passwords, audit: Audit, say: Callable[[str], object]
) -> None:
    """Create the first admin where there is none: as the settings say, or with a generated password, printed once."""
    if await accounts.has_admin():
        return
    email, password = settings.admin_email, settings.admin_password.get_secret_value()
    if not email:
        if not settings.embedded:
            return
        email, password = "admin@example.org", secrets.token_urlsafe(64)[: max(16, settings.password_min_length)]
        say(f"First start: an admin was created. Username: {FIRST_ADMIN}  Password: {password}  (shown only now)")
    # Another worker may be faster: then there is one.
    with contextlib.suppress(Duplicate):
        user = await accounts.register(
            FIRST_ADMIN, email, await passwords.hash(password), roles=("user", "admin"), author=SYSTEM_AUTHOR
        )
        await audit.record(AuditEvent.ADMIN_CREATED, user["_id"], way="first start")
