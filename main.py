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
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Annotated

import typer

from api import (
    IN_MEMORY,
    STARTUP_ERRORS,
    AdminRefused,
    Application,
    Background,
    Counters,
    FileMailer,
    ListenRefused,
    LoginThrottle,
    Mail,
    Passwords,
    Services,
    Settings,
    SettingsRefused,
    SmtpMailer,
    Tokens,
    create_admin,
    first_admin,
    load_settings,
    load_token_keys,
    openapi_document,
    parse_limits,
    secret_key,
    serve_application,
    server_secret,
)
from documents import (
    Accounts,
    Aggregates,
    ApiKeys,
    Audit,
    ChangeStream,
    Checkpoint,
    Checkpoints,
    Claims,
    Credentials,
    CursorCodec,
    Database,
    DatabaseAway,
    DatabaseRefused,
    DeclarationError,
    Demo,
    DocumentsError,
    EmbeddedDatabase,
    EntryCodec,
    Expansions,
    Exports,
    Files,
    Heartbeat,
    Keeper,
    Lists,
    MemoryDatabase,
    PasswordResets,
    PositionCodec,
    Registry,
    Sessions,
    Store,
    Tickets,
    always,
    bind_classes,
    install,
    live_collections,
    open_database,
)
from realtime import (
    ConnectionManager,
    Feed,
    History,
    LogPast,
    OplogPast,
    Past,
    Principals,
    ReadCache,
    Recovery,
    RedisLog,
    Relay,
    RelayedSource,
    Snapshots,
    Upkeep,
    ViewIndex,
)

logger = logging.getLogger("headwater")

#: A client that was away longer than this gets a snapshot after our restart instead of what it missed.
MAX_REPLAY = dt.timedelta(minutes=15)


def _say(text: str) -> None:
    typer.echo(text)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Services]:
    """Start everything that the application needs, in order; stop it in the reverse order.

    Raises one of `api.serving.STARTUP_ERRORS` with nothing left behind.
    """
    token_keys = load_token_keys(settings.token_keys)
    async with contextlib.AsyncExitStack() as stack:
        url = settings.mongodb_url.get_secret_value()
        if settings.embedded:
            embedded = EmbeddedDatabase(settings.data_dir, settings.embedded_port, on_event=logger.warning)
            stack.push_async_callback(embedded.stop)
            url = await embedded.start()
        database = await open_database(url, settings.database)
        stack.push_async_callback(database.close)
        background = Background()
        stack.push_async_callback(background.stop)
        registry = Registry.load(settings.documents)
        await bind_classes(database, registry)
        await install(database, registry, settings.schema_action)
        audit = Audit(database)
        await audit.install()
        password_resets = PasswordResets(database)
        await password_resets.install()
        tickets = Tickets(database)
        await tickets.install()

        secret = server_secret(settings)
        store = Store(database, registry)
        claims = Claims(database, registry)
        await claims.install()
        accounts = Accounts(database, registry)
        positions = PositionCodec(secret, database.id)
        passwords = Passwords()
        stack.callback(passwords.close)
        await first_admin(settings, accounts, passwords, audit, _say)
        counters = Counters(settings.redis_url.get_secret_value() if settings.redis_url else None, database.id)
        stack.push_async_callback(counters.close)

        feed, pasts = await _start_feed(stack, settings, database, registry)
        keeper = Keeper(store.derivations)
        feed.add_listener(keeper.on_entry)
        stack.push_async_callback(_end, asyncio.create_task(keeper.run()))
        views = ViewIndex(store, positions)
        lists = Lists(database, store, CursorCodec(secret))
        snapshots = Snapshots(feed, lists)
        manager = ConnectionManager(feed, views, snapshots, positions, outbox_max_bytes=settings.outbox_max_bytes)
        principals = Principals(Credentials(database, registry), manager)
        feed.add_listener(principals.on_entry)
        read_cache = ReadCache(feed, store, lists)
        feed.add_listener(read_cache.on_entry)
        manager.recovery = Recovery(
            feed.history,
            pasts,
            principals.on_past,
            max_entries=settings.history_events,
            max_bytes=settings.history_max_bytes,
        )
        stack.callback(manager.recovery.stop)
        files = Files(database, registry, store)
        stack.push_async_callback(_end, asyncio.create_task(files.contents.run()))
        manager.start()
        stack.push_async_callback(manager.stop)
        yield Services(
            settings=settings,
            database=database,
            registry=registry,
            store=store,
            lists=lists,
            claims=claims,
            exports=Exports(database, store),
            expansions=Expansions(database, store),
            aggregates=Aggregates(database),
            files=files,
            accounts=accounts,
            api_keys=ApiKeys(store, secret),
            sessions=Sessions(database, registry, secret, dt.timedelta(days=settings.refresh_token_days)),
            passwords=passwords,
            tickets=tickets,
            counters=counters,
            rate_limits=parse_limits(settings.rate_limit),
            throttle=LoginThrottle(counters, parse_limits(settings.login_rate_limit)),
            tokens=Tokens(token_keys or [secret_key(secret)], dt.timedelta(minutes=settings.access_token_minutes)),
            positions=positions,
            feed=feed,
            manager=manager,
            read_cache=read_cache,
            principals=principals,
            background=background,
            mail=_mail(settings, background),
            audit=audit,
            password_resets=password_resets,
        )


def _mail(settings: Settings, background: Background) -> Mail:
    server = settings.smtp_server
    mailer = FileMailer(settings.data_dir / "mail") if server is None else SmtpMailer(server)
    return Mail(mailer, background, settings.sender)


async def _start_feed(
    stack: contextlib.AsyncExitStack, settings: Settings, database: Database, registry: Registry
) -> tuple[Feed, list[Past]]:
    """The feed, and where what precedes its history can be read, the nearest first."""
    history = History(settings.history_events, settings.history_max_bytes)
    if isinstance(database, MemoryDatabase):
        feed = Feed(database, database, history)
        await feed.start(None)
        stack.push_async_callback(feed.stop)
        return feed, []
    checkpoints = Checkpoints(database.raw)
    await checkpoints.install()
    collections = live_collections(registry)

    def open_stream(checkpoint: Checkpoint | None) -> ChangeStream:
        return ChangeStream(database.raw, collections, checkpoint)

    async def stored() -> Checkpoint | None:
        return await checkpoints.latest(MAX_REPLAY)

    def open_past(checkpoint: Checkpoint) -> ChangeStream:
        return ChangeStream(database.raw, collections, checkpoint, raise_history_lost=True)

    checkpoint = await stored()
    pasts: list[Past] = [OplogPast(checkpoints, open_past)]
    source: ChangeStream | RelayedSource
    if settings.redis_url is None:
        source = open_stream(checkpoint)
        tails = always
    else:
        log = RedisLog(
            settings.redis_url.get_secret_value(),
            database.id,
            EntryCodec(registry),
            max_entries=settings.history_events,
            max_bytes=settings.history_max_bytes,
        )
        stack.push_async_callback(log.close)
        pasts.insert(0, LogPast(log))
        relay = Relay(log, open_stream, stored, collections, MAX_REPLAY)
        source = relayed = RelayedSource(log, open_stream, collections, checkpoint)
        _own(stack, relay.run())

        def tails() -> bool:
            return relay.leading or relayed.direct

    heartbeat = Heartbeat(database.raw)
    feed = Feed(source, heartbeat, history)
    await feed.start(checkpoint.position if checkpoint else None)
    stack.push_async_callback(feed.stop)
    # One worker's heartbeats and checkpoints are enough for all.
    _own(stack, heartbeat.run(tails))
    _own(stack, Upkeep(feed, checkpoints, database, registry, settings.schema_action).run(tails))
    return feed, pasts


def _own(stack: contextlib.AsyncExitStack, work: Coroutine[None, None, None]) -> None:
    """Run `work` until the stack is left."""
    stack.push_async_callback(_end, asyncio.create_task(work))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def shared_by_workers(settings: Settings) -> AsyncIterator[dict[str, str]]:
    """What several workers share on one machine, while they run, as settings of theirs.

    Raises one of `api.serving.STARTUP_ERRORS`.
    """
    async with contextlib.AsyncExitStack() as stack:
        variables = {"HEADWATER_SECRET_KEY": server_secret(settings).decode()}
        if settings.embedded:
            embedded = EmbeddedDatabase(settings.data_dir, settings.embedded_port, on_event=logger.warning)
            stack.push_async_callback(embedded.stop)
            variables["HEADWATER_MONGODB_URL"] = url = await embedded.start()
            database = await open_database(url, settings.database)
            stack.push_async_callback(database.close)
            registry = Registry.load(settings.documents)
            await bind_classes(database, registry)
            await install(database, registry, settings.schema_action)
            with contextlib.closing(Passwords()) as passwords:
                await first_admin(settings, Accounts(database, registry), passwords, Audit(database), _say)
        yield variables


def _refuse(error: Exception) -> typer.Exit:
    """Say what keeps the command from running, a line for each fault."""
    for line in str(error).splitlines():
        typer.echo(f"headwater: {line}", err=True)
    return typer.Exit(1)


app = Application(running, _refuse)
cli = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False)


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsRefused as error:
        raise _refuse(error) from None


@cli.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    """A self-hosted live document API. Without a command: serve."""
    if context.invoked_subcommand is None:
        serve()


@cli.command()
def serve() -> None:
    """Serve the API."""
    settings = _settings()
    try:
        started = serve_application(app, settings, _say, shared_by_workers)
    except (ListenRefused, *STARTUP_ERRORS) as error:
        raise _refuse(error) from None
    raise typer.Exit(0 if started else 1)


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


admin = typer.Typer(no_args_is_help=True, help="Admins of a server.")
cli.add_typer(admin, name="admin")


@admin.command("create")
def create(
    email: Annotated[str, typer.Option(help="Where mail is sent.")],
    username: Annotated[str, typer.Option(help="Shown to other users.")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from the first line of standard input.")
    ] = False,
) -> None:
    """Create an admin. Asks for the password, twice."""
    settings = _settings()
    if password_stdin:
        # Not an argument, which every user of the machine could read.
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    try:
        asyncio.run(_create_admin(settings, username, email, password))
    except (AdminRefused, DocumentsError) as error:
        raise _refuse(error) from None
    _say(f"{username} is an admin.")


async def _create_admin(settings: Settings, username: str, email: str, password: str) -> None:
    registry = Registry.load(settings.documents)
    async with contextlib.AsyncExitStack() as stack:
        database = await _server_database(settings)
        stack.push_async_callback(database.close)
        await bind_classes(database, registry)
        # The unique indexes are what refuses a name that is taken, also before the first start of a server.
        await install(database, registry, settings.schema_action)
        await create_admin(database, registry, settings, username, email, password)


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
