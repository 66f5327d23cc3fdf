"""Headwater's command line, and the one place where everything is put together.

`python main.py` serves. `main:app` is the ASGI application for any server; it reads the settings and connects when the
server starts it, not when it is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence

import typer

from api import (
    STARTUP_ERRORS,
    Application,
    Background,
    Counters,
    Figures,
    FileMailer,
    ListenRefused,
    LoginThrottle,
    Mail,
    Metrics,
    Passwords,
    Services,
    Settings,
    SmtpMailer,
    Tokens,
    first_admin,
    load_token_keys,
    parse_limits,
    secret_key,
    serve_application,
    server_secret,
    tracing,
)
from api.commands import (
    admin,
    asyncapi,
    check,
    demo,
    doctor,
    export,
    import_,
    openapi,
    refuse,
    say,
    schema,
    settings_or_exit,
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
    Workers,
    always,
    bind_classes,
    install,
    live_collections,
    open_database,
    refuse_half_imported,
    refuse_without_changes,
)
from realtime import (
    ConnectionManager,
    Feed,
    FeedStatus,
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
    Relaying,
    RollCall,
    Snapshots,
    Upkeep,
    ViewIndex,
)

logger = logging.getLogger("headwater")

#: A client that was away longer than this gets a snapshot after our restart instead of what it missed.
MAX_REPLAY = dt.timedelta(minutes=15)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Services]:
    """Start everything that the application needs, in order; stop it in the reverse order.

    Raises one of `api.serving.STARTUP_ERRORS` with nothing left behind.
    """
    token_keys = load_token_keys(settings.token_keys)
    async with contextlib.AsyncExitStack() as stack:
        if settings.otlp_endpoint:
            await stack.enter_async_context(tracing(settings.otlp_endpoint))
        url = settings.mongodb_url.get_secret_value()
        if settings.embedded:
            embedded = EmbeddedDatabase(settings.data_dir, settings.embedded_port, on_event=logger.warning)
            stack.push_async_callback(embedded.stop)
            url = await embedded.start()
        database = await open_database(url, settings.database)
        stack.push_async_callback(database.close)
        await refuse_half_imported(database)
        await refuse_without_changes(database)
        background = Background()
        stack.push_async_callback(background.stop)
        registry = Registry.load(settings.documents)
        await bind_classes(database, registry)
        await install(database, registry, settings.schema_action)
        audit = Audit(database)
        password_resets = PasswordResets(database)
        tickets = Tickets(database)
        claims = Claims(database, registry)
        workers = None if database.in_memory else Workers(database)
        own: list[Callable[[], Awaitable[None]]] = [
            audit.install,
            password_resets.install,
            tickets.install,
            claims.install,
        ]
        if workers is not None:
            own.append(workers.install)
        for installed in own:
            await installed()

        secret = server_secret(settings)
        store = Store(database, registry)
        accounts = Accounts(database, registry)
        positions = PositionCodec(secret, database.id)
        passwords = Passwords()
        stack.callback(passwords.close)
        await first_admin(settings, accounts, passwords, audit, say)
        counters = Counters(settings.redis_url.get_secret_value() if settings.redis_url else None, database.id)
        stack.push_async_callback(counters.close)

        status, pasts = await _start_feed(stack, settings, database, registry, own)
        feed = status.feed
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
        figures = Figures(Metrics(), database, status, manager, read_cache, passwords, counters, store.broken)
        _own(stack, figures.run())
        roll_call = RollCall(workers, status, manager)
        _own(stack, roll_call.run())
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
            feed_status=status,
            manager=manager,
            read_cache=read_cache,
            principals=principals,
            background=background,
            mail=_mail(settings, background),
            audit=audit,
            password_resets=password_resets,
            figures=figures,
            roll_call=roll_call,
        )


def _mail(settings: Settings, background: Background) -> Mail:
    server = settings.smtp_server
    mailer = FileMailer(settings.data_dir / "mail") if server is None else SmtpMailer(server)
    return Mail(mailer, background, settings.sender)


async def _start_feed(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    database: Database,
    registry: Registry,
    own: Sequence[Callable[[], Awaitable[None]]],
) -> tuple[FeedStatus, list[Past]]:
    """The feed with all that belongs to it, and where what precedes its history can be read, the nearest first.

    `own` install what else the server keeps in the database, which may get lost while it runs.
    """
    history = History(settings.history_events, settings.history_max_bytes)
    if isinstance(database, MemoryDatabase):
        feed = Feed(database, database, history)
        await feed.start(None)
        stack.push_async_callback(feed.stop)
        return FeedStatus(feed, beats=False), []
    checkpoints = Checkpoints(database.raw)
    await checkpoints.install()
    collections = live_collections(registry)
    heartbeat = Heartbeat(database.raw)

    def open_stream(checkpoint: Checkpoint | None) -> ChangeStream:
        return ChangeStream(database.raw, collections, checkpoint, committed=lambda: heartbeat.acknowledged_at)

    async def stored() -> Checkpoint | None:
        return await checkpoints.latest(MAX_REPLAY)

    def open_past(checkpoint: Checkpoint) -> ChangeStream:
        return ChangeStream(database.raw, collections, checkpoint, raise_history_lost=True)

    checkpoint = await stored()
    pasts: list[Past] = [OplogPast(checkpoints, open_past)]
    source: ChangeStream | RelayedSource
    relaying: Relaying | None = None
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
        relaying = Relaying(relay, relayed, log)
        _own(stack, relay.run())

        def tails() -> bool:
            return relay.leading or relayed.direct

    feed = Feed(source, heartbeat, history)
    await feed.start(checkpoint.position if checkpoint else None)
    stack.push_async_callback(feed.stop)
    # One worker's heartbeats and checkpoints are enough for all.
    _own(stack, heartbeat.run(tails))
    _own(stack, Upkeep(feed, checkpoints, database, registry, settings.schema_action, own).run(tails))
    return FeedStatus(feed, relaying), pasts


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
            await refuse_half_imported(database)
            registry = Registry.load(settings.documents)
            await bind_classes(database, registry)
            await install(database, registry, settings.schema_action)
            with contextlib.closing(Passwords()) as passwords:
                await first_admin(settings, Accounts(database, registry), passwords, Audit(database), say)
        yield variables


app = Application(running, refuse)
cli = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False)


@cli.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    """A self-hosted live document API. Without a command: serve."""
    if context.invoked_subcommand is None:
        serve()


@cli.command()
def serve() -> None:
    """Serve the API."""
    settings = settings_or_exit()
    try:
        started = serve_application(app, settings, say, shared_by_workers)
    except (ListenRefused, *STARTUP_ERRORS) as error:
        raise refuse(error) from None
    raise typer.Exit(0 if started else 1)


cli.command()(openapi)
cli.command()(check)
cli.command()(export)
cli.command("import")(import_)
cli.command()(asyncapi)
cli.command()(demo)
cli.command()(doctor)
cli.add_typer(admin, name="admin")
cli.add_typer(schema, name="schema")


if __name__ == "__main__":
    cli()
