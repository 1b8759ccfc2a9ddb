"""A deadline for an httpx client that was made without one."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

_KEY = "chroma_stack.deadline"
_of_thread = threading.local()


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """All requests of this thread in the block together are bounded by so many seconds, each by its client's as well.

    Without seconds nothing is.
    """
    _of_thread.until = math.inf if seconds is None else time.monotonic() + seconds
    try:
        yield
    finally:
        _of_thread.until = math.inf


@contextmanager
def set_aside() -> Iterator[None]:
    """The time that the block takes does not count for `within`; each of its requests is bounded by its client's."""
    until: float = getattr(_of_thread, "until", math.inf)
    begun = time.monotonic()
    _of_thread.until = math.inf
    try:
        yield
    finally:
        _of_thread.until = until + (time.monotonic() - begun)


def set_deadline(client: httpx.Client, seconds: float) -> None:
    """Bound every request of the client.

    httpx's own timeout bounds each wait for the socket. A server that sends a byte now and then would
    pass that for ever, so the body is bounded as a whole too: httpx.ReadTimeout at most `seconds` late.
    """

    def begin(request: httpx.Request) -> None:
        now = time.monotonic()
        until = min(now + seconds, getattr(_of_thread, "until", math.inf))
        request.extensions[_KEY] = until
        if until < now + seconds:
            # a timeout of 0 would mean "only if it is there already", which no answer ever is
            request.extensions["timeout"] = httpx.Timeout(max(until - now, 0.001)).as_dict()

    def limit(response: httpx.Response) -> None:
        stream = response.stream
        if isinstance(stream, httpx.SyncByteStream):
            response.stream = _LimitedStream(stream, response.request)

    client.timeout = httpx.Timeout(seconds)
    client.event_hooks = {"request": [begin], "response": [limit]}


class _LimitedStream(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, request: httpx.Request) -> None:
        self._stream = stream
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        until: float = self._request.extensions[_KEY]
        for chunk in self._stream:
            if time.monotonic() > until:
                raise httpx.ReadTimeout("the answer took too long", request=self._request)
            yield chunk

    def close(self) -> None:
        self._stream.close()
