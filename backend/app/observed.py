"""What is seen of every request from outside the application: its id, one access line, the metrics."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.memory.tenant import Tenant
from app.logs import in_request
from app.metrics import Metrics

log = logging.getLogger("app.access")

# One that a client or a proxy gave the request is kept when it is short and clean.
_CLEAN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "(none)"
# The client went away before it was answered; nginx's number for that.
GONE = 499
# Asked every few seconds by machines: seen in the metrics, and at LOG_LEVEL=DEBUG.
_ROUTINE = ("/health", "/metrics")


class Observed:
    """ASGI: around the whole application, so that no answer is without an id and no error without an access line.

    Only the route's template is told, never the path, the query or a body.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, and tell of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        id_ = _given(scope) or secrets.token_hex(8)
        in_request(id_)
        header = (b"x-request-id", id_.encode())
        status = GONE

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, tell)
        finally:
            self._told(scope, status, time.perf_counter() - started)

    def _told(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route: str = getattr(scope.get("route"), "path", NO_ROUTE)
        self._metrics.served(method, route, status, seconds)
        level = logging.DEBUG if route.startswith(_ROUTINE) and status < 500 else logging.INFO
        if log.isEnabledFor(level):
            fields: dict[str, Any] = {
                "method": method,
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 1),
            }
            state: Mapping[str, Any] = scope.get("state") or {}
            tenant = state.get("tenant")
            if isinstance(tenant, Tenant):
                fields["tenant"] = tenant.mark
            log.log(level, "%s %s %d", method, route, status, extra={"fields": fields})


def _given(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode("ascii") if _CLEAN_ID.fullmatch(value) else None
    return None
