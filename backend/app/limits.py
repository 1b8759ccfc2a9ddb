"""Bounds on what one client can make the service hold: body bytes, and threads that wait for Chroma."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import Overloaded
from app.problems import problem_response

T = TypeVar("T")

MAX_BODY_BYTES = 1024 * 1024
WAITING_PER_THREAD = 4
# Nothing reads what is sent with these, so it is not kept either.
_WITHOUT_BODY = ("GET", "HEAD", "DELETE", "OPTIONS")


class Threads:
    """Runs blocking calls in at most `threads` threads, with a short queue before them.

    Must be made inside the event loop.
    """

    def __init__(self, threads: int) -> None:
        self._limiter = anyio.CapacityLimiter(threads)
        self._max_waiting = threads * WAITING_PER_THREAD

    async def run(self, work: Callable[[], T]) -> T:
        """The result of work(); Overloaded when the queue is full."""
        if self._limiter.statistics().tasks_waiting >= self._max_waiting:
            raise Overloaded(hint="Try again in a few seconds; if it lasts, add workers.")
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


class BodyLimit:
    """ASGI middleware: a request body above the limit gets 413 instead of memory."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, which is small or refused, then let the application have it."""
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self.app(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client went away
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.max_bytes:
                response = problem_response(
                    413, "body-too-large", f"The request body is larger than {self.max_bytes} bytes."
                )
                # the rest of the body is never read, so the connection is of no further use
                response.headers["connection"] = "close"
                await response(scope, receive, send)
                return
        pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self.app(scope, replay, send)
