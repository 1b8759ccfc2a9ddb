"""The application: `uvicorn app.main:app`."""

from __future__ import annotations

import sys

from fastapi import FastAPI

from app import SERVICE, VERSION
from app.api import health, memories, rag
from app.config import Settings, load_settings
from app.core.errors import InvalidSettings
from app.limits import BodyLimit
from app.problems import install_problem_handlers
from app.startup import OneLineStartupFailure, lifespan

# uvicorn's code for "failed before it served": with --workers it then ends instead of trying for ever.
STARTUP_FAILED = 3


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings. Opens and connects to nothing before it is started."""
    app = FastAPI(
        title=SERVICE,
        version=VERSION,
        description="Memories and documents, searched by meaning. Errors are problem details (RFC 9457).",
        lifespan=lifespan,
    )
    app.state.settings = settings
    install_problem_handlers(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(OneLineStartupFailure)
    for router in (health.router, memories.router, rag.router):
        app.include_router(router)
    return app


def _app_from_environment() -> FastAPI:
    try:
        return create_app(load_settings())
    except InvalidSettings as error:
        sys.stderr.write(f"{SERVICE}: {error}\n")
        sys.exit(STARTUP_FAILED)


app = _app_from_environment()
