"""The wire protocol `headwater.v1`: every message of both directions, and the close codes.

Requests are imperative (`subscribe`), answers past participles (`subscribed`). The server's models are the protocol's
definition; the frames that are sent by the thousand (`event`, `snapshot`) are built by hand in `realtime.frames` and
tested against them.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

SUBPROTOCOL = "headwater.v1"
HEARTBEAT_SECONDS = 25
MAX_MESSAGE_BYTES = 64 * 1024
MAX_SUBSCRIPTIONS = 100
MESSAGES_PER_SECOND = 20
MESSAGE_BURST = 150
DEFAULT_LIMIT = 1_000
MAX_ERROR_CHARACTERS = 300


class CloseCode(enum.IntEnum):
    """Why the server closes a WebSocket. After 4000-4499 and 1012 a client reconnects, after 4500-4999 it does not."""

    SERVICE_RESTART = 1012
    DRAINING = 4000
    TOKEN_EXPIRED = 4001
    SLOW_CONSUMER = 4008
    TOO_MANY_MESSAGES = 4029
    BAD_MESSAGE = 4500
    AUTHENTICATION_FAILED = 4501
    FORBIDDEN = 4503
    UNKNOWN_SUBPROTOCOL = 4509

    @property
    def reconnect(self) -> bool:
        """Whether a client should connect again."""
        return self < 4500

    @property
    def meaning(self) -> str:
        """Why, for people; docs/protocol.md says the same."""
        return _CLOSE_MEANINGS[self]


_CLOSE_MEANINGS = {
    CloseCode.SERVICE_RESTART: "the server restarts, or cannot serve now",
    CloseCode.DRAINING: "draining, after `goaway`; wait a random time within its bounds",
    CloseCode.TOKEN_EXPIRED: "the token or key has expired",
    CloseCode.SLOW_CONSUMER: "slow consumer",
    CloseCode.TOO_MANY_MESSAGES: "too many messages",
    CloseCode.BAD_MESSAGE: "a frame that is binary or too long",
    CloseCode.AUTHENTICATION_FAILED: "authentication failed",
    CloseCode.FORBIDDEN: "forbidden: the session has ended, the key was deleted, the account was deactivated, or an "
    "admin closed the user's connections",
    CloseCode.UNKNOWN_SUBPROTOCOL: "the client offers subprotocols, and none is `headwater.v1`",
}


class ErrorCode(enum.StrEnum):
    """Codes of `error` frames."""

    BAD_MESSAGE = "bad_message"
    UNKNOWN_RESOURCE = "unknown_resource"
    BAD_QUERY = "bad_query"
    ALREADY_SUBSCRIBED = "already_subscribed"
    DUPLICATE_ID = "duplicate_id"
    UNKNOWN_SUBSCRIPTION = "unknown_subscription"
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
    BAD_POSITION = "bad_position"
    TOO_MANY_PINGS = "too_many_pings"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - what is said of one, and none itself
    FORBIDDEN = "forbidden"

    @property
    def meaning(self) -> str:
        """What it says, for people; docs/protocol.md says the same."""
        return _ERROR_MEANINGS[self]


_ERROR_MEANINGS = {
    ErrorCode.BAD_MESSAGE: "not a message of this protocol; the text names the place",
    ErrorCode.UNKNOWN_RESOURCE: "there is no such live resource",
    ErrorCode.BAD_QUERY: "filter, sort, fields or limit are not accepted; the text names the place",
    ErrorCode.ALREADY_SUBSCRIBED: "this connection has the view already, under the id that the text names",
    ErrorCode.DUPLICATE_ID: "a subscription with this id exists",
    ErrorCode.UNKNOWN_SUBSCRIPTION: "there is none with this id",
    ErrorCode.TOO_MANY_SUBSCRIPTIONS: "see the limits",
    ErrorCode.BAD_POSITION: "not a position of this database",
    ErrorCode.TOO_MANY_PINGS: "100 pings wait for their positions already",
    ErrorCode.TOKEN_EXPIRED: "on Server-Sent Events, before the end, in place of 4001",
    ErrorCode.FORBIDDEN: "on Server-Sent Events, before the end, in place of 4503",
}


class Op(enum.StrEnum):
    """What an event says of a document in a view."""

    CREATE = "create"
    ENTER = "enter"
    UPDATE = "update"
    LEAVE = "leave"
    DELETE = "delete"


class ResetReason(enum.StrEnum):
    """Why a subscriber must forget what a view held."""

    HISTORY_LOST = "history_lost"
    LAGGING = "lagging"
    ACCESS_CHANGED = "access_changed"
    SCHEMA_CHANGED = "schema_changed"


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


SubscriptionId = Annotated[str, Field(min_length=1, max_length=64)]


class Auth(_Message):
    """Sign in, or renew what an open connection signed in with: the same user, or the socket closes.

    Has either an access token or an API key; the other one is empty.
    """

    type: Literal["auth"]
    token: Annotated[str, Field(min_length=1, max_length=8_192)] = ""
    api_key: Annotated[str, Field(min_length=1, max_length=512)] = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> Auth:
        if bool(self.token) is bool(self.api_key):
            raise PydanticCustomError("one_of", "either `token` or `api_key` is expected")
        return self


class Since(_Message):
    """Where a returning subscriber stopped."""

    view: Annotated[str, Field(max_length=100)]
    position: Annotated[str, Field(max_length=100)]


class Subscribe(_Message):
    """Ask for a live result. `sort` and `limit` shape the snapshot; events cover the whole filter."""

    type: Literal["subscribe"]
    id: SubscriptionId
    resource: Annotated[str, Field(max_length=100)]
    filter: dict[str, Any] = Field(default_factory=dict)
    fields: Annotated[list[str], Field(min_length=1, max_length=100)] | None = None
    sort: Annotated[list[str], Field(max_length=8)] = Field(default_factory=list)
    limit: Annotated[int, Field(ge=1)] = DEFAULT_LIMIT
    snapshot: bool = True
    since: Since | None = None


class Unsubscribe(_Message):
    """End a subscription."""

    type: Literal["unsubscribe"]
    id: SubscriptionId


class Ping(_Message):
    """Answered by `pong`; with a position, once this connection has everything up to there."""

    type: Literal["ping"]
    id: SubscriptionId
    position: Annotated[str, Field(max_length=100)] | None = None


ClientMessage = Annotated[Auth | Subscribe | Unsubscribe | Ping, Field(discriminator="type")]
_client_message: TypeAdapter[Auth | Subscribe | Unsubscribe | Ping] = TypeAdapter(ClientMessage)


class BadMessage(Exception):
    """A client's frame is not a message of the protocol. `id` is the message's id where it could be read."""

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


def parse_client_message(text: str) -> Auth | Subscribe | Unsubscribe | Ping:
    """The message in a client's text frame. Raises BadMessage, naming the place of the first fault."""
    try:
        return _client_message.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        # The discriminator's value is part of pydantic's path, but not of the client's message.
        place = ".".join(str(part) for part in first["loc"][1:]) or "message"
        # Pydantic quotes what it was given, which can be as long as the frame.
        raise BadMessage(f"{place}: {first['msg']}"[:MAX_ERROR_CHARACTERS], _id_of(text)) from None


def _id_of(text: str) -> str | None:
    try:
        loose = _Loose.model_validate_json(text)
    except ValidationError:
        return None
    return loose.id


class _Loose(BaseModel):
    id: Annotated[str, Field(max_length=64)] | None = None


class User(_Message):
    """The signed-in user."""

    id: str
    username: str
    roles: list[str]


class Welcome(_Message):
    """The first frame of a connection."""

    type: Literal["welcome"] = "welcome"
    protocol: Literal["headwater.v1"] = "headwater.v1"
    connection: str
    heartbeat_seconds: int = HEARTBEAT_SECONDS


class Authenticated(_Message):
    """Answers `auth`. `expires_at` is None for a key that does not expire."""

    type: Literal["authenticated"] = "authenticated"
    user: User
    expires_at: str | None


class Subscribed(_Message):
    """Answers `subscribe`. `recovered` is None unless `since` was given."""

    type: Literal["subscribed"] = "subscribed"
    id: str
    view: str
    recovered: bool | None = None


class SnapshotItem(_Message):
    """One document of a snapshot."""

    document: dict[str, Any]
    etag: str


class Snapshot(_Message):
    """A page of the result, in the order asked for. `more`: another page follows."""

    type: Literal["snapshot"] = "snapshot"
    id: str
    view: str
    items: list[SnapshotItem]
    more: bool


class Ready(_Message):
    """All that was committed up to `position` has been sent; live from here. `complete`: no limit cut the result."""

    type: Literal["ready"] = "ready"
    id: str
    view: str
    position: str
    complete: bool


class Event(_Message):
    """One change of one document in a view. `document` and `etag` are absent for `leave` and `delete`."""

    type: Literal["event"] = "event"
    view: str
    op: Op
    resource: str
    id: str
    document: dict[str, Any] | None = None
    etag: str | None = None
    changed: list[str] | None = None
    position: str
    at: str


class PositionReached(_Message):
    """The heartbeat: all ready views of this connection have everything up to here."""

    type: Literal["position"] = "position"
    position: str
    as_of: str


class Reset(_Message):
    """Forget what the view held, its position included."""

    type: Literal["reset"] = "reset"
    view: str
    reason: ResetReason


class Unsubscribed(_Message):
    """A subscription has ended."""

    type: Literal["unsubscribed"] = "unsubscribed"
    id: str
    reason: str


class Error(_Message):
    """A message could not be carried out; the connection stays. `id` is the message's, where it has one."""

    type: Literal["error"] = "error"
    id: str | None = None
    code: ErrorCode
    message: str


class Pong(_Message):
    """Answers `ping`."""

    type: Literal["pong"] = "pong"
    id: str


class AuthExpiring(_Message):
    """The token ends soon; send `auth` with a new one."""

    type: Literal["auth_expiring"] = "auth_expiring"
    seconds: int


class GoAway(_Message):
    """The server is about to close; reconnect after a random time within these bounds."""

    type: Literal["goaway"] = "goaway"
    reason: str
    retry_after_ms: tuple[int, int]


ServerMessage = (
    Welcome
    | Authenticated
    | Subscribed
    | Snapshot
    | Ready
    | Event
    | PositionReached
    | Reset
    | Unsubscribed
    | Error
    | Pong
    | AuthExpiring
    | GoAway
)
