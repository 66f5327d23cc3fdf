"""Headwater's command line, and the one place where everything is put together.

`python main.py` serves. `main:app` is the ASGI application for any server; it reads the settings and connects when the
server starts it, not when it is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
import uvicorn

from api import (
    IN_MEMORY,
    Passwords,
    Services,
    Settings,
    SettingsRefused,
    Tokens,
    create_app,
    load_settings,
    openapi_document,
)
from documents import (
    Accounts,
    ChangeStream,
    Checkpoints,
    CursorCodec,
    Database,
    DatabaseAway,
    DatabaseRefused,
    DeclarationError,
    Demo,
    DocumentsError,
    EmbeddedDatabase,
    Heartbeat,
    Lists,
    MemoryDatabase,
    PositionCodec,
    Registry,
    Sessions,
    Store,
    bind_classes,
    install,
    live_collections,
    open_database,
)
from realtime import ConnectionManager, Feed, History, Principals, Snapshots, Upkeep, ViewIndex

# The ASGI specification's types. https://asgi.readthedocs.io/en/latest/specs/main.html
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("headwater")

#: Open requests and sockets may take this long to end after SIGTERM.
GRACE_SECONDS = 10
#: A client that was away longer than this gets a snapshot after our restart instead of what it missed.
MAX_REPLAY = dt.timedelta(minutes=15)

#: What keeps a server from starting, each with one clear line.
STARTUP_ERRORS = (SettingsRefused, DatabaseRefused, DatabaseAway, DeclarationError)


def _say(text: str) -> None:
    typer.echo(text)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Services]:
    """Start everything that the application needs, in order; stop it in the reverse order.

    Raises one of STARTUP_ERRORS with nothing left behind.
    """
    async with contextlib.AsyncExitStack() as stack:
        url = settings.mongodb_url.get_secret_value()
        if settings.embedded:
            embedded = EmbeddedDatabase(settings.data_dir, settings.embedded_port, on_event=logger.warning)
            stack.push_async_callback(embedded.stop)
            url = await embedded.start()
        database = await open_database(url, settings.database)
        stack.push_async_callback(database.close)
        registry = Registry.load(settings.documents)
        await bind_classes(database, registry)
        await install(database, registry, settings.schema_action)

        secret = _secret(settings)
        store = Store(database, registry)
        accounts = Accounts(database, registry)
        positions = PositionCodec(secret, database.id)
        passwords = Passwords()
        stack.callback(passwords.close)
        await _first_admin(settings, accounts, passwords)

        feed = await _start_feed(stack, settings, database, registry)
        views = ViewIndex(store, positions)
        lists = Lists(database, store, CursorCodec(secret))
        snapshots = Snapshots(feed, lists)
        manager = ConnectionManager(feed, views, snapshots, positions, outbox_max_bytes=settings.outbox_max_bytes)
        principals = Principals(accounts, manager)
        feed.add_listener(principals.on_entry)
        manager.start()
        stack.push_async_callback(manager.stop)
        yield Services(
            settings=settings,
            database=database,
            registry=registry,
            store=store,
            lists=lists,
            accounts=accounts,
            sessions=Sessions(database, registry, secret, dt.timedelta(days=settings.refresh_token_days)),
            passwords=passwords,
            tokens=Tokens(secret, dt.timedelta(minutes=settings.access_token_minutes)),
            positions=positions,
            feed=feed,
            manager=manager,
            principals=principals,
        )


async def _start_feed(
    stack: contextlib.AsyncExitStack, settings: Settings, database: Database, registry: Registry
) -> Feed:
    history = History(settings.history_events, settings.history_max_bytes)
    if isinstance(database, MemoryDatabase):
        feed = Feed(database, database, history)
        await feed.start(None)
        stack.push_async_callback(feed.stop)
        return feed
    checkpoints = Checkpoints(database.raw)
    await checkpoints.install()
    checkpoint = await checkpoints.latest()
    if checkpoint is not None:
        age = dt.datetime.now(dt.UTC).timestamp() - checkpoint.position.timestamp.time
        if age > MAX_REPLAY.total_seconds():
            checkpoint = None
    source = ChangeStream(database.raw, live_collections(registry), checkpoint)
    heartbeat = Heartbeat(database.raw)
    feed = Feed(source, heartbeat, history)
    await feed.start(checkpoint.position if checkpoint else None)
    stack.push_async_callback(feed.stop)
    upkeep = Upkeep(feed, checkpoints, database, registry, settings.schema_action)
    for work in (heartbeat.run(), upkeep.run()):
        task = asyncio.create_task(work)
        stack.push_async_callback(_end, task)
    return feed


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _secret(settings: Settings) -> bytes:
    """The secret that signs tokens, positions and cursors; in development made once and kept with the data."""
    given = settings.secret_key.get_secret_value()
    if given:
        return given.encode()
    if settings.mongodb_url.get_secret_value() == IN_MEMORY:
        return secrets.token_bytes(32)
    path = settings.data_dir / "secret_key"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        # O_EXCL: of two processes that start at once, one makes the file and the other reads it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_secret(path)
    except OSError as error:
        raise DatabaseRefused(f"HEADWATER_DATA_DIR: {path} cannot be written ({error.strerror})") from None
    secret = secrets.token_hex(32).encode()
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    return secret


def _read_secret(path: Path) -> bytes:
    secret = path.read_bytes()
    if len(secret) < 32:
        raise DatabaseRefused(f"{path} is damaged; delete it, or set HEADWATER_SECRET_KEY")
    return secret


async def _first_admin(settings: Settings, accounts: Accounts, passwords: Passwords) -> None:
    """Create the first admin where there is none: as the settings say, or with a generated password, printed once."""
    if await accounts.has_admin():
        return
    email, password = settings.admin_email, settings.admin_password.get_secret_value()
    if not email:
        if not settings.embedded:
            return
        email, password = "admin@example.org", secrets.token_urlsafe(12)
        _say(f"First start: an admin was created. Username: admin  Password: {password}  (shown only now)")
    await accounts.register("admin", email, await passwords.hash(password), roles=("user", "admin"))


class Application:
    """The ASGI application: built when the server opens its lifespan."""

    def __init__(self) -> None:
        self.services: Services | None = None
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._app is None:
            raise RuntimeError("the server must run the lifespan (uvicorn: --lifespan on)")
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            settings = load_settings()
            async with running(settings) as services:
                self.services = services
                self._app = create_app(services)
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except STARTUP_ERRORS as error:
            _refuse(error)
            # uvicorn would add that the startup failed, which the line above says better.
            logging.getLogger("uvicorn.error").disabled = True
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        finally:
            self.services, self._app = None, None
        await send({"type": "lifespan.shutdown.complete"})

    def drain(self) -> None:
        """Tell live clients to go elsewhere. Called on the first signal, while the sockets are still open."""
        if self.services is not None:
            self.services.manager.drain()


app = Application()
cli = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False)


class _Server(uvicorn.Server):
    """uvicorn, with the live connections drained before their sockets are closed, and a word when it is ready."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        asyncio.get_running_loop().call_soon_threadsafe(app.drain)
        super().handle_exit(sig, frame)

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started and app.services is not None:
            _announce(app.services.settings, self)


def _announce(settings: Settings, server: uvicorn.Server) -> None:
    port = server.servers[0].sockets[0].getsockname()[1] if server.servers else settings.port
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    _say(f"Headwater is at   http://{host}:{port}/")
    _say(f"API docs          http://{host}:{port}/docs")
    if settings.embedded:
        _say(f"Database          mongosh 'mongodb://127.0.0.1:{settings.embedded_port}/{settings.database}'")
    _say("Stop with Ctrl-C.")


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsRefused as error:
        raise _refuse(error) from None


def _refuse(error: Exception) -> typer.Exit:
    """Say what keeps the command from running, a line for each fault."""
    for line in str(error).splitlines():
        typer.echo(f"headwater: {line}", err=True)
    return typer.Exit(1)


@cli.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    """A self-hosted live document API. Without a command: serve."""
    if context.invoked_subcommand is None:
        serve()


@cli.command()
def serve() -> None:
    """Serve the API."""
    settings = _settings()
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("pymongo").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="on",
        log_config=None,
        # uvicorn logs a WebSocket's URL with its query string at "info", where a token may have been put by mistake.
        log_level=max(logging.getLevelName(settings.log_level.upper()), logging.WARNING),
        access_log=False,
        ws="websockets-sansio",
        # Larger than what the protocol allows, so that its own close code answers all but the absurd.
        ws_max_size=1024 * 1024,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    server = _Server(config)
    # A start that fails has said why; uvicorn then exits with a code of its own.
    with _listening_socket(settings) as listening, contextlib.suppress(KeyboardInterrupt, SystemExit):
        server.run(sockets=[listening])
    raise typer.Exit(0 if server.started else 1)


def _listening_socket(settings: Settings) -> socket.socket:
    """The server's socket. Bound before anything else is started, so that a used port is found at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2_048)
    except OSError as error:
        where = f"HEADWATER_HOST and HEADWATER_PORT: cannot listen on {settings.host} port {settings.port}"
        raise _refuse(OSError(f"{where} ({os.strerror(error.errno or 0)})")) from None


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document of the registered classes as JSON."""
    settings = _settings()
    try:
        document = openapi_document(settings, Registry.load(settings.documents))
    except DeclarationError as error:
        raise _refuse(error) from None
    _say(json.dumps(document, indent=2))


@cli.command()
def demo(
    rate: Annotated[float, typer.Option(min=0.1, max=1_000, help="Changes per second.")] = 5.0,
    seconds: Annotated[float, typer.Option(min=0, help="Stop after this time; 0: run until Ctrl-C.")] = 0,
    posts: Annotated[int, typer.Option(min=1, max=10_000, help="How many posts to fill in and to stay near.")] = 60,
    seed: Annotated[int | None, typer.Option(help="Make the same texts and choices each time.")] = None,
) -> None:
    """Fill posts and comments with plausible data, and keep changing them."""
    settings = _settings()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_demo(settings, rate, seconds, posts, seed))
    except DocumentsError as error:
        raise _refuse(error) from None


async def _demo(settings: Settings, rate: float, seconds: float, posts: int, seed: int | None) -> None:
    async with contextlib.AsyncExitStack() as stack:
        database = await _server_database(settings)
        stack.push_async_callback(database.close)
        registry = Registry.load(settings.documents)
        await bind_classes(database, registry)
        await install(database, registry, settings.schema_action)
        demonstration = Demo(database, registry, posts=posts, seed=seed)
        # Ctrl-C cancels this task: the way to end the demo, and no fault.
        with contextlib.suppress(asyncio.CancelledError):
            filled, commented = await demonstration.fill()
            _say(f"Filled in {filled} posts and {commented} comments. Changing {rate:g} a second; end with Ctrl-C.")
            await demonstration.run(rate, seconds=seconds, tell=_say)
        _say(demonstration.summary())


async def _server_database(settings: Settings) -> Database:
    """The database of a server that runs already. Raises DatabaseAway and DatabaseRefused."""
    url = settings.mongodb_url.get_secret_value()
    if url == IN_MEMORY:
        raise DatabaseRefused("HEADWATER_MONGODB_URL: other programs cannot reach a database in the server's memory")
    if not settings.embedded:
        return await open_database(url, settings.database)
    try:
        # Only its address: the server is the one that starts it.
        url = EmbeddedDatabase(settings.data_dir, settings.embedded_port).url
        return await open_database(url, settings.database)
    except DatabaseAway:
        message = f"start the server first: make run (no database answers on port {settings.embedded_port})"
        raise DatabaseAway(message) from None


if __name__ == "__main__":
    cli()
