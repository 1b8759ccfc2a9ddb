"""Start and stop: the directories are taken before the first request and let go after the last."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import URL
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import SERVICE
from app.config import Settings
from app.core.database.database import database_url
from app.core.database.embedded import EmbeddedPostgres
from app.core.database.upgrade import check, upgrade
from app.core.errors import DatabaseUnavailable, StartupError

if TYPE_CHECKING:  # they take seconds, and most commands of `app` need neither
    from fastapi import FastAPI

    from app.services import AppServices

log = logging.getLogger(__name__)

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold what the application needs while it serves."""
    settings: Settings = app.state.settings
    log_to_stderr(settings.log_level)
    async with running(settings) as services:
        app.state.services = services
        targets = dict.fromkeys([services.stores.memory.session.target, services.stores.rag.session.target])
        log.info("serving; asked on first use: %s", ", ".join(map(str, targets)))
        if settings.token() and not settings.chroma_ssl and settings.chroma_host not in LOOPBACK:
            log.warning("the token travels to %s unencrypted; set CHROMA_SSL=true", settings.chroma_host)
        async with _indexing(services):
            yield


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[AppServices]:
    """The services with their directories taken and their database known to fit. Raises StartupError.

    A PostgreSQL that is only not there yet is waited for by those who need it, not here.
    """
    from app.services import AppServices

    async with AsyncExitStack() as stack:
        url = stack.enter_context(postgres(settings))
        services = AppServices(settings, url)
        stack.push_async_callback(services.close)
        services.stores.open()
        try:
            await asyncio.to_thread(check, url, settings.embedding_dimension)
        except DatabaseUnavailable as error:
            log.warning("%s", error)
        yield services


@contextmanager
def postgres(settings: Settings) -> Iterator[URL]:
    """Where PostgreSQL is; without a DATABASE_URL one of our own is started, with its schema up to date."""
    if settings.database_url is not None:
        yield database_url(settings.database_url, settings.database_password_file)
        return
    own = EmbeddedPostgres(settings.database_path)
    try:
        url = own.start()
        upgrade(url, settings.embedding_dimension)
        yield url
    finally:
        own.stop()


@asynccontextmanager
async def _indexing(services: AppServices) -> AsyncIterator[None]:
    """In persistent mode the index worker is part of this process, for no other may open the directories."""
    if services.settings.chroma_mode != "persistent":
        yield
        return
    worker = services.worker()
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await running


def log_to_stderr(level: str) -> None:
    """Have the service's own messages on stderr, from this level up."""
    logger = logging.getLogger("app")
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)


class OneLineStartupFailure:
    """ASGI middleware: a StartupError ends the process with its one line, not with a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put the line in place of the traceback that the framework tells the server."""

        async def tell(message: Message) -> None:
            error = sys.exception()  # the framework sends the failure from its except block
            if message["type"] == "lifespan.startup.failed" and isinstance(error, StartupError):
                message = {**message, "message": f"{SERVICE}: {error}"}
            await send(message)

        await self.app(scope, receive, tell if scope["type"] == "lifespan" else send)
