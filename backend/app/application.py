"""The application for given settings: routes, middleware, the OpenAPI page. Importing it does nothing."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from app import SERVICE, VERSION
from app.api import health, memories, metrics, rag
from app.config import Settings
from app.limits import BodyLimit
from app.metrics import Metrics
from app.observed import Observed
from app.problems import Problem, install_problem_handlers
from app.startup import OneLineStartupFailure, lifespan

DESCRIPTION = """
Memories and documents, searched by meaning. PostgreSQL keeps them, Chroma finds them.

Every route but those under *health* needs an API key (`app keys issue`), which belongs to one user and project: what
another has does not exist for it. Errors are problem details (RFC 9457) with a stable `type`; a 503 says when to try
again.
"""


class _Application(FastAPI):
    """Seen from outside as a whole: the answers to errors that nobody foresaw are too."""

    def build_middleware_stack(self) -> ASGIApp:
        return Observed(super().build_middleware_stack(), self.state.metrics)

    def openapi(self) -> dict[str, Any]:
        """The page, with the form of every problem once."""
        if self.openapi_schema is None:
            page = super().openapi()
            page["components"]["schemas"][Problem.__name__] = Problem.model_json_schema()
        return super().openapi()


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings. Opens and connects to nothing before it is started."""
    app = _Application(
        title=SERVICE,
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        # a redirect would name the host that the client named, and lose TLS behind a gateway
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.metrics = Metrics()
    install_problem_handlers(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(OneLineStartupFailure)
    for router in (health.router, memories.router, rag.router, metrics.router):
        app.include_router(router)
    return app
