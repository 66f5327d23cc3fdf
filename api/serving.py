"""Serving: the ASGI application with its lifespan, and uvicorn around it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.app import create_app
from api.heads import UnfinishedHeads
from api.listening import accepted_and_closed, listen
from api.logs import HeldBack, configure_logging, tame_uvicorn
from api.metric_files import MetricFiles
from api.services import Services
from api.settings import Settings, SettingsRefused, load_settings
from api.supervisor import Lifeline, Supervisor, inherited_socket, worker_command
from api.tls import CIPHERS
from documents import DatabaseAway, DatabaseRefused, DeclarationError

logger = logging.getLogger("headwater")

#: Open requests and sockets may take this long to end after SIGTERM.
GRACE_SECONDS = 10
#: How long idle connections get, before that, to be ended by the answer to one more request.
DRAIN_SECONDS = 1.0
#: How long connections that are closed get to take what was still to be sent.
FLUSH_SECONDS = 3.0

#: What keeps a server from starting, each with one clear line.
STARTUP_ERRORS = (SettingsRefused, DatabaseRefused, DatabaseAway, DeclarationError)


Shared = Callable[[Settings], AbstractAsyncContextManager[dict[str, str]]]


class Application:
    """The ASGI application: built when the server opens its lifespan.

    `running` starts the services and stops them; it raises one of STARTUP_ERRORS with nothing left behind. `say` tells
    the user of a refused start, a line for each fault.
    """

    def __init__(
        self,
        running: Callable[[Settings], AbstractAsyncContextManager[Services]],
        say: Callable[[Exception], object],
    ) -> None:
        self.services: Services | None = None
        self._app: ASGIApp | None = None
        self._starting: asyncio.Task[Any] | None = None
        self._abandoned = False
        self._running = running
        self._say = say

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._app is None:
            raise RuntimeError("the server must run the lifespan (uvicorn: --lifespan on)")
        elif scope["type"] == "http" and self.services is not None and self.services.manager.draining:
            await self._app(scope, receive, _closing(send))
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        # Another server than ours may have begun, with logging of its own.
        tame_uvicorn()
        self._starting = asyncio.current_task()
        try:
            settings = load_settings()
            async with self._running(settings) as services:
                self.services = services
                self._app = create_app(services)
                # A full collection of what the start has made stops the event loop for 100 ms, and a burst of requests
                # brings one about. All this lives as long as the process, so the collector need not look at it.
                gc.collect()
                gc.freeze()
                self._starting = None
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except STARTUP_ERRORS as error:
            self._say(error)
            # uvicorn would add that the startup failed, which the line above says better.
            logging.getLogger("uvicorn.error").disabled = True
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        except asyncio.CancelledError:
            if not self._abandoned:
                raise
            logging.getLogger("uvicorn.error").disabled = True
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        finally:
            self.services, self._app, self._starting = None, None, None
        await send({"type": "lifespan.shutdown.complete"})

    def abandon(self) -> None:
        """Give up a start that is under way, and stop what it has started so far. Without effect at other times.

        A start may wait for others for as long as they like: a database that is away, an index that is built.
        """
        starting, self._starting = self._starting, None
        if starting is not None:
            self._abandoned = True
            starting.cancel()

    async def feed_has_ended(self) -> None:
        """Wait until it has, of an error that nobody has foreseen. Raises RuntimeError while nothing is served."""
        if self.services is None:
            raise RuntimeError("nothing is served yet")
        await self.services.feed.failed.wait()

    def drain(self) -> None:
        """Tell live clients to go elsewhere. Called on the first signal, while the sockets are still open."""
        if self.services is not None:
            self.services.manager.drain()


def _closing(send: Send) -> Send:
    """`send`, with `Connection: close` in the answer's head."""

    async def send_closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await send(message)

    return send_closing


class _Server(uvicorn.Server):
    """uvicorn, with the live connections drained before their sockets are closed, and a word when it is ready."""

    def __init__(
        self, config: uvicorn.Config, app: Application, listening: socket.socket, on_ready: Callable[[], object]
    ) -> None:
        super().__init__(config)
        self._application = app
        # uvicorn closes its own when it likes.
        self._listening = listening.dup()
        self._on_ready = on_ready
        self._draining: asyncio.Task[None] | None = None
        self._beside: list[asyncio.Task[None]] = []
        #: Whether it has ended because it could no longer do what it is for.
        self.gave_up = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is None:
            # In the event loop: a signal may interrupt anything.
            asyncio.get_running_loop().call_soon_threadsafe(self._drain, sig, frame)
        else:
            super().handle_exit(sig, frame)

    def _drain(self, sig: int, frame: FrameType | None) -> None:
        if not self.started:
            # Nobody has been accepted yet, so there is nobody to wait for.
            self._application.abandon()
            super().handle_exit(sig, frame)
        elif self._draining is None:
            self._draining = asyncio.create_task(self._exit_when_drained(sig, frame))

    async def _exit_when_drained(self, sig: int, frame: FrameType | None) -> None:
        """Let connections end by their next answer. A client that reuses one just as we close it loses a request."""
        for listening in self.servers:
            listening.close()
        self._application.drain()
        await self._serve_waiting()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while self.server_state.connections:  # noqa: ASYNC110 - uvicorn sets no event
                    await asyncio.sleep(0.02)
        super().handle_exit(sig, frame)

    async def _serve_waiting(self) -> None:
        """Stop listening, and serve those that were connected before that."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn makes them itself
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        for connection in accepted_and_closed(self._listening):
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(protocol, connection, ssl=self.config.ssl)

    async def shutdown(self, sockets: Any = None) -> None:
        """Close all connections; after a while also those whose clients do not take what is still to be sent."""
        aborting = asyncio.create_task(self._abort_closing())
        try:
            await super().shutdown(sockets)
        finally:
            aborting.cancel()
            for task in self._beside:
                task.cancel()

    async def _abort_closing(self) -> None:
        while True:
            # Again and again: an answer that is broken off is closed only then.
            await asyncio.sleep(FLUSH_SECONDS)
            for connection in list(self.server_state.connections):
                if connection.transport.is_closing():
                    connection.transport.abort()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._beside = [
                asyncio.create_task(UnfinishedHeads(self.server_state.connections).run()),
                asyncio.create_task(self._give_up()),
            ]
            self._on_ready()

    async def _give_up(self) -> None:
        """End in good order once the feed has ended: nobody can be told of changes here, and another process can."""
        await self._application.feed_has_ended()
        logger.critical("this process has no feed any more, and ends")
        self.gave_up = True
        signal.raise_signal(signal.SIGTERM)


def _announce(settings: Settings, listening: socket.socket, say: Callable[[str], object]) -> None:
    port = listening.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if settings.logs_json:
        # What programs read has no lines but theirs.
        logger.info("Headwater is at %s://%s:%d/", settings.scheme, host, port)
        return
    say(f"Headwater is at   {settings.scheme}://{host}:{port}/")
    say(f"API docs          {settings.scheme}://{host}:{port}/docs")
    if settings.embedded:
        say(f"Database          mongosh 'mongodb://127.0.0.1:{settings.embedded_port}/{settings.database}'")
    say("Stop with Ctrl-C.")


def serve(app: Application, settings: Settings, say: Callable[[str], object], shared: Shared) -> bool:
    """Serve `app` until a signal ends it; False when it could not start or go on. Configures logging.

    Raises ListenRefused.

    With several workers this process supervises them, and each of them serves. `shared` holds open what they share,
    and gives the environment variables that tell them of it.
    """
    configure_logging(settings.log_level, as_json=settings.logs_json)
    if (inherited := inherited_socket()) is not None:
        lifeline = Lifeline.inherited()
        with inherited:
            return _serve_on(inherited, app, settings, lifeline.ready if lifeline else lambda: None)
    with listen(settings.host, settings.port) as listening:

        def announce() -> None:
            _announce(settings, listening, say)

        if settings.workers == 1:
            return _serve_on(listening, app, settings, announce)

        async def supervise() -> bool:
            with tempfile.TemporaryDirectory(prefix="headwater-metrics-") as folder:
                async with shared(settings) as variables:
                    environment = os.environ | variables | {MetricFiles.VARIABLE: folder}
                    supervisor = Supervisor(
                        settings.workers, worker_command(), environment, listening, MetricFiles(folder).bury
                    )
                    return await supervisor.run(announce)

        return asyncio.run(supervise())


def _serve_on(listening: socket.socket, app: Application, settings: Settings, on_ready: Callable[[], object]) -> bool:
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="on",
        log_config=None,
        # Below "info" the WebSocket library logs every frame, tokens among them.
        log_level=max(logging.getLevelName(settings.log_level.upper()), logging.INFO),
        access_log=False,
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        ws="websockets-sansio",
        # Larger than what the protocol allows, so that its own close code answers all but the absurd.
        ws_max_size=1024 * 1024,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ssl_ciphers=CIPHERS,
    )
    announcements = HeldBack()

    def started() -> None:
        announcements.tell()
        on_ready()

    server = _Server(config, app, listening, started)
    # uvicorn raises the signal that has ended it once more, when all is done: SIGTERM is then to end this process as
    # SIGINT does, with the exit code 0.
    terminating = signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A terminal that is closed, or somebody who takes this process for a supervisor. Who started it with `nohup` has
    # it ignored, and it stays so.
    hanging_up = signal.getsignal(signal.SIGHUP)
    if hanging_up is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        # A start that fails has said why; uvicorn then exits with a code of its own.
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGHUP, hanging_up)
        signal.signal(signal.SIGTERM, terminating)
        announcements.drop()
    return (server.started or server.should_exit) and not server.gave_up
