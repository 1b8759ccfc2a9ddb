"""Start and stop: the directories are taken before the first request and let go after the last."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import SERVICE
from app.config import Settings
from app.core.errors import StartupError
from app.services import AppServices

log = logging.getLogger(__name__)

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold what the application needs while it serves."""
    settings: Settings = app.state.settings
    _log_to_stderr(settings.log_level)
    services = AppServices(settings)
    services.stores.open()
    app.state.services = services
    try:
        targets = dict.fromkeys([services.stores.memory.target, services.stores.rag.target])
        log.info("serving; asked on first use: %s", ", ".join(map(str, targets)))
        if settings.token() and not settings.chroma_ssl and settings.chroma_host not in LOOPBACK:
            log.warning("the token travels to %s unencrypted; set CHROMA_SSL=true", settings.chroma_host)
        yield
    finally:
        services.stores.close()


def _log_to_stderr(level: str) -> None:
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
