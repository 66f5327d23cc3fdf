"""What the routes work with. Built by `main`, one per application; held in `app.state.services`."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection

from api.background import Background
from api.counters import Counters, Limits
from api.figures import Figures
from api.mail import Mail
from api.passwords import Passwords
from api.settings import Settings
from api.throttle import LoginThrottle
from api.tokens import Tokens
from documents import (
    Accounts,
    Aggregates,
    ApiKeys,
    Audit,
    AuditEvent,
    Claims,
    Credential,
    Database,
    Expansions,
    Exports,
    Files,
    Lists,
    PasswordResets,
    PositionCodec,
    Principal,
    Registry,
    Sessions,
    Store,
    Tickets,
    parse_user_id,
)
from realtime import ConnectionManager, Feed, FeedStatus, Principals, ReadCache, RollCall


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a request may need."""

    settings: Settings
    database: Database
    registry: Registry
    store: Store
    lists: Lists
    claims: Claims
    exports: Exports
    expansions: Expansions
    aggregates: Aggregates
    files: Files
    accounts: Accounts
    api_keys: ApiKeys
    sessions: Sessions
    passwords: Passwords
    counters: Counters
    rate_limits: Limits
    throttle: LoginThrottle
    tickets: Tickets
    tokens: Tokens
    positions: PositionCodec
    feed: Feed
    feed_status: FeedStatus
    manager: ConnectionManager
    read_cache: ReadCache
    principals: Principals
    background: Background
    mail: Mail
    audit: Audit
    password_resets: PasswordResets
    figures: Figures
    roll_call: RollCall

    def note(self, event: AuditEvent | str, user_id: object, *, by: object = None, **details: Any) -> None:
        """Write an audit entry in the background; see `documents.Audit.record`."""
        about, author = parse_user_id(str(user_id)), parse_user_id(str(by))
        self.background.submit("audit", event, lambda: self.audit.record(event, about, by=author, **details))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, the session or key that says so (None for anonymous callers), and until when it does."""

    principal: Principal
    credential: Credential | None = None
    expires_at: dt.datetime | None = None


def services_of(connection: HTTPConnection) -> Services:
    """The application's services."""
    return cast("Services", connection.app.state.services)


ServicesOf = Annotated[Services, Depends(services_of)]
