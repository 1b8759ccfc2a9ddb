"""Start and stop: the directories are taken before the first request and let go after the last."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import SERVICE, logs
from app.config import Settings
from app.core.chroma.stores import ChromaStores
from app.core.database.place import postgres as postgres
from app.core.database.upgrade import check
from app.core.embedding import check_provider
from app.core.errors import DatabaseUnavailable, StartupError
from app.metrics import DIRECTORY, Metrics, shared_directory

if TYPE_CHECKING:  # they take seconds, and most commands of `app` need neither
    from fastapi import FastAPI

    from app.services import AppServices

log = logging.getLogger(__name__)

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")
# A PostgreSQL that was not there at the start is looked for this often.
LOOK_AGAIN_SECONDS = 1.0


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold what the application needs while it serves."""
    settings: Settings = app.state.settings
    log_to_stderr(settings)
    async with running(settings, app.state.metrics) as services:
        app.state.services = services
        targets = dict.fromkeys([services.stores.memory.session.target, services.stores.rag.session.target])
        log.info("serving; asked on first use: %s", ", ".join(map(str, targets)))
        if settings.token() and not settings.chroma_ssl and settings.chroma_host not in LOOPBACK:
            log.warning("the token travels to %s unencrypted; set CHROMA_SSL=true", settings.chroma_host)
        if multiprocessing.parent_process() is not None and shared_directory() is None:
            log.warning("/metrics tells the numbers of one worker at a time; set %s where there are more", DIRECTORY)
        async with _indexing(services):
            yield


@asynccontextmanager
async def running(settings: Settings, metrics: Metrics | None = None) -> AsyncIterator[AppServices]:
    """The services with their directories taken, and provider and database known to fit. Raises StartupError.

    A PostgreSQL or a provider that is only not there yet is waited for by those who need it, not here.
    """
    from app.services import AppServices

    async with AsyncExitStack() as stack:
        # first, so that a second process is told at once
        stores = ChromaStores(settings)
        stores.open()
        stack.callback(stores.close)
        url = stack.enter_context(postgres(settings))
        services = AppServices(settings, url, stores, metrics)
        stack.push_async_callback(services.close)
        await asyncio.to_thread(check_provider, services.embedder)
        try:
            await asyncio.to_thread(check, url, settings.embedding_dimension)
            services.fits.set()
        except DatabaseUnavailable as error:
            log.warning("%s", error)
            await stack.enter_async_context(_beside(_check_later(services)))
        yield services


async def _check_later(services: AppServices) -> None:
    """Wait for PostgreSQL, and then for a schema that fits: the index worker begins when it does."""
    told = ""
    while True:
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
        try:
            await asyncio.to_thread(check, services.database.url, services.settings.embedding_dimension)
        except DatabaseUnavailable:
            continue
        except StartupError as error:
            if str(error) != told:
                told = str(error)
                log.error("%s", error)
            continue
        log.info("%s is there, and its schema fits", services.database.target)
        services.fits.set()
        return


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


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Something else is done meanwhile, and given up at the end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def log_to_stderr(settings: Settings) -> None:
    """Have the service's messages on stderr, as the settings say."""
    logs.configure(settings.log_level, settings.log_format)


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
